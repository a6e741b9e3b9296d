"""DiffFP: how much every token changed from frame to frame, and which changes count."""

from __future__ import annotations

import torch

from ..about import About
from ..measured import winner
from . import reference
from .reference import IMAGENET_STD, LEVELS_PER_UNIT, Mode, change

MEASURED = winner("difffp")  # where the fused kernel is at least 10 % faster, and by how much
ABOUT = About(
    formula="change = sum of |difference| of a token's pixels to the frame before (`official`, "
    "`rlt`) or to the version last kept (`last_kept`), in the unit of the mode; changed where "
    "above the threshold; how many in each frame",
    shapes="cells [T, M, P] to change [T, M], mask [T, M], count [T]",
    called_by="`vl3.vision.prune`",
    agrees="uint8: the same bits, sums are of integers and each division is rounded correctly. "
    "Floats: 1e-5, added in another order; float16 5e-3, torch rounds every difference",
)

__all__ = ["ABOUT", "IMAGENET_STD", "LEVELS_PER_UNIT", "MEASURED", "Mode", "change", "difffp"]


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
        from .fused import difffp as run
    else:
        run = reference.difffp
    return run(cells_TMP, patch_values, threshold, mode)
