"""Frames side by side, with what a view knows painted on them: arrays in, Pillow pictures out.

A picture shows itself in a notebook and saves itself: picture.save("frames.png"), .pdf, .webp.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from plotly.colors import sample_colorscale

from vl3.values import Grid
from vl3.viz.pictures import overlay

GAP_PX, CAPTION_PX = 8, 20
GROUND, INK = (255, 255, 255), (28, 31, 38)
HEAT = (0.25, 0.8)  # share of the colour in a cell with the value 0 and with the highest
STEPS = 256  # of the colour scale


def strip(
    pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int = 8, width: int = 160
) -> Image.Image:
    """Pictures in rows of `columns`, each `width` pixels wide, with a line of text below.

    Shapes: pictures - uint8 [Y, X, 3], all of one size
    """
    if len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures but {len(captions)} captions")
    columns = min(columns, len(pictures))
    height = round(width * pictures[0].shape[0] / pictures[0].shape[1])
    across, down = width + GAP_PX, height + CAPTION_PX + GAP_PX
    rows = ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * across - GAP_PX, rows * down - GAP_PX), GROUND)
    ink, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for index, (picture, caption) in enumerate(zip(pictures, captions)):
        left, top = index % columns * across, index // columns * down
        shrinks = picture.shape[1] > width
        method = Image.Resampling.BICUBIC if shrinks else Image.Resampling.NEAREST
        sheet.paste(Image.fromarray(picture).resize((width, height), method), (left, top))
        ink.text((left, top + height + 2), caption, INK, font)
    return sheet


def gridded(frame_YX3: np.ndarray, grid: Grid) -> np.ndarray:
    """The frame with thin lines between patches and thick ones between tokens."""
    picture = frame_YX3.copy()
    height, width = picture.shape[:2]
    for number in range(1, grid.rows):
        at, thick = number * height // grid.rows, number % grid.merge == 0
        picture[at - thick : at + 1] = 255 if thick else picture[at : at + 1] // 2 + 100
    for number in range(1, grid.cols):
        at, thick = number * width // grid.cols, number % grid.merge == 0
        picture[:, at - thick : at + 1] = 255 if thick else picture[:, at : at + 1] // 2 + 100
    return picture


def heated(frame_YX3: np.ndarray, value_RC: np.ndarray, top: float) -> np.ndarray:
    """The frame under the values of its tokens: from a thin dark blue for 0 to yellow for `top`.

    Shapes: value_RC - float per token row and column, NaN where the pruner removed the token:
                       there the frame is dimmed and hatched, and no value is painted
    """
    down, across = (side // count for side, count in zip(frame_YX3.shape, value_RC.shape))
    kept_RC = ~np.isnan(value_RC)
    picture = overlay(frame_YX3, kept_RC, np.zeros_like(kept_RC)).astype(np.float32)
    share_RC = np.clip(np.nan_to_num(value_RC) / top, 0, 1) if top > 0 else np.zeros(kept_RC.shape)
    colour_RC3 = cividis()[np.round(share_RC * (STEPS - 1)).astype(int)]
    strength_RC1 = (HEAT[0] + (HEAT[1] - HEAT[0]) * share_RC)[..., None]
    strength_YX1, colour_YX3, kept_YX = (
        cells.repeat(down, axis=0).repeat(across, axis=1)
        for cells in (strength_RC1, colour_RC3, kept_RC)
    )
    picture[kept_YX] += (strength_YX1 * (colour_YX3 - picture))[kept_YX]
    return picture.round().astype(np.uint8)


def cividis() -> np.ndarray:
    """The colour scale as float32 [STEPS, 3], levels 0..255."""
    colours = sample_colorscale("Cividis", np.linspace(0, 1, STEPS), colortype="tuple")
    return 255 * np.array(colours, np.float32)
