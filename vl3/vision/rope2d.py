"""2D-RoPE: every patch is rotated by its row and its column, integers from 0 in each frame."""

from __future__ import annotations

import torch

from vl3.values import Grid


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


def rotate(x_NHC: torch.Tensor, angle_NR: torch.Tensor) -> torch.Tensor:
    """x with channel pairs (j, j + C/2) turned by angle j; computed in float32, cast back.

    Shapes: x_NHC - queries or keys; N may be preceded by a frame dimension
    """
    cos, sin = angle_NR.cos()[:, None], angle_NR.sin()[:, None]
    first, second = x_NHC.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x_NHC.dtype)
