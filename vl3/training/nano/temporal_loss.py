"""The temporal loss: what each visual token of a clip should know of what happens, in words.

A question about a moment needs the frame of that moment, and the only clock is the
stamp in words before each frame; a question about when or where a thing went needs its frames put
together. From answers alone nano learns this slowly, and for one thing at a time only. So the
states of visual tokens, some layers up, are compared with the embeddings of words: they should
point to the seconds of their stamp, to the second at which what they show came, to the way it
moves, and, where something has just gone, to what it was. Everything but the first is said in a
second sense of the words, their embeddings with the halves exchanged: the first sense says what is
seen here and now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch.nn import functional as F

from vl3.data.records import Record
from vl3.model import VL3ForConditionalGeneration, VL3Output
from vl3.prompt import IGNORE
from vl3.toyworld.world import COLOURS, MOTIONS, SHAPES, Digit, Scene
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.collate import MicroBatch
from vl3.training.nano.spatial_loss import token_things, word_ids
from vl3.values import Grid

LAYERS = 3  # of the language model, after which a token should know; the others use it
WEIGHT = 0.3  # of each fact, beside questions
DIGITS = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is said of a token: in which words, and in which sense."""

    name: str
    words: tuple[str, ...]
    second_sense: bool


FACTS = (
    Fact("second", DIGITS, False),
    Fact("came", DIGITS, True),
    Fact("motion", tuple(f" {motion}" for motion in MOTIONS), True),
    Fact("gone colour", tuple(f" {colour}" for colour in COLOURS), True),
    Fact("gone shape", tuple(f" {shape}" for shape in SHAPES), True),
)
MOTION_NAMES, COLOUR_NAMES = tuple(MOTIONS), tuple(COLOURS)


def truth(scene: Scene, grid: Grid) -> torch.Tensor:
    """What there is to know of each token of a clip at one frame per second.

    Shapes: returns [M, len(FACTS)] - index of the word of each fact, IGNORE where there is none;
            seconds are told by their last digit. A motion can be known from the second frame on.
    """
    rows = []
    before = [-1] * grid.tokens_per_frame
    for second in range(grid.frames):
        shown = token_things(scene, grid, second)
        rows += [_facts(scene, second, *things) for things in zip(shown, before, strict=True)]
        before = shown
    return torch.tensor(rows)


def _facts(scene: Scene, second: int, index: int, before: int) -> tuple[int, ...]:
    """index, before: what the token shows now and showed in the frame before (token_things)."""
    came = motion = colour = shape = IGNORE
    if 0 <= index < len(scene.sprites):
        sprite = scene.sprites[index]
        came = sprite.start_s % 10
        if second > sprite.start_s:
            motion = MOTION_NAMES.index(sprite.motion)
    elif index == len(scene.sprites):
        change_s = cast(Digit, scene.digit).change_s or 0
        came = change_s % 10 if second >= change_s else 0
    if 0 <= before < len(scene.sprites) and scene.sprites[before].stop_s == second:
        colour = COLOUR_NAMES.index(scene.sprites[before].colour)
        shape = SHAPES.index(scene.sprites[before].shape)
    return second % 10, came, motion, colour, shape


def fact_losses(
    model: VL3ForConditionalGeneration,
    states_BLE: torch.Tensor,
    slot_BL: torch.Tensor,
    truth_KF: torch.Tensor,
    tokenizer,
) -> dict[str, torch.Tensor]:
    """Mean cross-entropy of each fact over the slots of which it is known, 0 where of none.

    Shapes: slot_BL - where the slots are; truth_KF - of each slot in reading order, see `truth`
    """
    states_KE = states_BLE[slot_BL].float()
    states_KE = states_KE * states_KE.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()
    words_VE = cast(torch.Tensor, model.get_input_embeddings().weight).float()
    losses = {}
    every_ids = word_ids(tokenizer, tuple(fact.words for fact in FACTS))
    for fact, ids, truth_K in zip(FACTS, every_ids, truth_KF.T, strict=True):
        known_K = truth_K != IGNORE
        own_WE = words_VE[ids]
        if fact.second_sense:
            own_WE = own_WE.roll(own_WE.shape[1] // 2, dims=1)
        logits_KW = states_KE[known_K] @ own_WE.T
        loss = F.cross_entropy(logits_KW, truth_K[known_K], reduction="sum")
        losses[fact.name] = loss / max(1, len(logits_KW))
    return losses


class TemporalLoss(AuxiliaryLoss):
    """Toy clips teach, beside their answers, what each of their visual tokens should know."""

    name, weight, reads_states = "story", WEIGHT, True

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def targets(self, record: Record, grids: Sequence[Grid]) -> torch.Tensor | None:
        scene = record.truth
        return None if scene is None or scene.kind == "image" else truth(scene, *grids)

    def of_pass(
        self, model: VL3ForConditionalGeneration, part: MicroBatch, output: VL3Output
    ) -> Mapping[str, torch.Tensor]:
        if (truth_KF := part.targets.get(self.name)) is None:
            return {}
        states_BLE = cast(tuple, output.hidden_states)[LAYERS]
        slot_BL = (part.inputs["input_ids"] == model.config.image_token_id).to(states_BLE.device)
        truth_KF = truth_KF.to(states_BLE.device)
        losses = fact_losses(model, states_BLE, slot_BL, truth_KF, self.tokenizer)
        return {f"{self.name}, {fact}": loss for fact, loss in losses.items()}
