"""What a file says about itself: header and first frame, nothing more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import cast

import av
import av.error

from vl3.arguments import number
from vl3.video.animated_webp import animation_timeline
from vl3.video.container import local_file, open_video, pick_stream, shown_name
from vl3.video.decoder import result
from vl3.video.errors import VideoError
from vl3.video.header_cache import once_per_file
from vl3.video.images import image_format, image_size, is_animation, kind_of
from vl3.video.job import Beat, Link
from vl3.video.pixels import orientation
from vl3.video.timeline import codec_name, packets, scan

_PACKETS_TRIED = 250


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """A file's own statement; duration_s, num_frames and fps may be missing or wrong in it.

    kind: "image" or "video"

    duration_s: when the last frame ends on the clip's clock, which is a player's
    height_px, width_px: as displayed, i.e. after rotation and with square pixels
    rotation_deg: clockwise turn that makes the stored picture upright, after mirroring
    start_s: time of the first frame in the file's own clock; clips count from the file's start
    num_frames: None where the file does not say
    """

    path: Path
    kind: str
    duration_s: float | None
    num_frames: int | None
    height_px: int
    width_px: int
    rotation_deg: int = 0
    mirrored: bool = False
    fps: float | None = None
    time_base: Fraction | None = None
    start_s: float = 0.0
    codec: str = ""
    container: str = ""
    has_audio: bool = False


def probe(path: str | os.PathLike, timeout_s: float = 30.0) -> Probe:
    """What the header of a video or picture says, without decoding more than the first frame.

    Raises: VideoError - one sentence: missing, empty, incomplete, no video stream, a URL, ...
    """
    return read_header(local_file(path), number("timeout_s", timeout_s, above=0, unit="seconds"))


@once_per_file(64)
def read_header(found: Path, timeout_s: float) -> Probe:
    """The same of a local file; read once, as long as the file does not change."""
    if kind_of(found) == "image":
        height, width = image_size(found)
        return Probe(
            path=found,
            kind="image",
            duration_s=None,
            num_frames=1,
            height_px=height,
            width_px=width,
            codec=image_format(found),
            container=image_format(found),
        )
    if is_animation(found):
        return _probe_animation(found, timeout_s)
    header, is_clock = result(found, timeout_s, partial(probe_header, found))
    if is_clock:
        return replace(header, duration_s=scan(found, timeout_s).duration_s)
    return header


def _probe_animation(path: Path, timeout_s: float) -> Probe:
    timeline, (height, width) = animation_timeline(path, timeout_s), image_size(path)
    kind = image_format(path)
    return Probe(
        path=path,
        kind="video",
        duration_s=timeline.duration_s,
        num_frames=len(timeline),
        height_px=height,
        width_px=width,
        fps=len(timeline) / timeline.duration_s,
        time_base=timeline.time_base,
        codec=kind,
        container=kind,
    )


def probe_header(path: Path, link: Link) -> Iterator[tuple[Probe, bool]]:
    """A video's header, and whether it may state a time of day for its duration; as a job."""
    name = shown_name(path)
    with open_video(path) as container:
        stream = pick_stream(container, name)
        frame = first_frame(container, stream, name, link.beat)
        turn = orientation(frame, stream)
        height, width = turn.display_size(frame.height, frame.width)
        started_us, has_length = container.start_time or 0, bool(stream.duration)
        # what it states may be a length, or the end on a wall clock
        is_matroska = "matroska" in container.format.name
        is_clock = is_matroska and not has_length and started_us > av.time_base
        header = Probe(
            path=path,
            kind="video",
            duration_s=_duration_s(container, stream),
            num_frames=stream.frames or None,
            height_px=height,
            width_px=width,
            rotation_deg=turn.clockwise_deg,
            mirrored=turn.mirrored,
            fps=float(stream.average_rate) if stream.average_rate else None,
            time_base=stream.time_base,
            start_s=float((stream.start_time or 0) * cast(Fraction, stream.time_base)),
            codec=codec_name(stream),
            container=container.format.name,
            has_audio=bool(container.streams.audio),
        )
    yield header, is_clock


def first_frame(container, stream, name: str, beat: Beat) -> av.VideoFrame:
    """The first frame that can be decoded.

    Raises: VideoError - there is none among the first packets
    """
    stream.thread_type = "SLICE"  # frame threads would only delay the first frame
    seen = 0
    for packet in packets(container, stream, beat):
        seen += 1
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            frames = []
        if frames:
            return frames[0]
        if seen >= _PACKETS_TRIED:
            break
    try:
        frames = stream.codec_context.decode(None) if seen else []
    except av.error.FFmpegError:
        frames = []
    if not frames:
        codec = codec_name(stream)
        raise VideoError(
            f"No video frames found in {name}: nothing in its {codec} stream can be decoded."
            if seen
            else f"No video frames found in {name}: the file holds none or is cut off."
        )
    return frames[0]


def _duration_s(container, stream) -> float | None:
    """When the last frame ends on the clip's clock, as stated."""
    if stream.duration:
        first_s = float((stream.start_time or 0) * stream.time_base)
        zero_s = min(first_s, max(0.0, (container.start_time or 0) / av.time_base))
        return first_s + float(stream.duration * stream.time_base) - zero_s
    return container.duration / av.time_base if container.duration else None
