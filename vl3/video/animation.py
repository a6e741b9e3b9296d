"""Animated webp, which ffmpeg cannot decode; gif and apng go the way of all videos."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vl3.video.container import shown_name
from vl3.video.errors import VideoError
from vl3.video.images import over_white
from vl3.video.timeline import Timeline
from vl3.video.worker import Beat

_DEFAULT_DELAY_MS = 100


def webp_timeline(path: Path) -> Timeline:
    """The timeline of an animated webp, from its real delays; a delay of 0 counts as 100 ms."""
    delays_ms = [_delay_ms(picture) for picture in _pictures(path)]
    pts_F = np.concatenate([[0], np.cumsum(delays_ms[:-1])]).astype(np.int64)
    order = np.arange(len(delays_ms))
    return Timeline(
        pts_F=pts_F,
        packet_F=order,
        keys_G=order[:1],
        packet_pts_N=pts_F,
        packet_dts_N=pts_F,
        packet_pos_N=np.full(len(delays_ms), -1),
        end_pts=int(sum(delays_ms)),
        time_base=Fraction(1, 1000),
        skippable=False,
        seekable=False,
    )


def webp_frames(path: Path, wanted: list[int], beat: Beat) -> Iterator[tuple[int, np.ndarray]]:
    """(index, uint8 RGB) of the wanted frames, alpha laid over white."""
    chosen = set(wanted)
    for index, picture in enumerate(_pictures(path)):
        beat()
        if index in chosen:
            yield index, over_white(np.asarray(picture.convert("RGBA")))


def _pictures(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=("WEBP",)) as picture:
            for index in range(picture.n_frames):
                picture.seek(index)
                picture.load()
                yield picture
    except (OSError, EOFError) as error:
        raise VideoError(f"{shown_name(path)} is damaged or incomplete: {error}.") from None


def _delay_ms(picture: Image.Image) -> int:
    return int(picture.info.get("duration") or _DEFAULT_DELAY_MS)
