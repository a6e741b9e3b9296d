"""The spatial loss: what each visual token shows, said in the language model's own words.

Behind the connector, a token is compared with the embeddings of the words for shapes, colours,
digits and thirds of the frame, so that "circle" in a question and a circle in a picture point the
same way before the first question is asked. A linear readout, thrown away afterwards, says where
the token lies and where the box of the thing it shows ends. Scenes begin on a lattice, where a
shape always looks the same, and loosen; from free scenes alone the encoder needs many times as long
to tell a star from a cross.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from vl3.model import VL3ForConditionalGeneration
from vl3.prompt import IGNORE
from vl3.toyworld.draw import coverage, film
from vl3.toyworld.world import COLOURS, SHAPES, Digit, Level, Scene, sample_scene
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.values import Clip, Grid
from vl3.vision.patchify import patchify

PATCH_PX, MERGE = 14, 2
LEAST_PIXELS = 50  # of the 784 of a token; fewer do not show what they belong to
THINGS = (*SHAPES, "digit", "background")
DIGIT, BACKGROUND = THINGS.index("digit"), THINGS.index("background")
COLOUR_NAMES = tuple(COLOURS)
# Word lists as they stand in a question: after a space, digits alone.
WORDS = (
    tuple(f" {thing}" for thing in THINGS),
    tuple(f" {colour}" for colour in COLOUR_NAMES),
    tuple("0123456789"),
    (" left", " middle", " right"),
    (" top", " middle", " bottom"),
)
LISTS = ("thing", "colour", "digit", "across", "down")
SHARPNESS = 4.0  # embeddings are about one long; their products alone would make flat logits
PLACES = 6  # column and row of the token, left, top, right and bottom of what it shows
PLACE_WEIGHT = 3.0
FREE = Level(seconds=(0, 0), sprites=(2, 4), digits=0.5)


@dataclass(frozen=True, slots=True)
class Examples:
    """Images and what their tokens show.

    Shapes: pixels_NP; grids
            words_M5 - index of thing, colour, digit and thirds of the frame (see LISTS), IGNORE
            where there is none; the background's thirds are the token's own
            place_M6 - see PLACES, -1..1 over the frame, NaN for the box of the background
    """

    pixels_NP: torch.Tensor
    grids: tuple[Grid, ...]
    words_M5: torch.Tensor
    place_M6: torch.Tensor


def clip_grid(clip: Clip) -> Grid:
    """The grid of a picture or clip of the toy world, which is a whole number of tokens."""
    frames, height_px, width_px, _ = clip.frames_TYX3.shape
    return Grid(frames=frames, rows=height_px // PATCH_PX, cols=width_px // PATCH_PX, merge=MERGE)


def readout(language_width: int) -> nn.Linear:
    """An untrained readout of places."""
    return nn.Linear(language_width, PLACES)


def word_ids(tokenizer, lists: tuple[tuple[str, ...], ...] = WORDS) -> tuple[torch.Tensor, ...]:
    """Token ids of the words of each list; every word is one token."""
    rows = [tokenizer(list(words), add_special_tokens=False)["input_ids"] for words in lists]
    return tuple(torch.tensor(row).squeeze(1) for row in rows)


def draw_examples(rng: random.Random, level: Level, count: int) -> Examples:
    """Fresh images of the level with the truth about each of their tokens."""
    pixels, grids, words, places = [], [], [], []
    for _ in range(count):
        scene = sample_scene(rng, level)
        clip = film(scene, rng, level)
        grid = clip_grid(clip)
        pixels.append(patchify(clip.frames_TYX3, grid))
        grids.append(grid)
        shown = token_things(scene, grid)
        for token, index in enumerate(shown):
            place = _place(scene, grid, token, index)
            words.append((*_words(scene, index), *_thirds(place)))
            places.append(place)
    return Examples(torch.cat(pixels), tuple(grids), torch.tensor(words), torch.tensor(places))


UNCLEAR = -2


def token_things(scene: Scene, grid: Grid, time_s: float = 0.0) -> list[int]:
    """What covers most of each token of a frame, as vl3.toyworld.draw.coverage counts.

    -1 where nothing does, UNCLEAR where hardly anything does
    """
    sprite_YX = coverage(scene, time_s)
    height, width = scene.height_px // grid.token_rows, scene.width_px // grid.token_cols
    cells = sprite_YX.reshape(grid.token_rows, height, grid.token_cols, width).swapaxes(1, 2)
    found = []
    for cell in cells.reshape(grid.tokens_per_frame, -1):
        counts = np.bincount(cell + 1, minlength=2)
        best = int(counts[1:].argmax())
        clear = counts[best + 1] >= LEAST_PIXELS
        found.append(best if clear else UNCLEAR if counts[1:].any() else -1)
    return found


def _words(scene: Scene, index: int) -> tuple[int, int, int]:
    if index == UNCLEAR:
        return IGNORE, IGNORE, IGNORE
    if index < 0:
        return BACKGROUND, IGNORE, IGNORE
    if index == len(scene.sprites):
        return DIGIT, IGNORE, cast(Digit, scene.digit).first
    sprite = scene.sprites[index]
    return THINGS.index(sprite.shape), COLOUR_NAMES.index(sprite.colour), IGNORE


def _place(scene: Scene, grid: Grid, token: int, index: int) -> tuple[float, ...]:
    row, col = divmod(token, grid.token_cols)
    own = ((2 * col + 1) / grid.token_cols - 1, (2 * row + 1) / grid.token_rows - 1)
    if index < 0:
        return (*own, *[float("nan")] * 4)
    things: list[Any] = [*scene.sprites, scene.digit]
    box_px = things[index].box(0.0)
    sides_px = (scene.width_px, scene.height_px) * 2
    return (*own, *(2 * value / side - 1 for value, side in zip(box_px, sides_px, strict=True)))


def _thirds(place: tuple[float, ...]) -> tuple[int, int]:
    """Thirds of the frame, across and down, of the middle of the box, else of the token."""
    x, y, left, top, right, bottom = place
    if not math.isnan(left):
        x, y = (left + right) / 2, (top + bottom) / 2
    return min(2, int(1.5 * (x + 1))), min(2, int(1.5 * (y + 1)))


def example_loss(
    model: VL3ForConditionalGeneration,
    layer: nn.Linear | None,
    examples: Examples,
    words: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, dict[str, list[float]]]:
    """Loss of examples; and of the tokens that show something, which words are right, and how far
    off their places are (share of the frame).

    layer: the readout of places; None asks for words alone
    """
    grids_thw = [(grid.frames, grid.rows, grid.cols) for grid in examples.grids]
    x_MD = model.encode_vision(examples.pixels_NP, grids_thw, [g.merge for g in examples.grids])
    visual_ME = model.project(
        x_MD
    ).float()  # parts that train are in float32, frozen ones may not be
    embeddings = cast(torch.Tensor, model.get_input_embeddings().weight).float()
    right: dict[str, list[float]] = {}
    loss = visual_ME.new_zeros(())
    if layer is not None:
        off_M6 = layer(visual_ME) - examples.place_M6
        known_M6 = ~examples.place_M6.isnan()
        loss = PLACE_WEIGHT * off_M6[known_M6].abs().mean()
        right["place off"] = (off_M6[:, :2].abs() / 2).flatten().tolist()
        right["box off"] = (off_M6[:, 2:].abs() / 2)[known_M6[:, 2:]].tolist()
    for name, ids, truth_M in zip(LISTS, words, examples.words_M5.T):
        logits = SHARPNESS * visual_ME @ embeddings[ids].T
        seen_M = truth_M != IGNORE
        if not seen_M.any():
            continue
        loss = loss + F.cross_entropy(logits[seen_M], truth_M[seen_M])
        judged_M = seen_M & (examples.words_M5[:, 0] != BACKGROUND)
        hits = logits.argmax(dim=-1)[judged_M] == truth_M[judged_M]
        right[f"token {name}"] = hits.float().tolist()
    return loss, right


class SpatialLoss(AuxiliaryLoss):
    """Fresh images in each step, beside the questions: without them the encoder forgets where
    things are."""

    name, weight = "spatial", 0.2

    def __init__(self, tokenizer, images: int, seed: str) -> None:
        self.words, self.images, self.seed = word_ids(tokenizer), images, seed

    def of_step(self, model, step: int) -> Iterator[Mapping[str, torch.Tensor]]:
        examples = draw_examples(random.Random(f"{self.seed} {step}"), FREE, self.images)
        with torch.autocast(model.device.type, enabled=False):
            loss, _ = example_loss(model, None, examples, self.words)
        yield {self.name: loss}
