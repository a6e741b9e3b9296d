"""Times written in text: finding them, reading them, turning them into links that seek a player."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_CLOCK = r"(?:(?P<hours>\d{1,2}):)?(?P<minutes>\d{1,3}):(?P<seconds>[0-5]\d(?:\.\d{1,3})?)"
_SHORT = r"(?P<short>\d{1,6}(?:\.\d{1,3})?)\s?s(?:ec)?"
# "3 seconds" alone is a length, not a moment; after one of these words it is a moment.
_SPELLED = (
    r"(?P<lead>(?:at|from|to|until|till|between|and|around|about|after|before)\s+)"
    r"(?P<spelled>\d{1,6}(?:\.\d{1,3})?)\s?(?:seconds?|secs?)"
)
_TIME = re.compile(
    rf"(?<![\w.:/#\[])(?:{_SPELLED}|(?:Time\s+)?(?:{_CLOCK}|{_SHORT}))(?![\w/]|[:.]\d)",
    re.IGNORECASE,
)
# A recorder's clock can be years long.
_FIELD = re.compile(
    r"(?:(?:(?P<hours>\d{1,7}):)?(?P<minutes>\d{1,3}):(?P<seconds>[0-5]\d(?:\.\d{1,3})?)"
    r"|(?P<short>\d{1,10}(?:\.\d{1,3})?)\s*s?)",
    re.IGNORECASE,
)


_FRAME = re.compile(
    r"\bframe\s+(?:number\s+|no\.?\s+|#\s?)?(?P<number>\d{1,5})\b|\b(?P<named>first|last)\s+frame\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A time found in text[start:end]."""

    start: int
    end: int
    time_s: float


def find(text: str, duration_s: float | None = None) -> list[Moment]:
    """The times in the text, in order; those after the end of the video are left out."""
    moments = []
    for match in _TIME.finditer(text):
        start = match.end("lead") if match["lead"] else match.start()
        time_s = float(match["spelled"]) if match["spelled"] else _seconds(match)
        if duration_s is None or time_s <= duration_s + 0.5:
            moments.append(Moment(start, match.end(), time_s))
    return moments


def asked(
    text: str, duration_s: float | None = None, frames_s: Sequence[float] = ()
) -> float | None:
    """The moment that a question is about: a time or a frame (by its number) that it names first.

    frames_s: when the frames are shown that the model sees
    """
    if moments := find(text, duration_s):
        return moments[0].time_s
    match = _FRAME.search(text)
    if match is None:
        return None
    index = {"first": 0, "last": len(frames_s) - 1}.get((match["named"] or "").lower())
    index = int(match["number"]) - 1 if index is None else index
    return frames_s[index] if 0 <= index < len(frames_s) else None


def link(text: str, key: str, duration_s: float | None = None) -> str:
    """The Markdown text with each time as a link `#t=12&v=key`; the page seeks when it is used."""
    parts, last = [], 0
    for moment in find(text, duration_s):
        target = f"#t={moment.time_s:g}" + (f"&v={key}" if key else "")
        parts += [text[last : moment.start], f"[{text[moment.start : moment.end]}]({target})"]
        last = moment.end
    return "".join([*parts, text[last:]])


def parse(text: str | float | None, what: str) -> float | None:
    """Seconds of a typed time (0:12, 1:02:03, 12.5, 12 s); None where nothing was typed.

    Raises: ValueError naming `what` where the text is no time.
    """
    text = str("" if text is None else text).strip()
    if not text:
        return None
    match = _FIELD.fullmatch(text)
    if match is None:
        raise ValueError(f"{what} is not a time. Write minutes and seconds (0:12) or 12.5.")
    return _seconds(match)


def typed(time_s: float | None) -> str:
    """The time as parse() reads it, with as many decimals as it needs."""
    if time_s is None:
        return ""
    whole_s, hundredths = divmod(round(time_s * 100), 100)
    minutes, seconds = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return text + (f".{hundredths:02d}".rstrip("0") if hundredths else "")


def _seconds(match: re.Match) -> float:
    if match["short"]:
        return float(match["short"])
    hours, minutes = int(match["hours"] or 0), int(match["minutes"])
    return hours * 3600 + minutes * 60 + float(match["seconds"])
