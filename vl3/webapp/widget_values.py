"""The values of the page's widgets: what each of them draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from vl3.webapp import film_strip, text_format, transcript
from vl3.webapp.conversation import Attachment, seen_in
from vl3.webapp.errors import UserError
from vl3.webapp.sessions import Session
from vl3.webapp.uploads import file_url


def header(card: Mapping, number: int) -> dict:
    """What is loaded, and what to know about it. number: how many models were loaded before."""
    facts, note = text_format.model_facts(card), text_format.model_note(card)
    return {"facts": facts, "note": note, "number": number, "hears": card["hears"]}


def player(visitor: Session) -> dict:
    """The current file, its facts, and whether the last answer reused its encoding."""
    item = visitor.current
    if item is None:
        return {}
    return {
        "url": file_url(item.path),
        "kind": item.kind,
        "facts": item.facts,
        "key": item.key,
        "clock": {"zero_s": item.zero_s, "first_s": item.first_s},
        "badge": "Video already encoded, reused" if visitor.has_reused(item) else "",
        "strip": film_strip_value(visitor, item),
        "sound": file_url(item.sound) if item.sound else "",
    }


def film_strip_value(visitor: Session, item: Attachment) -> dict | None:
    """The frames the model sees of a video, and what it saw of them in the last answer."""
    if item.plan is None or item.plan.times_s is None:
        return None
    url = file_url(item.strip.path) if item.strip else ""
    return film_strip.value(item.plan, item.strip, url, seen_in(visitor.turns, item))


def asked_s(visitor: Session, moment: object) -> float | None:
    """Where the player of the current video stood, as a browser says it; None where it does not."""
    moment, item = moment if isinstance(moment, dict) else {}, visitor.current
    time_s: Any = moment.get("time_s")
    is_time = type(time_s) in (int, float) and isfinite(time_s) and time_s >= 0
    return float(time_s) if is_time and item and item.key == moment.get("key") else None


def memory(visitor: Session, defaults: Mapping) -> dict:
    """What the browser keeps until it comes back, and the fields it need not keep."""
    return {"name": visitor.name, "defaults": defaults}


def gallery(examples: Sequence[Mapping], selected: int = -1) -> dict:
    """Title, picture and questions of each bundled clip."""
    clips = [
        {
            "title": clip["title"],
            "url": file_url(clip["item"].poster),
            "questions": clip["questions"],
        }
        for clip in examples
    ]
    return {"clips": clips, "selected": selected}


def export(visitor: Session, card: Mapping, kind: str) -> dict:
    """The conversation as a file to save. kind: "Markdown", "JSON" or "WebVTT"."""
    if not visitor.turns:
        raise UserError("Nothing to export", "Ask a question first.")
    suffix, media_type, write = transcript.FORMATS[kind]
    text = write(visitor.turns, card)
    if text is None:
        raise UserError("Nothing to export", "No answer names a time, so WebVTT would be empty.")
    return {"name": f"conversation.{suffix}", "type": media_type, "text": text}
