"""Reading a sound: its header (`probe`), all of it (`read`), or block by block (`blocks`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vl3.arguments import number, shown
from vl3.audio import waveform
from vl3.audio.channels import as_floats, cancel, mixed
from vl3.audio.notes import track_notes
from vl3.audio.runs import Span
from vl3.audio.waveform import SoundFacts, SoundHeader
from vl3.sound import RATE_HZ, Sound, SoundTrack
from vl3.video.container import local_file, shown_name
from vl3.video.decoder import result, run
from vl3.video.errors import VideoError
from vl3.video.frames import timeline_of
from vl3.video.header_cache import once_per_file
from vl3.video.images import is_animation, kind_of

_LOSSLESS = {"flac", "alac", "wavpack", "ape", "tta", "truehd", "mlp"}
_MOST_LOST = 0.5  # of the packets; a track that has lost more is broken
_NO_SOUND = "The video has no sound."
OnWait = Callable[[], None] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundLength:
    """A sound without its samples: what read gives, known by decoding it once without keeping it.

    num_samples, start_s, first_frame_s, track, notes: as of the Sound
    """

    num_samples: int
    start_s: float
    first_frame_s: float
    track: SoundTrack | None
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return self.num_samples / RATE_HZ


@dataclass(frozen=True, kw_only=True, slots=True)
class _Picture:
    """Where a video has its frames: 0 of the clip's clock on the file's own, and on that clock the
    first frame and the end of the last one."""

    zero_s: float
    first_s: float
    end_s: float


def probe(path: str | os.PathLike, timeout_s: float = 30.0) -> SoundHeader:
    """What the header of a sound, or of a video, says of its sound; nothing is decoded.

    Raises: VideoError - one sentence: missing, empty, a picture, incomplete, a URL, ...
    """
    return _header(_sound_file(path), number("timeout_s", timeout_s, above=0, unit="seconds"))


def is_sound(path: str | os.PathLike) -> bool:
    """Whether a file is sound without a picture; not where it cannot be read at all."""
    try:
        header = probe(path)
    except VideoError:
        return False
    return header.has_sound and not header.has_picture


def read(
    path: str | os.PathLike,
    start: float | None = None,
    end: float | None = None,
    *,
    on_wait: OnWait = None,
    timeout_s: float = 30.0,
) -> Sound:
    """The sound of a file, or of a video, as a whole: 64 kB a second.

    start, end: seconds of the clip's own clock, as of vl3.video.read: where there is a picture 0 is
          where the file starts, else where the sound does
    on_wait: called ten times a second while nothing comes; what it raises ends the reading
    timeout_s: how long the decoder may go without progress

    Mono is the mean of the channels that have a full range, or the first where they cancel. Gaps
    are silence. Of a video without sound, or with one that cannot be read, there are no samples,
    and notes say why.

    Raises: VideoError - one sentence: as of probe; a file without picture whose sound is empty,
    cannot be decoded or is not in the range
    """
    found, span, picture, timeout_s = _asked(path, start, end, timeout_s)
    head = _header(found, timeout_s)
    if not head.has_sound:
        return _without(found, head, picture)
    *blocks, facts = _run(found, span, "both", timeout_s, on_wait)
    length = _length(head, facts, picture, span)
    row = int(facts.cancelled)
    rows = [block_CS[row % len(block_CS)] for block_CS in blocks]
    return Sound(
        samples_S=np.concatenate(rows) if rows else np.zeros(0, np.float32),
        start_s=length.start_s,
        source=str(path),
        first_frame_s=length.first_frame_s,
        track=length.track,
        notes=length.notes,
    )


def measure(
    path: str | os.PathLike,
    start: float | None = None,
    end: float | None = None,
    timeout_s: float = 30.0,
) -> SoundLength:
    """What read gives for the same arguments, without the samples; remembered while the file stays.

    It decodes, so that the number of samples is exact: an hour takes seconds.

    Raises: VideoError - as read
    """
    found, span, picture, timeout_s = _asked(path, start, end, timeout_s)
    return _measured(found, span, picture, timeout_s)


def blocks(
    path: str | os.PathLike,
    start: float | None = None,
    end: float | None = None,
    *,
    on_wait: OnWait = None,
    timeout_s: float = 30.0,
) -> Iterator[np.ndarray]:
    """The samples that read gives, a few seconds at a time, however long the file is.

    What they are is decided from the whole, so several channels are decoded twice; see measure.
    Shapes: float32 [S]

    Raises: VideoError - as read
    """
    found, span, picture, timeout_s = _asked(path, start, end, timeout_s)
    head = _header(found, timeout_s)
    if not head.has_sound:
        _without(found, head, picture)
        return
    row = "mean"
    if head.channels != 1:
        track = _measured(found, span, picture, timeout_s).track
        row = "first" if track and track.cancelled else "mean"
    for block in _run(found, span, row, timeout_s, on_wait):
        if isinstance(block, np.ndarray):
            yield block[0]
        else:
            _length(head, block, picture, span)


def read_native(path: str | os.PathLike, timeout_s: float = 30.0) -> tuple[np.ndarray, int]:
    """The first channel of a sound at the file's own rate, and that rate in hertz.

    Shapes: float32 [samples]

    Raises: VideoError - as read of a file without picture
    """
    found = _sound_file(path)
    head, span = _header(found, timeout_s), Span(zero_s=None)
    if not head.has_sound:
        _without(found, head, None)
    *blocks, facts = _run(found, span, "first", timeout_s, None, is_native=True)
    _length(head, facts, None, span)
    return np.concatenate([block_CS[0] for block_CS in blocks]), facts.rate_hz


def from_array(samples: Any, rate_hz: float, source: str = "array") -> Sound:
    """A Sound of samples that a program has, at any rate.

    samples: one row, or channels in rows or columns (the shorter side is that of the channels), as
          an array, a tensor or a list; whole numbers by the range of their type, others -1 to 1

    Raises: ValueError - no numbers, none of them, or another shape
    """
    rate = number("the rate of a sound", rate_hz, low=1, high=10_000_000, unit="hertz")
    stored = np.asarray(samples.detach().cpu() if hasattr(samples, "detach") else samples)
    if stored.ndim not in (1, 2) or stored.dtype.kind not in "iuf" or stored.size == 0:
        raise ValueError(
            "a sound is an array of samples, one row or one for each channel - got "
            f"{stored.dtype} {stored.shape}"
        )
    if stored.dtype.kind == "u" and stored.dtype != np.uint8:
        raise ValueError(f"samples are signed, or uint8 - got {stored.dtype}")
    rows_CS = np.atleast_2d(stored)
    if rows_CS.shape[0] > rows_CS.shape[1]:
        rows_CS = rows_CS.T
    if not np.isfinite(rows_CS).all():
        raise ValueError(f"samples are finite numbers - got some of {shown(samples)} that are not")
    kept_CS = mixed(as_floats(rows_CS))
    cancelled = len(kept_CS) > 1 and cancel(
        float(np.square(kept_CS[0]).sum(dtype=np.float64)), float(kept_CS[2].sum(dtype=np.float64))
    )
    row_CS = kept_CS[1:2] if cancelled else kept_CS[:1]
    samples_S = waveform.resampled(row_CS, round(rate))[0]
    track = SoundTrack(
        codec=f"array of {stored.dtype}",
        rate_hz=round(rate),
        channels=len(rows_CS),
        layout="mono" if len(rows_CS) == 1 else f"{len(rows_CS)} channels",
        bits=8 * stored.dtype.itemsize,
        heard=len(rows_CS),
        cancelled=cancelled,
        end_s=len(samples_S) / RATE_HZ,
        peak=float(np.abs(samples_S).max(initial=0.0)),
    )
    return Sound(samples_S=samples_S, source=source, track=track, notes=track_notes(track))


def _sound_file(path: str | os.PathLike) -> Path:
    try:
        found = local_file(path)
    except VideoError:
        if isinstance(path, str | os.PathLike) and os.path.isfile(path):
            raise VideoError(f"{shown_name(path)} is empty (0 bytes); give a sound file.") from None
        raise
    if kind_of(found) == "image":
        raise VideoError(f"{shown_name(found)} is a picture and has no sound; give a sound file.")
    return found


@once_per_file(64)
def _header(path: Path, timeout_s: float) -> SoundHeader:
    if is_animation(path):
        return SoundHeader(path=path, has_picture=True)
    return result(path, timeout_s, partial(waveform.header, path))


def _asked(
    path: str | os.PathLike, start: float | None, end: float | None, timeout_s: float
) -> tuple[Path, Span, _Picture | None, float]:
    """The file, what is read of it, and where its picture is.

    Raises: VideoError - one of the arguments is not what it should be
    """
    try:
        start = None if start is None else number("start", start, low=0, unit="seconds")
        end = None if end is None else number("end", end, low=0, unit="seconds")
        timeout_s = number("timeout_s", timeout_s, above=0, unit="seconds")
    except ValueError as error:
        raise VideoError(f"{error}.") from None
    if end is not None and end <= (start or 0.0):
        raise VideoError(f"end ({end:g} s) must be later than start ({start or 0:g} s).")
    found = _sound_file(path)
    picture = _picture(found, timeout_s) if _header(found, timeout_s).has_picture else None
    zero_s = picture.zero_s if picture else None
    return found, Span(zero_s=zero_s, start_s=start, end_s=end), picture, timeout_s


def _picture(path: Path, timeout_s: float) -> _Picture | None:
    """Where the frames of a video are; None where it has none that can be read."""
    try:
        timeline = timeline_of(path, timeout_s)
    except VideoError:
        return None
    return _Picture(
        zero_s=float(timeline.zero_pts * timeline.time_base),
        first_s=float(timeline.times_s[0]),
        end_s=timeline.duration_s,
    )


def _run(
    path: Path, span: Span, row: str, timeout_s: float, on_wait: OnWait, is_native: bool = False
) -> Iterator[Any]:
    job = partial(waveform.samples, path, span, row, is_native)
    return run(path, timeout_s, job, area_px=0, on_wait=on_wait)


@once_per_file(64)
def _measured(path: Path, span: Span, picture: _Picture | None, timeout_s: float) -> SoundLength:
    head = _header(path, timeout_s)
    if not head.has_sound:
        none = _without(path, head, picture)
        return SoundLength(
            num_samples=0,
            start_s=none.start_s,
            first_frame_s=none.first_frame_s,
            track=None,
            notes=none.notes,
        )
    (facts,) = _run(path, span, "none", timeout_s, None)
    return _length(head, facts, picture, span)


def _without(path: Path, head: SoundHeader, picture: _Picture | None) -> Sound:
    """The Sound of a video that has none. Raises: VideoError where there is no picture either"""
    if not head.has_picture:
        raise VideoError(f"{shown_name(path)} holds no sound that can be read; give a sound file.")
    return Sound(
        samples_S=np.zeros(0, np.float32),
        source=str(path),
        first_frame_s=picture.first_s if picture else 0.0,
        notes=(_NO_SOUND,),
    )


def _length(
    head: SoundHeader, facts: SoundFacts, picture: _Picture | None, span: Span
) -> SoundLength:
    """What was read, in words. Raises: VideoError - nothing was, and there is no picture"""
    first_frame_s = picture.first_s if picture else 0.0
    trouble = _trouble(head, facts, span)
    if trouble and not head.has_picture:
        raise VideoError(trouble)
    start_s = facts.start_s - first_frame_s
    whole = span.start_s is None and span.end_s is None
    track = SoundTrack(
        codec=head.codec,
        rate_hz=facts.rate_hz or head.rate_hz,
        channels=facts.channels or head.channels,
        layout=facts.layout or head.layout,
        bits=head.bits or (facts.bits if head.codec in _LOSSLESS else 0),
        heard=facts.heard,
        cancelled=facts.cancelled,
        tracks=head.tracks,
        packets=facts.packets,
        lost_packets=facts.lost,
        gaps_s=tuple((gap_s - first_frame_s, length_s) for gap_s, length_s in facts.gaps_s),
        picture_s=(0.0, picture.end_s - first_frame_s) if picture and whole else None,
        start_s=start_s,
        end_s=start_s + facts.samples / RATE_HZ,
        peak=facts.peak,
    )
    return SoundLength(
        num_samples=facts.samples,
        start_s=start_s if facts.samples else 0.0,
        first_frame_s=first_frame_s,
        track=track,
        notes=(trouble,) if trouble else track_notes(track),
    )


def _trouble(head: SoundHeader, facts: SoundFacts, span: Span) -> str:
    """Why there is no sound, in a sentence; nothing where there is some."""
    name = shown_name(head.path)
    if facts.samples and facts.lost <= _MOST_LOST * facts.packets:
        return ""
    if facts.lost:
        return (
            f"The sound of {name} ({head.codec}) is broken: {facts.lost} of {facts.packets} pieces "
            "could not be read; use another copy."
        )
    if facts.first_s is None:
        return f"The sound of {name} ({head.codec}) is empty."
    if head.has_picture:
        until = "" if span.end_s is None else f" to {span.end_s:g} s"
        return f"The sound of {name} has nothing from {span.start_s or 0:g} s{until}."
    if head.duration_s is not None and span.start_s is not None:
        return (
            f"The sound of {name} is {head.duration_s:.2f} s long but the range starts at "
            f"{span.start_s:g} s; choose a start before its end."
        )
    return f"The sound of {name} is not in the range that was asked for; choose another."
