"""Runs steps one after the other, each in a process of its own that is ended when it is late."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from train_cli.bench.gpu.child import outcome, warm_up
from train_cli.bench.gpu.page import in_words
from train_cli.bench.gpu.record import FAILED, LATE, SKIPPED, Record
from train_cli.bench.gpu.steps import Place, Step
from train_cli.bench.measure import say

LEAST_SHARE = 0.5  # of what a step should take: with less time left it is not begun
SHARED_MEMORY = Path("/dev/shm")
ROOM_BYTES = 12e9  # of the files that steps share: random weights of the 2B's sizes, and clips


class Child:
    """The process of a step that is still to be told which one; it imports meanwhile."""

    def __init__(self) -> None:
        cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        own = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CUDA_VISIBLE_DEVICES": cards.partition(",")[0],  # with several a trainer takes all
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",  # or it warns when a loader forks
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "train_cli.bench.gpu.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for us, and its children can be ended with it
            env=os.environ | own,
        )

    def do(self, step: Step, place: Place, limit_s: float) -> Generator[dict]:
        """The lines of a step; the last one says how it ended."""
        order = {
            "function": step.function,
            "device": place.device,
            "tiny": place.tiny,
            "folder": str(place.folder),
            "limit_s": limit_s,
        }
        ends = time.monotonic() + limit_s
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()
        try:
            self._tell(order)
            while True:
                line = lines.get(timeout=max(0.0, ends - time.monotonic()))
                if line is None:
                    yield {"ended": FAILED, "why": self._death()}
                    return
                values = json.loads(line)
                yield values
                if "ended" in values:
                    return
        except queue.Empty:
            yield {"ended": LATE, "why": f"not done after {limit_s:.0f} s"}
        finally:
            self.end()

    def end(self) -> None:
        """Ends it and all that it started."""
        with suppress(ProcessLookupError):  # it has ended, and all of its children
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()

    def _tell(self, order: dict) -> None:
        with suppress(BrokenPipeError):  # what it died of is told where its lines end
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def _read(self, lines: queue.SimpleQueue) -> None:
        with suppress(ValueError):  # closed by end()
            for line in self.process.stdout:
                lines.put(line)
        lines.put(None)

    def _death(self) -> str:
        code = self.process.wait()
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code} before it was done"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step ended, and how many of its checks do not hold."""

    how: str
    wrong: int


def run(
    steps: Sequence[Step], minutes: float, record: Record, device: str, tiny: bool, spawn: bool
) -> dict[str, Ended]:
    """How each step ended, by name; rows and ends are added to the record as they come.

    spawn: False for all in this process, where nothing is ever late
    """
    ends = time.monotonic() + 60 * minutes
    found: dict[str, Ended] = {}
    with tempfile.TemporaryDirectory(dir=_roomy()) as folder, _terminated():
        place = Place(device, tiny, Path(folder))
        if not spawn:
            warm_up()
        spare = Child() if spawn else None
        try:
            for step in steps:
                left_s = ends - time.monotonic()
                why = step.missing(device)
                if not why and spawn and left_s < LEAST_SHARE * step.about_s:
                    why = f"{max(0, left_s):.0f} s were left, and it takes about {step.about_s:g}"
                if why:
                    lines = _skipped(why)
                elif spare is not None:
                    lines = spare.do(step, place, min(step.limit_s, left_s))
                    spare = Child() if step is not steps[-1] else None
                else:
                    lines = outcome(step.function, place)
                say(f"== {step.name}: {step.about}")
                found[step.name] = _noted(step, lines, record)
        finally:
            if spare is not None:
                spare.end()
    return found


def _noted(step: Step, lines: Generator[dict], record: Record) -> Ended:
    """Adds the lines of a step to the record, and says them."""
    started, wrong, how = time.monotonic(), 0, FAILED
    with closing(lines):
        try:
            for values in lines:
                if "row" in values:
                    record.add(step=step.name, row=values["row"])
                    wrong += values["row"].get("ok") is False
                    print(in_words(values["row"]), flush=True)
                    continue
                s = round(time.monotonic() - started, 1)
                record.add(step=step.name, **values, s=s)
                how = values["ended"]
                why = f": {values['why']}" if values["why"] else ""
                print(f"{step.name}: {how} after {s:.0f} s{why}", flush=True)
        except (KeyboardInterrupt, SystemExit):
            s = round(time.monotonic() - started, 1)
            record.add(step=step.name, ended=LATE, why="stopped from outside", s=s)
            raise
    return Ended(how, wrong)


def _skipped(why: str) -> Generator[dict]:
    yield {"ended": SKIPPED, "why": why}


@contextmanager
def _terminated() -> Iterator[None]:
    """Within it, what `timeout` and `kill` send ends the run as Ctrl-C does, with its children."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _roomy() -> str | None:
    """Where large files are written in no time: in memory where there is enough and TMPDIR names
    no other place, else as usual."""
    if "TMPDIR" in os.environ or not SHARED_MEMORY.is_dir():
        return None
    room = os.statvfs(SHARED_MEMORY)
    return str(SHARED_MEMORY) if room.f_bavail * room.f_frsize > ROOM_BYTES else None
