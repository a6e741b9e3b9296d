"""Linear layers and embeddings in 8 bits: one scale a row of the weight, arithmetic as before.

For what 4 bits would hurt: vision encoder, connector, embedding and output head. A row of N inputs
becomes integers from -127 to 127 and one scale; integers up to 256 are exact in bfloat16, so a
product is the product of the rounded weight, scaled afterwards. A tied head and embedding stay one
tensor.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

STEPS = 127
FEW_ROWS = 4  # up to here torch's own product with int8 is faster on a CPU
SLICE_WEIGHTS = 1 << 25  # unpacked at a time: a head would be a gigabyte
ROUNDED_WEIGHTS = 1 << 22  # at a time, in float32


class Int8Linear(nn.Module):
    """A linear layer of rounded weights.

    Shapes: weight - int8 [N, K]; scale - [N], in the format of the arithmetic; bias - [N] or None
    """

    def __init__(self, weight_NK, scale_N, bias_N=None) -> None:
        super().__init__()
        self.weight, self.scale, self.bias = weight_NK, scale_N, bias_N
        self.out_features, self.in_features = weight_NK.shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.numel() // x.shape[-1]
        if rows <= FEW_ROWS and x.device.type == "cpu" and not x.requires_grad:
            y_RN = torch._weight_int8pack_mm(x.reshape(rows, -1), self.weight, self.scale)
            y = y_RN.view(*x.shape[:-1], -1)
        else:
            step = max(1, SLICE_WEIGHTS // self.in_features)
            parts = [F.linear(x, part.to(x.dtype)) for part in self.weight.split(step)]
            y = (parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)) * self.scale
        return y if self.bias is None else y + self.bias


class Int8Embedding(nn.Module):
    """A table of rounded rows. Shapes: weight - int8 [V, E]; scale - [V]"""

    def __init__(self, weight_VE, scale_V) -> None:
        super().__init__()
        self.weight, self.scale = weight_VE, scale_V
        self.num_embeddings, self.embedding_dim = weight_VE.shape

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scale = self.scale[ids]
        return self.weight[ids].to(scale.dtype) * scale[..., None]


@torch.no_grad()
def rounded(weight_NK: torch.Tensor) -> tuple[nn.Parameter, nn.Parameter]:
    """A weight as int8 rows and their scales, which have its format."""
    largest_N = torch.maximum(weight_NK.amax(dim=1), -weight_NK.amin(dim=1))
    scale_N = (largest_N.float() / STEPS).to(weight_NK.dtype)
    scale_N = scale_N.masked_fill(scale_N == 0, 1)
    steps = torch.empty_like(weight_NK, dtype=torch.int8)
    rows = max(1, ROUNDED_WEIGHTS // weight_NK.shape[1])
    for part, into, scale in zip(*(t.split(rows) for t in (weight_NK, steps, scale_N))):
        exact = part.to(torch.float32, copy=True).div_(scale.float()[:, None])
        into.copy_(exact.round_().clamp_(-STEPS, STEPS))
    return nn.Parameter(steps, requires_grad=False), nn.Parameter(scale_N, requires_grad=False)


def quantize_remaining(model: nn.Module) -> tuple[str, ...]:
    """Replaces the plain linear layers and embeddings of a model; the names of what it replaced.

    Layers of bitsandbytes stay, and so do those that an adapter stands on: it reads their weight.
    """
    sharing: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, nn.Embedding) and not _is_adapters(name):
            sharing.setdefault(id(module.weight), []).append(name)
    for names in sharing.values():  # one after the other: what is replaced is freed at once
        small = rounded(cast(torch.Tensor, model.get_submodule(names[0]).weight).data)
        for name in names:
            old = model.get_submodule(name)
            is_table = isinstance(old, nn.Embedding)
            new = Int8Embedding(*small) if is_table else Int8Linear(*small, old.bias)
            model.set_submodule(name, new)
    return tuple(name for names in sharing.values() for name in names)


def _is_adapters(name: str) -> bool:
    return name.endswith(".base_layer") or ".lora_" in name or ".modules_to_save." in name
