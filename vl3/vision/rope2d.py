"""2D-RoPE: every patch is rotated by its row and its column, integers from 0 in each frame.

The rotation is defined in kernels/rope2d/reference.py: channel pairs (j, j + C/2) are turned by
angle j. `rotate` is that definition; the encoder turns queries and keys by vl3.ops.rotate.
"""

from __future__ import annotations

import torch

from vl3.ops import turn as rotate
from vl3.values import Grid

__all__ = ["angles", "frequencies", "positions", "rotate"]


def positions(grid: Grid, device: torch.device | str | None = None) -> torch.Tensor:
    """Row and column of every patch of one frame, in block order.

    Shapes: returns position_N2 - int64, N = rows * cols of the grid
    """
    rows = torch.arange(grid.rows, device=device).view(grid.token_rows, 1, grid.merge, 1)
    cols = torch.arange(grid.cols, device=device).view(1, grid.token_cols, 1, grid.merge)
    shape = (grid.token_rows, grid.token_cols, grid.merge, grid.merge)
    return torch.stack([rows.expand(shape).flatten(), cols.expand(shape).flatten()], dim=-1)


def frequencies(head_channels: int, theta: float = 10000.0) -> torch.Tensor:
    """Angle per patch step of each frequency, highest first; head_channels / 4 of them."""
    half = head_channels // 2
    return theta ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)


def angles(position_N2: torch.Tensor, head_channels: int, theta: float = 10000.0) -> torch.Tensor:
    """Rotation angles in radians: all row angles, then all column angles.

    Shapes: returns angle_NR - float32, R = head_channels / 2
    Source: VideoLLaMA3 modeling_videollama3_encoder.py (as in Qwen2-VL's vision tower).
    """
    step = frequencies(head_channels, theta).to(position_N2.device)
    return (position_N2[:, :, None].float() * step).flatten(1)
