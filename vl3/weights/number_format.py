"""The number format of a model's arithmetic: what the device computes fast, and why that one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import psutil
import torch
from torch.nn import functional as F

from vl3.arguments import choice
from vl3.units import format_bytes

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGE = 500_000_000  # parameters from which a CPU's format is worth choosing
# The linear that is timed: as many rows as a frame has patches, wide enough to be bound by
# arithmetic as a model's are. A processor with bfloat16 products is 3 - 4 times faster in it, one
# without 4 - 8 times slower; 5 rounds take 0.02 s and 0.25 s.
ROWS, WIDTH, ROUNDS = 128, 1024, 5


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """A format and one clause that says why."""

    dtype: torch.dtype
    why: str

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}: {self.why}"


def pick_dtype(
    dtype: str | torch.dtype,
    device: torch.device,
    parameters: int,
    quantize: str | None = None,
) -> torch.dtype:
    """The number format asked for, or for "auto" the one that suits device, size and memory.

    Raises: ValueError for a name that is none.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if choice("dtype", dtype, ("auto", *FORMATS)) != "auto":
        return FORMATS[dtype]
    return suited(device, parameters, quantize).dtype


def suited(device: torch.device, parameters: int, quantize: str | None = None) -> NumberFormat:
    """What "auto" takes for a model of so many parameters on this device."""
    if device.type != "cpu":
        return NumberFormat(torch.bfloat16, f"as on every {device.type} device")
    if parameters < LARGE:
        return NumberFormat(torch.float32, "the model is small")
    ratio = bfloat16_time()
    if ratio <= 1:
        return NumberFormat(
            torch.bfloat16,
            f"this processor multiplies it {1 / ratio:.1f} times as fast as float32",
        )
    slower = f"bfloat16 takes {ratio:.1f} times as long as float32 on this processor"
    takes, free = parameters * torch.float32.itemsize, psutil.virtual_memory().available
    if quantize is None and takes > free:
        return NumberFormat(
            torch.bfloat16,
            f"{slower}, but float32 takes {format_bytes(takes)} and {format_bytes(free)} are free; "
            "nf4 is smaller and faster",
        )
    return NumberFormat(torch.float32, slower)


@cache
def bfloat16_time() -> float:
    """Time of a linear layer over many rows in bfloat16, as a ratio to float32, on this CPU.

    Timed and not read from flags of the processor, so that it holds for processors of every make,
    and for what torch and oneDNN do with them. The best of a few alternating rounds, so that
    neither a first call nor a busy machine decides.
    """
    best = {torch.bfloat16: float("inf"), torch.float32: float("inf")}
    sides = {
        dtype: (torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype))
        for dtype in best
    }
    with torch.no_grad():
        for _ in range(ROUNDS):
            for dtype, (x_ND, weight_ED) in sides.items():
                started = time.perf_counter()
                F.linear(x_ND, weight_ED)
                best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.bfloat16] / best[torch.float32]
