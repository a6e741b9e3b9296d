"""How things are measured: outputs compared, then one side after the other, in CPU seconds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OURS = "ours"


class Mismatch(Exception):
    """Two sides that must give the same do not: there is nothing to compare."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One workload of ours beside one peer.

    ours_s, theirs_s, ratio: p20, median, p80 over the rounds; CPU seconds of all threads and
    children. ours_wall_s, theirs_wall_s: medians. check: how the outputs agree.
    """

    work: str
    peer: str
    ours_s: tuple[float, float, float]
    theirs_s: tuple[float, float, float]
    ratio: tuple[float, float, float]
    ours_wall_s: float
    theirs_wall_s: float
    check: str


def beside(
    work: str,
    ours: Callable[[], object],
    peers: dict[str, Callable[[], object]],
    rounds: int,
    check: Callable[[object, object], str],
) -> list[Row]:
    """A row for each peer. All sides run once unmeasured, then one after the other, rounds
    times.

    check: given what ours and a peer return; says how they agree, raises Mismatch where they must
    """
    say(f"{work}: {OURS}, {', '.join(peers)}")
    expected = ours()
    checks = {name: check(expected, peer()) for name, peer in peers.items()}
    del expected
    sides = {OURS: ours, **peers}
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            times[name].append(timed(side))
    return [
        Row(
            work=work,
            peer=name,
            ours_s=spread([cpu for cpu, _ in times[OURS]]),
            theirs_s=spread([cpu for cpu, _ in times[name]]),
            ratio=spread([there[0] / here[0] for there, here in zip(times[name], times[OURS])]),
            ours_wall_s=statistics.median(wall for _, wall in times[OURS]),
            theirs_wall_s=statistics.median(wall for _, wall in times[name]),
            check=checks[name],
        )
        for name in peers
    ]


def equal_ids(ours: list[int], theirs: list[int]) -> str:
    if ours != theirs:
        raise Mismatch(f"tokens {ours} against {theirs}")
    return "same tokens"


def same_start(ours: list[int], theirs: list[int]) -> str:
    """Of answers in bfloat16: another order of sums may decide between two tokens that are near."""
    equal = [a == b for a, b in zip(ours, theirs)]
    count = equal.index(False) if False in equal else len(equal)
    if len(ours) != len(theirs) or count < len(ours) / 4:
        raise Mismatch(f"tokens {ours} against {theirs}")
    return "same tokens" if all(equal) else f"the first {count} of {len(ours)} tokens are the same"


def within(most: float):
    """A check that the relative error of two tensors is at most this."""

    def check(ours: torch.Tensor, theirs: torch.Tensor) -> str:
        error = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
        if not error <= most:
            raise Mismatch(f"relative error {error:.1e}, {most:.0e} allowed")
        return f"relative error {error:.0e}"

    return check


def unchecked(_ours, _theirs) -> str:
    return "less input"


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of one call; no garbage is collected in between."""
    gc.collect()
    gc.disable()
    try:
        cpu, wall = cpu_s(), time.perf_counter()
        call()
        return cpu_s() - cpu, time.perf_counter() - wall
    finally:
        gc.enable()


def cpu_s() -> float:
    """CPU seconds of this process, of its children that have ended, and of those that decode."""
    from vl3.video import (
        decoder,  # here, where PyAV need not be installed for what is timed elsewhere
    )

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(one.ru_utime + one.ru_stime for one in used)
    return ended + sum(_process_s(process) for process in decoder.processes())


def _process_s(process: int) -> float:
    """CPU seconds of another process, where the system tells (only Linux does)."""
    # the clock of a process, as clock_getcpuclockid gives it
    return time.clock_gettime(~process << 3 | 2) if sys.platform == "linux" else 0.0


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """p20, median and p80."""
    ordered = sorted(values)
    return (
        ordered[len(ordered) // 5],
        statistics.median(ordered),
        ordered[-1 - len(ordered) // 5],
    )


def peak_bytes(function: Callable, *arguments) -> int | None:
    """Most resident memory above the start of function(prepare's result), in a fresh process.

    With that of the process that decodes for it; pictures on their way count twice.

    function is given the arguments and returns the work to be measured as a callable. None where
    the system does not tell (only Linux does).
    """
    if sys.platform != "linux":
        return None
    return in_process(_peak, function, arguments)


def in_process(function: Callable, *arguments):
    """What a function returns in a fresh process, which gives freed memory back at once.

    Otherwise a peak would hold what the allocator keeps for later.
    """
    name = "MALLOC_MMAP_THRESHOLD_"
    kept, os.environ[name] = os.environ.get(name), "65536"
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(function, arguments)
    finally:
        os.environ.pop(name)
        if kept is not None:
            os.environ[name] = kept


def _peak(function: Callable, arguments: tuple) -> int:
    import torch

    from vl3.video import decoder

    torch.set_num_threads(1)
    work = function(*arguments)
    gc.collect()
    both = (os.getpid(), *decoder.processes())
    for process in both:
        with open(f"/proc/{process}/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
    before = sum(map(_peak_kb, both))
    work()
    return 1024 * (sum(map(_peak_kb, both)) - before)


def _peak_kb(process: int) -> int:
    with open(f"/proc/{process}/status") as file:
        return int(file.read().split("VmHWM:")[1].split()[0])


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
