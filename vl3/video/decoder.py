"""Jobs of decoding, done in processes of their own that outlive them.

What a file can do to a decoder, it does to such a process: a crash, a hang or memory without end is
one sentence for whoever asked, and the next job gets another process. Nothing is shared but values:
a job goes there as a pickle, its values come back the same way, pictures through shared memory. A
process does one job at a time; some are kept for the next.

`VL3_DECODER=thread` decodes in a watched thread of this process instead. So does what cannot have
another process: Windows (no file can be handed to a child there), programs frozen into one file,
interpreters without an executable, and files that only this process can open (`/dev/stdin`).
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from multiprocessing import util
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from vl3.arguments import choice
from vl3.video import limits
from vl3.video.container import shown_name
from vl3.video.decoder_process import PULSE_BYTES
from vl3.video.errors import VideoError
from vl3.video.job import Job, Link, Picture
from vl3.video.watchdog import run_with_watchdog, stalled, too_long

KNOB = "VL3_DECODER"
_KEPT = 2  # processes that wait for the next job, of 60 to 150 MB each
_SLOTS, _SLOTS_BYTES = 8, 16 << 20  # pictures on their way: no more than both say, but two
# glibc keeps memory for the next frame, else it is taken anew: four frames of 1080p took 12,000
# page faults and 25 of 303 ms for that.
_KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(128 << 20)}
_LOOK_S = 0.1  # how often somebody who waits is asked whether to go on
_START_S = 60.0
_START = "from vl3.video.decoder_process import main; main()"


def result(path: Path, timeout_s: float, job: Job, **more: Any) -> Any:
    """The one value of a job; otherwise as run."""
    (value,) = run(path, timeout_s, job, is_single=True, **more)
    return value


def run(
    path: Path,
    timeout_s: float,
    job: Job,
    *,
    area_px: int = limits.FRAME_PIXELS,
    ask: Callable[..., Any] | None = None,
    on_wait: Callable[[], None] | None = None,
    is_single: bool = False,
) -> Iterator[Any]:
    """What a job on a file gives, value by value. A Picture is there until the next one is wanted.

    job: a generator function of a module with all but its Link given, by functools.partial
    timeout_s: how long it may go without a beat; its time in all follows from the file's size, not
          counting what the caller does between two values
    area_px: of a frame, as far as that is known: memory is given for it
    ask: answers what the job asks; on_wait: called while nothing comes; both in the caller's thread
          (ask in the decoder's, where that is one) and may raise, which ends the job
    is_single: it gives one value, no Picture

    Raises: VideoError - no beat for timeout_s seconds, not done in time, too much memory, a decoder
    that crashed; whatever the job raises
    """
    name, deadline_s = shown_name(path), limits.read_deadline_s(path)
    ask = ask or _nothing
    child = None if _stays_here(path) else _POOL.take()
    if child is None:
        yield from run_with_watchdog(
            name,
            timeout_s,
            lambda beat: job(Link(beat, ask)),
            deadline_s=deadline_s,
            on_wait=on_wait,
        )
        return
    memory_bytes, ended = limits.decoder_bytes(area_px), None
    patience = _Patience(name, timeout_s, deadline_s, on_wait)
    try:
        ended = yield from child.work(job, memory_bytes, is_single, patience, ask)
    except _DiedError:
        raise _died(name, child.process.wait()) from None
    finally:
        _POOL.give_back(child) if ended else _POOL.end(child)
    if ended[0] == "end":
        yield from ended[1:]
    if ended[0] == "refused":
        raise VideoError(ended[1])
    if ended[0] == "no memory":
        raise VideoError(
            f"Reading {name} was given up: decoding it takes more than the "
            f"{memory_bytes / 2**20:.0f} MiB of memory that a file of its kind may; make it "
            "smaller first."
        )
    if ended[0] == "failed":
        raise RuntimeError(f"decoding {name} failed, in a process of its own: {ended[1]}")


def processes() -> tuple[int, ...]:
    """The ids of the processes that decode for this one, at work or waiting."""
    return _POOL.processes()


def _nothing(*question: Any) -> None:
    raise TypeError(f"nobody answers {question}")


def _stays_here(path: Path) -> bool:
    """Whether a file is decoded in this process."""
    try:
        chosen = choice(KNOB, os.environ.get(KNOB, "process"), ("process", "thread"))
    except ValueError as error:
        raise VideoError(f"{error}.") from None
    return (
        chosen == "thread"
        or os.name != "posix"
        or getattr(sys, "frozen", False)
        or not sys.executable
        or str(path).startswith(("/dev/", "/proc/"))
    )


def _died(name: str, code: int) -> VideoError:
    if code == -signal.SIGKILL:
        return VideoError(
            f"Reading {name} was given up: its decoder was killed, as happens where memory runs "
            "out; make the file smaller or free some memory."
        )
    how = signal.Signals(-code).name if -code in set(signal.Signals) else str(code)
    return VideoError(
        f"Reading {name} was given up: its decoder crashed ({how}); the file may be damaged, so "
        "convert it or use another copy."
    )


class _DiedError(Exception):
    """The process ended before its job did."""


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long is waited for a job, and who is asked meanwhile whether to go on; see run."""

    name: str
    timeout_s: float
    deadline_s: float
    on_wait: Callable[[], None] | None


class _Child:
    """A process that decodes, the socket to it, and the memory both see. Owns all three."""

    def __init__(self) -> None:
        self._started = False
        self._memory = _memory_file()
        self._memory.truncate(PULSE_BYTES)
        self._pulse = memoryview(mmap.mmap(self._memory.fileno(), PULSE_BYTES)).cast("Q")
        self._room, self._slots = np.empty(0, np.uint8), np.empty((0, 0), np.uint8)
        ours, theirs = socket.socketpair()
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        with theirs:
            self.line = Connection(ours.detach())
            given = theirs.fileno(), self._memory.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, *map(str, given)],
                bufsize=0,
                stdin=subprocess.PIPE,  # that closes with this process
                stdout=subprocess.DEVNULL,
                pass_fds=given,
                process_group=0,  # Ctrl-C is for this process alone
                env=_environment(),
            )

    def is_ready(self) -> bool:
        """Whether it runs; waits for that the first time."""
        if self.process.poll() is not None:
            return False
        if not self._started:
            with contextlib.suppress(EOFError, ConnectionError):
                self._started = self.line.poll(_START_S) and self.line.recv() == ("ready",)
        return self._started

    def work(
        self,
        job: Job,
        memory_bytes: int,
        is_single: bool,
        patience: _Patience,
        ask: Callable[..., Any],
    ) -> Generator[Any, None, tuple]:
        """Yields what a job gives; returns how it ended.

        Raises: VideoError - it hangs or takes too long; _DiedError
        """
        self._say((job, memory_bytes, bool(self._slots.size), is_single))
        waited_s = 0.0
        while True:
            asked_s = time.monotonic()
            kind, *words = self._words(patience, patience.deadline_s - waited_s)
            waited_s += time.monotonic() - asked_s
            if kind == "value":
                yield words[0]
            elif kind == "pictures":
                for slot, shape, *about in words[0]:
                    pixels = self._slots[slot, : math.prod(shape)].reshape(shape)
                    yield Picture(pixels, *about)
                self._say(None)
            elif kind == "ask":
                self._say(ask(*words))
            elif kind == "room":
                self._say(self._make_room(*words))
            else:
                return kind, *words

    def _say(self, words: object) -> None:
        try:
            self.line.send(words)
        except ConnectionError:
            raise _DiedError from None

    def _words(self, patience: _Patience, left_s: float) -> tuple:
        """What it says next."""
        asked_s = moved_s = time.monotonic()
        beats, wait_s = self._pulse[0], min(_LOOK_S, patience.timeout_s)
        while not self._poll.poll(1000 * wait_s):
            now_s = time.monotonic()
            if self._pulse[0] != beats:
                beats, moved_s = self._pulse[0], now_s
            if now_s - moved_s >= patience.timeout_s:
                raise stalled(patience.name, patience.timeout_s)
            if now_s - asked_s >= left_s:
                raise too_long(patience.name)
            if patience.on_wait:
                patience.on_wait()
            ends_s = min(moved_s + patience.timeout_s, asked_s + left_s)
            wait_s = max(0.01, min(_LOOK_S, ends_s - now_s))
        try:
            return self.line.recv()
        except (EOFError, ConnectionError):
            raise _DiedError from None

    def _make_room(self, num_bytes: int) -> tuple[int, int, int]:
        """Slots for pictures of so many bytes: how many, the bytes of each, and of all memory."""
        slot_bytes = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        slots = max(2, min(_SLOTS, _SLOTS_BYTES // slot_bytes))
        if self._room.size < slots * slot_bytes:
            size = max(_SLOTS_BYTES, slots * slot_bytes)
            self._memory.truncate(PULSE_BYTES + size)
            self._room = np.frombuffer(
                mmap.mmap(self._memory.fileno(), size, offset=PULSE_BYTES), np.uint8
            )
        self._slots = self._room[: slots * slot_bytes].reshape(slots, slot_bytes)
        return slots, slot_bytes, self._room.size

    def give_room_back(self) -> None:
        """Memory beyond what most jobs want; whoever still has a Picture must not look at it."""
        if self._room.size > _SLOTS_BYTES:
            self._slots, self._room = np.empty((0, 0), np.uint8), np.empty(0, np.uint8)
            self._memory.truncate(PULSE_BYTES)

    def let_go(self) -> None:
        """Closes what connects this process to it, so that it ends by itself."""
        self.line.close()
        cast(IO[bytes], self.process.stdin).close()
        self._memory.close()

    def end(self) -> None:
        """Ends it at once."""
        self.process.kill()
        self.process.wait()
        self.let_go()


class _Pool:
    """The processes that decode for this one: idle ones are lent, and more made as they are needed.

    After a fork the child has none: a process belongs to the one that started it.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._is_closed_at_exit = False
        self._works: bool | None = None  # whether one could be started; None before it was tried

    def take(self) -> _Child | None:
        """A process of one's own until it is given back or ended; None where none can be had."""
        while self._works is not False:
            with self._lock:
                child = self._idle.pop() if self._idle else None
            is_new = child is None
            try:
                child = child or self._start()
            except OSError as error:
                self._say_that_none_starts(str(error))
                break
            ready = False
            try:
                ready = child.is_ready()
            finally:
                if not ready:
                    self._drop(child)
            if ready:
                self._works = True
                return child
            if is_new:
                self._say_that_none_starts("it ended as it started")
                break
        return None

    def give_back(self, child: _Child) -> None:
        """Keeps a process for the next job, or ends it where enough are kept."""
        child.give_room_back()
        with self._lock:
            kept = len(self._idle) < _KEPT
            if kept:
                self._idle.append(child)
        if not kept:
            self._drop(child)

    def end(self, child: _Child) -> None:
        """Ends a process that did not come to an end with its job, and has another start."""
        self._drop(child)
        if not self._idle and not sys.is_finalizing():
            with contextlib.suppress(OSError):
                fresh = self._start()
                with self._lock:
                    self._idle.append(fresh)

    def processes(self) -> tuple[int, ...]:
        return tuple(child.process.pid for child in list(self._all))

    def close(self) -> None:
        """Ends all of them."""
        for child in list(self._all):
            self._drop(child)

    def forget(self) -> None:
        """Lets go of the processes of the parent, in a process that was forked from it."""
        for child in self._all:
            child.process.returncode = 0  # not a child of this one, that it could wait for
            child.let_go()
        self._begin()

    def _start(self) -> _Child:
        child = _Child()
        with self._lock:
            if not self._is_closed_at_exit:
                # also where a worker of multiprocessing ends, which has no atexit
                util.Finalize(None, self.close, exitpriority=10)
                self._is_closed_at_exit = True
            self._all.add(child)
        return child

    def _drop(self, child: _Child) -> None:
        with self._lock:
            self._all.discard(child)
            if child in self._idle:
                self._idle.remove(child)
        child.end()

    def _say_that_none_starts(self, why: str) -> None:
        warnings.warn(
            f"Videos are decoded in this process: one of its own could not be started ({why}). "
            f"{KNOB}=thread says that this is meant.",
            stacklevel=2,
        )
        self._works = self._works or False


def _memory_file() -> IO[bytes]:
    """A file without a name, gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("vl3-pictures"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _environment() -> dict[str, str]:
    """The child finds the same modules, starts no threads for linear algebra, and has no child."""
    places = os.pathsep.join(place or os.curdir for place in sys.path)
    own = {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", KNOB: "thread"}
    return _KEEPS_MEMORY | os.environ | own


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.forget)
