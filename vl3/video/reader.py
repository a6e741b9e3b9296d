"""Reading a clip: which frames (`schedule`), and the frames themselves (`read`)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vl3.arguments import choice, number, shown, whole
from vl3.values import Clip
from vl3.video import limits, official
from vl3.video.container import local_file, shown_name
from vl3.video.decode import DecodeErrors
from vl3.video.errors import VideoError
from vl3.video.frames import Size, read_picks, timeline_of
from vl3.video.images import Resize, kind_of, read_image, resized
from vl3.video.sample import exact_picks, piece_picks
from vl3.video.timeline import Timeline


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The frames a read will give, known without decoding.

    times_s: one presentation time per frame, seconds of the clip's own clock; None for a picture.
             In mode "official" the stamps of the official reader.
    duration_s: when the last frame ends, from its packets and not from its header
    estimated: the file carries no presentation times, so they were derived from its rate
    notes: what a person must know of how the file will be read, one sentence each
    zero_s: where 0 of the clip's clock is on the file's own
    first_s: where the first frame is on the clip's clock
    """

    times_s: tuple[float, ...] | None
    duration_s: float | None = None
    source_frames: int = 1
    estimated: bool = False
    notes: tuple[str, ...] = ()
    zero_s: float = 0.0
    first_s: float = 0.0

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
    pieces: int | None = None,
) -> Schedule:
    """The times `read` will give for the same arguments, from a scan of packets.

    Raises: VideoError - as read
    """
    fps, max_frames, start, end, timeout_s = _checked(fps, max_frames, start, end, mode, timeout_s)
    found = local_file(path)
    if kind_of(found) == "image":
        return Schedule(times_s=None)
    timeline = timeline_of(found, timeout_s)
    _, times_s = _picks(found, timeline, fps, max_frames, start, end, mode, pieces)
    return Schedule(
        times_s=times_s,
        duration_s=timeline.duration_s,
        source_frames=len(timeline),
        estimated=timeline.estimated,
        notes=_notes(timeline),
        zero_s=float(timeline.zero_pts * timeline.time_base),
        first_s=float(timeline.times_s[0]),
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
    on_wait: Callable[[], None] | None = None,
    timeout_s: float = 30.0,
    resize: Resize = resized,
    pieces: int | None = None,
) -> Clip:
    """Frames of a video as upright RGB with their times; a picture gives a clip without time.

    fps, max_frames: frames per second wanted; above max_frames evenly thinned (None: no limit)
    start, end: seconds of the clip's own clock, which is a player's: 0 is where the file starts.
          The first frame is at 0, or later where sound comes before the picture
    mode: "exact" - the frame shown at each wanted time, stamped with its own time, at least one,
          none twice; "official" - the frames and stamps of the official reader, which takes the
          last frame of each interval and stamps it with the interval's start
    size: None for the displayed size, (height, width), a vl3.video.Square, or a callable given
          (number of frames, height, width) that returns it; PIL bicubic right after decoding
    on_frame: called with (done, total) after each frame, in the caller's thread; may raise
    on_wait: called ten times a second while no frame comes, in the caller's thread; what it raises
          ends the reading at once
    timeout_s: how long the decoder may go without progress
    resize: what resizes a picture, in the caller's thread; gives the bits that PIL gives
    pieces: instead of fps and max_frames, so many frames whatever the length: those shown in the
          middle of each of so many equal pieces, the same one several times in a short clip. In
          mode "official" by their numbers, as VideoLLaMA 2's reader takes them

    Raises: VideoError - one sentence on what is wrong with the file, the range or a setting
    """
    fps, max_frames, start, end, timeout_s = _checked(fps, max_frames, start, end, mode, timeout_s)
    _check_callback("on_frame", "of (done, total)", on_frame)
    _check_callback("on_wait", "without arguments", on_wait)
    found = local_file(path)
    if kind_of(found) == "image":
        return read_image(found, size=size, resize=resize)
    timeline = timeline_of(found, timeout_s)
    picks, times_s = _picks(found, timeline, fps, max_frames, start, end, mode, pieces)
    untagged = "bt601" if mode == "official" else "height"
    frames, given, losses = read_picks(
        found, timeline, sorted(set(picks)), size, on_frame, on_wait, timeout_s, untagged, resize
    )
    if mode == "official" or pieces is not None:
        black = len(times_s) - len(picks)
        frames, times_s = official.expanded(frames, given, picks, times_s, black)
    else:
        times_s = tuple(timeline.times_s[[index for _, index in given]].tolist())
    return Clip(
        frames_TYX3=frames,
        times_s=times_s,
        source=str(path),
        lost_frames=losses.lost + timeline.missing_frames,
        notes=(*_notes(timeline), *_lost(losses)),
    )


def _pieces(
    path: Path,
    timeline: Timeline,
    start: float | None,
    end: float | None,
    mode: str,
    pieces: int,
) -> tuple[list[int], tuple[float, ...]]:
    """What is taken of a clip in so many pieces, and the time of each frame given.

    There are more times than frames taken where black ones follow, under the time of the last.
    """
    try:
        pieces = whole("pieces", pieces, low=1)
    except ValueError as error:
        raise VideoError(f"{error}.") from None
    if mode == "official":
        picks = official.piece_frames(path, timeline, start, end, pieces)
    else:
        start_s, end_s = _range(path, timeline, start, end)
        start_s = max(start_s, float(timeline.times_s[0]))  # nothing is shown before
        picks = piece_picks(timeline.times_s, start_s, end_s, pieces)
    times_s = timeline.times_s[picks].tolist()
    return picks, tuple(times_s + times_s[-1:] * (pieces - len(picks)))


def _notes(timeline: Timeline) -> tuple[str, ...]:
    """What is known of a file before its frames are decoded."""
    missing, whole = timeline.missing_frames, len(timeline) + timeline.missing_frames
    cut = (f"The file is cut off: {missing} of its {whole} frames are missing.",) if missing else ()
    return (*timeline.notes, *cut)


def _lost(losses: DecodeErrors) -> tuple[str, ...]:
    if not losses.lost:
        return ()
    return (f"{losses.lost} of {losses.packets} frames could not be read.",)


def _picks(
    path: Path,
    timeline: Timeline,
    fps: float,
    max_frames: int | None,
    start: float | None,
    end: float | None,
    mode: str,
    pieces: int | None,
) -> tuple[list[int], tuple[float, ...]]:
    """What is taken of a clip, and the time of each frame given."""
    if pieces is not None:
        return _pieces(path, timeline, start, end, mode, pieces)
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
    start_s, end_s = _range(path, timeline, start, end)
    first_s = float(timeline.times_s[0])
    # nothing is shown before the first frame
    start_s += max(0, math.floor((first_s - start_s) * fps + 1e-6)) / fps
    tick_s = float(timeline.time_base)
    picks = exact_picks(
        timeline.times_s, end_s, fps, max_frames, start_s, slack_s=min(tick_s / 2, 5e-4) + 1e-6
    )
    return picks, tuple(timeline.times_s[picks].tolist())


def _range(
    path: Path, timeline: Timeline, start: float | None, end: float | None
) -> tuple[float, float]:
    """Start and end in seconds of a range in which something is shown. Raises: VideoError."""
    length_s, first_s = timeline.duration_s, float(timeline.times_s[0])
    start_s, end_s = start or 0.0, length_s if end is None else min(end, length_s)
    if end_s <= first_s:
        raise VideoError(
            f"The picture of {shown_name(path)} begins at {first_s:.2f} s, with sound alone before "
            f"it, but the range ends at {end_s:g} s; choose a later end."
        )
    if start_s >= length_s:
        raise VideoError(
            f"{shown_name(path)} is {length_s:.2f} s long but the range starts at {start_s:g} s; "
            "choose a start before its end."
        )
    return start_s, end_s


def _check_callback(name: str, kind: str, given: object) -> None:
    if given is not None and not callable(given):
        raise VideoError(f"{name} is a function {kind} - got {shown(given)}.")


def _checked(
    fps: float,
    max_frames: int | None,
    start: float | None,
    end: float | None,
    mode: str,
    timeout_s: float,
) -> tuple[float, int | None, float | None, float | None, float]:
    """fps, max_frames, start, end and timeout_s as plain numbers.

    Raises: VideoError - one of them, or the mode, is not what it should be
    """
    try:
        choice("mode", mode, ("exact", "official"))
        found = (
            number("fps", fps, above=0, high=limits.FASTEST_FPS),
            None if max_frames is None else whole("max_frames", max_frames, low=1),
            None if start is None else number("start", start, low=0, unit="seconds"),
            None if end is None else number("end", end, low=0, unit="seconds"),
            number("timeout_s", timeout_s, above=0, unit="seconds"),
        )
    except ValueError as error:
        raise VideoError(f"{error}.") from None
    start, end = found[2:4]
    if end is not None and end <= (start or 0.0):
        raise VideoError(f"end ({end:g} s) must be later than start ({start or 0:g} s).")
    return found
