"""A short lesson before language: the vision encoder learns to tell shapes, colours and places.

A linear readout says of each visual token which shape and colour covers it and where the centre of
that sprite is. Scenes begin on a lattice, where a shape always looks the same, and loosen; from
free scenes alone the encoder needs many times as long to tell a star from a cross. The readout is
thrown away afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vl3.model import VL3ForConditionalGeneration
from vl3.prompt import IGNORE
from vl3.training.batch import clip_grid
from vl3.training.world import COLOURS, SHAPES, Level, Scene, coverage, film, sample_scene
from vl3.values import Grid
from vl3.vision.patchify import patchify

LEAST_PIXELS = 50  # of the 784 of a token; fewer do not show what they belong to
COLOUR_NAMES = tuple(COLOURS)
PARTS = (len(SHAPES), len(COLOURS), 2)
PLACE_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class Lesson:
    """Images and what their tokens show.

    Shapes: pixels_NP; grids; shape_M, colour_M - indices, IGNORE without a sprite;
            place_M2 - centre of the sprite, -1..1 from left to right and top to bottom
    """

    pixels_NP: torch.Tensor
    grids: tuple[Grid, ...]
    shape_M: torch.Tensor
    colour_M: torch.Tensor
    place_M2: torch.Tensor


def readout(vision_width: int) -> nn.Linear:
    """An untrained readout of shape, colour and place."""
    return nn.Linear(vision_width, sum(PARTS))


def draw_lesson(rng: random.Random, level: Level, count: int) -> Lesson:
    """Fresh images of the level with the truth about each of their tokens."""
    pixels, grids, truth = [], [], []
    for _ in range(count):
        scene = sample_scene(rng, level)
        clip = film(scene, rng, level)
        grid = clip_grid(clip)
        pixels.append(patchify(clip.frames_TYX3, grid))
        grids.append(grid)
        truth.extend(_describe(scene, token) for token in token_sprites(scene, grid))
    shapes, colours, places = zip(*truth, strict=True)
    truth = (torch.tensor(shapes), torch.tensor(colours), torch.tensor(places))
    return Lesson(torch.cat(pixels), tuple(grids), *truth)


def token_sprites(scene: Scene, grid: Grid) -> list[int]:
    """The sprite that covers most of each token of a still scene; -1 where none does."""
    sprite_YX = coverage(scene)
    height, width = scene.height_px // grid.token_rows, scene.width_px // grid.token_cols
    cells = sprite_YX.reshape(grid.token_rows, height, grid.token_cols, width).swapaxes(1, 2)
    found = []
    for cell in cells.reshape(grid.num_tokens, -1):
        counts = np.bincount(cell + 1, minlength=len(scene.sprites) + 1)[1:]
        best = int(counts.argmax()) if len(counts) else -1
        found.append(best if best >= 0 and counts[best] >= LEAST_PIXELS else -1)
    return found


def _describe(scene: Scene, index: int) -> tuple[int, int, tuple[float, float]]:
    if index < 0:
        return IGNORE, IGNORE, (0.0, 0.0)
    sprite = scene.sprites[index]
    place = (2 * sprite.x_px / scene.width_px - 1, 2 * sprite.y_px / scene.height_px - 1)
    return SHAPES.index(sprite.shape), COLOUR_NAMES.index(sprite.colour), place


def lesson_loss(
    model: VL3ForConditionalGeneration, layer: nn.Linear, lesson: Lesson
) -> tuple[torch.Tensor, list[tuple[str, bool]]]:
    """Loss of a lesson, and for each token with a sprite whether its shape and colour are right."""
    grids_thw = [(grid.frames, grid.rows, grid.cols) for grid in lesson.grids]
    x_MD = model.encode_vision(lesson.pixels_NP, grids_thw, [g.merge for g in lesson.grids])
    shape, colour, place = layer(x_MD).split(PARTS, dim=-1)
    seen_M = lesson.shape_M != IGNORE
    loss = F.cross_entropy(shape, lesson.shape_M) + F.cross_entropy(colour, lesson.colour_M)
    loss = loss + PLACE_WEIGHT * F.mse_loss(place[seen_M], lesson.place_M2[seen_M])
    right = []
    for name, logits, truth in (
        ("shape", shape, lesson.shape_M),
        ("colour", colour, lesson.colour_M),
    ):
        hits = logits.argmax(dim=-1)[seen_M] == truth[seen_M]
        right.extend((f"token {name}", hit) for hit in hits.tolist())
    return loss, right
