"""Decoding the wanted frames of a file, and no more packets than they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.stream import VideoStream

from vl3.video import limits
from vl3.video.container import open_video, pick_stream, shown_name
from vl3.video.errors import VideoError
from vl3.video.job import Beat
from vl3.video.timeline import NO_PTS, Timeline, codec_name, packets

_SKIPS_UNREFERENCED = {"h264", "hevc"}
# Up to this size threads of a decoder cost more CPU time handing frames over than they save.
_SMALL_PX = 960 * 540
# Decoding stops after a wanted frame and starts anew at a later keyframe only where that many
# packets are saved: stopping empties the decoder, whose frames in hand are then output.
_TAIL_PACKETS = 8
# A thread opens the file anew, which takes as long as decoding some twenty small frames.
_SHARE_PACKETS = 600
# Smaller pictures make threads wait for one another: 320 x 180 took a tenth more CPU time.
_SHARE_PX = 320 * 240
_MAX_SHARES = 4
# How many packets later than in the order shown a frame can come where only their order is known.
_MOST_REORDERED = 16
_MAX_DAMAGED_SHARE = 0.5
_MAX_LOST_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class DecodeSpan:
    """Packets first..last (file order) are decoded to get the frames `wanted` (display order).

    whole: all of them are, also those on which nothing is built
    """

    first: int
    last: int
    wanted: tuple[int, ...]
    seek: bool = False
    whole: bool = False


@dataclass(slots=True)
class DecodeErrors:
    """Packets decoded, those damaged, and frames lost: damaged or built on a damaged one."""

    packets: int = 0
    damaged: int = 0
    lost: int = 0


def total(losses: Sequence[DecodeErrors]) -> DecodeErrors:
    """What was lost in all parts of a clip."""
    return DecodeErrors(
        packets=sum(part.packets for part in losses),
        damaged=sum(part.damaged for part in losses),
        lost=sum(part.lost for part in losses),
    )


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A decoded frame: `index` is its own place in the timeline, `wanted` the one it stands for."""

    wanted: int
    index: int
    frame: av.VideoFrame
    stream: VideoStream


class _SeekMissedError(Exception):
    """The file was not entered where it should have been."""


def decode_spans(
    timeline: Timeline,
    wanted: list[int],
    whole: bool = False,
    tail_packets: int = _TAIL_PACKETS,
) -> list[DecodeSpan]:
    """What to decode for the wanted frames: from the keyframe before each of them to the frame.

    The next stretch is sought only when a whole group of pictures lies between, else read on to.
    A stretch goes on over a keyframe when no more than tail_packets are saved by ending it.
    whole: only such groups are left out, so that the frames before a damaged one are at hand, and
    every group is decoded to its end, so that all that is lost in it is counted
    """
    packet = timeline.packet_F
    if not timeline.skippable:
        last = int(packet[wanted].max()) + (_MOST_REORDERED if timeline.by_order else 0)
        last = min(last, len(timeline.packet_pts_N) - 1)
        return [DecodeSpan(0, last, tuple(wanted), whole=whole)]
    keys = timeline.keys_G
    by_time = keys[np.argsort(timeline.packet_pts_N[keys], kind="stable")]
    before = np.searchsorted(timeline.packet_pts_N[by_time], timeline.pts_F[wanted], "right") - 1
    firsts = by_time[np.maximum(before, 0)]
    found: list[DecodeSpan] = []
    group_done = 0  # number of the group of pictures decoding has reached
    for frame, first in zip(wanted, firsts.tolist()):
        group = int(np.searchsorted(keys, first))
        last = _group_end(timeline, group) if whole else int(packet[frame])
        skips = group - group_done > (1 if found else 0)
        apart = not whole and found and first > found[-1].last + tail_packets
        if found and not skips and not apart:
            previous = found.pop()
            last = max(previous.last, last)
            found.append(replace(previous, last=last, wanted=(*previous.wanted, frame)))
        else:
            found.append(DecodeSpan(first, max(first, last), (frame,), seek=skips, whole=whole))
        group_done = int(np.searchsorted(keys, found[-1].last, "right")) - 1
    return found


def _group_end(timeline: Timeline, group: int) -> int:
    """The last packet of a group of pictures."""
    nexts = timeline.keys_G[group + 1 : group + 2].tolist()
    return (nexts[0] if nexts else len(timeline.packet_pts_N)) - 1


def split_for_threads(timeline: Timeline, wanted: list[int], most: int) -> list[list[int]]:
    """The wanted frames in up to `most` runs of about as many packets, decoded side by side.

    No packet is decoded for two of them. Fewer runs, or one, where that would not pay.
    """
    if not timeline.seekable or timeline.header.area_px < _SHARE_PX:
        return [wanted]
    parts = decode_spans(timeline, wanted, tail_packets=0)
    done = np.cumsum([part.last - part.first + 1 for part in parts])
    count = int(max(1, min(most, _MAX_SHARES, done[-1] // _SHARE_PACKETS)))
    # a run ends with the stretch in which its part of all packets ends
    ends = np.unique(np.searchsorted(done, done[-1] * np.arange(1, count + 1) // count) + 1)
    return [
        [frame for part in parts[start:end] for frame in part.wanted]
        for start, end in pairwise([0, *ends.tolist()])
    ]


class _Source:
    """An open file and the place reached in it; owns the container."""

    def __init__(
        self, path: Path, timeline: Timeline, beat: Beat, losses: DecodeErrors, threads: bool
    ) -> None:
        self.path, self.timeline, self.beat, self.losses = path, timeline, beat, losses
        self._threads = threads
        self.can_seek = timeline.seekable
        self._spoiled: list[range] = []
        self._joints = _joints(timeline)
        self._open()

    def _open(self) -> None:
        self.container = open_video(self.path)
        self.stream = pick_stream(self.container, shown_name(self.path))
        if self._threads and self.stream.width * self.stream.height > _SMALL_PX:
            self.stream.thread_type = "AUTO"
        else:
            self.stream.codec_context.thread_count = 1
        self._packets = packets(self.container, self.stream, self.beat)
        self._next: int | None = 0

    def close(self) -> None:
        self.container.close()

    def seek(self, packet: int) -> None:
        """Goes to a keyframe packet or a place before it."""
        pts = int(self.timeline.packet_pts_N[packet])
        dts = int(self.timeline.packet_dts_N[packet])
        try:
            # demuxers seek by decoding time, which is the earlier of the two
            self.container.seek(pts if dts == NO_PTS else min(pts, dts), stream=self.stream)
        except av.error.FFmpegError:
            raise _SeekMissedError from None
        self._packets = packets(self.container, self.stream, self.beat)
        self._next = None

    def rewind(self, packet: int) -> None:
        """Makes the packet reachable by reading on: from here, or else from the start."""
        if self._next is None or self._next > packet:
            self.close()
            self._open()
        elif self.stream.codec_context.is_open:
            self.stream.codec_context.flush_buffers()

    def packets(self, stretch: DecodeSpan) -> Iterator[av.Packet | None]:
        """The packets of a stretch, then None, which makes the decoder give what it still holds.

        Raises: _SeekMissedError - after a seek, packets are not the ones of the scan
        """
        known = self.timeline.packet_pts_N
        sought = self._next is None
        for packet in self._packets:
            pts = NO_PTS if packet.pts is None else packet.pts
            if self._next is None:
                self._next = _place_of(packet, self.timeline)
                if self._next is None:
                    continue
            if sought and (self._next > stretch.first or pts != known[self._next]):
                raise _SeekMissedError
            sought = sought and self._next < stretch.first
            self._next += 1
            if self._next > stretch.first:
                yield packet
            if self._next > stretch.last:
                break
        if self._next is None:  # nothing follows the place that was sought
            raise _SeekMissedError
        yield None

    def frames(self, stretch: DecodeSpan) -> Iterator[av.VideoFrame | None]:
        """Decoded frames of a stretch; None in place of a damaged packet."""
        wanted = self._needed(stretch)
        decoder, skips = self.stream.codec_context, None
        for packet in self.packets(stretch):
            self.losses.packets += packet is not None
            if wanted and skips is not (self._next - 1 not in wanted):
                # frames that nothing is built on are decoded only where they are wanted
                skips = self._next - 1 not in wanted
                decoder.skip_frame = "NONREF" if skips else "DEFAULT"
            if packet is not None and packet.is_corrupt and self._next - 1 not in self._joints:
                self._damage(self._next - 1)
            if packet is not None and self.timeline.shift_N is not None:
                _shift(packet, int(self.timeline.shift_N[self._next - 1]))
            try:
                frames = decoder.decode(packet)
            except av.error.FFmpegError:
                # frame threads report an error a few packets late
                self._damage(self._next - 1 - decoder.thread_count)
                self.losses.lost += 1
                yield None
                continue
            for frame in frames:
                self.beat()
                yield frame

    def placed(self, stretch: DecodeSpan) -> Iterator[tuple[int, av.VideoFrame]]:
        """Good frames of a stretch with their place in the timeline, in the order shown.

        Frames from a damaged one to the next keyframe are not good: they are built on it.
        """
        counted = 0
        for frame in self.frames(stretch):
            if self.timeline.by_order:
                index, counted = counted, counted + 1
            elif frame is None or frame.pts is None:
                continue
            else:
                index = int(np.searchsorted(self.timeline.pts_F, frame.pts, side="right")) - 1
            if frame is None or not 0 <= index < len(self.timeline):
                continue
            packet = int(self.timeline.packet_F[index])
            is_corrupt = frame.is_corrupt and packet not in self._joints
            if is_corrupt:
                self._damage(packet)
            if is_corrupt or any(packet in spoiled for spoiled in self._spoiled):
                self.losses.lost += 1
            else:
                yield index, frame

    def _needed(self, stretch: DecodeSpan) -> set[int]:
        """Packets of the wanted frames (and second fields); empty if all are to be decoded."""
        skips = codec_name(self.stream) in _SKIPS_UNREFERENCED and not self.timeline.by_order
        if stretch.whole or not skips:
            return set()
        carriers = self.timeline.packet_F[list(stretch.wanted)]
        return {*carriers.tolist(), *(carriers + 1).tolist()}

    def _damage(self, packet: int) -> None:
        limits.check_memory()
        self.losses.damaged += 1
        keys = self.timeline.keys_G
        if len(keys) < len(self.timeline.packet_pts_N):
            after = keys[np.searchsorted(keys, self._next - 1, side="right") :]
            until = int(after[0]) if len(after) else len(self.timeline.packet_pts_N)
            self._spoiled.append(range(max(packet, 0), until))


def _joints(timeline: Timeline) -> set[int]:
    """Packets beside the places where recordings were joined.

    The counters of a transport stream do not fit there, and its last packets before are marked as
    corrupt, which says nothing of them.
    """
    if timeline.shift_N is None:
        return set()
    last = np.flatnonzero(np.diff(timeline.shift_N))
    return {int(packet) for back in range(-1, 3) for packet in last - back}


def _shift(packet: av.Packet, ticks: int) -> None:
    """Moves a packet's stamps, and so those of its frame, to where the timeline has them."""
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks


def _place_of(packet: av.Packet, timeline: Timeline) -> int | None:
    """Index of a packet in the scan, by its place in the file, or by its time if unknown."""
    if packet.pos is not None and packet.pos >= 0:
        found = np.flatnonzero(timeline.packet_pos_N == packet.pos)
    elif packet.pts is not None:
        found = np.flatnonzero(timeline.packet_pts_N == packet.pts)
    else:
        return None
    return int(found[0]) if len(found) else None


def decoded(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    beat: Beat,
    losses: DecodeErrors,
    *,
    whole: bool = False,
    threads: bool = True,
) -> Iterator[DecodedFrame]:
    """The wanted frames, ascending, decoding only what they need.

    wanted is ascending without repetition. Where a wanted frame is damaged, the last good one
    decoded before it takes its place if it was not given already; else nothing is given.
    whole: as for stretches; threads: a decoder of large pictures may use some
    """
    source = _Source(path, timeline, beat, losses, threads)
    try:
        for stretch in decode_spans(timeline, wanted, whole):
            pending = deque(stretch.wanted)
            if stretch.seek and source.can_seek:
                try:
                    source.seek(stretch.first)
                    yield from _attempt(source, stretch, pending)
                    continue
                except _SeekMissedError:
                    source.can_seek = False
            source.rewind(stretch.first)
            yield from _attempt(source, replace(stretch, seek=False), pending)
    finally:
        source.close()


def raise_if_too_damaged(path: Path, losses: DecodeErrors) -> None:
    """Raises: VideoError - over half of what was decoded is damaged, or hardly a frame is left."""
    damaged = losses.damaged > _MAX_DAMAGED_SHARE * losses.packets
    if damaged or losses.lost > _MAX_LOST_SHARE * losses.packets:
        raise VideoError(
            f"{shown_name(path)} is too damaged: {max(losses.lost, losses.damaged)} of "
            f"{losses.packets} frames read could not be decoded; use another copy."
        )


def _attempt(source: _Source, stretch: DecodeSpan, pending: deque[int]) -> Iterator[DecodedFrame]:
    """The frames of one stretch; takes from `pending` what it has dealt with.

    Raises: _SeekMissedError - after a seek a wanted frame is missing though nothing was damaged
    """
    losses, stream = source.losses, source.stream
    lost_before, spare = losses.lost, None
    for index, frame in source.placed(stretch):
        while pending and pending[0] < index:
            if stretch.seek and losses.lost == lost_before:
                raise _SeekMissedError
            missed = pending.popleft()
            if spare:
                yield DecodedFrame(missed, *spare, stream)
            spare = None
        spare = (index, frame)
        if pending and pending[0] == index:
            yield DecodedFrame(pending.popleft(), *spare, stream)
            spare = None
    if pending and stretch.seek and losses.lost == lost_before:
        raise _SeekMissedError
    if pending and spare:
        yield DecodedFrame(pending.popleft(), *spare, stream)
