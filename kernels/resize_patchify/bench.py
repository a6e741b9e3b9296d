"""Resizing timed: 180 frames of 640 x 360 on the GPU to patches, and one as vl3 does it."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..timing import FUSED, REFERENCE, Case
from . import resize, resize_patchify

INTERPOLATED = "torch's interpolate, float32"  # as torchvision resizes on a GPU
PATCHES = {"patch": 14, "merge": 2}


def cases(device: str = "cuda", tiny: bool = False) -> list[Case]:
    """A clip at once; a frame there and back. Every level is read once and written once."""
    frames, height, width, rows, cols = (2, 18, 27, 2, 2) if tiny else (180, 360, 640, 14, 24)
    noise = torch.Generator().manual_seed(0)
    size = (frames, height, width, 3)
    home_TYX3 = torch.randint(0, 256, size, dtype=torch.uint8, generator=noise)
    frames_TYX3 = home_TYX3.to(device)
    small = rows * PATCHES["patch"], cols * PATCHES["patch"]

    def interpolated():
        planes = frames_TYX3.permute(0, 3, 1, 2).float()
        planes = functional.interpolate(planes, small, mode="bicubic", antialias=True)
        levels = planes.round_().clamp_(0, 255).to(torch.uint8)
        return (resize_patchify(levels.permute(0, 2, 3, 1), rows, cols, **PATCHES),)

    patched = 3 * small[0] * small[1]
    return [
        Case(
            work=f"resize_patchify of {frames} frames of {width} x {height}, on the GPU",
            sides={
                REFERENCE: lambda: (resize_patchify(home_TYX3, rows, cols, **PATCHES),),
                INTERPOLATED: interpolated,
                FUSED: lambda: (resize_patchify(frames_TYX3, rows, cols, **PATCHES, fused=True),),
            },
            check=_same,
            checks={INTERPOLATED: _close},
            moved_bytes=home_TYX3.nbytes + frames * patched,
            is_target=False,
        ),
        Case(
            work=f"resize of a frame of {width} x {height}, from and to the CPU",
            sides={
                REFERENCE: lambda: (resize(home_TYX3[:1], small)[0],),
                FUSED: lambda: (resize(home_TYX3[:1].to(device), small, fused=True)[0].cpu(),),
            },
            check=_same,
            moved_bytes=home_TYX3[0].nbytes + patched,
        ),
    ]


def odd(device: str = "cuda") -> list[Case]:
    """Sides that grow, shrink, stay, and do each in one direction; one picture very tall."""
    noise = torch.Generator().manual_seed(1)
    found = []
    for before, after in (
        ((37, 53), (28, 56)),
        ((37, 53), (84, 112)),
        ((56, 41), (56, 28)),
        ((28, 28), (28, 28)),
        ((1009, 7), (28, 28)),
    ):
        home_TYX3 = torch.randint(0, 256, (3, *before, 3), dtype=torch.uint8, generator=noise)
        sides = {
            REFERENCE: lambda x=home_TYX3, size=after: (resize(x, size),),
            FUSED: lambda x=home_TYX3, size=after: (resize(x.to(device), size, fused=True),),
        }
        work = f"resize of {before[1]} x {before[0]} to {after[1]} x {after[0]}"
        found.append(Case(work=work, sides=sides, check=_same))
    return found


def _same(expected, found) -> None:
    assert torch.equal(found[0].cpu(), expected[0]), "not PIL's levels"


def _close(expected, found) -> None:
    # It neither rounds nor clips between its passes.
    apart = (found[0].cpu().int() - expected[0].int()).abs()
    assert apart.float().mean() < 2, f"{apart.float().mean():.1f} levels apart"
