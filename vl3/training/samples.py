"""Records to samples: decoded, pruned, rendered; conversations about a clip share its tokens.

A sample is a prefix (everything up to the last visual slot) and branches, one a conversation.
Tokens of a branch see the prefix and their own branch, and positions restart after the prefix, so
every branch computes exactly what a separate prompt would, and the clip is encoded once:

    key        prefix  branch 1  branch 2
    prefix       \\
    branch 1    all       \\
    branch 2    all                \\
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from vl3.data.checks import check_hearing
from vl3.data.records import BadSample, Record
from vl3.families.settings import ProcessorSettings
from vl3.messages.media import find_media
from vl3.pipeline import Planned, Prepared, plan, prepare, read_medium, spelled_out
from vl3.processor import VL3Processor, sound_tensors
from vl3.prompt import IGNORE, Prompt
from vl3.training.frames import FrameCache
from vl3.values import Grid
from vl3.vision import unique_frames

if TYPE_CHECKING:
    from vl3.training.auxiliary import AuxiliaryLoss


@dataclass(frozen=True, slots=True)
class Size:
    """What a sample costs at most.

    tokens: visual ones and those of sound among them; patches: of all pictures; picture: patches of
    the largest one; pieces: of all sounds, as the ear takes them
    """

    tokens: int
    patches: int
    picture: int = 0
    visual: int = 0
    sound: int = 0
    pieces: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One record as the model reads it.

    Shapes: ids_L, labels_L, positions_L - int64; branch_L - int64, 0 on the prefix, then 1, 2, ...
            pixels_NP - uint8 patches of the frames that differ from the frame before them
            grids - their grids; a grid's frames count the differing frames only
            source_K - int64, for each kept cell, of which slots are made, which one of pixels_NP
            sound - what the model takes of its sounds (vl3.processor.sound_tensors)
            targets - int64 [K, facts], of auxiliary losses by name: what each slot is to know
            is_cut - whether its end was left out to keep within max_tokens
    """

    id: str
    dataset: str
    families: tuple[str, ...]
    ids_L: torch.Tensor
    labels_L: torch.Tensor
    positions_L: torch.Tensor
    branch_L: torch.Tensor
    pixels_NP: torch.Tensor
    grids: tuple[Grid, ...]
    source_K: torch.Tensor
    targets: dict[str, torch.Tensor] = field(default_factory=dict)
    is_cut: bool = False
    sound: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        patches = sum(grid.num_patches for grid in self.grids)
        pieces = len(self.sound["feature_lengths"]) if self.sound else 0
        return Size(len(self.ids_L), patches, pieces=pieces)


def measure(record: Record, processor: VL3Processor, visual_tokens: int) -> Size:
    """What the record costs at most, from headers alone: nothing is decoded, nothing pruned.

    Raises: BadSample or vl3.video.VideoError.
    """
    planned = _planned(record, processor, visual_tokens)
    slots = planned.slots
    prompts = [processor.render(each, slots) for each in record.conversations]
    prefix = _shared(prompts) if len(prompts) > 1 else 0
    tokens = prefix + sum(len(prompt.ids) - prefix for prompt in prompts)
    picture = max((grid.patches_per_frame for grid in planned.grids), default=0)
    patches = sum(grid.num_patches * grid.copies for grid in planned.grids)
    return Size(tokens, patches, picture, planned.num_tokens, planned.sound_tokens, planned.pieces)


def build(
    record: Record,
    processor: VL3Processor,
    visual_tokens: int,
    max_tokens: int | None = None,
    cache: FrameCache | None = None,
    overlong: str = "skip",
    losses: Sequence[AuxiliaryLoss] = (),
) -> Sample:
    """The sample of a record, decoded.

    overlong: "truncate" keeps the first max_tokens tokens of a longer one, unless a picture would
    lose a part or nothing be left to learn; losses: those that have targets in the sample
    Raises: BadSample E130 when it is longer than max_tokens, E121 and others for its media;
            vl3.video.VideoError for a file that cannot be read.
    """
    planned = _planned(record, processor, visual_tokens)
    prepared = prepare(planned, cache.read if cache else read_medium)
    pixels = torch.empty(0, 0, dtype=torch.uint8)
    fresh: tuple[Grid, ...] = ()
    source_K, targets = torch.empty(0), {}
    if prepared.grids:
        keep_M = prepared.keep.keep_M
        pixels, fresh, source_M = _encoded_once(prepared, planned.settings)
        source_K = source_M if planned.settings.unpruned else source_M[keep_M]
        found = {loss.name: loss.targets(record, prepared.grids) for loss in losses}
        known = {name: known_MF for name, known_MF in found.items() if known_MF is not None}
        if known and (why := planned.settings.unpruned):
            raise ValueError(f"{' and '.join(known)} say of each patch what it shows. {why}")
        targets = {name: known_MF[keep_M] for name, known_MF in known.items()}
    slots = prepared.slots
    prompts = [processor.render(each, slots) for each in record.conversations]
    for number, prompt in enumerate(prompts):
        thin(prompt, processor, random.Random(f"{record.id} {number}"))
    ids, labels, positions, branches = _branches(record, prompts)
    is_cut, kept = False, slice(None)
    if max_tokens is not None and len(ids) > max_tokens:
        is_cut, kept = True, slice(max_tokens)
        if not (overlong == "truncate" and _may_end(prompts, labels, max_tokens)):
            raise _too_long(record, len(ids), prepared, max_tokens, overlong, planned.settings)
    texts: list[Any] = [torch.tensor(part[kept]) for part in (ids, labels, positions, branches)]
    heard = [sound for sound in prepared.heard if sound and sound.num_tokens]
    sound = sound_tensors(heard) if heard else {}
    rest: tuple[Any, ...] = (pixels, fresh, source_K.long(), targets, is_cut, sound)
    return Sample(record.id, record.dataset, record.families, *texts, *rest)


def _encoded_once(
    prepared: Prepared, settings: ProcessorSettings
) -> tuple[torch.Tensor, tuple[Grid, ...], torch.Tensor]:
    """As unique_frames; every frame where the connector joins frames and so needs them in place."""
    if settings.unpruned:
        patches = spelled_out(prepared.patches)
        cells = sum(grid.num_tokens for grid in patches.grids)
        return patches.pixels_NP, patches.grids, torch.arange(cells)
    return unique_frames(prepared.patches.pixels_NP, prepared.grids)


def _may_end(prompts: Sequence[Prompt], labels: Sequence[int], tokens: int) -> bool:
    """Whether so many first tokens hold every run of slots whole, and something to learn."""
    media = max(prompt.media_end for prompt in prompts)
    return media <= tokens and any(label != IGNORE for label in labels[:tokens])


def _too_long(
    record: Record,
    tokens: int,
    prepared: Prepared,
    most: int,
    overlong: str,
    settings: ProcessorSettings,
) -> BadSample:
    lower = "lower media.max_frames" if settings.spread else "lower media.visual_tokens"
    knobs = f"{lower} or raise batch.max_tokens"
    if overlong == "skip":
        knobs = f"{lower}, raise batch.max_tokens or set batch.overlong: truncate"
    told = f"{record.id}: {tokens} tokens ({prepared.num_tokens} visual) > {most}; {knobs}."
    return BadSample("E130", told)


def _planned(record: Record, processor: VL3Processor, visual_tokens: int) -> Planned:
    media = find_media(record.conversations[0])
    check_hearing(media, processor.settings)
    if any(len(find_media(each)) != len(media) for each in record.conversations[1:]):
        raise BadSample("E110", f"{record.id}: its conversations are not about the same media.")
    settings = processor.settings
    if not settings.spread:  # else the number of frames is fixed, and so are their tokens
        settings = replace(settings, budget_tokens=visual_tokens)
    return plan(media, settings)


def thin(prompt: Prompt, processor: VL3Processor, rng: random.Random) -> None:
    """Leaves as many decisions to go on watching a stream as there are decisions to speak.

    Source: official processor, which thins the silent majority of stream turns at random.
    """
    template = processor.template
    starts = [template.pieces(template.turn(role)[0]) for role in ("stream", "assistant")]
    if not all(starts):  # no token of its own begins an answer, and none says to go on watching
        return
    silent, speak = (processor.tokenizer.convert_tokens_to_ids(start[0]) for start in starts)
    quiet = [i for i, label in enumerate(prompt.labels) if label == silent]
    spoken = sum(label == speak for label in prompt.labels)
    for index in rng.sample(quiet, max(0, len(quiet) - spoken)):
        prompt.labels[index] = IGNORE


def _shared(prompts: Sequence[Prompt]) -> int:
    """How many first tokens all prompts share; what predicts a learned token is in its branch."""
    shared = min(
        next((i for i, label in enumerate(prompt.labels) if label != IGNORE), len(prompt.ids)) - 1
        for prompt in prompts
    )
    first = prompts[0].ids
    for prompt in prompts[1:]:
        shared = next((i for i in range(shared) if prompt.ids[i] != first[i]), shared)
    return shared


def _branches(record: Record, prompts: Sequence[Prompt]) -> tuple[list[int], ...]:
    """ids, labels, positions and branch numbers of prefix and branches, one after the other."""
    if len(prompts) == 1:
        (prompt,) = prompts
        length = len(prompt.ids)
        return prompt.ids, prompt.labels, list(range(length)), [1] * length
    prefix = _shared(prompts)
    if any(prompt.media_end > prefix for prompt in prompts):
        raise BadSample("E110", f"{record.id}: its conversations do not begin with the same media.")
    ids, labels = list(prompts[0].ids[:prefix]), [IGNORE] * prefix
    positions, branches = list(range(prefix)), [0] * prefix
    for number, prompt in enumerate(prompts, start=1):
        ids += prompt.ids[prefix:]
        labels += prompt.labels[prefix:]
        positions += range(prefix, len(prompt.ids))
        branches += [number] * (len(prompt.ids) - prefix)
    return ids, labels, positions, branches
