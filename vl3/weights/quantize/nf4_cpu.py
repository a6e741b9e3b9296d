"""NF4 linears on a CPU with AVX512-BF16: a fused product for few rows, one in bfloat16 for many.

bitsandbytes has a kernel for such a CPU that multiplies by packed nibbles, several times faster
than bfloat16 for one row, half as slow again as bfloat16 for 256 and more. It wants the nibbles in
an order of its own, to which bitsandbytes changes at the first forward pass, and from which it does
not come back exactly. Here a layer changes when the first few rows arrive, comes back to the very
bytes whenever its weight is read: by peft when it merges, or when a state is saved. Memory is that
of one set of bytes.

Bytes of a weight with N outputs and K inputs; h is the high half of a byte, l the low one:

    as loaded    [N, K/2]          h: column 2k, l: column 2k + 1
    packed       [N/32, K/2, 16, 2]  of 32 outputs, column 2k + t at [k, row, t]
                                   h: output 16 + row, l: output row
"""

from __future__ import annotations

from typing import Any, cast

import bitsandbytes as bnb
import torch
from torch.nn import functional as F

BLOCK_OUTPUTS = 32  # outputs that the kernel works on together
FUSED_ROWS = 128  # up to here the fused product is the faster one, on an EPYC of the Zen 4 kind
LOW_NIBBLES = 0x0F0F0F0F0F0F0F0F  # of eight bytes


class Linear4bitCPU(bnb.nn.Linear4bit):
    """bitsandbytes' layer with two ways of multiplying.

    scale_GN: bfloat16, while the bytes are packed: of each group of inputs for each output
    """

    scale_GN: torch.Tensor | None = None

    def __getattr__(self, name: str):
        if name == "weight":
            self.unpack()
        return super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training or x.requires_grad or x.device.type != "cpu":
            return super().forward(x)
        rows = x.numel() // x.shape[-1]
        x_BK = x.to(torch.bfloat16)
        y_BN = self._fused(x_BK) if rows <= FUSED_ROWS else self._plain(x_BK)
        return (y_BN if self.bias is None else y_BN + self.bias).to(x.dtype)

    def _fused(self, x_BK: torch.Tensor) -> torch.Tensor:
        self.pack()
        stored: Any = self._parameters["weight"]
        state = stored.quant_state
        return torch.ops.bitsandbytes.gemv_4bit(
            x_BK, stored.data, state.shape, self.scale_GN, state.code, state.blocksize
        )

    def _plain(self, x_BK: torch.Tensor) -> torch.Tensor:
        stored: Any = self._parameters["weight"]
        loaded = stored.data if self.scale_GN is None else unpacked(stored.data)
        weight_NK = bnb.functional.dequantize_4bit(loaded.view(-1, 1), stored.quant_state)
        return F.linear(x_BK, weight_NK.to(torch.bfloat16))

    def pack(self) -> None:
        """Brings the bytes into the kernel's order, unless they are."""
        if self.scale_GN is not None:
            return
        stored: Any = self._parameters["weight"]
        state = stored.quant_state
        scale = state.absmax
        if state.nested:
            scale = bnb.functional.dequantize_blockwise(scale, state.state2) + state.offset
        outputs, inputs = state.shape
        stored.data = packed(stored.data.view(outputs, inputs // 2))
        self.scale_GN = scale.view(outputs, -1).t().to(torch.bfloat16).contiguous()

    def unpack(self) -> None:
        """Brings the bytes into the order they were loaded in, unless they are."""
        if self.scale_GN is None:
            return
        stored: Any = self._parameters["weight"]
        stored.data = unpacked(stored.data).view(-1, 1)
        self.scale_GN = None

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        self.unpack()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _apply(self, function, recurse=True):
        self.unpack()
        return super()._apply(function, recurse)


def fits(layer: bnb.nn.Linear4bit) -> bool:
    """Whether the fused kernel can work on the sides of a layer, and in bfloat16 as it does."""
    state = cast(Any, layer.weight).quant_state
    outputs, inputs = state.shape
    return (
        layer.weight.device.type == "cpu"
        and layer.compute_dtype == torch.bfloat16
        and layer.weight.dtype == torch.uint8
        and state.quant_type == "nf4"
        and outputs % BLOCK_OUTPUTS == 0
        and inputs % state.blocksize == 0
    )


def packed(loaded_NB: torch.Tensor) -> torch.Tensor:
    """Bytes as loaded, [N, K/2], in the kernel's order; the inverse of `unpacked`."""
    outputs, half = loaded_NB.shape
    rows = loaded_NB.view(-1, 2, BLOCK_OUTPUTS // 2, half)
    low, high = rows[:, 0], rows[:, 1]
    even = (high & 0xF0) | (low >> 4)
    odd = (high << 4) | (low & 0x0F)
    return torch.stack([even, odd], dim=-1).transpose(1, 2).contiguous().view(outputs, half)


def unpacked(packed_NB: torch.Tensor) -> torch.Tensor:
    """Bytes in the kernel's order as they were loaded, [N, K/2].

    Eight bytes at a time, and both columns of an output moved as one number: this is on the way of
    every prompt.
    """
    outputs, half = packed_NB.shape
    both = packed_NB.view(torch.int16).view(-1, half, BLOCK_OUTPUTS // 2)
    both = both.transpose(1, 2).contiguous()
    even = both.to(torch.uint8).view(torch.int64)
    odd = both.bitwise_right_shift_(8).to(torch.uint8).view(torch.int64)
    crossed = (odd >> 4).bitwise_xor_(even).bitwise_and_(LOW_NIBBLES)  # what the two exchange
    rows = torch.empty(outputs // BLOCK_OUTPUTS, 2, *even.shape[1:], dtype=torch.int64)
    torch.bitwise_xor(even, crossed, out=rows[:, 1])
    torch.bitwise_xor(odd, crossed.bitwise_left_shift_(4), out=rows[:, 0])
    return rows.view(torch.uint8).view(outputs, half)
