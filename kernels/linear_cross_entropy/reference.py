"""Head and cross-entropy in plain torch. This is the definition; fused.py must agree with it.

Logits are the largest tensor of a training step (tokens x 152 k x 4 bytes). They exist for
CHUNK_TOKENS at a time, and the backward pass computes them again instead of keeping them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 1024


def linear_cross_entropy(
    hidden_KE: torch.Tensor,
    head: Callable[[torch.Tensor], torch.Tensor],
    labels_K: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every token, and whether its label was the likeliest one.

    head: from hidden states to logits, a linear layer
    Shapes: labels_K - ids of the vocabulary
            returns losses_K float32, right_K bool; of equal logits the first is the likeliest
    """
    losses, right = [], []
    for part_KE, part_K in zip(hidden_KE.split(CHUNK_TOKENS), labels_K.split(CHUNK_TOKENS)):
        loss_K, right_K = checkpoint(_part, head, part_KE, part_K, use_reentrant=False)
        losses.append(loss_K)
        right.append(right_K)
    return torch.cat(losses), torch.cat(right)


def _part(head, hidden_KE: torch.Tensor, labels_K: torch.Tensor):
    logits_KV = head(hidden_KE).float()
    right_K = logits_KV.detach().argmax(dim=-1) == labels_K
    return F.cross_entropy(logits_KV, labels_K, reduction="none"), right_K
