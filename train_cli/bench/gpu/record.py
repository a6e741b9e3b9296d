"""What a run on a GPU found out, as lines of JSON that are written as they become known.

    {"run": {"card": ..., "commit": ..., "date": ...}}        a run begins
    {"step": "encoder", "row": {"kind": "speed", ...}}        a figure
    {"step": "encoder", "ended": "done", "why": "", ...}      a step has ended

So a run that is cut off at any moment leaves what it has, and a later run goes on in the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from train_cli.bench.measure import say

DONE, FAILED, LATE, SKIPPED, CUT_OFF = "done", "failed", "late", "skipped", "cut off"
# Runs whose figures may stand on one page agree in these.
SAME = ("card", "driver", "python", "torch", "cuda", "triton", "transformers", "tiny")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """Something that must hold, whether it does, and in which words."""

    work: str
    ok: bool
    said: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """A part of a step that was left out, and why."""

    work: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A ceiling of the card, measured."""

    work: str
    per_s: float
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One side of a workload, in seconds: p20, median, p80.

    ratio: how many times as long as the first side of the same work took, 1 for that one
    share: of the card's measured ceiling, of arithmetic or of memory; None where it says nothing
    """

    work: str
    side: str
    s: tuple[float, float, float]
    ratio: float
    share: float | None = None
    said: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The most that was held at once, beside the estimate; None where nothing counts it.

    cap_gb: what the allocator was allowed; said: of what, and how fast
    """

    work: str
    estimate_bytes: float
    peak_bytes: float | None
    cap_gb: float | None = None
    said: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One side of a workload of a fused kernel, in milliseconds: p20, median, p80.

    gain: how many times as fast as the reference; share: of the measured ceiling
    is_target: whether vl3 does this work, so that it decides
    """

    operation: str
    work: str
    side: str
    ms: tuple[float, float, float]
    gain: float
    share: float
    peak_bytes: int | None
    is_target: bool


Row = Check | Skip | Rate | Speed | Memory | Kernel


def as_values(row: Row) -> dict:
    """A row as what JSON holds, with the name of its class as its kind."""
    return {"kind": type(row).__name__.lower(), **asdict(row)}


@dataclass(slots=True)
class Step:
    """What is known of a step: its rows as values, how it ended, of which run.

    trace: the end of a traceback, where it failed
    """

    rows: list[dict] = field(default_factory=list)
    ended: str = CUT_OFF
    why: str = ""
    s: float | None = None
    trace: str = ""
    run: dict = field(default_factory=dict)


class Record:
    """A file that lines are added to.

    Raises: ValueError for a file that holds something else, OSError where it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: list[dict] = []  # of this run
        if path is None:
            return
        before = path.read_bytes() if path.exists() else b""
        whole = before[: before.rfind(b"\n") + 1]  # less a line that was cut off
        read_lines(whole.decode("utf-8", "replace"), path)
        if before and not whole:
            raise ValueError(f"{path} holds something else; choose another file, or remove it")
        with path.open("wb" if whole != before else "ab") as file:
            if whole != before:
                file.write(whole)

    def add(self, **values) -> None:
        self.lines.append(values)
        if self.path is None:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:  # a disk that is full now: what is found is printed as well
            say(f"{self.path} was not written: {error.strerror}")


def read_lines(text: str, path: Path) -> list[dict]:
    """The lines of such a file; a last one that was cut off is left out.

    Raises: ValueError in one sentence.
    """
    found = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
        except ValueError as error:
            if number == len(lines) > 1 and not line.endswith("\n"):
                break
            raise ValueError(
                f"line {number} of {path} is no figure of a run on a GPU ({error}); give a file "
                "that bench --gpu --json wrote"
            ) from error
        if not isinstance(values, dict) or not values.keys() & {"run", "step"}:
            raise ValueError(
                f"line {number} of {path} is no figure of a run on a GPU; give a file that "
                "bench --gpu --json wrote"
            )
        found.append(values)
    return found


def read(path: Path) -> list[dict]:
    """The lines of a file, of which there is one at least. Raises: ValueError, OSError."""
    lines = read_lines(path.read_text("utf-8", "replace"), path)
    if not lines or "run" not in lines[0]:
        raise ValueError(f"{path} holds no run; give a file that bench --gpu --json wrote")
    return lines


def steps(lines: Sequence[dict]) -> dict[str, Step]:
    """The last word on every step: of the last run that did not skip it.

    Raises: ValueError for runs of several cards or versions, whose figures are not to be mixed.
    """
    runs = [line["run"] for line in lines if "run" in line]
    for name in SAME:
        told = list(dict.fromkeys(str(run.get(name)) for run in runs))
        if len(told) > 1:
            raise ValueError(
                f"these figures are of runs that differ in {name} ({', '.join(told)}); give the "
                "file of one of them"
            )
    found: dict[str, Step] = {}
    run, here = {}, {}
    for line in lines:
        if "run" in line:
            run, here = line["run"], {}
            continue
        step = here.setdefault(line["step"], Step(run=run))
        if "row" in line:
            step.rows.append(line["row"])
        else:
            step.ended, step.why, step.s = line["ended"], line["why"], line["s"]
            step.trace = line.get("trace", "")
        if step.ended != SKIPPED or line["step"] not in found:
            found[line["step"]] = step
    return found
