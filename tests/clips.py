"""Small clips made on the spot, whose frames carry their own number, so that content is checked.

`write_clip` makes a video, `numbers` reads the numbers back from decoded frames, `write_animation`
makes an animated gif, webp or apng. A number is 12 blocks, black or white, across the upper part
of the picture, lowest bit on the left; it survives any resizing to a few dozen pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vl3.values import Clip

BITS = 12
LOSSLESS = {"qp": "0", "preset": "ultrafast"}


def numbered(number: int, height_px: int = 32, width_px: int = 96) -> np.ndarray:
    """uint8 RGB picture that carries `number`."""
    picture = np.full((height_px, width_px, 3), 90, np.uint8)
    for bit in range(BITS):
        left, right = bit * width_px // BITS, (bit + 1) * width_px // BITS
        picture[: height_px // 2, left:right] = 255 if number >> bit & 1 else 0
    return picture


def noise_clip(
    seed: int = 0, frames: int = 3, size: tuple[int, int] = (56, 84), still: bool = True
) -> Clip:
    """A clip of noise that was not read from a file; its upper half stands still if asked for."""
    shape = (frames, *size, 3)
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    if still:
        pixels[:, : size[0] // 2] = pixels[0, : size[0] // 2]
    return Clip(frames_TYX3=pixels, times_s=tuple(map(float, range(frames))), source=f"clip{seed}")


def numbers(frames_TYX3: np.ndarray) -> list[int]:
    """The number each frame carries."""
    height, width = frames_TYX3.shape[1:3]
    band = frames_TYX3[:, height // 8 : height * 3 // 8].mean(axis=(1, 3))
    edges = (np.arange(BITS) + 0.25) * width / BITS, (np.arange(BITS) + 0.75) * width / BITS
    bits = [
        band[:, int(left) : max(int(right), int(left) + 1)].mean(axis=1) > 128
        for left, right in zip(*edges)
    ]
    return [int(sum(int(bit[t]) << b for b, bit in enumerate(bits))) for t in range(len(band))]


@contextmanager
def _own_priority() -> Iterator[None]:
    """Takes back the real-time priority that SVT-AV1 gives the thread that encodes, if root asks.

    Whatever that thread starts afterwards would have it too: a browser then starves the machine.
    """
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler"):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def write_clip(
    path: Path,
    count: int = 50,
    fps: Fraction | int = 25,
    *,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    pictures: Sequence[np.ndarray] | None = None,
    size: tuple[int, int] = (32, 96),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    bframes: int = 2,
    codec_options: dict[str, str] | None = None,
    format_options: dict[str, str] | None = None,
    clockwise_deg: int = 0,
    mirrored: bool = False,
    pixel_aspect: Fraction | None = None,
    matrix: int | None = None,
    full_range: bool = False,
    audio_s: float = 0.0,
    audio_from_s: float = 0.0,
) -> Path:
    """A video of `count` numbered frames, or of `pictures` (uint8 RGB, all of one size).

    times: presentation times in ticks of time_base, one per frame (variable rate, late or negative
    start); without it frames follow each other at fps. clockwise_deg, then mirrored are what a
    player must do to show the picture upright: the pixels are stored turned the other way.
    Interlaced: codec_options={"x264-params": "tff=1"} or, for mpeg2video, {"flags": "+ildct+ilme"}.
    matrix: AVColorSpace number, for tag and conversion. audio_s: seconds of silence,
    from audio_from_s on.
    """
    pictures = pictures or [numbered(k, *size) for k in range(count)]
    stored = [_stored(picture, clockwise_deg, mirrored) for picture in pictures]
    time_base = time_base or 1 / Fraction(fps)
    with _own_priority(), av.open(str(path), "w", options=format_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(fps), options=dict(codec_options or {}))
        stream.height, stream.width = stored[0].shape[:2]
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = time_base
        if codec in ("libx264", "mpeg4", "mpeg2video", "libx265"):
            context.gop_size, context.max_b_frames = gop, bframes
        if pixel_aspect:
            stream.sample_aspect_ratio = pixel_aspect
        if matrix is not None:
            context.colorspace = matrix
        if full_range:
            context.color_range = 2
        if clockwise_deg or mirrored:
            # the muxer's angle turns counter-clockwise
            stream.set_display_rotation(-clockwise_deg, hflip=mirrored)
        sound = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        for index, picture in enumerate(stored):
            frame = _frame(picture, pix_fmt, matrix, full_range)
            frame.pts = times[index] if times is not None else index
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            _silence(container, sound, audio_s, audio_from_s)
    return path


def write_animation(
    path: Path, delays_ms: Sequence[int], pictures: Sequence[np.ndarray] | None = None
) -> Path:
    """An animated gif, webp or png (by suffix) of numbered frames with the given delays."""
    chosen = pictures or [numbered(k) for k in range(len(delays_ms))]
    images = [Image.fromarray(picture) for picture in chosen]
    extra = {"lossless": True} if path.suffix == ".webp" else {}
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=list(delays_ms) if len(delays_ms) > 1 else delays_ms[0],
        **extra,
    )
    return path


def _stored(picture: np.ndarray, clockwise_deg: int, mirrored: bool) -> np.ndarray:
    flipped = picture[:, ::-1] if mirrored else picture
    return np.ascontiguousarray(np.rot90(flipped, clockwise_deg // 90))


def _frame(
    picture: np.ndarray, pix_fmt: str, matrix: int | None, full_range: bool
) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    if pix_fmt.startswith(("rgb", "bgr", "gbr", "pal")):
        return frame.reformat(format=pix_fmt)
    converted = frame.reformat(
        format=pix_fmt,
        dst_colorspace={None: 5, 2: 5, 6: 5}.get(matrix, matrix),
        dst_color_range=2 if full_range else 1,
    )
    converted.color_range = 2 if full_range else 1
    if matrix is not None:
        converted.colorspace = matrix
    return converted


def _silence(
    container: av.container.OutputContainer, stream, seconds: float, from_s: float = 0.0
) -> None:
    for start in range(int(from_s * 8000), int((from_s + seconds) * 8000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
