"""Patch features merged into tokens, and of these the kept ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kernels.merge_keep import reference

# Where the fused kernel was measured to be at least 10 % faster, and by how much.
MEASURED: str | None = None

__all__ = ["MEASURED", "merge_keep"]


def merge_keep(
    x_ND: torch.Tensor,
    clips: Sequence[tuple[int, int]],
    keep: torch.Tensor | None = None,
    *,
    fused: bool = False,
) -> torch.Tensor:
    """See reference.merge_keep; fused takes the Triton kernel."""
    if fused:
        from kernels.merge_keep.fused import merge_keep as run
    else:
        run = reference.merge_keep
    return run(x_ND, clips, keep)
