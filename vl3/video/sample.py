"""Which frames of a clip are taken: pure functions on presentation times.

Two ways for VideoLLaMA 3. `exact_picks`: the frame shown at each target time, to be stamped with
its own time. `fps_filter_picks`: what ffmpeg's fps filter with round=down gives, that is the last
frame of each interval, stamped with the interval's start; published numbers were made with it. Two
for VideoLLaMA 2, whose number of frames is fixed: `piece_picks` by time, `piece_middles` by number.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from vl3.video import limits
from vl3.video.errors import VideoError


def thin(count: int, limit: int | None) -> np.ndarray:
    """At most `limit` of the indices 0..count-1, evenly spread, first and last included."""
    if limit is None or count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit, dtype=int)


def exact_picks(
    times_s: np.ndarray,
    end_s: float,
    fps: float,
    max_frames: int | None,
    start_s: float = 0.0,
    slack_s: float = 5.01e-4,
) -> list[int]:
    """Indices of the frames shown at start, start + 1/fps, ... before end; none twice, never none.

    times_s are ascending presentation times. More targets than max_frames are thinned evenly. A
    frame counts as shown slack_s early, because containers round times (Matroska to 1 ms).
    """
    count = max(1, math.ceil((end_s - start_s) * fps - 1e-6))
    if count > 4 * len(times_s) and (max_frames is None or count <= max_frames):
        steps = _steps_at(times_s, start_s, fps, count)  # frames far apart: not every step counts
    else:
        steps = thin(count, max_frames)
    targets_s = start_s + steps / fps
    shown = np.searchsorted(times_s, targets_s + slack_s, side="right") - 1
    return np.unique(np.maximum(shown, 0)).tolist()


def _steps_at(times_s: np.ndarray, start_s: float, fps: float, count: int) -> np.ndarray:
    """The steps of 1/fps around each frame's time, among which is the first that shows it."""
    near = np.floor((times_s - start_s) * fps).astype(np.int64)
    return np.unique(np.clip([near - 1, near, near + 1, near + 2], 0, count - 1))


def piece_picks(times_s: np.ndarray, start_s: float, end_s: float, pieces: int) -> list[int]:
    """Indices of the frames shown in the middle of each of so many equal pieces of start to end.

    Short clips repeat frames, so that it is always `pieces`. A frame counts as shown half a
    millisecond early, as in exact_picks.
    """
    middles_s = start_s + (np.arange(pieces) + 0.5) * (end_s - start_s) / pieces
    shown = np.searchsorted(times_s, middles_s + 5.01e-4, side="right") - 1
    return np.maximum(shown, 0).tolist()


def piece_middles(count: int, pieces: int) -> list[int]:
    """Indices nearest to the middle of each of so many equal pieces of 0 to count - 1.

    Source: VideoLLaMA2 mm_utils.py (frame_sample, uniform).
    """
    middles = (np.arange(pieces) + 0.5) * ((count - 1) / pieces)
    return np.round(middles + 1e-6).astype(int).tolist()


def fps_filter_picks(
    pts: np.ndarray, end_pts: int, time_base: Fraction, fps: Fraction
) -> tuple[int, list[int]]:
    """First output slot, and for it and each following one the index of the frame shown.

    Slot k covers k/fps to (k+1)/fps. A slot shows the last frame that starts in or before it; the
    slot in which the clip ends gives nothing. pts and end_pts are in ticks of time_base.
    """
    if not len(pts):
        return 0, []
    step = time_base * fps
    slots = pts.astype(object) * step.numerator // step.denominator
    end_slot = end_pts * step.numerator // step.denominator
    if end_slot - slots[0] > limits.OFFICIAL_SLOTS:
        raise VideoError(
            f"The official way of sampling would give {end_slot - slots[0]} frames at "
            f"{float(fps):g} fps, more than the {limits.OFFICIAL_SLOTS} it may; choose mode='exact'"
            " or a lower fps."
        )
    outputs = np.arange(int(slots[0]), int(end_slot))
    shown = np.searchsorted(slots.astype(np.int64), outputs, side="right") - 1
    return int(slots[0]), shown.tolist()


def middle_picks(count: int, video_fps: float, fps: float | None, max_frames: int) -> list[int]:
    """Indices in the middle of each 1/fps segment of `count` frames, or spread evenly.

    What the official code uses for gif files and for ranges under one second. Evenly when fps is
    None or the range lasts max_frames seconds or more (seconds against frames: as in the source).
    """
    if fps is None or count / video_fps >= max_frames:
        return thin(count, max_frames).tolist()
    segment = int(min(video_fps // fps, count))
    if segment < 1:
        return []
    return list(range(segment // 2, count, segment))
