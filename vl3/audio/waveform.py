"""Sound decoded and made mono at 16 kHz, piece by piece: the jobs of a process that decodes.

A track is read as it is heard: what it does not have for more than 20 ms is silence, what comes
twice is heard once, and every sample keeps its time. Known here: av and numpy; no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np

from vl3.audio.channels import as_floats, cancel, mixed
from vl3.audio.runs import GAP_S, Run, Span, cut, in_time
from vl3.sound import RATE_HZ
from vl3.video.container import open_video, shown_name, video_streams
from vl3.video.job import Beat, Link
from vl3.video.timeline import codec_name, packets

_BLOCK = 4 * RATE_HZ  # samples that are handed over at a time
# Containers that find a place by its time, and tell the right time there.
_SEEKABLE = {"mov", "matroska", "wav", "flac"}
# Their demuxers count times from the first frame's rate, which may change.
_UNTIMED = {"aac", "mp3", "ac3", "eac3", "dts", "amr", "loas", "latm"}
_PLANES = 8  # PyAV reads planes that are not there where a frame has so many
_RUN_S = 0.5  # frames are taken together until they are as long
_REACH = 64  # samples at the slower rate; more than a filter of libswresample reaches over
_SEEK_S, _PREROLL_S = 10.0, 1.0  # decoders need a little of what comes before


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundHeader:
    """A file's own statement on its sound; codec is empty where it has none.

    duration_s: of the track, as stated, which may be missing or wrong
    start_s: of the track on the file's own clock
    has_picture: whether there is a video beside it (cover pictures are none)
    """

    path: Path
    has_picture: bool
    codec: str = ""
    rate_hz: int = 0
    channels: int = 0
    layout: str = ""
    bits: int = 0
    tracks: int = 0
    duration_s: float | None = None
    start_s: float = 0.0

    @property
    def has_sound(self) -> bool:
        return self.tracks > 0


@dataclass(kw_only=True, slots=True)
class SoundFacts:
    """What is known of a track once it was read; times on the clip's clock.

    power, channel_power: sums of squares, of the mean and, on average, of the channels
    first_s: of the first sample of the file, whatever was read; None where nothing can be decoded
    used_bits, width_bits: of decoded samples that are whole numbers, those that are not always 0
    """

    rate_hz: int = 0
    channels: int = 0
    layout: str = ""
    heard: int = 0
    samples: int = 0
    start_s: float = 0.0
    first_s: float | None = None
    packets: int = 0
    lost: int = 0
    power: float = 0.0
    channel_power: float = 0.0
    peak: float = 0.0
    used_bits: int = 0
    width_bits: int = 0
    gaps_s: list[tuple[float, float]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Of what is kept of each piece; see mixed."""
        return 1 if self.heard <= 1 else 3

    @property
    def bits(self) -> int:
        """Of the samples that were encoded, in whole bytes; 0 where there was no sound."""
        unused = (self.used_bits & -self.used_bits).bit_length() - 1
        return -(-(self.width_bits - unused) // 8) * 8 if self.used_bits else 0

    @property
    def cancelled(self) -> bool:
        return self.heard > 1 and cancel(self.power, self.channel_power)


def header(path: Path, link: Link) -> Iterator[SoundHeader]:
    """What the header of a file says of its sound, as a job."""
    with open_video(path) as container:
        has_picture = bool(video_streams(container))
        tracks = [s for s in container.streams.audio if s.codec_context is not None]
        if not tracks:
            yield SoundHeader(path=path, has_picture=has_picture)
            return
        stream = _main(tracks)
        context, base = stream.codec_context, cast(Fraction, stream.time_base)
        length_s = float(stream.duration * base) if stream.duration else None
        if length_s is None and container.duration:
            length_s = container.duration / av.time_base
        yield SoundHeader(
            path=path,
            has_picture=has_picture,
            codec=codec_name(stream),
            rate_hz=context.sample_rate or 0,
            channels=context.channels,
            layout=_layout(context.layout) if context.channels else "",
            bits=_pcm_bits(codec_name(stream)),
            tracks=len(container.streams.audio),
            duration_s=length_s,
            start_s=float((stream.start_time or 0) * base),
        )


def samples(
    path: Path, span: Span, row: str, is_native: bool, link: Link
) -> Iterator[np.ndarray | SoundFacts]:
    """Blocks of 16 kHz samples, then the facts, as a job. is_native: of the file's own rate

    row: "both" for the mean of the channels and the first of them, "mean" or "first" for one, or
    "none" for the facts alone
    Shapes: blocks - float32 [2, S] for "both" of several channels, else [1, S]
    """
    facts = SoundFacts()
    with open_video(path) as container:
        stream = _main([s for s in container.streams.audio if s.codec_context is not None])
        stream.codec_context.thread_count = 1  # frames are small
        runs = in_time(_sounds(container, stream, span, facts, link.beat), shown_name(path))
        measured = _measured(cut(runs, span), facts, row)
        pieces = (run.rows_CS for run in measured)
        for block_CS in _blocks(pieces if is_native else _at_16_khz(measured, link.beat)):
            facts.samples += block_CS.shape[1]
            if row != "none":
                yield block_CS
    yield facts


def ffmpeg_mono(path: Path, link: Link) -> Iterator[np.ndarray]:
    """What the ffmpeg command makes of a track for 16-bit mono at 16 kHz, as a job; one value.

    Its own mix of the channels, and frames one behind the other whatever their times.
    Shapes: int16 [S]
    """
    found = [np.zeros(0, np.int16)]
    with open_video(path) as container:
        stream = _main([s for s in container.streams.audio if s.codec_context is not None])
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        for packet in chain(packets(container, stream, link.beat), [None]):
            try:
                frames = [*stream.codec_context.decode(packet)]
            except av.error.FFmpegError:
                continue
            for frame in frames:
                frame.pts = None
                found += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
        found += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    yield np.concatenate(found)


def resampled(rows_CS: np.ndarray, rate_hz: int) -> np.ndarray:
    """Samples at 16 kHz. Shapes: float32 [channels, samples], one channel or two"""
    run = Run(start_s=0.0, rate_hz=rate_hz, rows_CS=rows_CS)
    pieces = [*_at_16_khz([run], lambda: None), np.zeros((len(rows_CS), 0), np.float32)]
    return np.concatenate(pieces, axis=1)


def _layout(layout: av.AudioLayout) -> str:
    """Its name; formats without one have channels alone ("1 channels")."""
    return {1: "mono", 2: "stereo"}.get(len(layout.channels), layout.name)


def _main(tracks: list[av.AudioStream]) -> av.AudioStream:
    default = av.stream.Disposition.default
    return max(tracks, key=lambda s: (bool(s.disposition & default), -s.index))


def _pcm_bits(codec: str) -> int:
    """Bits of a stored sample, of formats whose name says it: pcm_s24le."""
    digits = "".join(c for c in codec[5:7] if c.isdigit())
    return int(digits) if codec.startswith("pcm_") and digits else 0


def _sounds(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    span: Span,
    facts: SoundFacts,
    beat: Beat,
) -> Iterator[Run]:
    """What decodes, from before the start of the span on, on the clip's clock."""
    frames = _frames(container, stream, facts, beat)
    first = next(frames, None)
    if first is None:
        return
    first_s = _time_s(first) or 0.0
    zero_s = first_s if span.zero_s is None else span.zero_s
    facts.first_s = first_s - zero_s
    wanted_s = zero_s + (span.start_s or 0.0)
    is_seekable = bool(_SEEKABLE & set(container.format.name.split(",")))
    frames = chain([first], frames)
    if is_seekable and first.pts is not None and wanted_s - first_s > _SEEK_S:
        frames = _from(container, stream, wanted_s, frames, facts, beat)
    is_untimed = container.format.name in _UNTIMED
    for run in _joined(frames, facts, is_untimed):
        yield replace(run, start_s=None if run.start_s is None else run.start_s - zero_s)


def _from(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    wanted_s: float,
    rest: Iterator[av.AudioFrame],
    facts: SoundFacts,
    beat: Beat,
) -> Iterator[av.AudioFrame]:
    """Frames from a little before that time on the file's clock; else the rest as it is."""
    ticks = round((wanted_s - _PREROLL_S) / cast(Fraction, stream.time_base))
    try:
        container.seek(ticks, stream=stream)
    except av.error.FFmpegError:
        return rest
    stream.codec_context.flush_buffers()
    facts.packets = facts.lost = 0
    sought = _frames(container, stream, facts, beat)
    next(sought, None)  # decoders begin with what they would have needed earlier sound for
    return sought


def _frames(
    container: av.container.InputContainer,
    stream: av.AudioStream,
    facts: SoundFacts,
    beat: Beat,
) -> Iterator[av.AudioFrame]:
    """What a track decodes to."""
    for packet in chain(packets(container, stream, beat), [None]):
        facts.packets += packet is not None
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            facts.lost += packet is not None
            continue
        for frame in frames:
            if frame.samples and frame.sample_rate:
                yield frame


def _time_s(frame: av.AudioFrame) -> float | None:
    """When it is heard, on the file's clock."""
    return None if frame.pts is None else float(frame.pts * cast(Fraction, frame.time_base))


def _joined(frames: Iterable[av.AudioFrame], facts: SoundFacts, is_untimed: bool) -> Iterator[Run]:
    """Frames that follow one another as one run each, because a frame is of a few milliseconds."""
    held: list[av.AudioFrame] = []
    start_s: float | None = None
    length_s = 0.0
    for frame in frames:
        at_s = _time_s(frame)
        if is_untimed and facts.rate_hz not in (0, frame.sample_rate):
            at_s = None
        late_s = 0.0 if at_s is None or start_s is None else at_s - start_s - length_s
        if held and (length_s > _RUN_S or abs(late_s) > GAP_S or _kind(frame) != _kind(held[0])):
            yield _run(held, start_s, facts)
            held = []
        if not held:
            start_s, length_s = at_s, 0.0
        held.append(frame)
        length_s += frame.samples / frame.sample_rate
    if held:
        yield _run(held, start_s, facts)


def _kind(frame: av.AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _run(frames: list[av.AudioFrame], start_s: float | None, facts: SoundFacts) -> Run:
    """Frames of one kind, mixed; notes what they are."""
    rate_hz, layout = frames[0].sample_rate, frames[0].layout
    is_full_range = [not channel.name.startswith("LFE") for channel in layout.channels]
    if not facts.channels:
        facts.rate_hz, facts.channels, facts.layout = rate_hz, len(is_full_range), _layout(layout)
        facts.heard = max(1, sum(is_full_range))
    stored_CS = np.concatenate([_stored(frame) for frame in frames], axis=1)
    if stored_CS.dtype.kind == "i":
        facts.used_bits |= int(np.bitwise_or.reduce(stored_CS, axis=None))
        facts.width_bits = 8 * stored_CS.dtype.itemsize
    rows_CS = mixed(as_floats(stored_CS), is_full_range)
    if len(rows_CS) != facts.rows:
        # the number of channels changed on the way
        rows_CS = np.repeat(rows_CS[:1], facts.rows, axis=0)
        rows_CS[2:] **= 2
    return Run(start_s, rate_hz, rows_CS)


def _stored(frame: av.AudioFrame) -> np.ndarray:
    """The samples of a frame. Shapes: [channels, samples], of the type they are stored in"""
    channels, is_packed = len(frame.layout.channels), frame.format.is_packed
    if not is_packed and channels >= _PLANES:
        (frame,) = av.AudioResampler(
            frame.format.packed.name, frame.layout, frame.sample_rate
        ).resample(frame)
        is_packed = True
    stored = frame.to_ndarray()
    return stored.reshape(-1, channels).T if is_packed else stored


def _measured(runs: Iterable[Run], facts: SoundFacts, row: str) -> Iterator[Run]:
    """The runs with the rows that are wanted; notes what they hold."""
    rows = {"both": slice(2), "first": slice(1, 2)}.get(row, slice(1))
    was_gap, is_first = False, True
    for run in runs:
        if is_first:
            facts.start_s, is_first = run.start_s or 0.0, False
        if run.is_gap and was_gap:
            start_s, length_s = facts.gaps_s.pop()
            facts.gaps_s.append((start_s, length_s + run.length_s))
        elif run.is_gap:
            facts.gaps_s.append((run.start_s or 0.0, run.length_s))
        was_gap = run.is_gap
        facts.peak = max(facts.peak, float(np.abs(run.rows_CS[:2]).max()))
        if facts.rows > 1:
            facts.power += float(np.square(run.rows_CS[0]).sum(dtype=np.float64))
            facts.channel_power += float(run.rows_CS[2].sum(dtype=np.float64))
        yield replace(run, rows_CS=run.rows_CS[rows if facts.rows > 1 else slice(1)])


class _Resampler:
    """Brings rows of one rate to 16 kHz; owns libswresample's state.

    n samples become n * 16,000 / rate of them, rounded up, the first at the time of the first.
    """

    def __init__(self, rate_hz: int, rows: int) -> None:
        self.rate_hz, self._rows = rate_hz, rows
        self._layout = "mono" if rows == 1 else "stereo"
        self._swr = av.AudioResampler("fltp", self._layout, RATE_HZ)
        self._given = self._made = 0

    def feed(self, rows_CS: np.ndarray) -> Iterator[np.ndarray]:
        self._given += rows_CS.shape[1]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows_CS), "fltp", self._layout)
        frame.sample_rate = self.rate_hz
        for found in self._swr.resample(frame):
            self._made += found.samples
            yield found.to_ndarray()

    def end(self) -> Iterator[np.ndarray]:
        """What it still holds."""
        left = -(-self._given * RATE_HZ // self.rate_hz) - self._made
        # it holds back what its filter reaches over, and gives nothing where that is all
        behind = np.zeros((self._rows, _REACH + _REACH * self.rate_hz // RATE_HZ), np.float32)
        for piece_CS in self.feed(behind):
            yield piece_CS[:, : max(left, 0)]
            left -= piece_CS.shape[1]


def _at_16_khz(runs: Iterable[Run], beat: Beat) -> Iterator[np.ndarray]:
    resampler: _Resampler | None = None
    for run in runs:
        beat()
        if resampler and run.rate_hz != resampler.rate_hz:
            yield from resampler.end()
            resampler = None
        if run.rate_hz == RATE_HZ:
            yield run.rows_CS
            continue
        resampler = resampler or _Resampler(run.rate_hz, len(run.rows_CS))
        yield from resampler.feed(run.rows_CS)
    if resampler:
        yield from resampler.end()


def _blocks(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same in blocks of a few seconds."""
    held: list[np.ndarray] = []
    count = 0
    for piece_CS in pieces:
        held.append(piece_CS)
        count += piece_CS.shape[1]
        if count >= _BLOCK:
            yield np.concatenate(held, axis=1)
            held, count = [], 0
    if held:
        yield np.concatenate(held, axis=1)
