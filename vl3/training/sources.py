"""The data sets of a recipe, sample by sample: files by vl3.data, toy scenes here."""

from __future__ import annotations

import random
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache
from typing import Protocol, cast

from torch.utils.data import Dataset, Sampler

from vl3.data.quarantine import Bad
from vl3.data.records import BadSample, Record
from vl3.processor import VL3Processor
from vl3.toyworld.draw import Medium, shoot
from vl3.toyworld.questions import QA, ask_many
from vl3.toyworld.world import Level, sample_scene
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.frames import FrameCache
from vl3.training.order import DataOrder, Part, PartedOrder, split
from vl3.training.recipe import Recipe, Source, World
from vl3.training.samples import Sample, Size, build, measure
from vl3.video import VideoError

MOST_TRIES = 2000  # scenes until one settles a question


class Records(Protocol):
    """What a data set offers: its number of samples, each as a Record, and where each stands."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...
    def place(self, index: int) -> str: ...


class Scenes:
    """Endless questions about scenes of the toy world; the index decides everything.

    The truth of a record is its scene, where there is something to be seen.
    """

    def __init__(self, name: str, world: World, seed: int | str) -> None:
        self.name, self.world, self.seed = name, world, seed
        (shortest, longest), (fewest, most) = world.seconds, world.sprites
        least_heard, most_heard = world.sounds
        self.level = Level(
            seconds=(shortest, longest),
            sprites=(fewest, most),
            sizes_px=tuple((height, width) for height, width in world.sizes_px),
            digits=world.digits,
            changing=world.changing,
            shaky=world.shaky,
            noisy=world.noisy,
            rescaled=world.rescaled,
            sound=world.sound,
            alone=world.alone,
            sounds=(least_heard, most_heard),
            voices=world.voices,
            hum=world.hum,
        )

    def __getitem__(self, index: int) -> Record:
        rng = random.Random(f"{self.seed} {self.name} {index}")
        for _ in range(MOST_TRIES):
            scene = sample_scene(rng, self.level)
            qas = ask_many(scene, rng, self.world.families, self.world.questions)
            if qas:
                break
        else:
            raise ValueError(
                f"data set {self.name!r} asks what its scenes never settle "
                f"({', '.join(self.world.families)}): change its world"
            )
        medium = shoot(scene, rng, self.level)
        asked: list[list[QA]] = []
        for qa in qas:
            if not asked or rng.random() >= self.world.follow:
                asked.append([])
            asked[-1].append(qa)
        record = scene_record(self.place(index), self.name, medium, asked)
        return record if scene.kind == "audio" else replace(record, truth=scene)

    def place(self, index: int) -> str:
        """The name of a scene."""
        return f"{self.name}:{index}"


def scene_record(name: str, dataset: str, medium: Medium, asked: Sequence[Sequence[QA]]) -> Record:
    """A record of questions about a medium; those of one conversation follow one another.

    The medium stands in the first message of each conversation: a part of type image or video, with
    a Clip or a Film (a clip with its sound) under that name, or of type audio with a Sound.
    """
    conversations = []
    for conversation in asked:
        messages: list[dict] = []
        for qa in conversation:
            messages.append({"role": "user", "content": [{"type": "text", "text": qa.question}]})
            messages.append({"role": "assistant", "content": qa.answer})
        messages[0]["content"].insert(0, {"type": medium.kind, medium.kind: medium})
        conversations.append(messages)
    families = tuple(qa.family for conversation in asked for qa in conversation)
    return Record(id=name, dataset=dataset, conversations=tuple(conversations), families=families)


def open_source(source: Source, seed: int | str) -> Records | Scenes:
    """The data set, ready to be indexed.

    Raises: ValueError for a world whose scenes never settle one of its questions, and as
    vl3.data.readers.open_records.
    """
    if source.world is not None:
        scenes = Scenes(source.name, source.world, seed)
        scenes[0]  # says at once where no scene settles a question
        return scenes
    from vl3.data.readers import open_records

    return open_records(
        cast(str, source.path), name=source.name, format=source.format, media_root=source.media_root
    )


def parts(sources: Sequence[Source], opened: Sequence[Records | Scenes]) -> list[Part]:
    """Length of each data set and how much of it an epoch takes.

    Raises: ValueError where there is nothing to learn from.
    """
    if not sources:
        raise ValueError("there is nothing to learn from: name a file with --data.mine.path FILE")
    lengths = [None if isinstance(data, Scenes) else len(data) for data in opened]
    if 0 in lengths:
        empty = sources[lengths.index(0)]
        raise ValueError(f"data set {empty.name!r} has no samples: {empty.path} is empty")
    return [
        Part(length, source.samples or cast(int, length))
        for source, length in zip(sources, lengths)
    ]


class CachedTokenizer:
    """A tokenizer that remembers the ids of short texts: time stamps and toy questions come often.

    MOST texts are kept, of SHORT characters at most; it stands in where prompts are rendered.
    """

    SHORT, MOST = 80, 50_000

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.convert_tokens_to_ids = lru_cache(tokenizer.convert_tokens_to_ids)

    def __call__(self, texts: list[str], **options) -> dict[str, list[list[int]]]:
        unknown = list({text for text in texts if text not in self.known})
        ids = self.tokenizer(unknown, **options)["input_ids"] if unknown else []
        found = dict(zip(unknown, ids))
        if len(self.known) < self.MOST:
            self.known.update((t, i) for t, i in found.items() if len(t) <= self.SHORT)
        return {"input_ids": [found.get(t) or self.known[t] for t in texts]}


class Samples(Dataset):
    """Samples by (data set, sample, pass); those that cannot be read come back as Bad."""

    def __init__(
        self,
        opened: Sequence[Records | Scenes],
        processor: VL3Processor,
        recipe: Recipe,
        cache: FrameCache | None = None,
        losses: Sequence[AuxiliaryLoss] = (),
    ) -> None:
        self.opened, self.cache, self.losses = opened, cache, losses
        self.processor = copy(processor)
        self.processor.tokenizer = CachedTokenizer(processor.tokenizer)
        self.names = [source.name for source in recipe.data]
        self.visual_tokens = recipe.media.visual_tokens
        self.max_tokens, self.overlong = recipe.batch.max_tokens, recipe.batch.overlong

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[int, Sample | Bad | None]:
        data, index, number = key
        if data < 0:
            return number, None
        try:
            record = self.opened[data][index]
            return number, build(
                record,
                self.processor,
                self.visual_tokens,
                self.max_tokens,
                self.cache,
                self.overlong,
                self.losses,
            )
        except BadSample as error:
            return number, self._bad(data, index, error.code, error)
        except VideoError as error:
            return number, self._bad(data, index, "E121", error)

    def _bad(self, data: int, index: int, code: str, error: ValueError) -> Bad:
        return Bad(
            dataset=self.names[data],
            index=index,
            id=self.opened[data].place(index),
            code=code,
            message=str(error),
        )

    def size(self, data: int, index: int) -> Size:
        """What a sample costs at most; nothing where it cannot be read, which shows later."""
        try:
            size = measure(self.opened[data][index], self.processor, self.visual_tokens)
        except (BadSample, VideoError):
            return Size(0, 0)
        return replace(size, tokens=min(size.tokens, self.max_tokens))


class Steps(Sampler):
    """The samples of each step that this process reads, with the number of their pass.

    Every process yields the same passes in number; one without samples holds the key (-1, -1).
    """

    def __init__(
        self,
        order: DataOrder | PartedOrder,
        samples: Samples,
        recipe: Recipe,
        steps: int,
        first: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.order, self.samples, self.recipe = order, samples, recipe
        self.steps, self.first, self.rank, self.processes = steps, first, rank, processes

    def __len__(self) -> int:
        return self.steps

    def __iter__(self):
        budget = self.recipe.batch
        for step in range(self.first, self.steps):
            chosen = self.order.step(step)
            sizes = [self.samples.size(*place) for place in chosen]
            most = budget.tokens, budget.patches
            passes = split(sizes, *most, self.processes, pieces=budget.pieces)
            own = [
                (*place, number)
                for place, number in zip(chosen, passes)
                if number % self.processes == self.rank
            ]
            count = self.processes * -(-(max(passes) + 1) // self.processes)
            empty = set(range(self.rank, count, self.processes)) - {key[2] for key in own}
            yield own + [(-1, -1, number) for number in sorted(empty)]
