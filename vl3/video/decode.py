"""Decoding the wanted frames of a file, and no more packets than they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from vl3.video.container import open_video, pick_stream, shown_name
from vl3.video.errors import VideoError
from vl3.video.timeline import NO_PTS, Timeline, packets
from vl3.video.worker import Beat

_MAX_LOST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets first..last (file order) are decoded to get the frames `wanted` (display order)."""

    first: int
    last: int
    wanted: tuple[int, ...]
    seek: bool = False


@dataclass(slots=True)
class Losses:
    """How many packets were decoded, and how many of them were damaged."""

    packets: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded frame: `index` is its own place in the timeline, `wanted` the one it stands for."""

    wanted: int
    index: int
    frame: av.VideoFrame
    stream: VideoStream


class _SeekMissedError(Exception):
    """The file was not entered where it should have been."""


def stretches(timeline: Timeline, wanted: list[int]) -> list[Stretch]:
    """What to decode for the wanted frames: from the keyframe before each of them to the frame.

    A stretch is left, and the next one sought, only when a whole group of pictures lies between.
    """
    packet = timeline.packet_F
    if not timeline.seekable:
        return [Stretch(0, int(packet[wanted].max()), tuple(wanted))]
    keys = timeline.keys_G
    by_time = keys[np.argsort(timeline.packet_pts_N[keys], kind="stable")]
    before = np.searchsorted(timeline.packet_pts_N[by_time], timeline.pts_F[wanted], "right") - 1
    firsts = by_time[np.maximum(before, 0)]
    found: list[Stretch] = []
    group_done = 0  # number of the group of pictures decoding has reached
    for frame, first in zip(wanted, firsts.tolist()):
        last = int(packet[frame])
        group = int(np.searchsorted(keys, first))
        skips = group - group_done > (1 if found else 0)
        if found and not skips:
            previous = found.pop()
            last = max(previous.last, last)
            found.append(Stretch(previous.first, last, (*previous.wanted, frame), previous.seek))
        else:
            found.append(Stretch(first, max(first, last), (frame,), seek=skips))
        group_done = int(np.searchsorted(keys, found[-1].last, "right")) - 1
    return found


def decoded(
    path: Path, timeline: Timeline, wanted: list[int], beat: Beat, losses: Losses
) -> Iterator[Shown]:
    """The wanted frames, ascending, decoding only what they need.

    wanted is ascending without repetition. Where a wanted frame is damaged, the last good one
    before it takes its place if it was not given already; else nothing is given.
    Raises: VideoError - more than half of what was decoded is damaged
    """
    container = open_video(path)
    try:
        for stretch in stretches(timeline, wanted):
            pending = deque(stretch.wanted)
            if stretch.seek:
                try:
                    yield from _attempt(container, path, timeline, stretch, pending, beat, losses)
                    continue
                except _SeekMissedError:
                    container.close()
                    container = open_video(path)
            linear = Stretch(stretch.first, stretch.last, tuple(pending))
            yield from _attempt(container, path, timeline, linear, pending, beat, losses)
    finally:
        container.close()
    if losses.lost > _MAX_LOST_SHARE * losses.packets:
        raise VideoError(
            f"{shown_name(path)} is too damaged: {losses.lost} of {losses.packets} frames read "
            "could not be decoded; use another copy."
        )


def _attempt(
    container: InputContainer,
    path: Path,
    timeline: Timeline,
    stretch: Stretch,
    pending: deque[int],
    beat: Beat,
    losses: Losses,
) -> Iterator[Shown]:
    """The frames of one stretch; takes from `pending` what it has dealt with."""
    stream = pick_stream(container, shown_name(path))
    lost_before, spare = losses.lost, None
    for index, frame in _placed(container, stream, timeline, stretch, beat, losses):
        while pending and pending[0] < index:
            if stretch.seek and losses.lost == lost_before:
                raise _SeekMissedError
            missed = pending.popleft()
            if spare:
                yield Shown(missed, *spare, stream)
            spare = None
        spare = (index, frame)
        if pending and pending[0] == index:
            yield Shown(pending.popleft(), *spare, stream)
            spare = None
    if pending and stretch.seek and losses.lost == lost_before:
        raise _SeekMissedError
    if pending and spare:
        yield Shown(pending.popleft(), *spare, stream)


def _placed(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    stretch: Stretch,
    beat: Beat,
    losses: Losses,
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Good frames of a stretch with their place in the timeline, in the order they are shown."""
    counted = 0
    for frame in _frames(container, stream, timeline, stretch, beat, losses):
        if timeline.by_order:
            index, counted = counted, counted + 1
        elif frame.pts is None:
            continue
        else:
            index = int(np.searchsorted(timeline.pts_F, frame.pts, side="right")) - 1
        if frame.is_corrupt:
            losses.lost += 1
        elif 0 <= index < len(timeline):
            yield index, frame


def _frames(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    stretch: Stretch,
    beat: Beat,
    losses: Losses,
) -> Iterator[av.VideoFrame]:
    if not stream.codec_context.is_open:
        stream.thread_type = "AUTO"
    for packet in _packets(container, stream, timeline, stretch, beat):
        try:
            losses.packets += packet is not None
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            losses.lost += 1
            continue
        for frame in frames:
            beat()
            yield frame


def _packets(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    stretch: Stretch,
    beat: Beat,
) -> Iterator[av.Packet | None]:
    """The packets of a stretch, then None, which makes the decoder give what it still holds."""
    index = None
    if stretch.seek:
        _seek(container, stream, timeline, stretch.first)
    else:
        index = 0
    for packet in packets(container, stream, beat):
        if index is None:
            same = (
                np.flatnonzero(timeline.packet_pts_N == packet.pts)
                if packet.pts is not None
                else ()
            )
            if not len(same):
                continue
            index = int(same[0])
            if index > stretch.first:
                raise _SeekMissedError
        if index >= stretch.first:
            yield packet
        index += 1
        if index > stretch.last:
            break
    yield None


def _seek(container: InputContainer, stream: VideoStream, timeline: Timeline, packet: int) -> None:
    pts, dts = int(timeline.packet_pts_N[packet]), int(timeline.packet_dts_N[packet])
    try:
        # demuxers seek by decoding time, which is the earlier of the two
        container.seek(pts if dts == NO_PTS else min(pts, dts), stream=stream)
    except av.error.FFmpegError:
        raise _SeekMissedError from None
