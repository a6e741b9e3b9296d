"""The training loss: cross-entropy of the learned tokens alone, a slice of them at a time.

Logits are the largest tensor of a training step, and most of them belong to prompts and pictures
that are not learned. Only answers get logits here, and never all of them at once; see
kernels/linear_cross_entropy/reference.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vl3 import ops
from vl3.values import IGNORE


def answer_losses(
    hidden_BLE: torch.Tensor,
    labels_BL: Any,
    head: nn.Module,
    next_BL: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every learned token, and whether it was the likeliest one.

    Shapes: hidden_BLE - last hidden states; labels_BL - token ids, IGNORE where nothing is learned;
                         the state before a token predicts it
            next_BL - labels already moved by one, each beside the state that predicts it, instead
            returns losses_K float32, right_K bool - learned tokens in reading order
    """
    if next_BL is None:
        hidden_BLE, next_BL = hidden_BLE[:, :-1], labels_BL[:, 1:]
    learned_BL = next_BL != IGNORE
    return ops.linear_cross_entropy(hidden_BLE[learned_BL], head, next_BL[learned_BL])
