"""2D-RoPE timed: one layer of the released encoder, 180 frames of 12 x 28 patches."""

from __future__ import annotations

import torch

from ..timing import FUSED, REFERENCE, Case, odd_kinds, three_sides
from . import rotate


def cases(device: str = "cuda", tiny: bool = False) -> list[Case]:
    """Forward in place, and backward; q and k have to be read and written once."""
    frames, length, heads, channels = (2, 6, 2, 8) if tiny else (180, 336, 16, 72)
    kind = torch.float32 if tiny else torch.bfloat16
    noise = torch.Generator().manual_seed(0)
    size = (frames * length, heads, channels)
    q, k, grad = (torch.randn(size, generator=noise).to(device, kind) for _ in range(3))
    angle_NR = (torch.rand(length, channels // 2, generator=noise) * 28).to(device)
    runs = ((frames, length, angle_NR),)
    compiled = torch.compile(rotate) if device == "cuda" else rotate

    def forward(side, **options):
        # The fused one turns q and k on and on where they are: a copy would be timed too.
        return lambda: side(q, k, runs, **options)

    def backward(side, **options):
        leaves = q.clone().requires_grad_(), k.clone().requires_grad_()
        turned = side(*leaves, runs, **options)
        return lambda: torch.autograd.grad(turned, leaves, (grad, grad), retain_graph=True)

    moved = 4 * q.nbytes
    work = f"rope2d of {frames} x {length} patches"
    return [
        Case(
            work=f"{work}, {name}",
            sides=three_sides(way, rotate, compiled),
            check=_check,
            moved_bytes=moved,
        )
        for name, way in (("forward", forward), ("backward", backward))
    ]


def odd(device: str = "cuda") -> list[Case]:
    """Runs of three sizes, and q and k as they lie in one tensor of q, k and v, rows apart."""
    noise = torch.Generator().manual_seed(1)
    sizes, heads, channels = ((3, 7), (2, 12), (1, 1)), 3, 72
    runs = tuple(
        (t, n, (torch.rand(n, channels // 2, generator=noise) * 28).to(device)) for t, n in sizes
    )
    patches = sum(t * n for t, n in sizes)
    found = []
    for kind in odd_kinds(device):
        joined = torch.randn(patches, 3 * heads, channels, generator=noise).to(device, kind)
        push = torch.randn(patches, 2 * heads, channels, generator=noise).to(device, kind)
        for learns in (False, True):

            def turned(fused: bool, joined=joined, push=push, learns=learns):
                leaf = joined.clone().requires_grad_(learns)
                q, k, _ = leaf.split(heads, dim=1)
                both = rotate(q, k, runs, fused=fused)
                if not learns:
                    return both
                return torch.autograd.grad(both, leaf, (push[:, :heads], push[:, heads:]))

            sides = {
                REFERENCE: lambda turned=turned: turned(False),
                FUSED: lambda turned=turned: turned(True),
            }
            name = str(kind).removeprefix("torch.")
            work = f"rope2d{' and back' if learns else ''}, {name}"
            found.append(Case(work=work, sides=sides, check=_check))
    return found


def _check(expected, found) -> None:
    for here, there in zip(expected, found):
        torch.testing.assert_close(there, here, rtol=1e-2, atol=1e-5)  # one rounding to bfloat16
