"""A conversation as rows for a chat component: Markdown text that is safe to show, and files.

What people and models write is shown as written: it can make text bold, but it cannot make
elements, images or links. Only the links to moments of the video are ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from vl3.webapp import box_links, text_format, timestamps, without
from vl3.webapp.conversation import Attachment, Turn

# Breaks the syntax without being seen; taken out again by plain().
_INVISIBLE = "\u200b"
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_LINK = re.compile(r"\](?=[(\[:])")
_DIAGRAM = re.compile(r"^([ \t>]*(?:`{3,}|~{3,})[ \t]*)(?=mermaid)", re.IGNORECASE | re.MULTILINE)
_BARE = re.compile(r"(https?|ftp|mailto|www)(?=[:.])", re.IGNORECASE)


def inert(text: str) -> str:
    """The text for Markdown, unable to make elements, images, links, entities or drawings."""
    text = text.replace(_INVISIBLE, "").replace("&", f"&{_INVISIBLE}")
    text = _BARE.sub(rf"\1{_INVISIBLE}", _DIAGRAM.sub(rf"\1{_INVISIBLE}", text))
    return _LINK.sub(f"]{_INVISIBLE}", _TAG.sub(f"<{_INVISIBLE}", text))


def plain(text: str) -> str:
    """The text as it was written, from what inert() made of it."""
    return text.replace(_INVISIBLE, "")


def rows(turns: Sequence[Turn]) -> list[dict]:
    """Two rows for each turn, in order: the question with its media, then the answer."""
    return [row for turn in turns for row in (_question(turn), _answer(turn, turns))]


def turn_of(row: object) -> int | None:
    """Which turn a row of the chat belongs to; None for what is no row (browsers may send it)."""
    if isinstance(row, list | tuple) and row:
        row = row[0]
    return row // 2 if isinstance(row, int) and row >= 0 else None


def _question(turn: Turn) -> dict:
    pictures = [{"path": item.poster or item.path} for item in turn.attachments]
    return {"role": "user", "content": [*pictures, inert(turn.question)]}


def captions(turn: Turn) -> list[str]:
    """One line for each attachment: name and what it costs."""
    lines = [f"{item.name} · {item.caption}" for item in turn.attachments]
    if turn.fresh and lines:
        lines[0] += " · new context"
    return lines


def _answer(turn: Turn, turns: Sequence[Turn]) -> dict:
    # The page moves these under the pictures of the question, where text would become editable.
    attached = "".join(_span("attached", caption) for caption in captions(turn))
    return {"role": "assistant", "content": attached + _answer_text(turn, turns)}


def _answer_text(turn: Turn, turns: Sequence[Turn]) -> str:
    if turn.status == "working" and not turn.answer:
        return _span("stage", turn.stage or "Waiting")
    if turn.status == "failed":
        return _span("problem", turn.problem) + _told(turn)
    key, duration_s = subject(turn, turns)
    # A blank line first: after an inline element Markdown would not see a list or a heading.
    text = timestamps.link(inert(turn.answer), key, duration_s)
    return f"\n\n{text}{_boxes(turn, turns)}{_ending(turn)}{_without(turn, turns)}{_told(turn)}"


def _boxes(turn: Turn, turns: Sequence[Turn]) -> str:
    """A link that shows the boxes of a finished answer."""
    if turn.status == "working":
        return ""
    item = last_seen(turn, turns, ("video", "image"))
    if item is None:
        link = box_links.link(turn.answer, "")
    elif item.kind == "image":
        link = box_links.link(turn.answer, item.key)
    else:
        frames_s = item.plan.times_s if item.plan and item.plan.times_s else ()
        asked_s = timestamps.asked(turn.question, item.duration_s, frames_s)
        link = box_links.link(
            turn.answer,
            item.key,
            item.duration_s,
            asked_s=turn.asked_s if asked_s is None else asked_s,
            frames_s=frames_s,
        )
    return f"\n\n{link}" if link else ""


def _ending(turn: Turn) -> str:
    """What stands under an answer: how it ended, what it cost."""
    if turn.status == "working":
        return ""
    lines = []
    if turn.status == "stopped":
        lines.append(_stopped(turn))
    elif turn.reply and turn.reply.truncated:
        lines.append("(cut off at the limit of new tokens)")
    if turn.reply:
        by = text_format.model(turn.card) if turn.card else ""
        facts = [text_format.cost(turn.reply.ledger), text_format.pruned(turn.reply.ledger), by]
        lines.append(" · ".join(filter(None, facts)))
    parts = [_span("foot", line) for line in lines]
    parts += [_span("foot remark", note) for note in (turn.reply.notes if turn.reply else ())]
    return "\n\n" + "<br>".join(parts)


def _without(turn: Turn, turns: Sequence[Turn]) -> str:
    """Links that ask without sound or picture, and what was answered then, its changes marked."""
    if not without.is_offered(turn) or turn not in turns:
        return ""
    known = dict(turn.without)
    links = [
        f"[{name}](#without={what}&turn={turns.index(turn)})"
        for what, name in without.NAMES.items()
        if what not in known
    ]
    blocks = [
        f'<span class="without"><b>{name}</b> {_marked(words)}</span>'
        for name, words in without.told(turn)
    ]
    return "".join(f"\n\n{part}" for part in (*blocks, " · ".join(links)) if part)


def _marked(words: Sequence[tuple[bool, str]]) -> str:
    if not words:
        return "One moment."
    text = "".join(_span("changed", text) if is_other else inert(text) for is_other, text in words)
    return text if any(is_other for is_other, _ in words) else f"{text} (the same words)"


def _stopped(turn: Turn) -> str:
    if turn.reply is None and turn.answer:  # its end was never told, as after a reload
        return "(stopped)"
    tokens = turn.reply.ledger.new_tokens if turn.reply else 0
    return f"(stopped after {text_format.plural(tokens, 'token')})"


def _told(turn: Turn) -> str:
    """What happened to the conversation after the answer."""
    return "".join(f"\n\n{_span('event', sentence)}" for sentence in turn.told)


def subject(turn: Turn, turns: Sequence[Turn]) -> tuple[str, float | None]:
    """Key and length of the video whose times an answer names: the last one attached so far."""
    item = last_seen(turn, turns, ("video", "audio"))
    return (item.key, item.duration_s) if item else ("", None)


def last_seen(turn: Turn, turns: Sequence[Turn], kinds: Collection[str]) -> Attachment | None:
    """The last attachment of these kinds up to the turn."""
    so_far = [*turns[: turns.index(turn)], turn] if turn in turns else [turn]
    items = [item for earlier in so_far for item in earlier.attachments]
    return next((item for item in reversed(items) if item.kind in kinds), None)


def _span(kind: str, text: str) -> str:
    return f'<span class="{kind}">{inert(text)}</span>'
