"""A conversation as values: what was asked about what, what came back, what the model gets to see.

A Turn is one question with its attachments and its answer. A turn marked fresh starts a new
context: the model sees the turns from the last fresh one on. Turns without an answer (failed, or
stopped before the first token) stay visible but are not sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

from vl3.values import Plan, Progress, Reply, SoundPlan, VisualContext
from vl3.webapp import text_format
from vl3.webapp.errors import UserError
from vl3.webapp.film_strip import FilmStrip

MOST_LETTERS = 50_000  # of a question: more is no question, and fills the context


@dataclass(frozen=True, kw_only=True, slots=True)
class Attachment:
    """One video, image or sound of a question, and how it is read. path is never shown.

    sound: the file with the data of its strip of sound
    kind: "image", "video" or "audio"; zero_s, first_s: of a video as of vl3.video.Schedule
    """

    path: str
    name: str
    key: str
    kind: str = "video"
    fps: float | None = None
    max_frames: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    budget_tokens: int | None = None
    poster: str | None = None
    facts: tuple[str, ...] = field(default=(), compare=False)
    zero_s: float = field(default=0.0, compare=False)
    first_s: float = field(default=0.0, compare=False)
    plan: Plan | SoundPlan | None = field(default=None, compare=False)
    strip: FilmStrip | None = field(default=None, compare=False)
    sound: str | None = field(default=None, compare=False)

    @property
    def caption(self) -> str:
        return text_format.attached(self.plan, self.start_s, self.end_s) if self.plan else ""

    @property
    def duration_s(self) -> float | None:
        return self.plan.duration_s if self.plan else None

    @property
    def files(self) -> tuple[str, ...]:
        strip = self.strip.path if self.strip else None
        paths = (self.path, self.poster, strip, self.sound)
        return tuple(path for path in paths if path)

    def part(self) -> dict:
        """The attachment as a part of a message."""
        if self.kind == "image":
            return {"type": "image", "image": self.path}
        if self.kind == "audio":
            times_s = {"start": self.start_s, "end": self.end_s}
            given = {key: time_s for key, time_s in times_s.items() if time_s is not None}
            return {"type": "audio", "audio": self.path, **given}
        video = {
            "path": self.path,
            "fps": self.fps,
            "max_frames": self.max_frames,
            "start": self.start_s,
            "end": self.end_s,
        }
        return {"type": "video", "video": {k: v for k, v in video.items() if v is not None}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A question and its answer, under a system prompt where that is not the model's own.

    status: "working", "done", "stopped" or "failed"
    card: of the model that answered; asked_s: where the player stood when it was asked
    told: what happened to the conversation after it, one sentence each
    without: what was answered to the same without "sound" or "picture"; empty while it is not known
    """

    question: str
    attachments: tuple[Attachment, ...] = ()
    fresh: bool = False
    answer: str = ""
    stage: str = ""
    status: str = "working"
    problem: str = ""
    reused: bool = False
    system: str = ""
    reply: Reply | None = None
    card: Mapping | None = None
    asked_s: float | None = None
    told: tuple[str, ...] = ()
    without: tuple[tuple[str, str], ...] = ()

    @property
    def was_answered(self) -> bool:
        return self.status in ("done", "stopped") and bool(self.answer)


def context(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns the next question builds on: answered ones, from the last fresh one on."""
    fresh = [index for index, turn in enumerate(turns) if turn.fresh]
    return tuple(turn for turn in turns[fresh[-1] if fresh else 0 :] if turn.was_answered)


def next_turn(
    turns: Sequence[Turn],
    question: str,
    current: Attachment | None = None,
    extra: Iterable[Attachment] = (),
) -> Turn:
    """The turn that asks the question about the current video and the extra attachments.

    The current video is attached unless the context holds it already, read the same way. If it
    replaces another video, or is read in another way, the turn is fresh.
    """
    extra = tuple(dict.fromkeys(extra))
    seen = [item for turn in context(turns) for item in turn.attachments]
    if current is None or current in seen:
        return Turn(question=question, attachments=extra)
    attachments = (current, *(item for item in extra if item != current))
    return Turn(question=question, attachments=attachments, fresh=bool(turns))


def messages(turns: Sequence[Turn], turn: Turn, system: str = "") -> list[dict]:
    """What the model gets: the context of earlier turns, then the question of this one."""
    rows = [{"role": "system", "content": system}] if system.strip() else []
    for earlier in () if turn.fresh else context(turns):
        rows += [_asked(earlier), {"role": "assistant", "content": earlier.answer}]
    return [*rows, _asked(turn)]


def _asked(turn: Turn) -> dict:
    parts = [attachment.part() for attachment in turn.attachments]
    return {"role": "user", "content": [*parts, {"type": "text", "text": turn.question}]}


def built_on(turns: Sequence[Turn], number: int) -> list[Attachment]:
    """The attachments of the prompt of one turn, in its order: those of its context and its own."""
    turn = turns[number]
    earlier = () if turn.fresh else context(turns[:number])
    return [item for asked in (*earlier, turn) for item in asked.attachments]


_MODEL = ("name", "path", "dtype", "quantize", "adapter")


def is_by(turn: Turn, card: Mapping) -> bool:
    """Whether the turn was answered by the model of the card."""
    return turn.card is None or all(turn.card[key] == card[key] for key in _MODEL)


def reply_about(
    turns: Sequence[Turn], item: Attachment, card: Mapping | None = None
) -> tuple[Reply, int] | None:
    """The last answer that built on the item, read the same way, and which of its media that is.

    card: of the model that must have given it; None for any
    """
    for number in reversed(range(len(turns))):
        turn = turns[number]
        if turn.reply is None or not (card is None or is_by(turn, card)):
            continue
        # An answer that was stopped early saw only the first of them.
        items = built_on(turns, number)[: len(turn.reply.seen)]
        for place, known in enumerate(items):
            if known == item:
                return turn.reply, place
    return None


def seen_in(turns: Sequence[Turn], item: Attachment) -> VisualContext | None:
    """What the model saw of the item in the last answer that built on it, read the same way."""
    found = reply_about(turns, item)
    return found[0].seen[found[1]] if found else None


def stage_line(stage: Progress) -> str:
    """Reading frames 24/64; the bare name where there is nothing to count."""
    return f"{stage.name} {stage.done}/{stage.total}" if stage.total else stage.name


def follow(
    stream: Iterable[Progress | str | Reply], turn: Turn, interval_s: float = 0.07
) -> Iterator[Turn]:
    """The turn as it grows while the stream runs: at most one version per interval_s.

    A new stage, the first words and the finished reply are shown at once.
    """
    shown_s, name = 0.0, None
    for event in stream:
        urgent = True
        if isinstance(event, Reply):
            turn = finish(turn, event)
        elif isinstance(event, Progress):
            urgent, name = event.name != name, event.name
            reused = turn.reused or event.kind == "reused"
            turn = replace(turn, stage=stage_line(event), reused=reused)
        else:
            urgent = not turn.answer
            turn = replace(turn, answer=turn.answer + event, stage="")
        if urgent or monotonic() - shown_s >= interval_s:
            shown_s = monotonic()
            yield turn
    if turn.status == "working":
        yield replace(turn, status="stopped", stage="")


def finish(turn: Turn, reply: Reply) -> Turn:
    """The turn with its reply."""
    status = "stopped" if reply.stopped else "done"
    return replace(turn, answer=reply.text, reply=reply, status=status, stage="")


def check_question(question: str) -> None:
    """Raises UserError for a question that is empty or too long to be one."""
    if not question.strip():
        raise UserError("Nothing to send", "Write a question first.")
    if len(question) > MOST_LETTERS:
        raise UserError(
            "Question too long",
            f"It has {text_format.count(len(question))} letters, and "
            f"{text_format.count(MOST_LETTERS)} are the most. Shorten it.",
        )
