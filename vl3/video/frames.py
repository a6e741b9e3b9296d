"""Frames of a timeline as upright, resized RGB, decoded in a watched thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vl3.video import animation
from vl3.video.container import shown_name
from vl3.video.decode import Losses, decoded
from vl3.video.errors import VideoError
from vl3.video.images import Resize, is_animated_webp, resized, resolve_size
from vl3.video.pixels import orientation, stored_rgb
from vl3.video.timeline import Timeline, scan
from vl3.video.worker import Beat, watched

Size = tuple[int, int] | Callable[[int, int, int], tuple[int, int]] | None


def timeline_of(path: Path, timeout_s: float) -> Timeline:
    """The timeline of a video or of an animated webp."""
    return animation.webp_timeline(path) if is_animated_webp(path) else scan(path, timeout_s)


def read_picks(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    size: Size,
    losses: Losses,
    on_frame: Callable[[int, int], None] | None = None,
    timeout_s: float = 30.0,
    untagged: str = "height",
    resize: Resize = resized,
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """frames_TYX3 of the wanted timeline indices, and (wanted, given) indices for each of them.

    Raises: VideoError - nothing could be decoded, too much is damaged, the decoder stalls
    """
    name, total = shown_name(path), len(wanted)
    frames_TYX3, given = None, []

    def produce(beat: Beat) -> Iterator[tuple[int, int, np.ndarray]]:
        return _pictures(path, timeline, wanted, size, losses, beat, untagged, resize)

    for asked, index, rgb_YX3 in watched(name, timeout_s, produce):
        if frames_TYX3 is None:
            frames_TYX3 = np.empty((total, *rgb_YX3.shape), np.uint8)
        frames_TYX3[len(given)] = rgb_YX3
        given.append((asked, index))
        if on_frame:
            on_frame(len(given), total)
    if frames_TYX3 is None:
        raise VideoError(f"No frame of {name} could be decoded; the file is damaged.")
    return frames_TYX3[: len(given)], given


def _pictures(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    size: Size,
    losses: Losses,
    beat: Beat,
    untagged: str,
    resize: Resize,
) -> Iterator[tuple[int, int, np.ndarray]]:
    turn = target = None
    if is_animated_webp(path):
        for index, rgb_YX3 in animation.webp_frames(path, wanted, beat):
            target = target or resolve_size(size, len(wanted), *rgb_YX3.shape[:2])
            yield index, index, resize(rgb_YX3, target)
        return
    for shown in decoded(path, timeline, wanted, beat, losses):
        turn = turn or orientation(shown.frame, shown.stream)
        stored_YX3 = stored_rgb(shown.frame, untagged)
        if target is None:
            height, width = turn.display_size(*stored_YX3.shape[:2])
            target = resolve_size(size, len(wanted), height, width)
        yield shown.wanted, shown.index, resize(turn.upright(stored_YX3), target)
