"""2D-RoPE: queries and keys turned by the angles of their patches."""

from __future__ import annotations

import torch

from ..about import About
from ..measured import winner
from . import reference
from .reference import Runs, turn

MEASURED = winner("rope2d")  # where the fused kernel is at least 10 % faster, and by how much
ABOUT = About(
    formula="(a, b) to (a cos - b sin, b cos + a sin) for channels j and j + C/2, angle j of the "
    "patch; backward with the angle negated",
    shapes="q, k [N, H, C], angles [patches of a frame, C/2]",
    called_by="`vl3.vision.encoder`",
    agrees="float32 1e-6, float16 one rounding: both compute in float32",
)

__all__ = ["ABOUT", "MEASURED", "Runs", "rotate", "turn"]


def rotate(
    q_NHC: torch.Tensor, k_NHC: torch.Tensor, runs: Runs, *, fused: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.rotate; fused takes the Triton kernel, which may write into q and k."""
    if fused:
        from .fused import rotate as run
    else:
        run = reference.rotate
    return run(q_NHC, k_NHC, runs)
