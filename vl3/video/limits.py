"""What reading a file may cost: every limit of this package, checked before the work is done.

A small file can ask for any amount of memory and time: pixels that compress to nothing, frames that
are claimed and not there. Each limit is far above what cameras and screens give, and its sentence
names it and what to do.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from vl3.video.errors import VideoError

PICTURE_PIXELS = 120_000_000  # phones give up to 108 million
FRAME_PIXELS = 80_000_000  # 8K has 33 million, the largest panoramas 66
READ_BYTES = 8 << 30  # decoded frames of one read, at the size asked for
SAMPLES = 10_000_000  # packets of a file: 46 hours at 60 a second
FASTEST_FPS = 1_000_000  # asked for: every frame of whatever there is
OFFICIAL_SLOTS = 10_000_000  # frames that the official way of sampling may repeat
# Decoding much more than this of a file for each of its bytes is no video: a screen in 4K on which
# nothing moves gives some 300,000.
PIXELS_PER_BYTE = 2_000_000
FREE_PIXELS = 20_000_000_000  # decoded whatever the size of the file: 40 minutes of 480p
# Of a process that decodes: itself, packets, the times of an hour. A decoder keeps up to 16 frames
# to build on and one a thread, of 1.5 to 6 bytes a pixel, PIL and NumPy a few copies.
# The stack of a thread is 8 MB, and there are a few for each core.
DECODER_BYTES = (768 << 20) + (32 << 20) * (os.cpu_count() or 1)
DECODER_BYTES_PER_PIXEL = 96
_LAST_BYTES = 64 << 20  # a decoder that fails with less than that left fails for want of it
READ_S, READ_S_PER_MB, READ_S_MOST = 60.0, 60.0, 3600.0


def check_picture(name: str, height_px: int, width_px: int) -> None:
    """Raises: VideoError - a picture of too many pixels, known before it is decoded"""
    if height_px * width_px > PICTURE_PIXELS:
        raise VideoError(
            f"{name} is too large: {width_px} x {height_px} pixels, and pictures of at most "
            f"{PICTURE_PIXELS // 10**6} million are read; make it smaller first."
        )


def check_frame(name: str, height_px: int, width_px: int) -> None:
    """Raises: VideoError - a video whose frames have too many pixels"""
    if height_px * width_px > FRAME_PIXELS:
        raise VideoError(
            f"{name} is too large: frames of {width_px} x {height_px} pixels, and at most "
            f"{FRAME_PIXELS // 10**6} million are read; make it smaller first."
        )


def check_samples(name: str, claimed: int, size_bytes: int) -> None:
    """Raises: VideoError - more packets than a file of this size can hold, or than are read"""
    if claimed > size_bytes:
        raise VideoError(
            f"{name} is damaged: it claims {claimed} frames or sounds in {size_bytes} bytes; use "
            "another copy."
        )
    if claimed > SAMPLES:
        raise VideoError(
            f"{name} is too long: it holds {claimed} packets, and files of at most "
            f"{SAMPLES // 10**6} million are read; cut it into parts first."
        )


def check_read(name: str, num_frames: int, height_px: int, width_px: int) -> None:
    """Raises: VideoError - decoded frames that would take too much memory"""
    asked = num_frames * height_px * width_px * 3
    if asked > READ_BYTES:
        raise VideoError(
            f"{num_frames} frames of {width_px} x {height_px} pixels of {name} take "
            f"{asked / 2**30:.1f} GiB, and at most {READ_BYTES >> 30} are given at once; lower "
            "max_frames or give a smaller size."
        )


def check_work(name: str, num_frames: int, pixels_per_frame: int, size_bytes: int) -> None:
    """Raises: VideoError - a file so small for what it claims that it is no video"""
    work = num_frames * pixels_per_frame
    if work > max(FREE_PIXELS, PIXELS_PER_BYTE * size_bytes):
        raise VideoError(
            f"{name} is too costly: {num_frames} frames of {pixels_per_frame / 1e6:.1f} million "
            f"pixels in {size_bytes / 1e6:.2f} MB are above the limit of "
            f"{PIXELS_PER_BYTE // 10**6} million pixels for each byte; make it smaller or cut it "
            "first."
        )


def read_deadline_s(path: Path) -> float:
    """Seconds after which reading a file is given up, however well it goes on."""
    return min(READ_S + READ_S_PER_MB * path.stat().st_size / 1e6, READ_S_MOST)


def decoder_bytes(area_px: int) -> int:
    """Memory that decoding frames or pictures of so many pixels may take, beside the result."""
    return DECODER_BYTES + DECODER_BYTES_PER_PIXEL * area_px


def check_memory() -> None:
    """Asked where decoding failed, because decoders do not always say why.

    Raises: MemoryError - hardly any memory is left under the bound of this process
    """
    if os.name == "posix":
        try:
            mmap.mmap(-1, _LAST_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
        except OSError:
            raise MemoryError from None
