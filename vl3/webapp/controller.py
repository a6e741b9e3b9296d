"""What the page does, without its widgets: choose a file, tell its cost, ask, stop, try again.

Every method takes the visitor it acts for. A wrong step raises UserError: a title, and one sentence
that says what to do instead.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from vl3.arguments import number
from vl3.inference.registry import Registry
from vl3.settings import PruneSettings
from vl3.webapp import budget, examples, saved, text_format
from vl3.webapp.conversation import (
    Attachment,
    Turn,
    check_question,
    context,
    follow,
    messages,
    next_turn,
)
from vl3.webapp.errors import UserError
from vl3.webapp.line import Line
from vl3.webapp.sessions import Session, SessionStore
from vl3.webapp.uploads import Uploads


class Controller:
    """One model, its visitors and the folder with their files.

    load(model, quantize, adapter) gives a studio, so that nothing here imports a model; refusals
    names the errors that are a user's to mend, each with the title it is shown under; fits and
    give_back as of vl3.inference.registry.Registry.
    """

    def __init__(
        self,
        load: Callable[..., Any],
        files: Uploads,
        refusals: Mapping[type[Exception], str],
        fits: Callable[..., bool] = lambda **chosen: False,
        give_back: Callable[[], Any] = gc.collect,
        **first: str | None,
    ) -> None:
        self.models = Registry(load, fits, give_back)
        self.visitors = SessionStore(partial(self.models.session, **first))
        self.uploads = files
        self.refusals = dict(refusals)
        self.examples: list[dict] = []
        self.links = saved.ConversationStore()
        self.line = Line(self._at_once)

    def _at_once(self) -> int:
        studio = self.visitors.studio  # None while another model is loaded
        return studio.answers_at_once if studio else 1

    @property
    def card(self) -> dict:
        return self.visitors.studio.card

    @property
    def models_loaded(self) -> int:
        """How often another model took the place of one before; the old number while one comes."""
        return self.visitors.models_loaded

    @property
    def context_tokens(self) -> int:
        """What prompt and answer can have together."""
        return int(self.card["context_tokens"])

    @property
    def prune(self) -> dict | None:
        """How the model prunes by itself; None if it does not."""
        prune = self.visitors.studio.settings.prune
        return asdict(prune) if prune else None

    def refusal(self, error: Exception) -> UserError | None:
        """The error as one that can be shown; None where it is none of the known kinds."""
        if isinstance(error, UserError):
            return error
        for kind, title in self.refusals.items():
            if isinstance(error, kind):
                return UserError(title, str(error))
        return None

    def load(self, model: str, quantize: str, adapter: str, visitor: Session | None = None) -> None:
        """Another model for every visitor, who are told; the one before stays where this one fails.

        visitor: who wants it
        """
        given = {"model": model, "quantize": quantize, "adapter": adapter}
        chosen = {key: value if value not in ("", "none") else None for key, value in given.items()}
        before = self.card["defaults"]
        try:
            self.visitors.replace_studio(partial(self.models.session, **chosen))
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "Unknown reason."
            raise UserError("Cannot load this model", reason) from error
        self.visitors.announce(text_format.changed(self.card, by_another=True), before, visitor)
        if visitor is not None:
            visitor.tell(text_format.changed(self.card, by_another=False))

    # files

    def choose_upload(self, visitor: Session, path: str) -> None:
        """Makes the uploaded file the current video of the visitor."""
        visitor.choice += 1
        choice, item = visitor.choice, self._attach(path)
        if visitor.choice == choice:  # of two uploads the later one, whichever is read sooner
            visitor.current = item
        self.clean_up()

    def _attach(self, path: str) -> Attachment:
        """The uploaded file. Raises: UserError for sound where the model hears nothing."""
        item = self.uploads.attach(path)
        if item.kind == "audio" and not self.card["hears"]:
            raise UserError("Nothing to see", text_format.hears_nothing(item.name, self.card))
        return item

    def clean_up(self) -> None:
        """Forgets sessions that ended long ago and removes unused files beyond the limit."""
        self.visitors.sweep()
        self.uploads.trim(self.files())

    def files(self) -> set[str]:
        """The files that a session or an example uses."""
        return self.visitors.paths() | examples.files(self.examples)

    def make_room(self) -> None:
        """Removes every unused file."""
        self.uploads.trim(self.files(), 0)

    def may_read(self, owner: str, path: str) -> bool:
        """Whether the browser of that name may have the file: its own, or of what it was shown."""
        if not self.uploads.contains(path):
            return False
        if self.uploads.is_of(owner, path):
            return True
        return path in examples.files(self.examples) | self.visitors.paths(owner)

    def close(self) -> None:
        """Ends every answer; no further one can begin."""
        self.line.close()
        self.visitors.stop()

    def add_examples(self, clips: Path) -> None:
        """Makes the bundled clips of a folder (examples.json) the examples; none if absent."""
        self.examples += examples.read(clips, self.uploads)

    def choose_example(self, visitor: Session, index: object) -> None:
        """Makes a bundled clip the current video."""
        visitor.current = examples.chosen(self.examples, index)["item"]
        visitor.choice += 1

    def example_question(self, index: object, number: object) -> str:
        """A suggested question of a bundled clip."""
        return examples.chosen(examples.chosen(self.examples, index)["questions"], number)

    # plan

    def budget(self, visitor: Session, reading: Mapping, settings: Mapping) -> text_format.Budget:
        """The budget line of the current video; a wrong setting is said in the same place."""
        if visitor.current is None:
            return text_format.NO_BUDGET
        try:
            heard = self.heard(settings)
            visitor.current = budget.planned(visitor, visitor.current, reading, heard)
        except (UserError, ValueError, *self.refusals) as error:  # type: ignore[misc]  # it does not follow the star
            return text_format.Budget(str(error), "refused")
        room = self.room(settings["max_new_tokens"])
        rule = self.rule(settings["prune"])
        is_asked = bool(settings["prune"])
        return budget.line(visitor, visitor.current, self.card, rule, room, is_asked)

    def room(self, max_new_tokens: int) -> int:
        """Tokens that fit beside the longest answer asked for."""
        return max(self.context_tokens - int(max_new_tokens or 0), 1)

    # questions

    def ask(
        self,
        visitor: Session,
        question: str,
        files: list[str],
        reading: Mapping,
        settings: Mapping,
        asked_s: float | None = None,
    ) -> None:
        """Puts the question at the end of the conversation, ready to be answered.

        asked_s: where the player of the current video stands
        """
        check_question(question)
        self.line.check()
        whole = {**reading, "start": None, "end": None}
        heard = self.heard(settings)
        extra = [budget.planned(visitor, self._attach(path), whole, heard) for path in files]
        current = visitor.current and budget.planned(visitor, visitor.current, reading, heard)
        seen = any(turn.attachments for turn in context(visitor.turns))
        if not (current or extra or seen):
            raise UserError("No video yet", "Upload a video, then ask about it.")
        turn = next_turn(visitor.turns, question.strip(), current, extra)
        turn = replace(turn, asked_s=asked_s)
        self._check_room(turn, settings)
        visitor.begin([*visitor.turns, turn])

    def _check_room(self, turn: Turn, settings: Mapping) -> None:
        plans = [item.plan for item in turn.attachments if item.plan]
        tokens = sum(plan.num_tokens + plan.sound_tokens for plan in plans)
        room = self.room(settings["max_new_tokens"])
        prunes = not self.card["unpruned"]
        if tokens > room and (settings["prune"] is None or not prunes):
            why = text_format.over_limit(tokens, room, prunes)
            raise UserError("Video too long for this setting", why)

    def ask_again(
        self, visitor: Session, index: int | None = -1, question: str | None = None
    ) -> None:
        """Asks an earlier question once more, or another one in its place; later turns go."""
        if index is None or not -1 <= index < len(visitor.turns) or not visitor.turns:
            raise UserError("Nothing to try again", "Ask a question first.")
        turn = visitor.turns[index]
        question = turn.question if question is None else question.strip()
        check_question(question)
        self.line.check()
        turns = visitor.turns[: len(visitor.turns) - 1 if index == -1 else index]
        new = Turn(
            question=question,
            attachments=turn.attachments,
            fresh=turn.fresh,
            asked_s=turn.asked_s,
        )
        visitor.begin([*turns, new])

    def undo(self, visitor: Session) -> str:
        """Takes the last question back; its text."""
        if not visitor.turns:
            raise UserError("Nothing to undo", "Ask a question first.")
        visitor.end()
        last = visitor.turns[-1]
        visitor.turns = visitor.turns[:-1]
        return last.question

    def clear(self, visitor: Session) -> None:
        """An empty conversation under another name; the current video stays."""
        visitor.end()
        self.visitors.shelf.drop(visitor.name)
        visitor.turns, visitor.name = [], saved.new_name()

    def stop(self, visitor: Session) -> bool:
        """Ends the answer; True where it had not begun, so that no run will mark it as stopped."""
        if not visitor.waiting:
            visitor.stop.set()
            return False
        visitor.end()
        visitor.turns = [
            *visitor.turns[:-1],
            replace(visitor.turns[-1], status="stopped", stage=""),
        ]
        self.line.nudge()
        return True

    def answer(self, visitor: Session, settings: Mapping, system: str = "") -> Iterator[list[Turn]]:
        """The conversation as the waiting answer grows. Ends early when another run begins."""
        with visitor.working:
            if not visitor.waiting:
                return
            visitor.waiting, run, stop = False, visitor.run, visitor.stop
            card = visitor.studio.card
            earlier, turn = visitor.turns[:-1], replace(visitor.turns[-1], system=system, card=card)
            budget_tokens = next((item.budget_tokens for item in turn.attachments), None)
            stream = visitor.studio.stream(
                messages(earlier, turn, system),
                **self._as_model(settings),
                budget_tokens=budget_tokens or _budget_of(earlier),
                stop=stop,
            )
            try:
                with closing(stream):
                    for version in follow(stream, turn):
                        if visitor.run != run:
                            return
                        turn = version
                        visitor.turns = [*earlier, turn]
                        yield visitor.turns
            except tuple(self.refusals) as error:
                if visitor.run == run:
                    visitor.turns = [*earlier, replace(turn, status="failed", problem=str(error))]
                    yield visitor.turns
                raise cast(UserError, self.refusal(error)) from error
            finally:
                stop.set()

    @property
    def is_answering(self) -> bool:
        return self.visitors.is_busy

    def model_arguments(self, model: str, quantize: str, adapter: str) -> dict | None:
        """The fields of a model as arguments of another; None where they name the page's own."""
        fields = {"model": model, "quantize": quantize, "adapter": adapter}
        named = {key: value if value not in ("", "none") else None for key, value in fields.items()}
        if not any(named.values()):
            return None
        own = None if self.card["is_nano"] else self.card["path"]
        return {**named, "model": named["model"] or own}

    def rule(self, prune: Mapping | str | None) -> dict | None:
        """All settings of the pruner where some are chosen; None for off, "model" for its own.

        None too where nothing is pruned with this model, whatever is chosen.
        """
        if self.card["unpruned"]:
            return None
        if prune is None or prune == "model":
            return self.prune if prune else None
        return {**asdict(PruneSettings()), **(self.prune or {}), **cast(Mapping, prune)}

    def _as_model(self, settings: Mapping) -> dict:
        """The settings, with pruning that is the model's own left to the model."""
        rule = self.rule(settings["prune"])
        return {**self.arguments(settings), "prune": "model" if rule == self.prune else rule}

    def arguments(self, settings: Mapping) -> dict:
        """The settings as arguments of a studio's stream, pruning with all that decides it."""
        chosen = {name: value for name, value in settings.items() if name != "sound"}
        return {**chosen, "prune": self.rule(settings["prune"]), **self.heard(settings)}

    def heard(self, settings: Mapping) -> dict:
        """That nothing shall be heard, as an argument, where the page says so.

        None for a model that hears nothing, nor where the page is not against it.
        """
        is_muted = self.card["hears"] and settings.get("sound") is False
        return {"sound": False} if is_muted else {}

    def mark_failed(self, visitor: Session) -> None:
        """Marks a turn that nothing works on any more: the answer ended without saying how."""
        if visitor.is_busy and not visitor.waiting and not visitor.working.locked():
            problem = "The answer failed. Try again; the log of the server says why."
            visitor.turns = [
                *visitor.turns[:-1],
                replace(visitor.turns[-1], status="failed", problem=problem),
            ]

    def choose_earlier(self, visitor: Session, key: object) -> Attachment:
        """An earlier video of the conversation, as the current one again."""
        for turn in reversed(visitor.turns):
            for item in turn.attachments:
                if item.key == key:
                    visitor.current = item
                    visitor.choice += 1
                    return item
        raise UserError("Video not found", "It is no part of this conversation. Upload it again.")

    # coming back, and links

    def share(self, visitor: Session) -> str:
        """Puts a copy of the conversation behind a link; the name to ask for it."""
        if not visitor.turns:
            raise UserError("Nothing to share", "Ask a question first.")
        name = saved.new_name()
        self.links.put(name, visitor.turns, visitor.current, visitor.owner)
        return name

    def revoke(self, visitor: Session) -> bool:
        """Ends every link that was made in the visitor's browser; whether there was one."""
        return self.links.drop_of(visitor.owner)

    def open(self, visitor: Session, link: object, name: object) -> None:
        """Gives a new visitor a copy of what lies behind a link, or its own conversation again."""
        if link:
            found = self.links.get(link)
            if found is None:
                raise UserError(
                    "Conversation not found",
                    "The link is wrong, revoked, older than 24 hours, or from before the app was "
                    "started.",
                )
            visitor.turns, visitor.current = list(found.turns), found.current
        elif name and not self.visitors.resume(visitor, name):
            raise UserError(
                "Conversation not found",
                "It was kept for 24 hours at most, and until the app stopped.",
            )

    def example_index(self, item: Attachment | None) -> int:
        """Which bundled clip the attachment is; -1 where it is none."""
        return examples.index_of(self.examples, item)

    def ask_once(
        self, path: str, question: str, video: Mapping, options: Mapping, left: Any
    ) -> str:
        """The answer to one question about one file, outside any conversation.

        left.is_set(): whether the client has disconnected, which ends it
        """
        check_question(question)
        self.line.check()
        for name, value in video.items():
            if value is not None:  # in a message NaN would stand for nothing, as in a table
                number(name, value, **cast(Any, {"above" if name == "fps" else "low": 0}))
        item = self._attach(path)
        names = {"start": "start_s", "end": "end_s"}
        chosen = {names.get(key, key): value for key, value in video.items()}
        if item.kind != "image":
            item = replace(item, **chosen)  # a sound has no use for frames
        turn = Turn(question=question.strip(), attachments=(item,))
        with self.line.place() as place:
            deque(place.wait(left.is_set), maxlen=0)
            if left.is_set():
                return ""
            studio = self.visitors.studio.new_session()
            try:
                return studio.reply(messages((), turn), stop=left, **options).text
            finally:
                studio.release()


def _budget_of(turns: list[Turn]) -> int | None:
    for turn in reversed(turns):
        for item in turn.attachments:
            return item.budget_tokens
    return None
