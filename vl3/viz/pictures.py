"""The pruner's mask painted on frames, and files of it: PNG, GIF and the mask itself.

For a video file hand `film` to vl3.video.encode.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from PIL import Image

from vl3.values import Clip, Grid, Keep

BRIGHTNESS = 0.28  # of a removed patch
HATCH_PX, HATCH_SHARE = 7, 0.30  # distance of the lines, and how much of white is in them
FRAME = (255, 176, 0)  # around a placeholder
STILL_MS, SHORTEST_MS = 1000, 20  # of an image; players slow down frames that are shorter


def overlay(frame_YX3: np.ndarray, keep_RC: np.ndarray, placeholder_RC: np.ndarray) -> np.ndarray:
    """The frame with removed patches dimmed and hatched, and a frame around placeholders.

    Shapes: frame_YX3 - uint8; keep_RC, placeholder_RC - bool per token row and column, by which Y
            and X divide evenly
    """
    down, across = (side // count for side, count in zip(frame_YX3.shape, keep_RC.shape))
    removed = ~keep_RC.repeat(down, axis=0).repeat(across, axis=1)
    y, x = np.indices(removed.shape)
    lines = removed & ((x + y) % HATCH_PX == 0)
    picture = frame_YX3.astype(np.float32)
    picture[removed] *= BRIGHTNESS
    picture[lines] += HATCH_SHARE * (255 - picture[lines])
    picture = picture.round().astype(np.uint8)
    for row, col in np.argwhere(placeholder_RC):
        box = picture[row * down : (row + 1) * down, col * across : (col + 1) * across]
        box[:2] = box[-2:] = FRAME
        box[:, :2] = box[:, -2:] = FRAME
    return picture


def film(clip: Clip, grid: Grid, keep: Keep) -> np.ndarray:
    """All frames of the clip as `overlay` paints them.

    clip: at the size of its grid; keep: of this clip alone
    Shapes: returns uint8 [T, Y, X, 3]
    """
    shape = (grid.frames, grid.token_rows, grid.token_cols)
    keeps, placeholders = (
        mask.numpy().reshape(shape) for mask in (keep.keep_M, keep.placeholder_M)
    )
    return np.stack([overlay(*layers) for layers in zip(clip.frames_TYX3, keeps, placeholders)])


def png(picture_YX3: np.ndarray) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture_YX3).save(file, "PNG")
    return file.getvalue()


def gif(pictures_TYX3: np.ndarray, times_s: Sequence[float] | None) -> bytes:
    """The pictures as an animated GIF that runs at their own times, over and over."""
    first, *rest = (Image.fromarray(picture) for picture in pictures_TYX3)
    gaps_ms = [round(1000 * (b - a)) for a, b in pairwise(times_s or ())]
    durations = [max(gap, SHORTEST_MS) for gap in [*gaps_ms, (gaps_ms or [STILL_MS])[-1]]]
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    return file.getvalue()


def mask_npz(grid: Grid, keep: Keep, times_s: Sequence[float] | None) -> bytes:
    """The decision as a NumPy archive: keep, change, placeholder [T, rows, cols], times, settings.

    keep: of this clip alone
    """
    shape = (grid.frames, grid.token_rows, grid.token_cols)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        keep=keep.keep_M.numpy().reshape(shape),
        change=keep.change_M.numpy().reshape(shape),
        placeholder=keep.placeholder_M.numpy().reshape(shape),
        times_s=np.array(times_s or [], float),
        merge=grid.merge,
        mode=keep.mode,
        threshold=keep.threshold,
    )
    return file.getvalue()
