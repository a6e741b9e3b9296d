"""Head and cross-entropy timed: 4096 learned tokens before the head of Qwen2.5-1.5B."""

from __future__ import annotations

import torch
from torch import nn

from ..timing import FUSED, REFERENCE, Case, odd_kinds
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


def odd(device: str = "cuda") -> list[Case]:
    """Sizes that fill no tile; the reference gets float32, in which the kernel adds up."""
    noise = torch.Generator().manual_seed(1)
    tokens, vocabulary, width = 131, 1009, 200
    labels_K = torch.randint(0, vocabulary, (tokens,), generator=noise).to(device)
    hidden_KE = torch.randn(tokens, width, generator=noise)
    weight_VE = torch.randn(vocabulary, width, generator=noise) * 0.2
    found = []
    for kind in odd_kinds(device):
        given = [part.to(device, kind) for part in (hidden_KE, weight_VE)]

        def gradients(fused: bool, given=given):
            leaves = [part if fused else part.float() for part in given]
            leaves = [part.detach().requires_grad_() for part in leaves]
            head = nn.Linear(width, vocabulary, bias=False, device="meta")
            head.weight = nn.Parameter(leaves[1])
            losses_K, right_K = linear_cross_entropy(leaves[0], head, labels_K, fused=fused)
            grads = torch.autograd.grad(losses_K.mean(), (leaves[0], head.weight))
            return losses_K, right_K.float(), *grads

        sides = {
            REFERENCE: lambda gradients=gradients: gradients(False),
            FUSED: lambda gradients=gradients: gradients(True),
        }
        exact = kind == torch.float32
        name = str(kind).removeprefix("torch.")
        check = _check_exact if exact else _check_rounded
        found.append(Case(work=f"linear_cross_entropy, {name}", sides=sides, check=check))
    return found


def _check_exact(expected, found) -> None:
    for here, there in zip(expected, found):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


def _check_rounded(expected, found) -> None:
    losses, right, *grads = zip(expected, found)
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(*right)
    _check([here for here, _ in grads], [there for _, there in grads])


def _check(expected, found) -> None:
    for here, there in zip(expected, found):
        # Against the largest value: the reference rounds logits and their gradients to bfloat16.
        error = (there.float() - here.float()).abs().max() / here.float().abs().max()
        assert error < 2e-2, f"relative error {error:.1e}"
