"""Frames of a timeline as upright, resized RGB."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vl3.video import limits
from vl3.video.animated_webp import animation_frames, animation_timeline
from vl3.video.container import shown_name
from vl3.video.decode import (
    DecodedFrame,
    DecodeErrors,
    decoded,
    raise_if_too_damaged,
    split_for_threads,
    total,
)
from vl3.video.decoder import run
from vl3.video.errors import VideoError
from vl3.video.images import (
    Resize,
    Target,
    check_target,
    is_animation,
    resized,
    resolve_size,
    shape_of,
)
from vl3.video.job import Beat, Link, Picture
from vl3.video.pixels import Orientation, orientation, stored_rgb
from vl3.video.square import Square
from vl3.video.timeline import Timeline, scan
from vl3.video.watchdog import run_with_watchdog

Size = Target | Callable[[int, int, int], tuple[int, int]] | None


def timeline_of(path: Path, timeout_s: float) -> Timeline:
    """The timeline of a video or of an animation."""
    if is_animation(path):
        return animation_timeline(path, timeout_s)
    return scan(path, timeout_s)


def read_picks(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    size: Size,
    on_frame: Callable[[int, int], None] | None = None,
    on_wait: Callable[[], None] | None = None,
    timeout_s: float = 30.0,
    untagged: str = "height",
    resize: Resize = resized,
) -> tuple[np.ndarray, list[tuple[int, int]], DecodeErrors]:
    """frames_TYX3 of the wanted timeline indices, (wanted, given) indices for each, what was lost.

    Raises: VideoError - nothing could be decoded, too much is damaged, the decoder stalls
    """
    # what is called may need this process, or a GPU
    native = resize is not resized
    fixed = size if size is None or callable(size) else resolve_size(size, len(wanted), 0, 0)
    named = "native" if native else "asked for" if callable(size) else fixed
    told = on_frame, on_wait
    gather = partial(_gathered, path, timeline, wanted, fixed, *told, timeout_s, resize, native)
    if is_animation(path):
        frames, given, losses = gather(partial(animation_pictures, path, wanted, named))
    else:
        job = partial(pictures, path, timeline, untagged=untagged, size=named)
        parts = split_for_threads(timeline, wanted, available_cores())
        frames, given, losses = gather(partial(job, parts=parts))
        arrived = given == [(frame, frame) for frame in wanted]
        if not arrived or losses.damaged or losses.lost:
            # anew without leaving anything out; a good frame can then stand for the damaged one
            # after it
            frames, given, losses = gather(partial(job, parts=[wanted], whole=True))
            raise_if_too_damaged(path, losses)
    if frames is None:
        raise VideoError(f"No frame of {shown_name(path)} could be decoded; the file is damaged.")
    return frames, given, losses


def _gathered(
    path: Path,
    timeline: Timeline,
    wanted: list[int],
    size: Size,
    on_frame: Callable[[int, int], None] | None,
    on_wait: Callable[[], None] | None,
    timeout_s: float,
    resize: Resize,
    native: bool,
    job: Callable[[Link], Iterator[Picture | DecodeErrors]],
) -> tuple[np.ndarray | None, list[tuple[int, int]], DecodeErrors]:
    """What a job gives: frames_TYX3, (wanted, given) indices, and what was lost."""
    place = {frame: at for at, frame in enumerate(wanted)}
    frames_TYX3, losses = None, DecodeErrors()
    given: dict[int, int] = {}

    def fit(height_px: int, width_px: int) -> Target:
        target = resolve_size(size, len(wanted), height_px, width_px)
        limits.check_read(shown_name(path), len(wanted), *shape_of(target))
        return target

    area_px = timeline.header.area_px if timeline.header else limits.PICTURE_PIXELS
    for found in run(path, timeout_s, job, area_px=area_px, ask=fit, on_wait=on_wait):
        if isinstance(found, DecodeErrors):
            losses = found
            continue
        if frames_TYX3 is None:
            target = fit(*found.shown_px) if native else found.pixels_YX3.shape[:2]
            frames_TYX3 = np.empty((len(wanted), *shape_of(target), 3), np.uint8)
        frames_TYX3[place[found.wanted]] = resize(found.pixels_YX3, target)
        given[found.wanted] = found.index
        if on_frame:
            on_frame(len(given), len(wanted))
    if frames_TYX3 is not None and len(given) < len(wanted):
        frames_TYX3 = frames_TYX3[[place[asked] for asked in sorted(given)]]
    return frames_TYX3, sorted(given.items()), losses


class _Shape:
    """How stored pictures become the ones given, settled by the first of them.

    size: height and width, a Square, None for their own, or who knows it: "asked for", the caller;
    "native", the caller as well, who resizes them then
    """

    def __init__(self, name: str, size: Any, num_frames: int, link: Link) -> None:
        self._name, self._size, self._num_frames, self._link = name, size, num_frames, link
        self._turn: Orientation | None = None
        self._target: Target | None = None

    def fit(self, upright_YX3: np.ndarray, shown_px: tuple[int, int]) -> np.ndarray:
        if self._size == "native":
            return upright_YX3
        if self._target is None and self._size == "asked for":
            self._target = self._link.ask(*shown_px)
        if self._target is None:
            self._target = self._size or shown_px
            limits.check_read(self._name, self._num_frames, *shape_of(self._target))
            if isinstance(self._target, Square):
                check_target(self._name, self._target, *shown_px)
        if upright_YX3.shape[:2] == self._target:
            return upright_YX3
        if isinstance(self._target, Square) and upright_YX3.shape[:2] != shown_px:
            upright_YX3 = resized(upright_YX3, shown_px)  # pixels of the file that are not square
        return resized(upright_YX3, self._target)

    def turn(self, shown: DecodedFrame) -> Orientation:
        self._turn = self._turn or orientation(shown.frame, shown.stream)
        return self._turn


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def animation_pictures(
    path: Path, wanted: list[int], size: Any, link: Link
) -> Iterator[Picture | DecodeErrors]:
    """The wanted frames of an animation that PIL plays, then what was lost: nothing."""
    shape = _Shape(shown_name(path), size, len(wanted), link)
    for index, rgb_YX3 in animation_frames(path, wanted, link.beat):
        shown_px = rgb_YX3.shape[0], rgb_YX3.shape[1]
        yield Picture(shape.fit(rgb_YX3, shown_px), shown_px, index, index)
    yield DecodeErrors()


def pictures(
    path: Path,
    timeline: Timeline,
    link: Link,
    *,
    parts: list[list[int]],
    untagged: str,
    size: Any,
    whole: bool = False,
) -> Iterator[Picture | DecodeErrors]:
    """The wanted frames of a video, each part decoded in its own thread, then what was lost."""
    shape = _Shape(shown_name(path), size, sum(map(len, parts)), link)
    losses = [DecodeErrors() for _ in parts]

    def part(wanted: list[int], lost: DecodeErrors, beat: Beat) -> Iterator[Picture]:
        threads = len(parts) == 1
        for shown in decoded(path, timeline, wanted, beat, lost, whole=whole, threads=threads):
            turn = shape.turn(shown)
            stored_YX3 = stored_rgb(shown.frame, untagged)
            shown_px = turn.display_size(*stored_YX3.shape[:2])
            picture_YX3 = shape.fit(turn.upright(stored_YX3), shown_px)
            yield Picture(picture_YX3, shown_px, shown.wanted, shown.index)

    if len(parts) == 1:
        yield from part(parts[0], losses[0], link.beat)
    else:
        # who waits for all of it gives it up where it stalls
        threads = [partial(_beating, link, partial(part, *each)) for each in zip(parts, losses)]
        yield from run_with_watchdog(shown_name(path), math.inf, *threads)
    yield total(losses)


def _beating(link: Link, produce: Callable[[Beat], Iterator[Picture]], beat: Beat):
    """What a thread gives, whose beats are also those of the job."""

    def both() -> None:
        beat()
        link.beat()

    return produce(both)
