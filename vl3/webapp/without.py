"""An answer once more without the sound, or without the picture: what it owes to each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from threading import Event
from typing import Any, cast

from vl3.values import Reply
from vl3.viz.compare import differences
from vl3.webapp import form, text_format
from vl3.webapp.conversation import Turn, is_by, messages
from vl3.webapp.errors import UserError

NAMES = {"sound": "Without sound", "picture": "Without picture"}


def is_offered(turn: Turn) -> bool:
    """Whether the answer both heard and saw something."""
    if turn.reply is None or turn.status != "done":
        return False
    seen = turn.reply.seen
    return any(one.sound and one.sound.runs for one in seen) and any(
        one.kept_tokens for one in seen
    )


def told(turn: Turn) -> list[tuple[str, list]]:
    """What was answered without something: its name, and stretches [is another, text].

    No stretches while it is being answered.
    """
    return [(NAMES[what], differences(turn.answer, text)[1]) for what, text in turn.without]


def ask(controller: Any, visitor: Any, detail: Mapping) -> Iterator[list[Turn]]:
    """The conversation while a turn's question is answered without something, and after.

    detail: turn, its number, and what, as a browser says them
    """
    number, what = detail.get("turn"), detail.get("what")
    is_turn = type(number) is int and 0 <= number < len(visitor.turns)
    if not is_turn or what not in NAMES or not is_offered(visitor.turns[number]):
        raise UserError("Nothing to leave out", "Ask about a video with sound first.")
    turn = visitor.turns[number]
    if visitor.is_busy:
        raise UserError("One moment", text_format.WAITING)
    if not is_by(turn, visitor.studio.card):
        raise UserError("Another model", text_format.of_another(turn.card))
    visitor.comparing = stop = Event()
    with visitor.working:
        text = None
        try:
            yield _with(visitor, turn, what, "")
            text = _answered(visitor, cast(int, number), turn, what, stop)
        except tuple(controller.refusals) as error:
            raise cast(UserError, controller.refusal(error)) from error
        finally:
            turns = _with(visitor, turn, what, text)
    yield turns


def _answered(visitor, number: int, turn: Turn, what: str, stop: Event) -> str | None:
    """The text; None where it was stopped."""
    given = cast(Reply, turn.reply).settings
    settings = {name: given[name] for name in (*form.DECODING, "prune")}
    settings["budget_tokens"] = next((item.budget_tokens for item in turn.attachments), None)
    prompt = messages(visitor.turns[:number], turn, turn.system)
    with closing(visitor.studio.stream(prompt, **settings, **{what: False}, stop=stop)) as stream:
        *_, reply = stream
    return None if reply.stopped else reply.text


def _with(visitor, turn: Turn, what: str, text: str | None) -> list[Turn]:
    """The conversation with that text for the turn; without one where the text is None."""

    def changed(one: Turn) -> Turn:
        if one.reply is not turn.reply:
            return one
        known = {**dict(one.without), what: text}
        return replace(one, without=tuple((k, v) for k, v in known.items() if v is not None))

    visitor.turns = [changed(one) for one in visitor.turns]
    return visitor.turns
