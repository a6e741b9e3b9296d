"""Muon in float32: momentum whose update is made orthogonal, for the matrices of a small model.

torch.optim.Muon does its arithmetic in bfloat16, which a CPU without bfloat16 instructions computes
about thirty times slower than float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch

# Coefficients of the quintic Newton-Schulz step of K. Jordan, "Muon: an optimizer for hidden
# layers in neural networks".
QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; equal shapes are stacked and treated together.

    lr is the spectral size of an update, times sqrt(rows / cols) for a tall matrix. A tensor of
    more dimensions (a patch embedding) counts as the matrix of its first dimension and the others.
    """

    def __init__(
        self,
        params: Iterable[torch.nn.Parameter] | Iterable[dict],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"iterations": iterations})

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]  # nothing is evaluated anew
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for param in group["params"]:
                if param.grad is not None:
                    by_shape.setdefault(param.shape, []).append(param)
            for params in by_shape.values():
                self._update(params, group)

    def _update(self, params: list[torch.nn.Parameter], group: dict) -> None:
        momentum, lr = group["momentum"], group["lr"]
        directions = []
        for param in params:
            state, grad = self.state[param], cast(torch.Tensor, param.grad)
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(grad)
            state["momentum"].lerp_(grad, 1 - momentum)
            directions.append(grad.lerp(state["momentum"], momentum).flatten(1))
        turned = orthogonal(torch.stack(directions), group["iterations"])
        for param, direction in zip(params, turned, strict=True):
            param.mul_(1 - lr * group["weight_decay"])
            rows, cols = direction.shape
            param.add_(direction.view_as(param), alpha=-lr * max(1.0, rows / cols) ** 0.5)


def orthogonal(matrices_KRC: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Nearly the closest semi-orthogonal matrix of each of K matrices: singular values near 1."""
    x = matrices_KRC
    wide = x.shape[-2] <= x.shape[-1]
    if not wide:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT
