"""Frames of a timeline as upright, resized RGB, decoded in watched threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from vl3.video import animated_webp, limits
from vl3.video.container import shown_name
from vl3.video.decode import (
    DecodedFrame,
    DecodeErrors,
    decoded,
    raise_if_too_damaged,
    split_for_threads,
)
from vl3.video.errors import VideoError
from vl3.video.images import Resize, is_animation, resized, resolve_size
from vl3.video.pixels import Orientation, orientation, stored_rgb
from vl3.video.timeline import Timeline, scan
from vl3.video.watchdog import Beat, run_with_watchdog

Size = tuple[int, int] | Callable[[int, int, int], tuple[int, int]] | None


def timeline_of(path: Path, timeout_s: float) -> Timeline:
    """The timeline of a video or of an animation."""
    if is_animation(path):
        return animated_webp.animation_timeline(path, timeout_s)
    return scan(path, timeout_s)


def read_picks(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    size: Size,
    losses: DecodeErrors,
    on_frame: Callable[[int, int], None] | None = None,
    timeout_s: float = 30.0,
    untagged: str = "height",
    resize: Resize = resized,
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """frames_TYX3 of the wanted timeline indices, and (wanted, given) indices for each of them.

    Raises: VideoError - nothing could be decoded, too much is damaged, the decoder stalls
    """
    parts = (
        [wanted] if is_animation(path) else split_for_threads(timeline, wanted, available_cores())
    )
    found = [DecodeErrors() for _ in parts]
    frames, given = _gathered(
        path, timeline, parts, size, found, on_frame, timeout_s, untagged, resize
    )
    arrived = given == [(frame, frame) for frame in wanted]
    if not arrived or any(part.damaged or part.lost for part in found):
        # anew without leaving anything out; a good frame can then stand for the damaged one after
        frames, given = _gathered(
            path, timeline, [wanted], size, [losses], on_frame, timeout_s, untagged, resize, True
        )
        raise_if_too_damaged(path, losses)
    if frames is None:
        raise VideoError(f"No frame of {shown_name(path)} could be decoded; the file is damaged.")
    return frames, given


def _gathered(
    path: Path,
    timeline: Timeline,
    parts: list[list[int]],
    size: Size,
    losses: list[DecodeErrors],
    on_frame: Callable[[int, int], None] | None,
    timeout_s: float,
    untagged: str,
    resize: Resize,
    whole: bool = False,
) -> tuple[np.ndarray | None, list[tuple[int, int]]]:
    """frames_TYX3 of all parts, each decoded in its own thread, and (wanted, given) indices."""
    wanted = [frame for part in parts for frame in part]
    place = {frame: at for at, frame in enumerate(wanted)}
    look = _Resize(shown_name(path), size, len(wanted))
    producers = [
        partial(
            _pictures,
            path,
            timeline,
            part,
            look,
            loss,
            untagged,
            resize,
            whole=whole,
            threads=len(parts) == 1,
        )
        for part, loss in zip(parts, losses)
    ]
    frames_TYX3, given = None, {}
    name, deadline_s = shown_name(path), limits.read_deadline_s(path)
    for asked, index, rgb_YX3 in run_with_watchdog(
        name, timeout_s, *producers, deadline_s=deadline_s
    ):
        if frames_TYX3 is None:
            frames_TYX3 = np.empty((len(wanted), *rgb_YX3.shape), np.uint8)
        frames_TYX3[place[asked]] = rgb_YX3
        given[asked] = index
        if on_frame:
            on_frame(len(given), len(wanted))
    if frames_TYX3 is not None and len(given) < len(wanted):
        frames_TYX3 = frames_TYX3[[place[asked] for asked in sorted(given)]]
    return frames_TYX3, sorted(given.items())


class _Resize:
    """How stored pictures become the ones given, settled by the first of them."""

    def __init__(self, name: str, size: Size, num_frames: int) -> None:
        self._name, self._size, self._num_frames = name, size, num_frames
        self._turn: Orientation | None = None
        self._target: tuple[int, int] | None = None

    def target(self, height_px: int, width_px: int) -> tuple[int, int]:
        if self._target is None:
            target = resolve_size(self._size, self._num_frames, height_px, width_px)
            limits.check_read(self._name, self._num_frames, *target)
            self._target = target
        return self._target

    def turn(self, shown: DecodedFrame) -> Orientation:
        self._turn = self._turn or orientation(shown.frame, shown.stream)
        return self._turn


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pictures(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    look: _Resize,
    losses: DecodeErrors,
    untagged: str,
    resize: Resize,
    beat: Beat,
    *,
    whole: bool,
    threads: bool,
) -> Iterator[tuple[int, int, np.ndarray]]:
    if is_animation(path):
        for index, rgb_YX3 in animated_webp.animation_frames(path, wanted, beat):
            yield index, index, resize(rgb_YX3, look.target(*rgb_YX3.shape[:2]))
        return
    for shown in decoded(path, timeline, wanted, beat, losses, whole=whole, threads=threads):
        turn = look.turn(shown)
        stored_YX3 = stored_rgb(shown.frame, untagged)
        target = look.target(*turn.display_size(*stored_YX3.shape[:2]))
        yield shown.wanted, shown.index, resize(turn.upright(stored_YX3), target)
