"""When each frame of a file is shown and where decoding can start: a packet scan, no decoding."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import av.error
import numpy as np

from vl3.video import limits
from vl3.video.clock import clock_shift
from vl3.video.container import open_video, pick_stream, shown_name, video_streams
from vl3.video.decoder import result
from vl3.video.errors import VideoError
from vl3.video.header_cache import once_per_file
from vl3.video.job import Beat, Link
from vl3.video.recordings import num_recordings

# A frame of these is built on the ones before it whatever its keyframe flag says.
_NO_SKIP = {"gif", "apng", "webp"}
# Others lose or shift times after a seek (MPEG program streams do); they are read through instead,
# without decoding what is not needed.
_SEEKABLE = {"mov", "matroska", "mpegts", "flv"}
_HDR_CURVES = {16, 18}  # PQ and HLG, as numbered in H.273
_COLUMNS = 6  # of what is noted of each packet
# Here a packet can be half a frame (one field), and then carries no time of its own.
_FIELD_CODECS = {"h264", "hevc", "vvc"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What a file says about itself, as libavformat gives it; times in the file's own clock."""

    container: str
    duration_us: int
    start_us: int | None
    stream_start_pts: int | None
    average_fps: float | None
    num_streams: int
    num_videos: int
    has_audio: bool
    is_hdr: bool
    area_px: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Timeline:
    """Frames of one video stream in the order they are shown, and the packets that carry them.

    The clock is the one of a player: it begins where the first stream of the file does, so a
    picture can come later than 0 where sound is first. Where the stamps of a file begin anew, its
    parts are counted one after the other.

    Shapes: pts_F - int64 presentation times of the F frames, ascending, ticks of time_base
            packet_F - int64, index of the packet (in file order) that carries each frame
            keys_G - int64, indices of the packets at which decoding can start
            packet_pts_N - int64 per packet in file order; _NO_PTS where it has none
            packet_dts_N - the same for decoding times
            shift_N - what was added to the stamps of each packet; None where nothing was
            packet_pos_N - where in the file each packet starts, -1 where unknown
    zero_pts is 0 of the clock, end_pts when the last frame ends. by_order: the file has no
    presentation times, so frames are counted instead (estimated is then True). skippable: decoding
    can start at any keyframe. seekable: and the container finds its keyframes again with the same
    times. header: None for an animation that PIL reads. notes: what a person must know of all this,
    one sentence each.
    """

    pts_F: np.ndarray
    packet_F: np.ndarray
    keys_G: np.ndarray
    packet_pts_N: np.ndarray
    packet_dts_N: np.ndarray
    packet_pos_N: np.ndarray
    zero_pts: int
    end_pts: int
    time_base: Fraction
    shift_N: np.ndarray | None = None
    estimated: bool = False
    by_order: bool = False
    skippable: bool = True
    seekable: bool = True
    missing_frames: int = 0
    header: Header | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pts_F)

    @property
    def parts(self) -> int:
        """Of how many recordings in a row it consists."""
        return 1 if self.shift_N is None else 1 + int(np.count_nonzero(np.diff(self.shift_N)))

    @property
    def times_s(self) -> np.ndarray:
        """When each frame is shown, seconds of the clip's clock."""
        return (self.pts_F - self.zero_pts) * float(self.time_base)

    @property
    def duration_s(self) -> float:
        """When the last frame ends, seconds of the clip's clock."""
        return float((self.end_pts - self.zero_pts) * self.time_base)


NO_PTS = np.iinfo(np.int64).min


@once_per_file(8)
def scan(path: Path, timeout_s: float = 30.0) -> Timeline:
    """The timeline of a file; remembered for the last few files while they do not change.

    Raises: VideoError - no frames, or nothing read for timeout_s seconds
    """
    return result(path, timeout_s, partial(scan_packets, path))


def scan_packets(path: Path, link: Link) -> Iterator[Timeline]:
    """The timeline of a file, as a job."""
    name = shown_name(path)
    with open_video(path) as container:
        stream = pick_stream(container, name)
        numbers = array("q")
        for p in packets(container, stream, link.beat):
            numbers.extend(
                (
                    _ticks(p.pts),
                    _ticks(p.dts),
                    -1 if p.pos is None else p.pos,
                    p.duration or 0,
                    p.is_keyframe,
                    p.is_discard,
                )
            )
            if len(numbers) > limits.SAMPLES * _COLUMNS:
                limits.check_samples(name, limits.SAMPLES + 1, path.stat().st_size)
        rows = np.array(numbers, np.int64).reshape(-1, _COLUMNS)
        if not len(rows):
            raise VideoError(f"No video frames found in {name}.")
        header = _header(container, stream)
        limits.check_work(name, len(rows), header.area_px, path.stat().st_size)
        timeline = _timeline(rows, stream, header)
        behind = num_recordings(path) - timeline.parts
        if behind > 0 and not timeline.by_order:
            more = "1 more recording" if behind == 1 else f"{behind} more recordings"
            note = f"The file holds {more} behind what is read; cut it into its parts first."
            timeline = replace(timeline, notes=(*timeline.notes, note))
    if timeline.missing_frames > len(rows):
        raise VideoError(
            f"{name} is incomplete: only {len(rows)} of its {timeline.missing_frames + len(rows)} "
            "frames are there; wait for the upload or copy the file again."
        )
    yield timeline


def packets(
    container: av.container.InputContainer, stream: av.VideoStream | av.AudioStream, beat: Beat
) -> Iterator[av.Packet]:
    """The stream's packets in file order; damaged stretches are stepped over."""
    source, failures = container.demux(stream), 0
    while failures < 100:
        beat()
        try:
            packet = next(source, None)
        except av.error.InvalidDataError:
            source, failures = container.demux(stream), failures + 1
            continue
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def codec_name(stream: av.VideoStream | av.AudioStream) -> str:
    """The name of the format ("av1"), not of the library that decodes it."""
    return stream.codec_context.codec.canonical_name


def _header(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> Header:
    return Header(
        container=container.format.name,
        duration_us=container.duration or 0,
        start_us=container.start_time,
        stream_start_pts=stream.start_time,
        average_fps=float(stream.average_rate) if stream.average_rate else None,
        num_streams=len(container.streams),
        num_videos=len(video_streams(container)),
        has_audio=bool(container.streams.audio),
        is_hdr=stream.codec_context.color_trc in _HDR_CURVES,
        area_px=stream.width * stream.height,
    )


def _ticks(value: int | None) -> int:
    return int(NO_PTS) if value is None else value


def _timeline(rows: np.ndarray, stream: av.video.stream.VideoStream, header: Header) -> Timeline:
    kind = header.container
    pts, dts, pos, length, key, hidden = rows.T
    codec = codec_name(stream)
    keys = np.flatnonzero(key)
    timed = pts != NO_PTS
    fields = codec in _FIELD_CODECS
    # avi has no presentation times; what stands there for these codecs is made up from file order
    by_order = kind == "avi" if fields and timed.mean() >= 0.4 else not timed.all()
    shift = None if by_order else clock_shift(pts, dts, key != 0, NO_PTS)
    if shift is not None:
        pts, dts = np.where(timed, pts + shift, pts), np.where(dts != NO_PTS, dts + shift, dts)
    if by_order:
        packet, shown = np.arange(len(rows)), _guess_times(dts, stream)
    else:
        usable = timed & (hidden == 0)
        if len(keys):
            # what comes before the first keyframe, in the file or on screen, cannot be decoded
            usable[: keys[0]] = False
            usable &= pts >= pts[keys[0]]
        if not usable.any():
            usable = timed
        packet = np.flatnonzero(usable)
        packet = packet[np.argsort(pts[packet], kind="stable")]
        shown = pts[packet]
    last = int(length[packet[-1]]) or _frame_ticks(stream)
    cut = max(0, stream.frames - len(rows)) if "mp4" in kind else 0
    return Timeline(
        pts_F=shown,
        packet_F=packet,
        keys_G=keys,
        packet_pts_N=pts,
        packet_dts_N=dts,
        packet_pos_N=pos,
        # avi numbers frames in the order they are decoded, so its first one can have any number
        zero_pts=_zero(int(shown[0]), stream, None if kind == "avi" else header.start_us),
        end_pts=int(shown[-1]) + last,
        time_base=stream.time_base,
        shift_N=shift,
        estimated=by_order,
        by_order=by_order,
        skippable=not by_order and codec not in _NO_SKIP and len(keys) > 1,
        seekable=shift is None and bool(_SEEKABLE & set(kind.split(","))),
        missing_frames=cut,
        header=header,
        notes=_notes(header, stream, by_order, shift, hidden),
    )


def _zero(first_pts: int, stream: av.video.stream.VideoStream, start_us: int | None) -> int:
    """Where the clip's clock is 0: at the start of the file, whatever stream comes first.

    A start below 0 is the delay of a sound encoder and not something a player shows.
    """
    if start_us is None:
        return first_pts
    return min(first_pts, max(0, round(Fraction(start_us, 1_000_000) / stream.time_base)))


def _notes(
    header: Header,
    stream: av.video.stream.VideoStream,
    by_order: bool,
    shift: np.ndarray | None,
    hidden: np.ndarray,
) -> tuple[str, ...]:
    found = []
    if by_order:
        rate = 1 / (_frame_ticks(stream) * stream.time_base)
        found.append(f"Times are estimated at {float(rate):.4g} fps: the file has none.")
    if shift is not None:
        parts = 1 + int(np.count_nonzero(np.diff(shift)))
        found.append(f"The file's clock begins anew: its {parts} parts are counted in a row.")
        if unshown := int(np.count_nonzero(hidden[shift != 0])):
            found.append(f"{unshown} frames where its parts meet cannot be shown.")
    if header.num_videos > 1:
        found.append(f"The file holds {header.num_videos} videos; only its main one is read.")
    if stream.metadata.get("alpha_mode") == "1":
        found.append("The transparency of the video is not read.")
    if header.is_hdr:
        found.append("The video is HDR and is read without tone mapping: its colours look flat.")
    return tuple(found)


def _guess_times(dts: np.ndarray, stream: av.video.stream.VideoStream) -> np.ndarray:
    """Presentation times of a file without any: its decoding times, else an even spacing."""
    if (dts != NO_PTS).all() and len(np.unique(dts)) == len(dts):
        return np.sort(dts)
    return np.arange(len(dts)) * _frame_ticks(stream)


def _frame_ticks(stream: av.video.stream.VideoStream) -> int:
    rate = stream.average_rate or stream.guessed_rate or 25
    return max(1, round(1 / (rate * stream.time_base)))
