"""DiffFP timed: 180 frames of 640 x 360, the paper's plan, as levels."""

from __future__ import annotations

import torch

from ..timing import COMPILED, FUSED, REFERENCE, Case
from . import difffp

THRESHOLDS = {"official": 0.1, "rlt": 0.1, "last_kept": 10.0}


def cases(device: str = "cuda", tiny: bool = False) -> list[Case]:
    """One for each mode; every byte of the pixels has to be read once."""
    frames, tokens, patch_values = (4, 3, 12) if tiny else (180, 84, 588)
    noise = torch.Generator().manual_seed(0)
    size = (frames, tokens, 4 * patch_values)
    cells_TMP = torch.randint(0, 256, size, dtype=torch.uint8, generator=noise).to(device)
    cells_TMP[1::2] = cells_TMP[::2]
    compiled = torch.compile(difffp) if device == "cuda" else difffp
    found = []
    for mode, threshold in THRESHOLDS.items():
        given = cells_TMP, patch_values, threshold, mode
        sides = {
            REFERENCE: lambda given=given: difffp(*given),
            COMPILED: lambda given=given: compiled(*given),
            FUSED: lambda given=given: difffp(*given, fused=True),
        }
        if mode == "last_kept":  # a loop over all frames: the compiler takes minutes to unroll it
            sides.pop(COMPILED)
        work = f"difffp {mode}, {frames} x {tokens} cells"
        found.append(Case(work=work, sides=sides, check=_check, moved_bytes=cells_TMP.numel()))
    return found


def _check(expected, found) -> None:
    # A division by a number is a multiplication by its reciprocal in torch on a GPU: the last bit.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    far = (expected[0] - expected[0][expected[1]].min()).abs() > 1e-5
    assert torch.equal(found[1][far], expected[1][far])
