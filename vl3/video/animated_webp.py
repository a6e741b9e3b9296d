"""Animated webp and avif through PIL; gif and apng go the way of all videos."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.video import limits
from vl3.video.container import shown_name
from vl3.video.decoder import result
from vl3.video.errors import VideoError
from vl3.video.header_cache import once_per_file
from vl3.video.images import DAMAGE, upright
from vl3.video.job import Beat, Link
from vl3.video.levels import over_white
from vl3.video.timeline import Timeline

_DEFAULT_DELAY_MS = 100


@once_per_file(8)
def animation_timeline(path: Path, timeout_s: float) -> Timeline:
    """The timeline of an animated webp or avif, from its real delays; 0 counts as 100 ms.

    Raises: VideoError - too large, damaged, or slower than a file of its size may be
    """
    return result(path, timeout_s, partial(scan_delays, path), area_px=limits.PICTURE_PIXELS)


def scan_delays(path: Path, link: Link) -> Iterator[Timeline]:
    """The timeline of an animation, as a job."""
    delays_ms = [_delay_ms(picture) for picture in _pictures(path, link.beat)]
    pts_F = np.concatenate([[0], np.cumsum(delays_ms[:-1])]).astype(np.int64)
    order = np.arange(len(delays_ms))
    yield Timeline(
        pts_F=pts_F,
        packet_F=order,
        keys_G=order[:1],
        packet_pts_N=pts_F,
        packet_dts_N=pts_F,
        packet_pos_N=np.full(len(delays_ms), -1),
        zero_pts=0,
        end_pts=int(sum(delays_ms)),
        time_base=Fraction(1, 1000),
        skippable=False,
        seekable=False,
    )


def animation_frames(path: Path, wanted: list[int], beat: Beat) -> Iterator[tuple[int, np.ndarray]]:
    """(index, uint8 RGB) of the wanted frames, upright, alpha laid over white."""
    chosen = set(wanted)
    for index, picture in enumerate(_pictures(path, beat)):
        if index in chosen:
            yield index, over_white(np.asarray(upright(picture).convert("RGBA")))


def _pictures(path: Path, beat: Beat) -> Iterator[Image.Image]:
    name = shown_name(path)
    try:
        with Image.open(path, formats=("WEBP", "AVIF")) as picture:
            area_px = picture.height * picture.width
            limits.check_frame(name, picture.height, picture.width)
            frames = getattr(picture, "n_frames", 1)
            limits.check_work(name, frames, area_px, path.stat().st_size)
            for index in range(frames):
                beat()
                picture.seek(index)
                picture.load()
                yield picture
    except VideoError:
        raise
    except DAMAGE as error:
        raise VideoError(f"{name} is damaged or incomplete: {error}.") from None


def _delay_ms(picture: Image.Image) -> int:
    return int(picture.info.get("duration") or _DEFAULT_DELAY_MS)
