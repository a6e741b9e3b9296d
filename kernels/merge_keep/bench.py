"""Merging and keeping timed: 180 frames of 12 x 28 patches, half of the tokens kept."""

from __future__ import annotations

import torch

from ..timing import FUSED, REFERENCE, Case, odd_kinds, three_sides
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


def odd(device: str = "cuda") -> list[Case]:
    """Clips of three merge sizes and a width that fills no block; kept by mask and by number, with
    one token twice. The reference gets float32 and is rounded once, as the kernel rounds."""
    noise = torch.Generator().manual_seed(1)
    clips, width = ((7, 2), (5, 1), (3, 3)), 77
    patches, tokens = sum(count * m * m for count, m in clips), sum(count for count, _ in clips)
    mask = torch.rand(tokens, generator=noise).to(device) > 0.4
    keeps = {"all": None, "a mask": mask, "numbers": torch.tensor([3, 3, 0, 14, 9], device=device)}
    found = []
    for kind in odd_kinds(device):
        x_ND = torch.randn(patches, width, generator=noise).to(device, kind)
        for name, keep in keeps.items():

            def both(fused: bool, x_ND=x_ND, keep=keep):
                leaf = (x_ND if fused else x_ND.float()).detach().requires_grad_()
                merged = merge_keep(leaf, clips, keep, fused=fused)
                (grad,) = torch.autograd.grad(merged.square().sum(), leaf)
                return merged.detach().to(x_ND.dtype), grad.to(x_ND.dtype)

            sides = {
                REFERENCE: lambda both=both: both(False),
                FUSED: lambda both=both: both(True),
            }
            work = f"merge_keep of {name}, {str(kind).removeprefix('torch.')}"
            found.append(Case(work=work, sides=sides, check=_check))
    return found


def _check(expected, found) -> None:
    for here, there in zip(expected, found):
        torch.testing.assert_close(there, here, rtol=2e-2, atol=1e-5)  # roundings to bfloat16
