"""2D-RoPE: every patch is rotated by its row and its column, integers from 0 in each frame.

The rotation is defined in kernels/rope2d/reference.py: channel pairs (j, j + C/2) are turned by
angle j. `rotate` is that definition; the encoder turns queries and keys by vl3.ops.rotate.
"""

from __future__ import annotations

import torch

from vl3.arguments import instance, number, whole
from vl3.ops import turn as rotate
from vl3.values import Grid
from vl3.vision.patchify import GRID

__all__ = ["angles", "frequencies", "positions", "rotate"]

MOST_CHANNELS = 1 << 16  # of a head, where real ones have 64 to 256


def positions(grid: Grid, device: torch.device | str | None = None) -> torch.Tensor:
    """Row and column of every patch of one frame, in block order.

    Shapes: returns position_N2 - int64, N = rows * cols of the grid
    """
    instance("grid", grid, Grid, GRID)
    rows = torch.arange(grid.rows, device=device).view(grid.token_rows, 1, grid.merge, 1)
    cols = torch.arange(grid.cols, device=device).view(1, grid.token_cols, 1, grid.merge)
    shape = (grid.token_rows, grid.token_cols, grid.merge, grid.merge)
    return torch.stack([rows.expand(shape).flatten(), cols.expand(shape).flatten()], dim=-1)


def frequencies(head_channels: int, theta: float = 10000.0) -> torch.Tensor:
    """Angle per patch step of each frequency, highest first; head_channels / 4 of them."""
    half = whole("head_channels", head_channels, low=4, high=MOST_CHANNELS) // 2
    theta = number("theta", theta, above=0)
    return theta ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)


def angles(position_N2: torch.Tensor, head_channels: int, theta: float = 10000.0) -> torch.Tensor:
    """Rotation angles in radians: all row angles, then all column angles.

    Shapes: returns angle_NR - float32, R = head_channels / 2
    Source: VideoLLaMA3 modeling_videollama3_encoder.py (as in Qwen2-VL's vision tower).
    """
    instance("position_N2", position_N2, torch.Tensor, "a tensor of rows and columns")
    if position_N2.ndim != 2 or position_N2.shape[1] != 2:
        raise ValueError(f"position_N2 has the shape (N, 2) - got {tuple(position_N2.shape)}")
    step = frequencies(head_channels, theta).to(position_N2.device)
    return (position_N2[:, :, None].float() * step).flatten(1)
