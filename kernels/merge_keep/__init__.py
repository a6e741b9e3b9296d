"""Patch features merged into tokens, and of these the kept ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..about import About
from ..measured import winner
from . import reference

MEASURED = winner("merge_keep")  # where the fused kernel is at least 10 % faster, and by how much
ABOUT = About(
    formula="mean of the central patches of every m x m block (all four for m = 2, one for odd "
    "m), of the kept tokens only; backward sums a token's slots in their order",
    shapes="features [N, D], mask [M] or numbers [K], to [K, D]",
    called_by="`vl3.vision.downsample`",
    agrees="float32 1e-6, another order of four; float16 4e-3, torch adds gradients of repeated "
    "tokens in float16",
)

__all__ = ["ABOUT", "MEASURED", "merge_keep"]


def merge_keep(
    x_ND: torch.Tensor,
    clips: Sequence[tuple[int, int]],
    keep: torch.Tensor | None = None,
    *,
    fused: bool = False,
) -> torch.Tensor:
    """See reference.merge_keep; fused takes the Triton kernel."""
    if fused:
        from .fused import merge_keep as run
    else:
        run = reference.merge_keep
    return run(x_ND, clips, keep)
