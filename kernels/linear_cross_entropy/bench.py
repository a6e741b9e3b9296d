"""Head and cross-entropy timed: 4096 learned tokens before the head of Qwen2.5-1.5B."""

from __future__ import annotations

import torch
from torch import nn

from ..timing import FUSED, REFERENCE, Case
from . import linear_cross_entropy


def cases(device: str = "cuda", tiny: bool = False) -> list[Case]:
    """Forward alone and with backward: one and three matrix products, recomputing not counted.

    The reference is not compiled: it computes its logits again in the backward pass on purpose.
    """
    tokens, vocabulary, width = (5, 40, 8) if tiny else (4096, 151_936, 1536)
    kind = torch.float32 if tiny else torch.bfloat16
    noise = torch.Generator().manual_seed(0)
    hidden_KE = torch.randn(tokens, width, generator=noise).to(device, kind).requires_grad_()
    head = nn.Linear(width, vocabulary, bias=False, device=device, dtype=kind)
    with torch.no_grad():
        head.weight.copy_(torch.randn(vocabulary, width, generator=noise) * 0.02)
    labels_K = torch.randint(0, vocabulary, (tokens,), generator=noise).to(device)
    given = hidden_KE, head, labels_K

    def forward(**options):
        def losses():
            with torch.no_grad():
                return (linear_cross_entropy(*given, **options)[0],)

        return losses

    def both(**options):
        def gradients():
            loss = linear_cross_entropy(*given, **options)[0].mean()
            return torch.autograd.grad(loss, (hidden_KE, head.weight))

        return gradients

    product = 2 * tokens * vocabulary * width
    work = f"linear_cross_entropy of {tokens} tokens"
    ways = (("forward", forward, 1), ("forward and backward", both, 3))
    return [
        Case(
            work=f"{work}, {name}",
            sides={REFERENCE: way(), FUSED: way(fused=True)},
            check=_check,
            flops=products * product,
        )
        for name, way, products in ways
    ]


def _check(expected, found) -> None:
    for here, there in zip(expected, found):
        # Against the largest value: the reference rounds logits and their gradients to bfloat16.
        error = (there.float() - here.float()).abs().max() / here.float().abs().max()
        assert error < 2e-2, f"relative error {error:.1e}"
