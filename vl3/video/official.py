"""The frames and stamps of the official readers, for parity with published numbers.

VideoLLaMA 2's counts frames (`piece_frames`). VideoLLaMA 3's runs ffmpeg's fps filter with
round=down on the whole clip or on a range given as -ss/-t, and reads gif files and ranges under one
second by frame number instead. What it gives depends on details of ffmpeg 5.1: how a range is
trimmed, what ends a stream, how a late first frame is filled. They are reproduced here on
presentation times; nothing but the frames given is decoded.

Source: mm_utils.load_video and load_video_from_ids of VideoLLaMA3; ffmpeg 5.1.9 (vf_fps, trim,
ffmpeg.c).
Differences: a rotated clip comes out upright and pixels square (the official reader scrambles the
first and ignores the second); sizes are of RGB by PIL instead of YUV by swscale; there is no
precise_time and no temporal_factor; a clip whose clock begins more than a day after 0 (a wall
clock) is counted from its start; a range of a transport stream (.ts) has the frames from its start
on, where ffmpeg's seek lands on the next keyframe and what comes before it is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from vl3.video.container import open_video, shown_name
from vl3.video.decoder import result
from vl3.video.errors import VideoError
from vl3.video.job import Link
from vl3.video.sample import fps_filter_picks, middle_picks, piece_middles, thin
from vl3.video.timeline import Header, Timeline

_US = Fraction(1, 1_000_000)
_GIF_FPS = 25.0
_WALL_CLOCK_S = 86_400.0  # a clock that begins later tells the time of day: it is set to 0
_MAX_FRAMES = 768


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stated:
    """What the official reader takes from ffprobe; seconds."""

    duration_s: float
    stream_start_s: float
    container_start_us: int
    average_fps: float
    num_streams: int


def picks(
    path: Path,
    timeline: Timeline,
    *,
    start_time: float | None = None,
    end_time: float | None = None,
    fps: float | None = 1,
    max_frames: int | None = 180,
) -> tuple[list[int], tuple[float, ...]]:
    """Timeline indices (repetitions possible, maybe none) and the stamps the official reader gives.

    Raises: VideoError - where the official reader fails
    """
    short = start_time is not None and end_time is not None and end_time - start_time < 1
    header = _stated(path, timeline)
    if short or path.suffix == ".gif":
        chosen, times_s = _by_number(path, timeline, header, start_time, end_time, fps, max_frames)
    else:
        if fps is None:
            raise VideoError("The official way of sampling needs fps.")
        chosen, times_s = _by_filter(timeline, header, start_time, end_time, fps)
        if max_frames is not None and len(chosen) > max_frames:
            kept = thin(len(chosen), max_frames).tolist()
            chosen, times_s = [chosen[k] for k in kept], [times_s[k] for k in kept]
    return chosen, tuple(times_s)


def piece_frames(
    path: Path, timeline: Timeline, start_time: float | None, end_time: float | None, pieces: int
) -> list[int]:
    """Timeline indices that VideoLLaMA 2's reader takes, by the number of each frame.

    Of a gif each once, so that they can be fewer; VideoLLaMA 2 then fills up with black frames.
    Source: VideoLLaMA2 mm_utils.py (process_video).
    Raises: VideoError - a range without frames
    """
    is_gif = path.suffix == ".gif"
    video_fps = _GIF_FPS if is_gif else _stated(path, timeline).average_fps
    first = 0 if start_time is None else max(int(start_time * video_fps) - 1, 0)
    last = len(timeline) - 1
    if end_time is not None:
        last = min(int(end_time * video_fps) - 1, last)
    if last < first:
        raise VideoError(
            f"The official way of sampling takes no frame from {shown_name(path)} in this range; "
            "choose mode='exact' or a longer range."
        )
    found = [first + k for k in piece_middles(last - first + 1, pieces)]
    return sorted(set(found)) if is_gif else found


def expanded(
    frames_TYX3: np.ndarray,
    given: list[tuple[int, int]],
    chosen: list[int],
    times_s: tuple[float, ...],
    black: int = 0,
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Decoded frames laid out in the order of `chosen`, repetitions included, then black ones.

    times_s: of those chosen and of the black ones
    A frame that could not be decoded is left out together with its stamp.
    """
    if black:
        shown, shown_s = expanded(frames_TYX3, given, chosen, times_s[:-black])
        return filled(shown, black), shown_s + times_s[-black:]
    if [asked for asked, _ in given] == chosen:
        return frames_TYX3, times_s
    place = {asked: at for at, (asked, _) in enumerate(given)}
    kept = [k for k, index in enumerate(chosen) if index in place]
    order = [place[chosen[k]] for k in kept]
    return frames_TYX3[order], tuple(times_s[k] for k in kept)


def filled(frames_TYX3: np.ndarray, count: int) -> np.ndarray:
    """The frames and so many black ones after them.

    Source: VideoLLaMA2 mm_utils.py. Difference: they are as wide as the others, not as high.
    """
    if not count:
        return frames_TYX3
    return np.concatenate([frames_TYX3, np.zeros((count, *frames_TYX3.shape[1:]), np.uint8)])


def _by_number(path, timeline, header, start_s, end_s, fps, max_frames):
    """Ranges under a second and gif files: frame numbers at an assumed constant rate."""
    video_fps = _GIF_FPS if path.suffix == ".gif" else header.average_fps
    first, last = 0, len(timeline) - 1
    if start_s is not None and end_s is not None:
        start_s, end_s = sorted((max(start_s, 0.0), max(end_s, 0.0)))
        end_s = start_s + 1 if start_s == end_s else end_s
    if start_s is not None:
        first = max(int(start_s * video_fps) - 1, 0)
    if end_s is not None:
        last = min(int(end_s * video_fps) - 1, last)
    count = max(last - first + 1, 0)
    limit = _MAX_FRAMES if max_frames is None else max_frames
    chosen = [first + k for k in middle_picks(count, video_fps, fps, limit)]
    if not chosen:
        raise VideoError(
            f"The official way of sampling fails on {shown_name(path)} with this range and fps; "
            "choose mode='exact'."
        )
    return chosen, [index / video_fps for index in chosen]


def _by_filter(timeline, header, start_s, end_s, fps):
    """The whole clip or a range through the fps filter."""
    trim = start_s is not None or end_s is not None
    first_s, length_s = header.stream_start_s, header.duration_s
    if start_s is not None:
        first_s = max(header.stream_start_s, start_s)
        length_s -= first_s - start_s
    if end_s is not None:
        length_s = min(length_s, end_s - first_s)
    skip_us, keep_us = _microseconds(first_s), _microseconds(length_s)
    if trim and keep_us <= 0:
        return [], []
    rate = Fraction(str(fps)).limit_denominator(1_001_000)
    tick = timeline.time_base
    origin_us = header.container_start_us + (skip_us if trim else 0)
    pts_F = timeline.pts_F - _rescaled(origin_us, _US, tick)
    end_pts = timeline.end_pts - _rescaled(origin_us, _US, tick)
    low = 0
    if trim:
        low, high, end_pts = _trimmed(pts_F, end_pts, _rescaled(keep_us, _US, tick))
        pts_F = pts_F[low:high]
    first_slot, shown = fps_filter_picks(pts_F, end_pts, tick, rate)
    if shown and header.num_streams > 1:
        # constant-rate output: ffmpeg fills a late start by repeating the first frame, unless the
        # file has a single stream
        shown = shown[:1] * max(first_slot, 0) + shown
    stamps = _stamps(first_s, length_s, fps, len(shown))
    return [low + k for k in shown][: len(stamps)], stamps


def _stamps(first_s: float, length_s: float, fps: float, most: int) -> list[float]:
    """The first `most` of np.arange(first_s, first_s + length_s + 1 / fps, 1 / fps), bit by bit.

    The length that a file states can be that of a wall clock.
    """
    step_s = 1 / fps
    count = math.ceil((first_s + length_s + step_s - first_s) / step_s)
    return (first_s + np.arange(min(count, most)) * ((first_s + step_s) - first_s)).tolist()


def _trimmed(pts_F: np.ndarray, end_pts: int, keep_ticks: int) -> tuple[int, int, int]:
    """First and end index of what a trim from 0 for keep_ticks passes on, and when it ends.

    The length counts from the first frame passed; the first frame past it ends the stream.
    """
    low = int(np.searchsorted(pts_F, 0))
    if low == len(pts_F):
        return low, low, end_pts
    high = int(np.searchsorted(pts_F, pts_F[low] + keep_ticks))
    return low, high, int(pts_F[high]) if high < len(pts_F) else end_pts


def _stated(path: Path, timeline: Timeline) -> _Stated:
    header = timeline.header
    if header is None:
        return _Stated(
            duration_s=timeline.duration_s,
            stream_start_s=0.0,
            container_start_us=0,
            average_fps=len(timeline) / timeline.duration_s,
            num_streams=1,
        )
    first = header.stream_start_pts
    start = int(timeline.pts_F[0]) if first is None else first
    duration_s = header.duration_us * float(_US)
    if not header.container.startswith("mpeg"):
        # ffmpeg 5.1 reports the absolute end for these containers, newer ones the length
        duration_s = max(duration_s, float(timeline.end_pts * timeline.time_base))
    began_s = (header.start_us or 0) * float(_US)
    wall_s = began_s if began_s > _WALL_CLOCK_S else 0.0
    return _Stated(
        duration_s=duration_s - wall_s,
        stream_start_s=round(float(start * timeline.time_base) - wall_s, 6),
        container_start_us=_container_start_us(path, header),
        average_fps=header.average_fps or 25.0,
        num_streams=header.num_streams,
    )


def _container_start_us(path: Path, header: Header) -> int:
    """When the file starts, in microseconds, as ffmpeg 5.1 has it.

    In Matroska it counts the encoder delay of the sound, so the start can be below 0.
    """
    start_us = header.start_us or 0
    if "matroska" not in header.container or not header.has_audio:
        return start_us
    sound_us = result(path, 30.0, partial(first_sound_us, path))
    return start_us if sound_us is None else min(start_us, sound_us)


def first_sound_us(path: Path, link: Link) -> Iterator[int | None]:
    """The time of the first packet of sound, microseconds of the file's own clock, as a job."""
    with open_video(path) as container:
        first = next(container.demux(container.streams.audio[0]), None)
        if first is None or first.pts is None:
            yield None
        else:
            yield _rescaled(first.pts, cast(Fraction, first.time_base), _US)


def _microseconds(seconds: float) -> int:
    """Whole microseconds, cut and not rounded: how ffmpeg reads a time from its command line."""
    return int(Decimal(repr(float(seconds))) * 1_000_000)


def _rescaled(value: int, from_base: Fraction, to_base: Fraction) -> int:
    """value in another time base, half away from zero."""
    exact = abs(value) * from_base / to_base
    return (1 if value >= 0 else -1) * int(exact + Fraction(1, 2))
