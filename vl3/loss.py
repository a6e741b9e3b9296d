"""The training loss: cross-entropy of the learned tokens alone, a slice of them at a time.

Logits are the largest tensor of a training step (tokens x 152 k x 4 bytes), and most of them belong
to prompts and pictures that nobody learns. Only answers get logits here, CHUNK_TOKENS at a time,
and the backward pass computes them again instead of keeping them.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vl3.values import IGNORE

CHUNK_TOKENS = 1024


def answer_losses(
    hidden_BLE: torch.Tensor, labels_BL: torch.Tensor, head: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every learned token, and whether it was the likeliest one.

    Shapes: hidden_BLE - last hidden states; labels_BL - token ids, IGNORE where nothing is learned;
                         the state before a token predicts it
            returns losses_K float32, right_K bool - learned tokens in reading order
    """
    learned_BL = labels_BL[:, 1:] != IGNORE
    hidden_KE, labels_K = hidden_BLE[:, :-1][learned_BL], labels_BL[:, 1:][learned_BL]
    losses, right = [], []
    for part_KE, part_K in zip(hidden_KE.split(CHUNK_TOKENS), labels_K.split(CHUNK_TOKENS)):
        loss_K, right_K = checkpoint(_part, head, part_KE, part_K, use_reentrant=False)
        losses.append(loss_K)
        right.append(right_K)
    return torch.cat(losses), torch.cat(right)


def _part(head: nn.Module, hidden_KE: torch.Tensor, labels_K: torch.Tensor):
    logits_KV = head(hidden_KE).float()
    right_K = logits_KV.detach().argmax(dim=-1) == labels_K
    return F.cross_entropy(logits_KV, labels_K, reduction="none"), right_K
