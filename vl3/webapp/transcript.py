"""A conversation as a file: Markdown to read, JSON to process, WebVTT to lay over the video."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vl3.webapp import text_format, timestamps, without
from vl3.webapp.conversation import Attachment, Turn

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")


def markdown(turns: Sequence[Turn], card: Mapping) -> str:
    """The conversation as a Markdown document, one section for each question."""
    known = [turn.card for turn in turns if turn.card] or [card]
    models = dict.fromkeys(" · ".join(text_format.model_facts(each)) for each in known)
    parts = ["# Conversation", *models]
    for number, turn in enumerate(turns, 1):
        parts.append(f"## Question {number}")
        parts += [f"*{item.name} · {item.caption}*" for item in turn.attachments]
        parts.append(_quoted(turn.question))
        parts.append(turn.answer or turn.problem or "(no answer)")
        if turn.status == "stopped":
            parts.append("*(stopped)*")
        if turn.reply:
            facts = [
                text_format.cost(turn.reply.ledger),
                text_format.model(turn.card) if turn.card else "",
            ]
            parts.append(f"*{' · '.join(filter(None, facts))}*")
            parts += [f"*{note}*" for note in turn.reply.notes]
        parts += [f"*{without.NAMES[what]}: {text}*" for what, text in turn.without if text]
        parts += [f"*{sentence}*" for sentence in turn.told]
    return "\n\n".join(parts) + "\n"


def as_json(turns: Sequence[Turn], card: Mapping) -> str:
    """The conversation with settings, token ids and ledgers; file names instead of paths."""
    last = [card, *(turn.card for turn in turns if turn.card)][-1]
    record = {"model": _model(last), "turns": [_turn(turn) for turn in turns]}
    return json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n"


def _model(card: Mapping) -> dict:
    return {key: card[key] for key in ("name", "parameters", "dtype", "quantize", "adapter")}


def _turn(turn: Turn) -> dict:
    record = {
        "question": turn.question,
        "attachments": [_attachment(item) for item in turn.attachments],
        "new_context": turn.fresh,
        "answer": turn.answer,
        "status": turn.status,
    }
    if turn.problem:
        record["problem"] = turn.problem
    if turn.without:
        record["without"] = dict(turn.without)
    if turn.told:
        record["events"] = list(turn.told)
    if turn.card:
        record["model"] = _model(turn.card)
    if turn.reply:
        record["notes"] = list(turn.reply.notes)
        record["settings"] = turn.reply.settings
        record["token_ids"] = list(turn.reply.token_ids)
        record["ledger"] = asdict(turn.reply.ledger)
        record["notes"] = list(turn.reply.notes)
    return record


def _attachment(item: Attachment) -> dict:
    record: dict[str, Any] = {"name": item.name, "kind": item.kind}
    if item.plan:
        record |= {
            "frames": item.plan.num_frames,
            "tokens": item.plan.num_tokens,
            "times_s": item.plan.times_s,
            "notes": item.plan.notes,
        }
        if item.plan.sound_tokens:
            record["sound_tokens"] = item.plan.sound_tokens
    return record


def webvtt(turns: Sequence[Turn], card: Mapping, last_s: float = 4.0) -> str | None:
    """The sentences of the answers that name a time, as subtitles; None where none does.

    A sentence with two times runs from the first to the second; one with a single time lasts
    `last_s` seconds, or until the next sentence begins.
    """
    cues = sorted(cue for turn in turns for cue in _cues(turn))
    if not cues:
        return None
    blocks = ["WEBVTT"]
    for number, (start_s, end_s, text) in enumerate(cues):
        if end_s <= start_s:
            later = [cue[0] for cue in cues[number + 1 :] if cue[0] > start_s]
            end_s = min([start_s + last_s, *later])
        blocks.append(f"{_stamp(start_s)} --> {_stamp(end_s)}\n{text}")
    return "\n\n".join(blocks) + "\n"


def _cues(turn: Turn) -> list[tuple[float, float, str]]:
    cues = []
    for sentence in _SENTENCE.split(turn.answer):
        moments = [moment.time_s for moment in timestamps.find(sentence)]
        if moments:
            text = sentence.strip().replace("-->", "->")
            text = text.replace("&", "&amp;").replace("<", "&lt;")
            cues.append((moments[0], moments[1] if len(moments) > 1 else moments[0], text))
    return cues


def _stamp(time_s: float) -> str:
    minutes, seconds = divmod(time_s, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:06.3f}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


FORMATS: dict[str, tuple[str, str, Callable]] = {
    "Markdown": ("md", "text/markdown", markdown),
    "JSON": ("json", "application/json", as_json),
    "WebVTT": ("vtt", "text/vtt", webvtt),
}
