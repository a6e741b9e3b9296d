"""Merging and keeping timed: 180 frames of 12 x 28 patches, half of the tokens kept."""

from __future__ import annotations

import torch

from ..timing import Case, three_sides
from . import merge_keep


def cases(device: str = "cuda", tiny: bool = False) -> list[Case]:
    """Forward, and backward; the patches of kept tokens are read once, or all written once."""
    tokens, width = (9, 8) if tiny else (180 * 84, 1152)
    kind = torch.float32 if tiny else torch.bfloat16
    noise = torch.Generator().manual_seed(0)
    x_ND = torch.randn(4 * tokens, width, generator=noise).to(device, kind)
    # As numbers: how many a mask holds is known only by waiting for the GPU, on every side.
    keep = (torch.rand(tokens, generator=noise) > 0.5).nonzero()[:, 0].to(device)
    grad = torch.randn(len(keep), width, generator=noise).to(device, kind)
    clips = ((tokens, 2),)
    compiled = torch.compile(merge_keep) if device == "cuda" else merge_keep

    def forward(side, **options):
        return lambda: (side(x_ND, clips, keep, **options),)

    def backward(side, **options):
        leaf = x_ND.clone().requires_grad_()
        merged = side(leaf, clips, keep, **options)
        return lambda: torch.autograd.grad(merged, leaf, grad, retain_graph=True)

    work = f"merge_keep of {len(keep)} in {tokens} tokens"
    moved = {"forward": 5 * grad.nbytes, "backward": grad.nbytes + x_ND.nbytes}
    return [
        Case(
            work=f"{work}, {name}",
            sides=three_sides(way, merge_keep, compiled),
            check=_check,
            moved_bytes=moved[name],
        )
        for name, way in (("forward", forward), ("backward", backward))
    ]


def _check(expected, found) -> None:
    for here, there in zip(expected, found):
        torch.testing.assert_close(there, here, rtol=2e-2, atol=1e-5)  # roundings to bfloat16
