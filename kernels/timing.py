"""How the kernels are timed: outputs compared first, then each side by Triton's do_bench.

On a CPU, under Triton's interpreter, the same is gone through once and the times say nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch

REFERENCE, COMPILED, FUSED = "reference", "compiled", "fused"

Spread = tuple[float, float, float]  # p20, median, p80


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One workload: its sides by name, and what it has to move or compute at least.

    check: given the outputs of the reference and of another side; raises AssertionError where they
    do not agree; checks: in its place for a side of that name
    is_target: whether vl3 does this work where it takes the kernel by itself
    """

    work: str
    sides: dict[str, Callable[[], object]]
    check: Callable[[object, object], None]
    checks: dict[str, Callable[[object, object], None]] = field(default_factory=dict)
    moved_bytes: int = 0
    flops: int = 0
    is_target: bool = True

    def compare(self, names: Collection[str] | None = None) -> None:
        """Raises AssertionError where a side does not give what the reference gives.

        names: of the sides to look at; None for all
        """
        expected = self.sides[REFERENCE]()
        for name, side in self.sides.items():
            if name != REFERENCE and (names is None or name in names):
                self.checks.get(name, self.check)(expected, side())


def three_sides(way: Callable, operation: Callable, compiled: Callable) -> dict[str, Callable]:
    """The sides of a case: what a way to use the operation makes of each of its versions, when it
    is called first. So nothing is compiled that nobody asks for."""
    return {
        REFERENCE: _when_called(way, operation),
        COMPILED: _when_called(way, compiled),
        FUSED: _when_called(way, operation, fused=True),
    }


def _when_called(way: Callable, *given, **options) -> Callable[[], object]:
    made: list[Callable] = []

    def side() -> object:
        if not made:
            made.append(way(*given, **options))
        return made[0]()

    return side


def odd_kinds(device: str) -> Sequence[torch.dtype]:
    """Formats in which odd shapes are compared. Triton's interpreter computes bfloat16 wrongly and
    says nothing, so on a CPU float16 takes its place."""
    return torch.float32, torch.float16 if device == "cpu" else torch.bfloat16


def times_ms(side: Callable[[], object], device: str = "cuda") -> Spread:
    """p20, median and p80 of the milliseconds of a side."""
    if device == "cpu":
        started = time.perf_counter()
        side()
        return (1e3 * (time.perf_counter() - started),) * 3
    from triton.testing import do_bench

    low, median, high = do_bench(side, quantiles=[0.2, 0.5, 0.8])
    return low, median, high


def peak_bytes(side: Callable[[], object], device: str = "cuda") -> int | None:
    """Most memory of the GPU that one call took above what was taken before; None on a CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
