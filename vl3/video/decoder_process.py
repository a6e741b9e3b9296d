"""The process that decodes: `python -m vl3.video.decoder_process`, started by vl3.video.decoder.

It does one job after the other and never imports torch. Words go over a socket, pictures through
slots of a shared memory, each of which is written again once the caller is done with it.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
import threading
import time
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vl3.video import limits
from vl3.video.errors import VideoError
from vl3.video.job import Job, Link, Picture

PULSE_BYTES = mmap.ALLOCATIONGRANULARITY  # the memory's first page, which counts beats
_TOLD_S = 0.02  # pictures that come sooner one after the other are told of together
_COLLECTED = 16  # jobs after which garbage is collected: 0.3 ms


class _Caller:
    """The other end: what it is sent, asked and lent. Owns the mapping of the shared memory."""

    def __init__(self, line: Connection, memory: int) -> None:
        self.line, self._memory = line, memory
        self._pulse = memoryview(mmap.mmap(memory, PULSE_BYTES)).cast("Q")
        self._beats = 0
        self._room = np.empty(0, np.uint8)
        self.begin(has_room=False)

    def begin(self, has_room: bool) -> None:
        """A new job. has_room: the slots of the last one are there as they were."""
        if not has_room:
            self._slots = np.empty((0, 0), np.uint8)
        self._next = 0
        self._shown: list[tuple] = []  # pictures in slots of which the caller does not know yet
        self._unread: deque[int] = deque()  # and how many of them it was told of at a time
        self._told_s = 0.0

    def beat(self) -> None:
        self._beats += 1
        self._pulse[0] = self._beats

    def send(self, *words: Any) -> None:
        self.tell()
        self.line.send(words)

    def ask(self, *question: Any) -> Any:
        """The answer to a question; it comes after the word that every picture is read."""
        self.send("ask", *question)
        self.wait_until_read()
        return self.line.recv()

    def show(self, picture: Picture) -> None:
        """Puts a picture into the next slot, when that is free."""
        pixels_YX3 = picture.pixels_YX3
        # slots are few where they are large
        if not pixels_YX3.nbytes <= self._slots.shape[1] <= 8 * pixels_YX3.nbytes + mmap.PAGESIZE:
            self._make_slots(pixels_YX3.nbytes)
        self.wait_until_read(most=len(self._slots) - len(self._shown) - 1)
        slot, self._next = self._next, (self._next + 1) % len(self._slots)
        place = self._slots[slot, : pixels_YX3.nbytes].reshape(pixels_YX3.shape)
        np.copyto(place, pixels_YX3)
        about = picture.shown_px, picture.wanted, picture.index
        self._shown.append((slot, pixels_YX3.shape, *about))
        # small frames come every millisecond or two, and each word takes a tenth of one
        is_late = time.monotonic() - self._told_s > _TOLD_S
        if is_late or len(self._shown) >= len(self._slots) // 2:
            self.tell()

    def tell(self) -> None:
        """Says which pictures are there."""
        if self._shown:
            self.line.send(("pictures", self._shown))
            self._unread.append(len(self._shown))
            self._shown, self._told_s = [], time.monotonic()

    def wait_until_read(self, most: int = 0) -> None:
        """Until no more than `most` of the pictures told of are left to be read."""
        while sum(self._unread) > most:
            self.line.recv()
            self._unread.popleft()

    def _make_slots(self, num_bytes: int) -> None:
        self.send("room", num_bytes)
        self.wait_until_read()
        slots, slot_bytes, size = self.line.recv()
        if size != self._room.size:
            self._room = np.frombuffer(mmap.mmap(self._memory, size, offset=PULSE_BYTES), np.uint8)
        self._slots, self._next = self._room[: slots * slot_bytes].reshape(slots, slot_bytes), 0


def main() -> None:
    _be_ended_first()
    line, memory = Connection(int(sys.argv[1])), int(sys.argv[2])
    threading.Thread(target=_serve, args=(line, memory), daemon=True).start()
    # ends with the process that started it, whatever it does meanwhile
    os.read(0, 1)
    os._exit(0)


def _serve(line: Connection, memory: int) -> None:
    """Does what it is told to until nobody is there any more."""
    caller, done = _Caller(line, memory), 0
    gc.freeze()
    try:
        caller.send("ready")
        while True:
            job, memory_bytes, has_room, is_single = line.recv()
            caller.begin(has_room)
            _limit(memory_bytes)
            _do(job, caller, is_single)
            del job
            done += 1
            if done % _COLLECTED == 0:
                gc.collect()  # files and their decoders hold one another, and these hold threads
            caller.wait_until_read()
    except (EOFError, ConnectionError):
        os._exit(0)
    except Exception:  # noqa: BLE001 - a mistake of this file: said, and the caller sees it end
        traceback.print_exc()
        os._exit(1)


def _do(job: Job, caller: _Caller, is_single: bool) -> None:
    """One job, and how it ended; with its value, where it has but one."""
    words: tuple = ("end",)
    try:
        for value in job(Link(caller.beat, caller.ask)):
            if is_single:
                words = "end", value
            elif isinstance(value, Picture):
                caller.show(value)
            else:
                caller.send("value", value)
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 - raised again in the process that asked
        words = _failure(error)
    _limit(None)
    caller.send(*words)


def _failure(error: Exception) -> tuple:
    """What is said of it: a VideoError, want of memory, or a mistake in the code."""
    try:
        limits.check_memory()
    except MemoryError:
        return ("no memory",)
    if isinstance(error, VideoError):
        return "refused", str(error)
    if isinstance(error, MemoryError):
        return ("no memory",)
    return (
        "failed",
        f"{type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}",
    )


def _limit(num_bytes: int | None) -> None:
    """Bounds the memory of this process, where the system does that; None for no bound."""
    if sys.platform != "linux":
        return
    import resource

    # what is written to: neither the picture memory, which is the caller's, nor address space that
    # threads reserve
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [bound for bound in (num_bytes, most) if bound not in (None, resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds, default=most), most))


def _be_ended_first() -> None:
    """Where memory runs out, the system ends this process and not the one with the model."""
    if sys.platform == "linux":
        try:
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:
            return  # a container may not let it


if __name__ == "__main__":
    main()
