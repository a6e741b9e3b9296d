"""Boxes written in an answer: finding them, giving each its moment, linking them to the player.

A model that was asked where something is writes [[x0,y0,x1,y1]], each number on a scale from 0 to
1000 of the frame it saw: from left to right, from top to bottom.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vl3.webapp import timestamps

SCALE = 1000
MOST = 100  # of one answer; a model that repeats itself can write thousands
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_GAP = r"\s{0,8}"
_ONE = rf"\[{_GAP}-?[0-9]{{1,5}}(?:{_GAP},{_GAP}-?[0-9]{{1,5}}){{3}}{_GAP}\]"
# After a name or a bracket it is an index (a[[1,2,3,4]]), inside of brackets another kind of list.
_LIST = re.compile(rf"(?<![\w\[\])}}.])\[{_GAP}{_ONE}(?:{_GAP},{_GAP}{_ONE})*{_GAP}\](?![\w\[\](])")
_NUMBER = re.compile(r"-?[0-9]+")
# Between a box and a time that belongs to it: [[1,2,3,4]] at 0:12, [[1,2,3,4]] (0:12).
_JOINED = re.compile(r"[ ,(]{0,4}(?:(?:at|around|about)\s)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on the scale from 0 to SCALE, and the time it is about (None: not said)."""

    left: int
    top: int
    right: int
    bottom: int
    time_s: float | None = None


def find(text: str, duration_s: float | None = None) -> tuple[list[Box], int]:
    """The first MOST boxes of the text in order, and how many there are in all.

    A box is about the time right after it, or else about the last one named before it, or else
    about the first one named at all. Numbers off the scale are moved onto it; rectangles without
    an area and lists in code are left out.
    """
    text = _CODE.sub(lambda match: " " * len(match[0]), text)
    moments = timestamps.find(text, duration_s)
    boxes, total, passed = [], 0, 0
    for match in _LIST.finditer(text):
        while passed < len(moments) and moments[passed].start < match.start():
            passed += 1
        time_s = _moment(text, match.end(), moments, passed)
        numbers = [min(max(int(word), 0), SCALE) for word in _NUMBER.findall(match[0])]
        for left, top, right, bottom in zip(*[iter(numbers)] * 4):
            if left < right and top < bottom:
                total += 1
                if total <= MOST:
                    boxes.append(Box(left, top, right, bottom, time_s))
    return boxes, total


def _moment(text: str, end: int, moments: list[timestamps.Moment], passed: int) -> float | None:
    """The time of a list of boxes that ends at `end`, with `passed` of the moments before it."""
    if not moments:
        return None
    if passed < len(moments) and _JOINED.fullmatch(text, end, moments[passed].start):
        return moments[passed].time_s
    return moments[max(passed - 1, 0)].time_s


def link(
    text: str,
    key: str,
    duration_s: float | None = None,
    *,
    asked_s: float | None = None,
    frames_s: Sequence[float] | None = None,
) -> str:
    """Markdown that offers the boxes of the text: a link which the page draws; "" without any.

    #boxes=100,200,300,400@12;500,600,700,800&n=2&v=key: boxes with their times, how many there
    are in all, and which video or image they lie on.
    asked_s: of a box whose time the text does not say, what the question was about
    frames_s: when the frames are shown that the model saw; a box belongs to one of them
    """
    found, total = find(text, duration_s)
    if not found:
        return ""
    written = ";".join(_written(_placed(box, asked_s, frames_s)) for box in found)
    target = f"#boxes={written}&n={total}" + (f"&v={key}" if key else "")
    return f"[Show {'box' if total == 1 else 'boxes'}]({target})"


def _placed(box: Box, asked_s: float | None, frames_s: Sequence[float] | None) -> Box:
    """The box at the frame that it is about."""
    time_s = asked_s if box.time_s is None else box.time_s
    if time_s is None or not frames_s:
        return replace(box, time_s=time_s)
    return replace(box, time_s=min(frames_s, key=lambda frame_s: abs(frame_s - time_s)))


def _written(box: Box) -> str:
    place = f"{box.left},{box.top},{box.right},{box.bottom}"
    return place if box.time_s is None else f"{place}@{round(box.time_s, 3):.12g}"
