"""How time and memory grow with frames: from decoded frames to features and mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from train_cli.bench.measure import peak_bytes, say, spread, timed
from vl3.pipeline import prune_patches, to_patches
from vl3.settings import PruneSettings
from vl3.values import Clip, Grid
from vl3.weights.load import load

FRAMES = (8, 24, 60, 120, 180)
SIDE_PX, PATCH = 168, 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """CPU seconds (median) and peak bytes for so many frames, each over that of a straight line.

    The line goes through the two ends, so the ends are 1 by themselves; memory is None where the
    system does not tell.
    """

    frames: int
    cpu_s: float
    time_over_line: float
    peak_bytes: int | None
    memory_over_line: float | None


def scaling(rounds: int, frames: Sequence[int] = FRAMES, memory: bool = True) -> list[Point]:
    """Patches, features of nano's encoder and mask of noise, nothing pruned."""
    times, peaks = [], []
    for count in frames:
        say(f"{count} frames")
        work = prepared(count)
        work()
        times.append(spread([timed(work)[0] for _ in range(rounds)])[1])
        peaks.append(peak_bytes(prepared, count) if memory else None)
    time_ratios = over_line(frames, times)
    known = all(peaks)
    memory_ratios = over_line(frames, peaks) if known else [None] * len(frames)
    return [
        Point(
            frames=count,
            cpu_s=time,
            time_over_line=time_ratio,
            peak_bytes=peak if known else None,
            memory_over_line=memory_ratio,
        )
        for count, time, time_ratio, peak, memory_ratio in zip(
            frames, times, time_ratios, peaks, memory_ratios
        )
    ]


def prepared(count: int) -> Callable[[], object]:
    """The work for so many frames."""
    model = load().model
    noise = torch.Generator().manual_seed(0)
    frames = torch.randint(
        0, 256, (count, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8, generator=noise
    ).numpy()
    clip = Clip(frames_TYX3=frames, times_s=tuple(map(float, range(count))), source="noise")
    side = SIDE_PX // PATCH
    grid = Grid(frames=count, rows=side, cols=side, merge=2)

    @torch.no_grad()
    def work():
        patches = to_patches([clip], [grid])
        features = model.encode_vision(patches.pixels_NP, [[count, side, side]], [2])
        return features, prune_patches(patches, PruneSettings())

    return work


def over_line(xs: Sequence[float], ys: Sequence[float]) -> list[float]:
    """Each y over the straight line through the first and the last point."""
    slope = (ys[-1] - ys[0]) / (xs[-1] - xs[0])
    return [y / (ys[0] + slope * (x - xs[0])) for x, y in zip(xs, ys)]
