"""Stretches of sound in time: gaps are silence, nothing is heard twice, and a part is cut out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vl3.video.errors import VideoError

GAP_S = 0.02  # a longer one is silence; shorter ones are stamps that were rounded
_ANEW_S = 1.0  # a clock that falls back by more has begun anew: recordings that were joined
_MOST_S = 24 * 3600.0
_SILENCE = 65536  # samples of silence made at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Which part of a track is read.

    zero_s: 0 of the clip's clock on the file's own; None for where the sound begins
    start_s, end_s: on the clip's clock
    """

    zero_s: float | None
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Sound from one time on, which is None where nothing says it.

    is_gap: it is silence in place of what a track does not have
    Shapes: rows_CS - as of vl3.audio.channels.mixed
    """

    start_s: float | None
    rate_hz: int
    rows_CS: np.ndarray
    is_gap: bool = False

    @property
    def length_s(self) -> float:
        return self.rows_CS.shape[1] / self.rate_hz

    def part(self, first: int, end: int) -> Run:
        """Some of its samples, where a time is known."""
        start_s = (self.start_s or 0.0) + first / self.rate_hz
        return replace(self, start_s=start_s, rows_CS=self.rows_CS[:, first:end])


def in_time(sounds: Iterable[Run], name: str) -> Iterator[Run]:
    """The sounds one behind the other, all with a time: gaps are silence, and nothing comes twice.

    A single wild stamp is none, and a clock that begins anew goes on.

    Raises: VideoError - a gap longer than any file is read
    """
    reached_s, moved_s, source = None, 0.0, iter(sounds)
    run = next(source, None)
    while run is not None:
        after = next(source, None)
        at_s = None if run.start_s is None else run.start_s + moved_s
        if reached_s is None:
            reached_s = at_s or 0.0
        late_s = 0.0 if at_s is None else at_s - reached_s
        if abs(late_s) > _ANEW_S and not _goes_on(run, after):
            late_s = 0.0
        if late_s < -_ANEW_S:
            moved_s, late_s = moved_s - late_s, 0.0
        first = 0
        if late_s > GAP_S:
            if late_s > _MOST_S:
                raise VideoError(
                    f"The sound of {name} has a gap of {late_s / 3600:.0f} hours; give a range "
                    "(start, end) before it."
                )
            yield from _silence(reached_s, late_s, run)
            reached_s += late_s
        elif late_s < -GAP_S:
            first = min(round(-late_s * run.rate_hz), run.rows_CS.shape[1])
        kept = replace(run, start_s=reached_s, rows_CS=run.rows_CS[:, first:])
        yield kept
        reached_s += kept.length_s
        run = after


def _goes_on(run: Run, after: Run | None) -> bool:
    """Whether what follows has the time that follows."""
    if after is None or after.start_s is None or run.start_s is None:
        return False
    return abs(after.start_s - run.start_s - run.length_s) < _ANEW_S


def _silence(start_s: float, length_s: float, like: Run) -> Iterator[Run]:
    left, rate_hz = round(length_s * like.rate_hz), like.rate_hz
    while left:
        count = min(left, _SILENCE)
        rows_CS = np.zeros((len(like.rows_CS), count), np.float32)
        yield Run(start_s, rate_hz, rows_CS, is_gap=True)
        start_s, left = start_s + count / rate_hz, left - count


def cut(runs: Iterable[Run], span: Span) -> Iterator[Run]:
    """Those of the span."""
    for run in runs:
        count, start_s = run.rows_CS.shape[1], run.start_s or 0.0
        if span.end_s is not None and start_s >= span.end_s:
            return
        ends = (span.start_s, 0), (span.end_s, count)
        first, end = (
            usual if time_s is None else min(max(round((time_s - start_s) * run.rate_hz), 0), count)
            for time_s, usual in ends
        )
        if first < end:
            yield run.part(first, end)
