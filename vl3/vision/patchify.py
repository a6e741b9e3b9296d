"""Frames to patches and back. The only two functions that know the order of patches.

Raster order goes row by row. Block order, used everywhere between patchify and downsample, keeps
the merge x merge patches that become one token next to each other. A grid of 2 x 4, merge 2:

    raster   0 1 2 3      block   0 1 4 5
             4 5 6 7              2 3 6 7
"""

from __future__ import annotations

import numpy as np
import torch

from vl3.arguments import instance
from vl3.values import Grid

GRID = "a vl3.values.Grid, as vl3.vision.fit_grid gives it"


def patchify(frames_TYX3: np.ndarray | torch.Tensor, grid: Grid) -> torch.Tensor:
    """Patches of one clip in block order, each flattened channel -> row -> column.

    Shapes: frames_TYX3 - any dtype, Y and X whole multiples of the grid's rows and cols
            returns pixels_NP - same dtype, P = 3 * patch * patch
    Source: VideoLLaMA3 image_processing_videollama3.py:_preprocess (temporal patch 1).
    """
    instance("grid", grid, Grid, GRID)
    instance("frames_TYX3", frames_TYX3, np.ndarray | torch.Tensor, "an array or a tensor")
    if isinstance(frames_TYX3, np.ndarray) and not frames_TYX3.flags.writeable:
        frames_TYX3 = frames_TYX3.copy()  # torch shares memory with writable arrays only
    frames = torch.as_tensor(frames_TYX3)
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise ValueError(
            f"frames_TYX3 has the shape (frames, height, width, 3) - got {tuple(frames.shape)}"
        )
    T, Y, X, _ = frames.shape
    patch, rest = divmod(Y, grid.rows)
    if rest or grid.cols * patch != X or grid.frames != T:
        raise ValueError(f"{T} frames of {X} x {Y} pixels do not fill {grid}; resize them to it")
    m, rows, cols = grid.merge, grid.token_rows, grid.token_cols
    pixels_TNP = frames.new_empty(T, grid.patches_per_frame, 3 * patch * patch)
    for frame_YX3, pixels_NP in zip(frames, pixels_TNP):  # a frame stays in the cache, a clip not
        split = frame_YX3.view(rows, m, patch, cols, m, patch, 3)
        pixels_NP.copy_(split.permute(0, 3, 1, 4, 6, 2, 5).reshape(pixels_NP.shape))
    return pixels_TNP.flatten(0, 1)


def unpatchify(pixels_NP: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The frames that patchify cut up: its exact inverse.

    Shapes: pixels_NP - patches of one clip, block order
            returns frames_TYX3 - same dtype
    """
    instance("grid", grid, Grid, GRID)
    instance("pixels_NP", pixels_NP, torch.Tensor, "a tensor")
    values = pixels_NP.shape[1] if pixels_NP.ndim == 2 else 0
    patch = round((values // 3) ** 0.5)
    if not values or 3 * patch * patch != values or len(pixels_NP) != grid.num_patches:
        raise ValueError(
            f"pixels_NP has the shape ({grid.num_patches}, 3 * patch * patch) for {grid} - got "
            f"{tuple(pixels_NP.shape)}"
        )
    m, rows, cols = grid.merge, grid.token_rows, grid.token_cols
    split = pixels_NP.view(grid.frames, rows, cols, m, m, 3, patch, patch)
    joined = split.permute(0, 1, 3, 6, 2, 4, 7, 5)
    return joined.reshape(grid.frames, grid.rows * patch, grid.cols * patch, 3)
