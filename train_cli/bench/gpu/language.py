"""The 2B with random weights on the device: its prompts, and its answers token by token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from train_cli.bench import stages
from train_cli.bench.gpu.encoder import beside, fresh_on, random_model, tiny_config
from train_cli.bench.gpu.fixed_cache import fixed_decode
from train_cli.bench.gpu.record import Check, Row, Skip, Speed
from train_cli.bench.gpu.steps import Place
from train_cli.bench.gpu.timing import Ceilings, ceilings
from train_cli.bench.measure import spread
from vl3.config import videollama3_2b
from vl3.families.native import NATIVE
from vl3.families.settings import ProcessorSettings
from vl3.inference.generation import PrefixCache
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.weights.load import load

VISUAL, TINY_VISUAL = 15_120, 48
PRUNED_SHARES = (0.0, 0.5, 0.75)
BEFORE, TINY_BEFORE = (64, 15_120), (8, 48)  # visual tokens before an answer
NEW_TOKENS, TINY_NEW_TOKENS = 48, 6
SAME_SHARE = 1 / 4  # of an answer: in bfloat16 roundings may decide between two near tokens


def twin(model: VL3ForConditionalGeneration, place: Place) -> Any:
    """transformers' own VideoLlama3ForConditionalGeneration on the very same weights."""
    from transformers import VideoLlama3Config, VideoLlama3ForConditionalGeneration

    ours = load(device="cpu").processor
    processor = VL3Processor(
        ours.tokenizer, ProcessorSettings(), image_token_id=ours.slot_ids.image
    )
    assert NATIVE.write is not None
    written = NATIVE.write(model.config, processor)["config.json"]
    with fresh_on(place.device, model.dtype):
        stock = VideoLlama3ForConditionalGeneration(VideoLlama3Config.from_dict(written)).eval()
    weights = {NATIVE.there(name): weight for name, weight in model.state_dict().items()}
    stock.load_state_dict(weights, assign=True)
    return stock.requires_grad_(False)


@torch.no_grad()
def language(place: Place) -> Iterator[Row]:
    """Prompts to the first token, and answers token by token, beside transformers' generate."""
    model = random_model(tiny_config() if place.tiny else videollama3_2b(), place)
    stock, tops = twin(model, place), ceilings(place.device, place.tiny)
    yield from tops.rows()
    visual = TINY_VISUAL if place.tiny else VISUAL
    for share in PRUNED_SHARES:
        asked = stages.question(model, round(visual * (1 - share)))
        embeds = stages.whole(model, asked)
        sides = {
            "ours": lambda asked=asked: stages.answer(model, asked, 1),
            "transformers": lambda embeds=embeds: stages.generated(stock, embeds, 1),
        }
        work = f"a prompt of {len(asked.ids):,} tokens, {share:.0%} pruned"
        yield from beside(work, sides, place, stages.prefill_flops(model, asked), tops)
    answered = {}
    for before in TINY_BEFORE if place.tiny else BEFORE:
        found = answered[before] = Answered(model, stock, before, place)
        yield from found.rows(tops)
    for found in answered.values():  # last: a capture that fails may leave the device unusable
        yield from found.fixed(tops)


class Answered:
    """Answers after so many visual tokens: ours, and transformers' generate.

    The share is that of the copy's bytes, since each token reads every weight.
    """

    def __init__(self, model, stock, before: int, place: Place) -> None:
        self.model, self.place = model, place
        self.count = TINY_NEW_TOKENS if place.tiny else NEW_TOKENS
        asked, prefix = stages.question(model, before), PrefixCache()
        self.embeds = stages.whole(model, asked)
        self.read_bytes = sum(weight.nbytes for weight in model.language.parameters())
        self.work = f"a token after {before:,} visual ones"
        for _ in range(2):  # the first one chooses algorithms
            stamps = Stamps()
            self.ids = []
            for token in stages.answer_stream(model, asked, self.count, prefix):
                self.ids.append(token)
                stamps.note()
            theirs = Stamps()
            self.their_ids = stages.generated(stock, self.embeds, self.count, streamer=theirs)
        self.s, self.their_s = spread(stamps.between_s()), spread(theirs.between_s())

    def rows(self, tops: Ceilings) -> Iterator[Row]:
        yield self._same(self.work, self.their_ids)
        yield self._speed("ours", self.s, tops)
        yield self._speed("transformers' generate", self.their_s, tops)

    def fixed(self, tops: Ceilings) -> Iterator[Row]:
        """With a cache of fixed size, on which a CUDA graph is replayed where there is a GPU."""
        device = self.place.device
        side = "ours, cache of fixed size" + (", CUDA graph" if device == "cuda" else "")
        try:
            ids, s = fixed_decode(self.model, self.embeds, self.count, device)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:300]
            yield Skip(work=f"{self.work}, {side}", why=why)
            return
        yield self._same(f"{self.work}, {side}", ids)
        yield self._speed(side, (s, s, s), tops)

    def _same(self, work: str, ids: list[int]) -> Check:
        same = sum(a == b for a, b in zip(self.ids, ids))
        return Check(
            work=work,
            ok=same >= SAME_SHARE * self.count,
            said=f"{same} of {self.count} tokens are those of ours",
        )

    def _speed(self, side: str, s: tuple[float, float, float], tops: Ceilings) -> Speed:
        return Speed(
            work=self.work,
            side=side,
            s=s,
            ratio=s[1] / self.s[1],
            share=self.read_bytes / s[1] / tops.bytes,
            said=f"{1 / s[1]:.1f} tokens a second",
        )


class Stamps:
    """When each token came; transformers' generate takes it as a streamer."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self) -> None:
        self.times.append(time.perf_counter())

    def put(self, value: torch.Tensor) -> None:
        if value.numel():  # first comes the prompt, of which there are embeddings only
            self.note()

    def end(self) -> None:
        pass

    def between_s(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:])]
