"""Running generators in daemon threads watched for progress.

Within the process that decodes: the parts of a clip, side by side. And all of it where there is no
such process (vl3.video.decoder). Code that hangs in C cannot be interrupted; it reports each packet
and frame through `beat`, and is abandoned when the beat stops; the process can still exit. A caller
that stops listening ends a thread at its next beat.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from vl3.video.errors import VideoError
from vl3.video.job import Beat

T = TypeVar("T")
_LOOK_S = 0.1  # how often somebody who waits is asked whether to go on


class _StoppedError(Exception):
    """The caller no longer listens."""


class _Heartbeat:
    """Hand-over between the thread that decodes and the thread that waits for it."""

    def __init__(self) -> None:
        self.items: queue.Queue = queue.Queue(maxsize=1)
        self.stopped = threading.Event()
        self.last_beat_s = time.monotonic()

    def beat(self) -> None:
        if self.stopped.is_set():
            raise _StoppedError
        self.last_beat_s = time.monotonic()

    def put(self, kind: str, value: Any = None) -> None:
        while True:
            self.beat()
            try:
                return self.items.put((kind, value), timeout=0.1)
            except queue.Full:
                continue


def run_with_watchdog(
    name: str,
    timeout_s: float,
    *producers: Callable[[Beat], Iterator[T]],
    deadline_s: float = math.inf,
    on_wait: Callable[[], None] | None = None,
) -> Iterator[T]:
    """Yields what `producer(beat)` yields, computed in a thread that is given up when it stalls.

    deadline_s: how long is waited in all, not counting what the caller does in between
    on_wait: called while nothing comes; may raise, which ends the threads

    Of several producers each has its thread. The others start once the first has given something;
    what they give comes in any order, and is given up when none of them goes on.

    Raises: VideoError - no beat for timeout_s seconds, or not done in deadline_s; whatever a
    producer raises
    """
    line, waiting = _Heartbeat(), list(producers)
    waited_s = 0.0
    _start(line, waiting.pop(0), name)
    running = 1
    try:
        while running:
            asked_s = time.monotonic()
            kind, value = _next(line, name, timeout_s, deadline_s - waited_s, on_wait)
            waited_s += time.monotonic() - asked_s
            if kind == "end":
                running -= 1
                continue
            if kind == "error":
                raise value
            while waiting:
                _start(line, waiting.pop(0), name)
                running += 1
            yield value
    finally:
        line.stopped.set()


def _start(line: _Heartbeat, produce: Callable[[Beat], Iterator[T]], name: str) -> None:
    threading.Thread(target=_work, args=(line, produce), name=f"read {name}", daemon=True).start()


def _work(line: _Heartbeat, produce: Callable[[Beat], Iterator[T]]) -> None:
    try:
        for item in produce(line.beat):
            line.put("item", item)
        line.put("end")
    except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
        with contextlib.suppress(_StoppedError):
            line.put("error", error)


def _next(
    line: _Heartbeat,
    name: str,
    timeout_s: float,
    left_s: float,
    on_wait: Callable[[], None] | None,
) -> tuple[str, Any]:
    ends_s = time.monotonic() + left_s
    while True:
        now_s = time.monotonic()
        wait_s = min(line.last_beat_s + timeout_s, ends_s) - now_s
        wait_s = min(wait_s, _LOOK_S if on_wait else threading.TIMEOUT_MAX)
        try:
            return line.items.get(timeout=max(wait_s, 0.01))
        except queue.Empty:
            now_s = time.monotonic()
            if now_s - line.last_beat_s >= timeout_s:
                raise stalled(name, timeout_s) from None
            if now_s >= ends_s:
                raise too_long(name) from None
            if on_wait:
                on_wait()


def stalled(name: str, timeout_s: float) -> VideoError:
    """What is said of a file whose decoder hangs."""
    return VideoError(
        f"Reading {name} was given up: no progress for {timeout_s:g} s; the file may be damaged or "
        "its disk too slow (raise timeout_s for slow disks)."
    )


def too_long(name: str) -> VideoError:
    """What is said of a file on which a decoder works for too long."""
    return VideoError(
        f"Reading {name} was given up: it takes longer than a file of its size may; make it "
        "smaller or give a shorter range (start, end)."
    )
