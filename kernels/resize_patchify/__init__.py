"""Frames resized as PIL does, given back as frames or straight as patches."""

from __future__ import annotations

import torch

from ..about import About
from ..measured import winner
from . import reference

MEASURED = winner(
    "resize_patchify"
)  # where the fused kernel is at least 10 % faster, and by how much
ABOUT = About(
    formula="level = clip((2^21 + sum of level x weight) >> 22) along the rows, then along the "
    "columns; weights of the bicubic filter, widened where a side shrinks, in steps of 2^-22; "
    "frames, or patches in block order",
    shapes="uint8 frames [T, Y, X, 3] of any size to frames, or to patches [N, 3 x patch x patch]",
    called_by="`vl3.messages.media`, for frames, one at a time",
    agrees="the same bits as PIL: weights computed in float64 in its order, sums in int32",
)

__all__ = ["ABOUT", "MEASURED", "resize", "resize_patchify"]


def resize(
    frames_TYX3: torch.Tensor, size: tuple[int, int], *, fused: bool = False
) -> torch.Tensor:
    """See reference.resize; fused takes the Triton kernel."""
    if fused:
        from .fused import resize as run
    else:
        run = reference.resize
    return run(frames_TYX3, size)


def resize_patchify(
    frames_TYX3: torch.Tensor, rows: int, cols: int, patch: int, merge: int, *, fused: bool = False
) -> torch.Tensor:
    """See reference.resize_patchify; fused takes the Triton kernel."""
    if fused:
        from .fused import resize_patchify as run
    else:
        run = reference.resize_patchify
    return run(frames_TYX3, rows, cols, patch, merge)
