"""A linear layer in NF4 beside the same layer in bfloat16, at growing numbers of rows."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from train_cli.bench.measure import Row, beside
from train_cli.bench.models import within

WIDTH, MLP = 1536, 8960  # of the 2B model
ROWS = (1, 16, 64, 256, 1024)
NF4_ERROR = 0.15  # rounding to 16 values costs about 0.09 of the norm


def nf4(rounds: int, width: int = WIDTH, mlp: int = MLP) -> list[Row]:
    """Empty where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return []
    import bitsandbytes as bnb

    torch.manual_seed(0)
    plain = nn.Linear(width, mlp, bias=False, dtype=torch.bfloat16)
    packed = bnb.nn.Linear4bit(
        width, mlp, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
    )
    packed.weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4")
    packed = packed.to("cpu").eval()
    found = []
    with torch.no_grad():
        for rows in ROWS:
            x = torch.randn(rows, width, dtype=torch.bfloat16)
            repeats = max(1, 64 // rows)  # a single row takes less than the clock can tell
            found += beside(
                f"NF4 linear {width} x {mlp}, {rows} rows",
                lambda x=x, n=repeats: _many(packed, x, n),
                {"bfloat16": lambda x=x, n=repeats: _many(plain, x, n)}, rounds, within(NF4_ERROR),
            )  # fmt: skip
    return found


def _many(layer: nn.Module, x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        y = layer(x)
    return y
