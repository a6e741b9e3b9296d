"""The film strip: few pictures that stand for all frames the model sees.

The frames fall into at most 16 groups of neighbours, one cell each. A cell shows a picture from its
group, and of the group's visual tokens the share that was kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from PIL import Image

from vl3.values import Plan, VisualContext
from vl3.webapp.text_format import clock

MOST = 16
CELL_PX = 160
EMPTY = (13, 15, 20)  # as around the player's picture


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmStrip:
    """The file with the pictures side by side, and of which moment each of them is.

    spans: for which spans() it was made
    """

    path: str
    times_s: tuple[float, ...]
    spans: tuple[tuple[float, float, float], ...]


def firsts(count: int, most: int = MOST) -> list[int]:
    """Index of the first frame of each group."""
    groups = min(count, most)
    return [group * count // groups for group in range(groups)]


def spans(times_s: Sequence[float]) -> tuple[tuple[float, float, float], ...]:
    """(start, time, end) of each group: its first frame's time, and what is nearest to its frames.

    The picture of a group can be of any moment in the span. It begins and ends half-way to the
    neighbours; nothing before the first frame or after the last one is shown.
    """
    starts = firsts(len(times_s))
    half = [(times_s[first - 1] + times_s[first]) / 2 for first in starts[1:]]
    edges = [times_s[0], *half, times_s[-1] + 1e-3]
    return tuple(
        (edges[group], times_s[first], edges[group + 1]) for group, first in enumerate(starts)
    )


def shares(seen: VisualContext) -> list[float]:
    """Of each group's visual tokens, the share that was kept."""
    kept = seen.kept_per_frame
    starts = firsts(len(kept))
    groups = [kept[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    return [sum(group) / (seen.tokens_per_frame * len(group)) for group in groups]


def labels(times_s: Sequence[float]) -> list[str]:
    """The times as a player shows them, with one or two decimals where they would repeat."""
    texts = [clock(time_s) for time_s in times_s]
    for digits in (1, 2):
        if len(set(texts)) == len(texts):
            break
        # Rounded down, as players do: 2.96 s is still 0:02.9.
        parts = [divmod(int(time_s * 10**digits + 1e-6), 10**digits) for time_s in times_s]
        texts = [f"{clock(whole_s)}.{rest:0{digits}d}" for whole_s, rest in parts]
    return texts


def cell_size(height_px: int, width_px: int) -> tuple[int, int]:
    """Width and height of a cell for such frames; never taller than 16:9, so that rows are low."""
    return CELL_PX, max(1, min(CELL_PX * 9 // 16, round(CELL_PX * height_px / width_px)))


def fitted(height_px: int, width_px: int, cell: tuple[int, int]) -> tuple[int, int]:
    """Height and width of such a frame inside the cell."""
    scale = min(cell[0] / width_px, cell[1] / height_px)
    return max(1, round(height_px * scale)), max(1, round(width_px * scale))


def draw(
    frames_TYX3, times_s: Sequence[float], chosen: Sequence[tuple], cell: tuple[int, int]
) -> tuple[Image.Image, tuple[float, ...]]:
    """The pictures side by side, one for each of the chosen spans, and their times.

    A span without a picture (its frames are damaged) stays empty, under the time wanted.
    """
    width, height = cell
    image = Image.new("RGB", (width * len(chosen), height), EMPTY)
    shown_s = [wanted_s for _, wanted_s, _ in chosen]
    for picture_YX3, time_s in zip(frames_TYX3, times_s, strict=True):
        for number, (start_s, _, end_s) in enumerate(chosen):
            if start_s <= time_s < end_s:
                picture = Image.fromarray(picture_YX3)
                left = number * width + (width - picture.width) // 2
                image.paste(picture, (left, (height - picture.height) // 2))
                shown_s[number] = time_s
    return image, tuple(shown_s)


def value(plan: Plan, made: FilmStrip | None, url: str, seen: VisualContext | None) -> dict:
    """What the page draws: the cells, and time, label and kept tokens of every frame.

    made, url: the pictures; None where there are none yet for these frames.
    """
    times_s = cast(tuple[float, ...], plan.times_s)
    starts = firsts(len(times_s))
    made = made if made and made.spans == spans(times_s) else None
    shown_s = made.times_s if made else [times_s[first] for first in starts]
    seen = seen if seen and seen.times_s == times_s else None
    share = shares(seen) if seen else [None] * len(starts)
    cells = zip(shown_s, labels(shown_s), starts, share, strict=True)
    return {
        "url": url if made else "",
        "size": cell_size(plan.height_px, plan.width_px),
        "cells": [
            {"time_s": time_s, "label": label, "first": first, "share": kept}
            for time_s, label, first, kept in cells
        ],
        "times_s": times_s,
        "labels": labels(times_s),
        "kept": seen.kept_per_frame if seen else None,
        "tokens": seen.tokens_per_frame if seen else None,
    }
