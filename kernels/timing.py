"""How the kernels are timed on a GPU: outputs compared first, then each side by do_bench.

Nothing here has run on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

REFERENCE, COMPILED, FUSED = "reference", "compiled", "fused"
COPIED_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One workload: its sides by name, and what it has to move or compute at least.

    check: given the outputs of the reference and of another side; raises AssertionError where they
    do not agree; checks: in its place for a side of that name
    """

    work: str
    sides: dict[str, Callable[[], object]]
    check: Callable[[object, object], None]
    checks: dict[str, Callable[[object, object], None]] = field(default_factory=dict)
    moved_bytes: int = 0
    flops: int = 0

    def compare(self) -> None:
        """Raises AssertionError where a side does not give what the reference gives."""
        expected = self.sides[REFERENCE]()
        for name, side in self.sides.items():
            if name != REFERENCE:
                self.checks.get(name, self.check)(expected, side())


def three_sides(way: Callable, operation: Callable, compiled: Callable) -> dict[str, Callable]:
    """The sides of a case: what a way to use the operation makes of each of its versions."""
    return {
        REFERENCE: way(operation),
        COMPILED: way(compiled),
        FUSED: way(operation, fused=True),
    }


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on this GPU."""
    from triton.testing import do_bench

    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / (do_bench(lambda: target.copy_(source), return_mode="median") * 1e-3)


def times_ms(case: Case) -> dict[str, tuple[float, float, float]]:
    """Median, p20 and p80 of each side, whose outputs are compared first."""
    from triton.testing import do_bench

    case.compare()
    return {
        name: tuple(do_bench(side, quantiles=[0.5, 0.2, 0.8])) for name, side in case.sides.items()
    }


def gain(times: dict[str, tuple[float, float, float]]) -> float:
    """How many times faster the fused side is than the reference, by their medians."""
    return times[REFERENCE][0] / times[FUSED][0]


def lines(case: Case, times: dict[str, tuple[float, float, float]], copied: float) -> list[str]:
    """A row of a table for each side of a case.

    copied: bytes a second of a copy, of which the achieved bandwidth is given as a share
    """
    reference_ms = times[REFERENCE][0]
    return [
        _row(case, name, times[name], reference_ms, copied, peak_bytes(side))
        for name, side in case.sides.items()
    ]


def _row(case: Case, name, times_ms, reference_ms, copied, peak) -> str:
    median, low, high = times_ms
    rate = "-"
    if case.moved_bytes:
        moved = case.moved_bytes / (median * 1e-3)
        rate = f"{moved / 1e9:.0f} GB/s, {moved / copied:.0%} of a copy"
    elif case.flops:
        rate = f"{case.flops / (median * 1e-3) / 1e12:.1f} TFLOP/s"
    times = f"{1e3 * median:.1f} ({1e3 * low:.1f} - {1e3 * high:.1f})"
    gain = f"{reference_ms / median:.2f}"
    return f"| {case.work} | {name} | {times} | {gain} | {rate} | {peak / 1e6:.1f} |"


HEADER = (
    "| work | side | us: median (p20 - p80) | x reference | rate | memory above the start, MB |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def peak_bytes(side: Callable[[], object]) -> int:
    """Most memory of the GPU that one call took above what was taken before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
