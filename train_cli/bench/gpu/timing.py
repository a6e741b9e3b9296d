"""Seconds, bytes and ceilings on a device; the same functions serve a CPU, which has no peak."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from train_cli.bench.gpu.record import Rate
from train_cli.bench.measure import spread

PRODUCT_SIDE, COPIED_BYTES = 8192, 1 << 30
TINY_SIDE, TINY_BYTES = 128, 1 << 16
ROUNDS, WARM_UPS, AT_ONCE = 5, 2, 10


def wait(device: str) -> None:
    """Until the device has done all that it was asked to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def once_s(call: Callable[[], object], device: str) -> float:
    """Wall seconds of one call, to the end of what it asked the device for."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


def timed_s(
    call: Callable[[], object], device: str, rounds: int = ROUNDS, warm_ups: int = WARM_UPS
) -> tuple[float, float, float]:
    """p20, median and p80 of the wall seconds of a call, after some that do not count: the first
    ones choose algorithms, compile and allocate."""
    for _ in range(warm_ups):
        call()
    return spread([once_s(call, device) for _ in range(rounds)])


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device gives at best: operations a second in bfloat16, bytes a second read and
    written by a copy."""

    flops: float
    bytes: float

    def rows(self) -> list[Rate]:
        return [
            Rate(work="product of matrices, bfloat16", per_s=self.flops / 1e12, unit="TFLOP/s"),
            Rate(work="copy, read and written", per_s=self.bytes / 1e9, unit="GB/s"),
        ]


@cache
def ceilings(device: str, tiny: bool = False) -> Ceilings:
    """Measured by a large product and a large copy of random numbers: zeros are multiplied faster
    than anything else is."""
    side, size = (TINY_SIDE, TINY_BYTES) if tiny else (PRODUCT_SIDE, COPIED_BYTES)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def multiply() -> None:
        for _ in range(AT_ONCE):
            torch.mm(a, b, out=product)

    def copy() -> None:
        for _ in range(AT_ONCE):
            target.copy_(source)

    return Ceilings(
        flops=AT_ONCE * 2 * side**3 / timed_s(multiply, device)[1],
        bytes=AT_ONCE * 2 * size / timed_s(copy, device)[1],
    )


def start_peak(device: str) -> None:
    """Forgets what was held at most; memory that nothing refers to goes back to the device, models
    that only their own trainers and caches refer to as well."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """The most that tensors held at once since start_peak; None on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def reserved(device: str) -> str:
    """What torch took of the card for that, which a cap is a bound of, as the end of a sentence."""
    return f", {torch.cuda.max_memory_reserved() / 1e9:.2f} GB reserved" if device == "cuda" else ""


def cap(device: str, size_bytes: float | None) -> None:
    """Lets torch take no more of the card than so much, or all of it; nothing on a CPU.

    A larger share than the whole is refused by torch, and what is held already stays.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (size_bytes or total) / total))
