"""Scenes to training batches: one visual prefix per clip, shared by all questions about it.

A sample is a prefix (turn header, time stamps, visual slots) and branches, each a conversation of
one or more turns that goes on from the prefix. Tokens of a branch see the prefix and their own
branch, and positions restart after the prefix, so every branch computes exactly what a separate
prompt would, and the clip is encoded once:

    key        prefix  branch 1  branch 2
    prefix       \\
    branch 1    all       \\
    branch 2    all                \\
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from vl3.prompt import IGNORE, IMAGE_TOKEN, SlotIds, render
from vl3.training.questions import QA, ask_many
from vl3.training.world import Level, film, sample_scene
from vl3.values import Clip, Grid, Patches
from vl3.vision.patchify import patchify
from vl3.vision.prune import keep_all, prune

VIDEO_MERGE = IMAGE_MERGE = 2
PATCH_PX = 14


@dataclass(frozen=True, slots=True)
class Sample:
    """One clip and conversations about it.

    Shapes: pixels_NP - patches of the frames that differ from the frame before them
            grid - their grid; frames counts the differing frames only
            source_K - for each kept token, which token of pixels_NP it is
            prefix - token ids
            branches - token ids, labels and the number of each token's answer (-1: no answer)
            families - family of each answer, in order
    """

    pixels_NP: torch.Tensor
    grid: Grid
    source_K: torch.Tensor
    prefix: list[int]
    branches: list[tuple[list[int], list[int], list[int]]]
    families: list[str]

    @property
    def length(self) -> int:
        return len(self.prefix) + sum(len(ids) for ids, _, _ in self.branches)


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples padded to one length; see the drawing above for blocked_B1LL.

    Shapes: ids_BL, labels_BL, positions_BL - int64
            blocked_B1LL - float32, 0 where a token (row) may look, -inf-like where not
            answers_BL - number of the answer a token is learned for, over the batch; -1 elsewhere
            families - family of each answer
            pixels_NP, grids, source_K - as in Sample, over the whole batch
    """

    ids_BL: torch.Tensor
    labels_BL: torch.Tensor
    positions_BL: torch.Tensor
    answers_BL: torch.Tensor
    blocked_B1LL: torch.Tensor
    families: tuple[str, ...]
    pixels_NP: torch.Tensor
    grids: tuple[Grid, ...]
    source_K: torch.Tensor


def clip_grid(clip: Clip) -> Grid:
    """The grid of a clip whose frames already are whole numbers of tokens."""
    frames, height_px, width_px, _ = clip.frames_TYX3.shape
    merge = IMAGE_MERGE if clip.is_image else VIDEO_MERGE
    rows, cols = height_px // PATCH_PX, width_px // PATCH_PX
    return Grid(frames=frames, rows=rows, cols=cols, merge=merge)


class Remembered:
    """A tokenizer that remembers the ids of every text: the toy world repeats itself a lot."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.known: dict[str, list[int]] = {}
        self.pad_token_id = tokenizer.pad_token_id
        self.convert_tokens_to_ids = lru_cache(tokenizer.convert_tokens_to_ids)

    def __call__(self, texts: list[str], **options) -> dict[str, list[list[int]]]:
        unknown = [text for text in texts if text not in self.known]
        if unknown:
            self.known.update(zip(unknown, self.tokenizer(unknown, **options)["input_ids"]))
        return {"input_ids": [self.known[text] for text in texts]}


def build_sample(
    clip: Clip, talks: Sequence[Sequence[QA]], tokens: Remembered, pruned: bool = True
) -> Sample:
    """A sample of one clip and its talks, each a list of questions asked one after the other.

    pruned: whether DiffFP (official mode) removes unchanged tokens
    """
    grid = clip_grid(clip)
    patches = Patches(pixels_NP=patchify(clip.frames_TYX3, grid), grids=(grid,))
    keep = prune(patches) if pruned else keep_all((grid,))
    counts = keep.kept_per_frame[0]
    image_token_id = tokens.convert_tokens_to_ids(IMAGE_TOKEN)
    slots = SlotIds(image=image_token_id, video=image_token_id)
    prefix: list[int] = []
    branches = []
    families: list[str] = []
    for talk in talks:
        prompt = render(messages_of(clip, talk), tokens, slots, counts)
        cut = sum(prompt.spans[-1]) + 1  # the newline that ends the clip belongs to the prefix
        prefix, labels = prompt.ids[:cut], prompt.labels[cut:]
        branches.append((prompt.ids[cut:], labels, _number_answers(labels, len(families))))
        families.extend(qa.family for qa in talk)
    pixels_NP, fresh, source_K = _unique_frames(patches.pixels_NP, grid, keep.keep_M)
    grid = Grid(frames=fresh, rows=grid.rows, cols=grid.cols, merge=grid.merge)
    return Sample(pixels_NP, grid, source_K, prefix, branches, families)


def _number_answers(labels: list[int], first: int) -> list[int]:
    """first, first + 1, ... on the tokens of each labelled stretch; -1 elsewhere."""
    numbers, inside = [], False
    number = first - 1
    for label in labels:
        number += label != IGNORE and not inside
        inside = label != IGNORE
        numbers.append(number if inside else -1)
    return numbers


def messages_of(clip: Clip, talk: Sequence[QA]) -> list[dict]:
    """The talk as messages for vl3.prompt.render: the clip in the first turn."""
    if clip.is_image:
        medium = {"type": "image"}
    else:
        medium = {"type": "video", "num_frames": len(clip), "timestamps": clip.times_s}
    messages = []
    for qa in talk:
        messages.append({"role": "user", "content": [{"type": "text", "text": qa.question}]})
        messages.append({"role": "assistant", "content": qa.answer})
    messages[0]["content"].insert(0, medium)
    return messages


def _unique_frames(pixels_NP, grid: Grid, keep_M) -> tuple[torch.Tensor, int, torch.Tensor]:
    """Patches of frames that differ from the one before, their number, and source_K.

    Frames never see each other in the encoder, so equal frames have equal features.
    """
    frames = pixels_NP.view(grid.frames, -1)
    changed = torch.ones(grid.frames, dtype=torch.bool)
    changed[1:] = (frames[1:] != frames[:-1]).any(dim=1)
    row_T = changed.cumsum(0) - 1
    tokens_T1 = row_T[:, None] * grid.tokens_per_frame
    source_M = (tokens_T1 + torch.arange(grid.tokens_per_frame)).flatten()
    unique_NP = frames[changed].view(-1, pixels_NP.shape[1])
    return unique_NP, int(changed.sum()), source_M[keep_M]


def collate(samples: Sequence[Sample], pad_id: int) -> Batch:
    """One padded batch of the samples."""
    B, L = len(samples), max(sample.length for sample in samples)
    ids_BL, labels_BL = torch.full((B, L), pad_id), torch.full((B, L), IGNORE)
    answers_BL, branch_BL = torch.full((B, L), -1), torch.full((B, L), -1)
    positions_BL = torch.zeros((B, L), dtype=torch.long)
    families: list[str] = []
    for row, sample in enumerate(samples):
        first = end = len(sample.prefix)
        ids_BL[row, :end] = torch.tensor(sample.prefix)
        positions_BL[row, :end] = torch.arange(end)
        branch_BL[row, :end] = 0
        for number, (ids, labels, answers) in enumerate(sample.branches, start=1):
            part = slice(end, end + len(ids))
            end = part.stop
            ids_BL[row, part], labels_BL[row, part] = torch.tensor(ids), torch.tensor(labels)
            positions_BL[row, part] = torch.arange(first, first + len(ids))
            branch_BL[row, part] = number
            answers_BL[row, part] = torch.tensor(answers)
        answers_BL[row][answers_BL[row] >= 0] += len(families)
        families.extend(sample.families)
    blocked = branch_mask(branch_BL)
    texts = (ids_BL, labels_BL, positions_BL, answers_BL, blocked, tuple(families))
    return Batch(*texts, *_pack(samples))


def _pack(samples: Sequence[Sample]) -> tuple[torch.Tensor, tuple[Grid, ...], torch.Tensor]:
    """pixels_NP, grids and source_K of all samples, one after the other."""
    sources, start = [], 0
    for sample in samples:
        sources.append(sample.source_K + start)
        start += sample.grid.num_tokens
    pixels_NP = torch.cat([sample.pixels_NP for sample in samples])
    return pixels_NP, tuple(sample.grid for sample in samples), torch.cat(sources)


def branch_mask(branch_BL: torch.Tensor) -> torch.Tensor:
    """Additive attention mask: tokens see earlier tokens of their own branch and of branch 0.

    Shapes: returns blocked_B1LL - float32
    """
    L = branch_BL.shape[1]
    same = branch_BL[:, :, None] == branch_BL[:, None, :]
    seen = (same | (branch_BL[:, None, :] == 0)) & torch.ones(L, L, dtype=torch.bool).tril()
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, lowest)[:, None]


def random_sample(
    rng: random.Random,
    level: Level,
    families: dict[str, float],
    tokens: Remembered,
    questions: int = 8,
    pruned: bool = True,
) -> Sample:
    """A fresh scene of the level with up to that many questions, some of them in longer talks."""
    while True:
        scene = sample_scene(rng, level)
        qas = ask_many(scene, rng, families, questions)
        if qas:
            break
    clip = film(scene, rng, level)
    return build_sample(clip, _talks(qas, rng), tokens, pruned)


def _talks(qas: list[QA], rng: random.Random) -> list[list[QA]]:
    """Mostly one question a talk, now and then a second or third one that follows."""
    talks: list[list[QA]] = []
    for qa in qas:
        if talks and len(talks[-1]) < 3 and rng.random() < 0.15:
            talks[-1].append(qa)
        else:
            talks.append([qa])
    return talks
