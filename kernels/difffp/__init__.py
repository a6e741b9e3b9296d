"""DiffFP: how much every token changed from frame to frame, and which changes count."""

from __future__ import annotations

import torch

from kernels.difffp import reference
from kernels.difffp.reference import IMAGENET_STD, LEVELS_PER_UNIT, Mode, change

# Where the fused kernel was measured to be at least 10 % faster, and by how much.
MEASURED: str | None = None

__all__ = ["IMAGENET_STD", "LEVELS_PER_UNIT", "MEASURED", "Mode", "change", "difffp"]


def difffp(
    cells_TMP: torch.Tensor,
    patch_values: int,
    threshold: float,
    mode: Mode,
    *,
    fused: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See reference.difffp; fused takes the Triton kernel."""
    if fused:
        from kernels.difffp.fused import difffp as run
    else:
        run = reference.difffp
    return run(cells_TMP, patch_values, threshold, mode)
