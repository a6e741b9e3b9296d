"""2D-RoPE: queries and keys turned by the angles of their patches."""

from __future__ import annotations

import torch

from kernels.rope2d import reference
from kernels.rope2d.reference import Runs, turn

# Where the fused kernel was measured to be at least 10 % faster, and by how much.
MEASURED: str | None = None

__all__ = ["MEASURED", "Runs", "rotate", "turn"]


def rotate(
    q_NHC: torch.Tensor, k_NHC: torch.Tensor, runs: Runs, *, fused: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.rotate; fused takes the Triton kernel, which may write into q and k."""
    if fused:
        from kernels.rope2d.fused import rotate as run
    else:
        run = reference.rotate
    return run(q_NHC, k_NHC, runs)
