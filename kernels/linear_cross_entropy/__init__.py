"""Cross-entropy of a linear head, without the logits of all tokens at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch

from ..about import About
from ..measured import winner
from . import reference
from .reference import CHUNK_TOKENS

MEASURED = winner(
    "linear_cross_entropy"
)  # where the fused kernel is at least 10 % faster, and by how much
ABOUT = About(
    formula="logsumexp(W h) - W h at the label, and whether the label has the largest logit; "
    "backward (softmax - one-hot) x gradient, by slices of the vocabulary",
    shapes="hidden [K, E], weight [V, E], labels [K], to losses [K], hits [K]",
    called_by="`vl3.language.loss`",
    agrees="float32 1e-5, sums in another order; float16 8e-3, torch rounds logits to it and here "
    "they stay float32, so a hit may differ where two logits are that close",
)

__all__ = ["ABOUT", "CHUNK_TOKENS", "MEASURED", "linear_cross_entropy"]


def linear_cross_entropy(
    hidden_KE: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels_K: torch.Tensor,
    *,
    fused: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.linear_cross_entropy; fused takes the Triton kernel, of a head's `weight`."""
    if fused:
        from .fused import linear_cross_entropy as run

        return run(hidden_KE, cast(torch.nn.Linear, head).weight, labels_K)
    return reference.linear_cross_entropy(hidden_KE, head, labels_K)
