"""Stamps that begin anew inside of a file: recordings that were joined byte by byte."""

from __future__ import annotations

import numpy as np

_STEPS = 3  # a clock that falls back by more frames than this has begun anew
_AROUND = 3  # packets on both sides, most of which have to agree that it has
_MOST_PARTS = 1000
_NONE = -(1 << 62)  # below every stamp, with room for sums


def clock_shift(
    pts_N: np.ndarray, dts_N: np.ndarray, key_N: np.ndarray, none: int
) -> np.ndarray | None:
    """What to add to the stamps of each packet so that parts follow one another; None for one part.

    A clock begins anew where decoding times fall, or at a keyframe shown before what came earlier.
    A single wild stamp is none. `none` stands for a missing stamp.
    """
    pts_N, dts_N = np.where(pts_N == none, _NONE, pts_N), np.where(dts_N == none, _NONE, dts_N)
    step = _step(pts_N)
    starts = _starts(pts_N, dts_N, key_N, _STEPS * step)
    if len(starts) == 1:
        return None
    shift_N, reached = np.zeros(len(pts_N), np.int64), None
    for start, end in zip(starts, [*starts[1:], len(pts_N)]):
        shown = pts_N[start:end][pts_N[start:end] != _NONE]
        if not len(shown):
            continue
        moved = 0 if reached is None else reached - int(shown.min())
        shift_N[start:end] = moved
        reached = int(shown.max()) + moved + step
    return shift_N


def _step(pts_N: np.ndarray) -> int:
    """The usual distance of two frames in ticks."""
    gaps = np.diff(np.unique(pts_N[pts_N != _NONE]))
    return max(1, int(np.median(gaps))) if len(gaps) else 1


def _starts(pts_N: np.ndarray, dts_N: np.ndarray, key_N: np.ndarray, slack: int) -> list[int]:
    clock_N = _clock(dts_N)
    falls = np.flatnonzero(clock_N[1:] < clock_N[:-1] - slack) + 1
    found = [start for start in falls.tolist() if _stays_low(clock_N, start)]
    starts = [0]
    for start in [*found, len(pts_N)]:
        # without decoding times parts are told apart by keyframes alone
        starts += _behind(pts_N, key_N, slack, starts[-1], start)
        starts.append(start)
    starts = starts[:-1]
    return starts if len(starts) <= _MOST_PARTS else [0]


def _clock(dts_N: np.ndarray) -> np.ndarray:
    """Decoding times, each missing one as the one before it."""
    known = np.where(dts_N != _NONE, np.arange(len(dts_N)), 0)
    return dts_N[np.maximum.accumulate(known)]


def _stays_low(clock_N: np.ndarray, start: int) -> bool:
    """Whether a fall of the clock is more than one wild stamp before or after it."""
    before, after = clock_N[max(0, start - _AROUND) : start], clock_N[start : start + _AROUND]
    enough = len(before) == _AROUND and len(after) > 1
    return enough and bool(np.median(after) < np.median(before))


def _behind(pts_N: np.ndarray, key_N: np.ndarray, slack: int, start: int, end: int) -> list[int]:
    """Keyframes between start and end that are shown before a frame that came earlier."""
    found: list[int] = []
    while len(found) < _MOST_PARTS:
        part = pts_N[start:end]
        late = np.maximum.accumulate(part)[:-1] - slack
        early = np.flatnonzero(key_N[start + 1 : end] & (part[1:] != _NONE) & (part[1:] < late))
        fell = [at for at in (start + 1 + early).tolist() if _stays_low(pts_N, at)]
        if not fell:
            break
        start = fell[0]
        found.append(start)
    return found
