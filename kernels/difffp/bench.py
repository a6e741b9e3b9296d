"""DiffFP timed: 180 frames of 640 x 360, the paper's plan, as levels."""

from __future__ import annotations

import torch

from ..timing import COMPILED, FUSED, REFERENCE, Case, odd_kinds
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
    # Frames are decoded on the CPU, and whether it pays to move them is another question.
    home_TMP, official = cells_TMP.cpu(), (patch_values, THRESHOLDS["official"], "official")
    sides = {
        REFERENCE: lambda: difffp(home_TMP, *official),
        FUSED: lambda: _home(difffp(home_TMP.to(device), *official, fused=True)),
    }
    work = f"difffp official, {frames} x {tokens} cells from and to the CPU"
    moved = cells_TMP.numel()
    return [
        *found,
        Case(work=work, sides=sides, check=_check, moved_bytes=moved, is_target=False),
    ]


def odd(device: str = "cuda") -> list[Case]:
    """Odd shapes of levels and of floats, which the reference gets in float32: the kernel computes
    in it, and the sum is in another order."""
    noise = torch.Generator().manual_seed(1)
    found = []
    for kind in (torch.uint8, *odd_kinds(device)):
        cells_TMP = torch.randint(0, 256, (11, 5, 4 * 27), generator=noise)
        if kind != torch.uint8:
            cells_TMP = cells_TMP / 127.5 - 1
        cells_TMP = cells_TMP.to(device, kind)
        cells_TMP[1::3] = cells_TMP[::3]
        exact_TMP = cells_TMP if kind == torch.uint8 else cells_TMP.float()
        for mode, threshold in THRESHOLDS.items():
            given = 27, threshold, mode
            sides = {
                REFERENCE: lambda x=exact_TMP, given=given: difffp(x, *given),
                FUSED: lambda x=cells_TMP, given=given: difffp(x, *given, fused=True),
            }
            name = str(kind).removeprefix("torch.")
            found.append(Case(work=f"difffp {mode}, {name}", sides=sides, check=_check_odd))
    return found


def _home(parts) -> tuple:
    return tuple(part.cpu() for part in parts)


def _check_odd(expected, found) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[2], expected[2])


def _check(expected, found) -> None:
    # A division by a number is a multiplication by its reciprocal in torch on a GPU: the last bit.
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    far = (expected[0] - expected[0][expected[1]].min()).abs() > 1e-5
    assert torch.equal(found[1][far], expected[1][far])
