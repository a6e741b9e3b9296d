"""How many patches a picture gets: the official grid arithmetic under a token budget."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, sqrt
from typing import Any

from vl3.arguments import items, number, whole
from vl3.values import Grid


def fit_grid(
    sizes: Sequence[tuple[int, int, int]],
    merge: int | Sequence[int],
    budget_tokens: int,
    *,
    patch: int = 14,
    min_tokens: int = 16,
) -> list[Grid]:
    """Grids of the clips and images of one prompt, which share budget_tokens visual tokens.

    sizes: (frames, height, width) in pixels per clip; an image has one frame.
    merge: patches per side merged into one token, one number or one per clip.
    The picture is then resized to rows * patch x cols * patch pixels. Sides are rounded to whole
    tokens, so the aspect ratio is kept only approximately. The minimum of min_tokens beats the
    budget: very many frames can exceed it (official behaviour; callers plan fewer frames).

    Raises: ValueError for a picture without area, and what else is no size.
    Source: VideoLLaMA3 image_processing (simple_batched_resize for one merge size, batched_resize
            for several). Difference: with several merge sizes the official rule can round a side
            to 0 pixels, here a side has at least one token.
    """
    sizes = [_size(size) for size in items("sizes", sizes, "a list of (frames, height, width)")]
    if isinstance(merge, Sequence) and not isinstance(merge, str | bytes):
        merges = [whole("each of merge", factor, low=1) for factor in merge]
    else:
        merges = [whole("merge", merge, low=1)] * len(sizes)
    if len(merges) != len(sizes):
        raise ValueError(f"{len(sizes)} sizes but {len(merges)} merge sizes")
    budget_tokens = whole("budget_tokens", budget_tokens, low=1, unit="visual tokens")
    patch = whole("patch", patch, low=1, unit="pixels")
    min_tokens = whole("min_tokens", min_tokens, low=0)
    if len(set(merges)) > 1:
        return _fit_mixed(sizes, merges, budget_tokens, patch)
    num_frames = sum(frames for frames, _, _ in sizes)
    return [
        _fit_one(size, factor, budget_tokens, num_frames, patch, min_tokens)
        for size, factor in zip(sizes, merges)
    ]


def _size(size: object) -> Any:
    """Frames, height and width. Raises: ValueError."""
    frames, height, width = items("each of sizes", size, "(frames, height, width)", count=3)
    height, width = number("height", height), number("width", width)
    if min(height, width) < 1:
        raise ValueError(f"a picture of {width:g} x {height:g} pixels has no area")
    return whole("frames", frames, low=1), height, width


def _fit_one(size, merge, budget_tokens, num_frames, patch, min_tokens) -> Grid:
    frames, height, width = size
    side = patch * merge
    least_px = min_tokens * side * side
    most_px = max(1, budget_tokens * side * side // num_frames)
    rows, cols = round(height / side), round(width / side)
    if rows * cols * side * side > most_px:
        shrink = sqrt(height * width / most_px)
        rows, cols = floor(height / shrink / side), floor(width / shrink / side)
    if rows * cols * side * side < least_px:
        grow = sqrt(least_px / (height * width))
        rows, cols = ceil(height * grow / side), ceil(width * grow / side)
    return Grid(frames=frames, rows=rows * merge, cols=cols * merge, merge=merge)


def _fit_mixed(sizes, merges, budget_tokens, patch) -> list[Grid]:
    wanted = sum(
        frames * ceil(height / (patch * merge)) * ceil(width / (patch * merge))
        for (frames, height, width), merge in zip(sizes, merges)
    )
    shrink = sqrt(wanted / budget_tokens)
    grids = []
    for (frames, height, width), merge in zip(sizes, merges):
        side = patch * merge
        if wanted > budget_tokens:
            rows, cols = floor(height / shrink / side), floor(width / shrink / side)
        else:
            rows, cols = round(height / side), round(width / side)
        rows, cols = max(1, rows), max(1, cols)
        grids.append(Grid(frames=frames, rows=rows * merge, cols=cols * merge, merge=merge))
    return grids
