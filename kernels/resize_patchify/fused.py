"""PIL's bicubic filter in integers, the second pass writing frames or patches as they are needed.

Has run under Triton's interpreter only, never on a GPU.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import torch
import triton
import triton.language as tl

BITS = 22  # of a weight behind the point: 255 times the weights of a pixel stay within int32
REACH = 2.0  # of the filter, in pixels of the smaller side
TILE = {"ROWS": 16, "COLUMNS": 128, "num_warps": 8}  # values of one program
TALL = 100  # times higher than wide: Pillow makes such a picture lower before it changes its width


def resize(frames_TYX3: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """See reference.resize; the same bits."""
    resized_TYX3 = frames_TYX3.new_empty(len(frames_TYX3), *size, 3)
    _run(frames_TYX3, size, resized_TYX3, _frame_places(*size, frames_TYX3.device))
    return resized_TYX3


def resize_patchify(
    frames_TYX3: torch.Tensor, rows: int, cols: int, patch: int, merge: int
) -> torch.Tensor:
    """See reference.resize_patchify; the same bits."""
    pixels_NP = frames_TYX3.new_empty(len(frames_TYX3) * rows * cols, 3 * patch * patch)
    places = _patch_places(rows, cols, patch, merge, frames_TYX3.device)
    _run(frames_TYX3, (rows * patch, cols * patch), pixels_NP, places)
    return pixels_NP


@lru_cache(maxsize=64)
def _frame_places(height: int, width: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in a frame a pixel row begins, and where in it the values of all columns lie."""
    row_Y = torch.arange(height, dtype=torch.int32) * (3 * width)
    return row_Y.to(device), torch.arange(3 * width, dtype=torch.int32).to(device)


@lru_cache(maxsize=64)
def _patch_places(rows, cols, patch, merge, device) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in block order: the place of a value is the sum of its row's and its column's."""
    values = 3 * patch * patch
    y, x = (torch.arange(side * patch, dtype=torch.int32) for side in (rows, cols))
    row, col = y // patch, x // patch
    row_Y = (row // merge * cols + row % merge) * (merge * values) + y % patch * patch
    col_X = (col // merge * merge**2 + col % merge) * values + x % patch
    channel = torch.arange(3, dtype=torch.int32) * patch**2
    return row_Y.to(device), (col_X[:, None] + channel).flatten().to(device)


@lru_cache(maxsize=64)
def _weights(before: int, after: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of the pixels that each resized pixel is made of, and the weights of all of them.

    All have equally many, of which those at the ends may weigh nothing.
    Shapes: first_O, weight_KO - int32, O pixels after
    Source: Pillow Resample.c, precompute_coeffs and normalize_coeffs_8bpc, step by step in float64:
            the last bit of a weight may decide how it is rounded.
    """
    if before == after:
        whole_KO = torch.full((1, after), 1 << BITS, dtype=torch.int32, device=device)
        return torch.arange(after, dtype=torch.int32, device=device), whole_KO
    scale = before / after
    widened = max(scale, 1.0)
    reach = REACH * widened
    centre_O = (torch.arange(after, dtype=torch.float64) + 0.5) * scale
    first_O = (centre_O - reach + 0.5).long().clamp(min=0)
    end_O = (centre_O + reach + 0.5).long().clamp(max=before)
    taps = min(2 * ceil(reach) + 1, before)
    read_O = first_O.clamp(max=before - taps)
    pixel_KO = read_O + torch.arange(taps)[:, None]
    weight_KO = _bicubic((pixel_KO - centre_O + 0.5) * (1.0 / widened))
    weight_KO[(pixel_KO < first_O) | (pixel_KO >= end_O)] = 0.0
    total_O = torch.zeros(after, dtype=torch.float64)
    for weight_O in weight_KO:  # one after the other, as Pillow adds
        total_O += weight_O
    scaled_KO = weight_KO / total_O * 2**BITS
    weight_KO = torch.where(scaled_KO < 0, scaled_KO - 0.5, scaled_KO + 0.5).int()
    return read_O.int().to(device), weight_KO.to(device)


def _bicubic(distance: torch.Tensor) -> torch.Tensor:
    x = distance.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < REACH, far, 0.0))


def _run(frames_TYX3, size, out, places) -> None:
    """Fills out; places say where the rows and the columns of a resized frame go in it."""
    (frames, before_height, before_width, _), (height, width) = frames_TYX3.shape, size
    if not out.numel():
        return
    if width != before_width and before_height > max(TALL * before_width, height):
        frames_TYX3, before_height = resize(frames_TYX3, (height, before_width)), height
    frames_TYX3, device = frames_TYX3.contiguous(), frames_TYX3.device
    columns = triton.cdiv(3 * width, TILE["COLUMNS"])
    with torch.cuda.device_of(frames_TYX3):  # a launch goes to the current device otherwise
        if width != before_width:
            first_X, weight_KX = _weights(before_width, width, device)
            rows = frames * before_height
            given, frames_TYX3 = frames_TYX3, frames_TYX3.new_empty(rows, 3 * width)
            _across[triton.cdiv(rows, TILE["ROWS"]), columns](
                given,
                frames_TYX3,
                first_X,
                weight_KX,
                rows,
                before_width,
                width,
                len(weight_KX),
                BITS=BITS,
                **TILE,
            )
        first_Y, weight_KY = _weights(before_height, height, device)
        rows = frames * height
        _down[triton.cdiv(rows, TILE["ROWS"]), columns](
            frames_TYX3,
            out,
            first_Y,
            weight_KY,
            *places,
            rows,
            before_height,
            height,
            3 * width,
            len(weight_KY),
            BITS=BITS,
            **TILE,
        )


@triton.jit
def _across(
    source,
    target,
    first_X,
    weight_KX,
    rows,
    before_width,
    width,
    taps,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ROWS pixel rows of any frames made wider or narrower, COLUMNS of their values."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    filled = column < 3 * width
    inside = (row < rows)[:, None] & filled[None, :]
    row = row.to(tl.int64)[:, None]
    x = column // 3
    first = 3 * tl.load(first_X + x, filled, 0) + column % 3
    pixel = source + row * (3 * before_width) + first[None, :]
    weights = weight_KX + x
    total = tl.full([ROWS, COLUMNS], 1 << (BITS - 1), tl.int32)
    for _tap in range(taps):
        weight = tl.load(weights, filled, 0)
        total += tl.load(pixel, inside, 0).to(tl.int32) * weight[None, :]
        weights += width
        pixel += 3
    level = tl.minimum(tl.maximum(total >> BITS, 0), 255)
    tl.store(target + row * (3 * width) + column[None, :], level.to(tl.uint8), inside)


@triton.jit
def _down(
    source,
    target,
    first_Y,
    weight_KY,
    row_place_Y,
    column_place_J,
    rows,
    before_height,
    height,
    values,
    taps,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """ROWS resized pixel rows of any frames, COLUMNS of their values, written to their places."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there, filled = row < rows, column < values
    inside = there[:, None] & filled[None, :]
    frame, y = (row // height).to(tl.int64), row % height
    first = frame * before_height + tl.load(first_Y + y, there, 0)
    pixel = source + (first * values)[:, None] + column[None, :]
    weights = weight_KY + y
    total = tl.full([ROWS, COLUMNS], 1 << (BITS - 1), tl.int32)
    for _tap in range(taps):
        weight = tl.load(weights, there, 0)
        total += tl.load(pixel, inside, 0).to(tl.int32) * weight[:, None]
        weights += height
        pixel += values
    level = tl.minimum(tl.maximum(total >> BITS, 0), 255)
    place = frame * height * values + tl.load(row_place_Y + y, there, 0)
    place = place[:, None] + tl.load(column_place_J + column, filled, 0)[None, :]
    tl.store(target + place, level.to(tl.uint8), inside)
