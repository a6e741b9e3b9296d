"""Clips to measure with, made on the spot: what cameras, telephones and screens give."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SEED = 0
GOP, B_FRAMES = 250, 3  # x264's own defaults
SLIDE_S = 5
TRACK_HZ = 44_100


@dataclass(frozen=True, slots=True)
class Kind:
    """What a generated clip shows, and how large and long it is."""

    paint: Callable[[int, int, int, int], Iterator[np.ndarray]]
    height_px: int
    width_px: int
    fps: int
    length_s: int
    codec: str = "libx264"
    preset: str = "veryfast"


def motion(height: int, width: int, fps: int, frames: int) -> Iterator[np.ndarray]:
    """A camera that pans over a coarse picture, with the noise of a sensor."""
    noise = np.random.default_rng(SEED)
    scene = _blobs(noise, height * 2, width * 2)
    grain = noise.normal(0, 8, (height + 64, width + 64, 3)).astype(np.float32)
    for number in range(frames):
        down, right = number * height // (fps * 20) % height, number * width // (fps * 8) % width
        shift = noise.integers(0, 64, 2)
        part = scene[down : down + height, right : right + width]
        own = grain[shift[0] : shift[0] + height, shift[1] : shift[1] + width]
        yield np.clip(part + own, 0, 255).astype(np.uint8)


def slides(height: int, width: int, fps: int, frames: int) -> Iterator[np.ndarray]:
    """Pages of dark lines on a light ground, each shown for some seconds."""
    noise = np.random.default_rng(SEED)
    for number in range(frames):
        if number % (SLIDE_S * fps) == 0:
            page = _page(noise, height, width)
        yield page


def mix(height: int, width: int, fps: int, frames: int) -> Iterator[np.ndarray]:
    """Slides, and in a corner a speaker who moves in every other slide."""
    inside = motion(height // 4, width // 4, fps, frames)
    for number, page in enumerate(slides(height, width, fps, frames)):
        speaker = next(inside)
        if number // (SLIDE_S * fps) % 2:
            page = page.copy()
            page[-height // 4 :, -(width // 4) :] = speaker[-(height // 4) :]
        yield page


KINDS = {
    "motion": Kind(motion, 360, 640, 30, 20),
    "slides": Kind(slides, 360, 640, 25, 60),
    "mix": Kind(mix, 360, 640, 25, 60),
    "camera": Kind(motion, 1080, 1920, 30, 4),
    "portrait": Kind(motion, 848, 480, 60, 5, codec="libx265", preset="ultrafast"),
    "hour": Kind(mix, 180, 320, 25, 3600),
}


def write(name: str, folder: Path, length_s: int | None = None) -> Path:
    """The clip of this name as folder/name.mp4."""
    kind = KINDS[name]
    path = folder / f"{name}.mp4"
    frames = kind.fps * (length_s or kind.length_s)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(kind.codec, rate=kind.fps, options=_options(kind))
        stream.height, stream.width, stream.pix_fmt = kind.height_px, kind.width_px, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = GOP, B_FRAMES
        pictures = kind.paint(kind.height_px, kind.width_px, kind.fps, frames)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, kind.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _options(kind: Kind) -> dict[str, str]:
    quiet = {"x265-params": "log-level=error"} if kind.codec == "libx265" else {}
    return {"preset": kind.preset, **quiet}


def _blobs(noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Soft coloured spots: float RGB from 0 to 255."""
    coarse = noise.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3)).astype(np.float32)
    rows, cols = np.arange(height) / 24, np.arange(width) / 24
    top, left = rows.astype(int), cols.astype(int)
    down, right = (rows - top)[:, None, None], (cols - left)[None, :, None]
    upper = coarse[top][:, left] * (1 - right) + coarse[top][:, left + 1] * right
    lower = coarse[top + 1][:, left] * (1 - right) + coarse[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down


def _page(noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    page = np.full((height, width, 3), 240, np.uint8)
    page[: height // 8] = noise.integers(40, 200, 3)
    for top in range(height // 5, height - height // 10, height // 14):
        end = int(noise.integers(width // 3, width * 9 // 10))
        letters = noise.random((height // 40, end - width // 12, 1)) > 0.5
        page[top : top + height // 40, width // 12 : end] = np.where(letters, 30, 240)
    return page


def with_track(clip: Path, folder: Path) -> Path:
    """The clip where it has sound, else a copy in the folder with noise as its track."""
    with av.open(str(clip)) as given:
        if given.streams.audio:
            return clip
        made, picture = folder / f"{clip.stem}_sound.mp4", given.streams.video[0]
        with av.open(str(made), "w") as container:
            copied = container.add_stream_from_template(picture)
            track = container.add_stream("aac", rate=TRACK_HZ, layout="stereo")
            end_s = 0.0
            for packet in given.demux(picture):
                if packet.dts is not None:
                    end_s = max(end_s, float((packet.pts + packet.duration) * packet.time_base))
                    packet.stream = copied
                    container.mux(packet)
            noise = np.random.default_rng(SEED)
            for second in range(math.ceil(end_s)):
                sound = noise.normal(0, 0.1, (2, TRACK_HZ)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = TRACK_HZ, second * TRACK_HZ
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return made
