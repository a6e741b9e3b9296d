"""Small sounds made on the spot: tones, clicks, files of every kind, videos with a track.

`write_sound` makes a file without picture, `write_film` one with numbered frames and a sound track.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import numbered

Piece = tuple[float, np.ndarray]  # when it begins in the file, and its rows


def tone(seconds: float, rate_hz: int, frequency_hz: float = 440.0, level: float = 0.5):
    """float32 [1, S]"""
    times_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)[None]


def clicks(seconds: float, rate_hz: int, at_s: Sequence[float]) -> np.ndarray:
    """Bursts of 5 ms at those times, float32 [1, S]"""
    rows_CS = np.zeros((1, round(seconds * rate_hz)), np.float32)
    for time_s in at_s:
        first, count = round(time_s * rate_hz), round(0.005 * rate_hz)
        times_s = np.arange(count) / rate_hz
        rows_CS[0, first : first + count] = 0.8 * np.sin(2 * np.pi * 1500 * times_s)
    return rows_CS


def click_times(samples_S: np.ndarray, rate_hz: int = 16_000) -> list[float]:
    """When bursts begin."""
    loud = np.abs(samples_S) > 0.2
    starts = [i for i in np.flatnonzero(loud) if not loud[max(0, i - rate_hz // 10) : i].any()]
    return [i / rate_hz for i in starts]


def write_sound(
    path: Path,
    rows_CS: np.ndarray | Sequence[Piece],
    rate_hz: int,
    codec: str = "pcm_s16le",
    *,
    layout: str | None = None,
    sample_format: str | None = None,
) -> Path:
    """Rows of float32 as a sound file, or pieces of them each from a time on."""
    pieces = [(0.0, rows_CS)] if isinstance(rows_CS, np.ndarray) else rows_CS
    with av.open(str(path), "w") as container:
        stream = _add_track(container, pieces[0][1], rate_hz, codec, layout, sample_format)
        _mux(container, stream, pieces, rate_hz)
    return path


def write_film(
    path: Path,
    pieces: Sequence[Piece],
    rate_hz: int = 48_000,
    codec: str = "aac",
    *,
    seconds: float = 2.0,
    picture_from_s: float = 0.0,
    layout: str | None = None,
    tracks: int = 1,
) -> Path:
    """A video of numbered frames, 10 a second, with tracks of those pieces; none for no pieces."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt = 32, 96, "yuv420p"
        video.codec_context.max_b_frames = 0
        sounds = [
            _add_track(container, pieces[0][1], rate_hz, codec, layout, None)
            for _ in range(tracks if pieces else 0)
        ]
        for index in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = index + round(picture_from_s * 10), Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for sound in sounds:
            _mux(container, sound, pieces, rate_hz)
    return path


def _add_track(container, rows_CS, rate_hz, codec, layout, sample_format):
    usual = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(rows_CS)]
    # FFmpeg's own encoder of Vorbis is marked as an experiment
    options = {"strict": "experimental"} if codec == "vorbis" else {}
    stream = container.add_stream(codec, rate=rate_hz, layout=layout or usual, options=options)
    if sample_format:
        stream.codec_context.format = sample_format
    return stream


def _mux(container, stream, pieces: Sequence[Piece], rate_hz: int) -> None:
    context = stream.codec_context
    kept, layout = context.format.name, context.layout.name
    for start_s, rows_CS in pieces:
        context.open(strict=False)
        size = context.frame_size or 1024
        convert = av.AudioResampler(kept, layout, rate_hz)
        for first in range(0, rows_CS.shape[1], size):
            # PyAV writes no planes of eight channels and more
            packed = np.ascontiguousarray(rows_CS[:, first : first + size].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
            frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
            frame.pts = round(start_s * rate_hz) + first
            for converted in convert.resample(frame):
                container.mux(stream.encode(converted))
    container.mux(stream.encode(None))
