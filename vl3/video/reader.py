"""Reading a clip: which frames (`schedule`), and the frames themselves (`read`)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vl3.values import Clip
from vl3.video import official
from vl3.video.container import local_file, shown_name
from vl3.video.decode import Losses
from vl3.video.errors import VideoError
from vl3.video.frames import Size, read_picks, timeline_of
from vl3.video.images import Resize, is_image, read_image, resized
from vl3.video.sample import exact_picks
from vl3.video.timeline import Timeline


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The frames a read will give, known without decoding.

    times_s: one presentation time per frame, seconds from the first shown frame; None for a
             picture. In mode "official" the stamps of the official reader.
    duration_s: of the whole clip, from its packets and not from its header
    estimated: the file carries no presentation times, so they were derived from its rate
    """

    times_s: tuple[float, ...] | None
    duration_s: float | None = None
    source_frames: int = 1
    estimated: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1 if self.times_s is None else len(self.times_s)


def schedule(
    path: str | os.PathLike,
    fps: float = 1.0,
    max_frames: int | None = 180,
    start: float | None = None,
    end: float | None = None,
    mode: str = "exact",
    timeout_s: float = 30.0,
) -> Schedule:
    """The times `read` will give for the same arguments, from a scan of packets.

    Raises: VideoError - as read
    """
    _check(fps, max_frames, start, end, mode)
    found = local_file(path)
    if is_image(found):
        return Schedule(times_s=None)
    timeline = timeline_of(found, timeout_s)
    _, times_s = _picks(found, timeline, fps, max_frames, start, end, mode)
    return Schedule(
        times_s=times_s,
        duration_s=timeline.duration_s,
        source_frames=len(timeline),
        estimated=timeline.estimated,
    )


def read(
    path: str | os.PathLike,
    fps: float = 1.0,
    max_frames: int | None = 180,
    start: float | None = None,
    end: float | None = None,
    *,
    mode: str = "exact",
    size: Size = None,
    on_frame: Callable[[int, int], None] | None = None,
    timeout_s: float = 30.0,
    resize: Resize = resized,
) -> Clip:
    """Frames of a video as upright RGB with their times; a picture gives a clip without time.

    fps, max_frames: frames per second wanted; above max_frames evenly thinned (None: no limit)
    start, end: seconds of the clip's own clock, in which the first shown frame is at 0
    mode: "exact" - the frame shown at each wanted time, stamped with its own time, at least one,
          none twice; "official" - the frames and stamps of the official reader, which takes the
          last frame of each interval and stamps it with the interval's start
    size: None for the displayed size, (height, width), or a callable given (number of frames,
          height, width) that returns it; PIL bicubic right after decoding
    on_frame: called with (done, total) after each frame, in the caller's thread; may raise
    timeout_s: how long the decoder may go without progress
    resize: what resizes a picture, in the thread that decodes; gives the bits that PIL gives

    Raises: VideoError - one sentence on what is wrong with the file, the range or a setting
    """
    _check(fps, max_frames, start, end, mode)
    found = local_file(path)
    if is_image(found):
        return read_image(found, size=size, resize=resize)
    timeline = timeline_of(found, timeout_s)
    picks, times_s = _picks(found, timeline, fps, max_frames, start, end, mode)
    losses = Losses()
    untagged = "bt601" if mode == "official" else "height"
    frames, given = read_picks(
        found, timeline, sorted(set(picks)), size, losses, on_frame, timeout_s, untagged, resize
    )
    if mode == "official":
        frames, times_s = official.expanded(frames, given, picks, times_s)
    else:
        times_s = tuple(timeline.times_s[[index for _, index in given]].tolist())
    lost = losses.lost + timeline.missing_frames
    return Clip(frames_TYX3=frames, times_s=times_s, source=str(path), lost_frames=lost)


def _picks(
    path: Path,
    timeline: Timeline,
    fps: float,
    max_frames: int | None,
    start: float | None,
    end: float | None,
    mode: str,
) -> tuple[list[int], tuple[float, ...]]:
    if mode == "official":
        picks, times_s = official.picks(
            path, timeline, start_time=start, end_time=end, fps=fps, max_frames=max_frames
        )
        if not picks:
            raise VideoError(
                f"The official way of sampling takes no frame from {shown_name(path)} ("
                f"{timeline.duration_s:.2f} s at fps={fps:g}); choose mode='exact' or a higher fps."
            )
        return picks, times_s
    length_s = timeline.duration_s
    start_s, end_s = start or 0.0, length_s if end is None else min(end, length_s)
    if start_s >= length_s:
        raise VideoError(
            f"{shown_name(path)} is {length_s:.2f} s long but the range starts at {start_s:g} s; "
            "choose a start before its end."
        )
    tick_s = float(timeline.time_base)
    picks = exact_picks(
        timeline.times_s, end_s, fps, max_frames, start_s, slack_s=min(tick_s / 2, 5e-4) + 1e-6
    )
    return picks, tuple(timeline.times_s[picks].tolist())


def _check(
    fps: float, max_frames: int | None, start: float | None, end: float | None, mode: str
) -> None:
    if not (isinstance(fps, int | float) and math.isfinite(fps) and fps > 0):
        raise VideoError(f"fps is a number above 0 - got {fps!r}.")
    if max_frames is not None and max_frames < 1:
        raise VideoError(f"max_frames is at least 1 - got {max_frames!r}.")
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise VideoError(f"{name} is in seconds from the start of the clip - got {value!r}.")
    if end is not None and end <= (start or 0.0):
        raise VideoError(f"end ({end:g} s) must be later than start ({start or 0:g} s).")
    if mode not in ("exact", "official"):
        raise VideoError(f"mode is 'exact' or 'official' - got {mode!r}.")
