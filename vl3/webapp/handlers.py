"""The handlers of the page: one for each event, each given its session.

Here and nowhere above, the page's own words and errors become Gradio's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gradio as gr

from vl3.webapp import (
    chat_rows,
    form,
    strips,
    tabs,
    text_format,
    uploads,
    widget_values,
    without,
)
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError, toast
from vl3.webapp.layout import THEMES, Layout
from vl3.webapp.sessions import Session


class Handlers(Layout):
    """The handlers of a page; those for its components get the visitor, the event and the values.

    needed(model, quantize): what another model will take, in words
    """

    def __init__(
        self,
        controller: Controller,
        can_load: bool,
        needed: Callable[[str | None, str | None], str],
    ) -> None:
        super().__init__(controller, can_load)
        self.needed = needed

    @contextmanager
    def _toasts(self, markup: bool = True) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not uploads.is_full(error):
                raise
            raise gr.Error(text_format.FULL, title="Disk full", print_exception=False) from None
        except (UserError, *self.controller.refusals) as error:  # type: ignore[misc]  # it does not follow the star
            refused = cast(UserError, self.controller.refusal(error))
            message = toast(refused.title, str(refused)) if markup else str(refused)
            raise gr.Error(message, title=refused.title, print_exception=False) from None
        except gr.Error:
            raise
        except Exception as error:  # it is not handled further up, and the user has to be told
            message = (
                toast("Not done", text_format.UNKNOWN_FAULT)
                if markup
                else text_format.UNKNOWN_FAULT
            )
            raise gr.Error(message, title="Not done") from error

    def visitor(self, request: gr.Request) -> Session:
        browser = cast(Any, request.request)
        return self.controller.visitors.get(request.session_hash, browser.state.owner)

    def leave(self, request: gr.Request) -> None:
        self.controller.visitors.leave(request.session_hash)

    # the video

    def _video(self, visitor: Session, values: tuple) -> tuple:
        """What the left half shows after another video was chosen."""
        drop = gr.File(value=None, visible="hidden" if visitor.current else True)
        selected = self.controller.example_index(visitor.current)
        examples = widget_values.gallery(self.controller.examples, selected)
        return drop, *self._plan(visitor, values), examples

    def on_plan(self, visitor: Session, event: dict, *values) -> tuple[dict, dict, dict]:
        """What the fields cost, or what is wrong with them; never what was so before."""
        shown = self._plan(visitor, values)
        visitor.fields = values
        return shown

    def _plan(self, visitor: Session, values: Sequence) -> tuple[dict, dict, dict]:
        visitor.fields = None
        faults = form.faults(values, self.controller.context_tokens)
        budget = self._budget(visitor, faults, values)
        return widget_values.player(visitor), budget, {"faults": faults}

    def _budget(self, visitor: Session, faults: dict[str, str], values: Sequence) -> dict:
        if faults:
            return text_format.Budget(" ".join(faults.values()), "refused").as_value()
        return self.controller.budget(visitor, *form.split(values)).as_value()

    def on_strip(self, visitor: Session, event: dict) -> dict:
        strips.make(visitor, self.controller.uploads, self.controller.card["hears"])
        return widget_values.player(visitor)

    def on_upload(self, visitor: Session, event: dict, path: str, *values) -> tuple:
        self.controller.choose_upload(visitor, path)
        values = ("", "", *values[2:])
        return *self._video(visitor, values), *values[:5]

    def on_example(self, visitor: Session, event: dict, *values) -> tuple:
        self.controller.choose_example(visitor, event.get("index"))
        values = ("", "", *values[2:])
        return *self._video(visitor, values), *values[:5]

    def on_recall(self, visitor: Session, event: dict, *values) -> tuple:
        fields = form.read_as(self.controller.choose_earlier(visitor, event.get("key")), values[:5])
        return *self._video(visitor, (*fields, *values[5:])), *fields

    # the conversation

    def _begun(self, visitor: Session) -> tuple:
        box = gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn="Stop")
        return chat_rows.rows(visitor.turns), box

    def _rows(self, visitor: Session, **box) -> tuple:
        """The conversation, and the ask box with the button that fits."""
        if not visitor.is_busy:
            box |= {"submit_btn": True, "stop_btn": False}
        return chat_rows.rows(visitor.turns), gr.MultimodalTextbox(**box)

    def on_ask(
        self, visitor: Session, event: dict, moment: object, message: dict, *values
    ) -> tuple:
        text, files = message.get("text") or "", message.get("files") or []
        asked_s = widget_values.asked_s(visitor, moment)
        self.controller.ask(visitor, text, files, *self._split(values), asked_s)
        return self._begun(visitor)

    def on_question(self, visitor: Session, event: dict, moment: object, *values) -> tuple:
        index = event.get("index")
        question = self.controller.example_question(index, event.get("number"))
        if self.controller.example_index(visitor.current) != index:  # another was chosen since
            self.controller.choose_example(visitor, index)
        self.controller.ask(
            visitor, question, [], *self._split(values), widget_values.asked_s(visitor, moment)
        )
        return self._begun(visitor)

    def _split(self, values: Sequence) -> tuple[dict, dict]:
        """Reading and answer settings. Raises: UserError with the first wrong one."""
        for sentence in form.faults(values, self.controller.context_tokens).values():
            raise UserError("Setting out of range", sentence)
        return form.split(values)

    def on_again(self, visitor: Session, event: dict, *values) -> tuple:
        self.controller.ask_again(visitor)
        return self._begun(visitor)

    def on_edit(self, visitor: Session, event: dict, *values) -> tuple:
        turn = chat_rows.turn_of(event.get("index"))
        self.controller.ask_again(visitor, turn, chat_rows.plain(str(event.get("value"))))
        return self._begun(visitor)

    def on_answer(self, visitor: Session, event: dict, *values) -> Iterator[list[dict]]:
        for turns in self.controller.answer(visitor, *form.answer(values)):
            yield chat_rows.rows(turns)

    def on_without(self, visitor: Session, event: dict) -> Iterator[list[dict]]:
        for turns in without.ask(self.controller, visitor, event):
            yield chat_rows.rows(turns)

    def on_ended(self, visitor: Session, event: dict) -> tuple:
        self.controller.mark_failed(visitor)
        return self._rows(visitor)

    def on_stop(self, visitor: Session, event: dict) -> tuple:
        if self.controller.stop(visitor):
            return self._rows(visitor)
        return gr.skip(), gr.skip()

    def on_undo(self, visitor: Session, event: dict) -> tuple:
        question = self.controller.undo(visitor)
        box = {"value": {"text": question, "files": []}}
        return self._rows(visitor, **box)

    def on_clear(self, visitor: Session, event: dict) -> tuple:
        self.controller.clear(visitor)
        return *self._rows(visitor), self._memory(visitor)

    def on_export(self, visitor: Session, event: dict, kind: str) -> dict:
        return widget_values.export(visitor, self.controller.card, kind)

    # the tabs of Inspect

    def on_tab(self, visitor: Session, event: dict, *values) -> Iterator[list]:
        tabs.opened(visitor, event.get("tab"))
        yield from self.on_tab_shown(visitor, event, *values)

    def on_tab_shown(self, visitor: Session, event: dict, *values) -> Iterator[list]:
        """What the open tab shows, and the budget line, which may know more by then."""
        yield [gr.skip()] * (len(self.panels) + 1)
        faults = form.faults(values, self.controller.context_tokens)
        if faults:
            return
        rule = self.controller.rule(form.split(values)[1]["prune"])
        for value in tabs.draw_tab(self.controller, visitor, rule):
            drawn = [value if name == visitor.tab else gr.skip() for name in self.panels]
            # A tab takes its time: what was typed since then counts.
            is_newest = visitor.fields in (None, values)
            yield [*drawn, self._budget(visitor, faults, values) if is_newest else gr.skip()]

    def on_adopt(self, visitor: Session, event: dict) -> tuple:
        rule = form.rule(event)
        return True, rule["threshold"], rule["mode"], rule["keep"]

    def on_save(self, visitor: Session, event: dict) -> dict:
        return tabs.save(self.controller, visitor, event)

    def on_compare(self, visitor: Session, event: dict, question: str, *values) -> Iterator[dict]:
        fields, rest = values[: len(form.FIELDS)], values[len(form.FIELDS) :]
        pruners, models = (rest[:4], rest[4:8]), (rest[8:11], rest[11:14])
        reading, answer = form.split(fields)
        answers = [{**answer, "prune": form.pruning(pruner)} for pruner in pruners]
        chosen = [
            self.controller.model_arguments(*model) if self.can_load else None for model in models
        ]
        system = form.answer(fields[len(form.READING) :])[1]
        yield from tabs.compare(
            self.controller, visitor, question, reading, answers, chosen, system
        )

    def on_halt(self, visitor: Session, event: dict) -> None:
        visitor.comparing.set()

    def on_page(self, visitor: Session, event: dict, *values) -> dict:
        return tabs.page(
            self.controller, visitor, self.controller.rule(form.split(values)[1]["prune"])
        )

    # coming back, and links

    def _memory(self, visitor: Session) -> dict:
        return widget_values.memory(
            visitor, form.defaults(self.controller.card, self.controller.prune)
        )

    def on_open(self, visitor: Session, event: dict, remembered: dict) -> tuple:
        """A page was opened: for the first time, again, or by a link."""
        remembered = remembered if isinstance(remembered, dict) else {}
        link, theme = remembered.get("link"), remembered.get("theme")
        try:
            self.controller.open(visitor, link, remembered.get("name"))
            if link:
                gr.Info(toast("A copy of a conversation", text_format.OPENED))
        except UserError as refused:
            gr.Warning(toast(refused.title, str(refused)))
        if remembered.get("tab") in tabs.TABS:
            tabs.opened(visitor, remembered["tab"])
        memory = self._memory(visitor)
        fields = form.restored(remembered.get("settings"), memory["defaults"])
        reading = form.read_as(visitor.current, ("", "", *fields[:3]))
        video = self._video(visitor, (*reading, *fields[3:]))
        theme = theme if theme in THEMES else gr.skip()
        return *video, *reading, *fields[3:], *self._rows(visitor), theme, memory

    def on_share(self, visitor: Session, event: dict) -> dict:
        return {"link": self.controller.share(visitor), "note": text_format.SHARED}

    def on_revoke(self, visitor: Session, event: dict) -> None:
        was_any = self.controller.revoke(visitor)
        gr.Info(toast("Links revoked", text_format.REVOKED if was_any else text_format.NO_LINKS))

    def on_copied(self, visitor: Session, event: dict) -> None:
        gr.Info(toast("Link copied", text_format.SHARED))

    # the model

    def on_estimate(self, visitor: Session, event: dict, model: str, quantize: str) -> str:
        return self.needed(model.strip() or None, None if quantize == "none" else quantize)

    def on_load(self, visitor: Session, event: dict, model: str, quantize: str, adapter: str):
        if not self.can_load:
            raise UserError("Not possible", "The model is chosen by whoever started this page.")
        self.controller.load(model, quantize, adapter, visitor)
        known = self.controller.card["defaults"]
        fields = [known[name] for name in ("fps", "max_frames", "budget_tokens", "max_new_tokens")]
        rest = widget_values.player(visitor), gr.skip(), gr.skip(), *fields, self._memory(visitor)
        return self.header_now(), *self._rows(visitor), *rest

    def header_now(self) -> dict:
        return widget_values.header(self.controller.card, self.controller.models_loaded)

    def on_changed(self, visitor: Session, event: dict, *values) -> tuple:
        """Another visitor had another model loaded."""
        if visitor.news:
            gr.Info(toast("Another model", visitor.news))
        given, now = dict(zip(form.FIELDS, values, strict=True)), self.controller.card["defaults"]
        # Fields that were not changed follow the model.
        fields = {
            name: now[name] if given[name] == visitor.before.get(name) else given[name]
            for name in now
        }
        values = (*{**given, **fields}.values(),)
        visitor.news, visitor.before = "", {}
        player, budget, _ = self._plan(visitor, values)
        shows = player, budget, *fields.values(), self._memory(visitor)
        return self.header_now(), *self._rows(visitor), *shows

    # for scripts

    def ask(
        self,
        file: gr.FileData,
        question: str,
        fps: float | None = None,
        max_frames: int | None = None,
        start: float | None = None,
        end: float | None = None,
        max_new_tokens: int = form.DEFAULTS["max_new_tokens"],
        temperature: float = form.DEFAULTS["temperature"],
        seed: int = form.DEFAULTS["seed"],
        request: gr.Request | None = None,
    ) -> str:
        """Answers a question about one video or image file; the text that the page would show."""
        with self._toasts(markup=False):
            video = {"fps": fps, "max_frames": max_frames, "start": start, "end": end}
            options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
            path = file.get("path") if isinstance(file, dict) else None
            left = Left(self.demo._queue, request.session_hash if request else None)
            return self.controller.ask_once(str(path), question, video, options, left)


class Left:
    """Whether the script that asked is gone; to be looked at as an event that stops an answer."""

    def __init__(self, queue, session: str | None) -> None:
        self._queue, self._session = queue, session

    def is_set(self) -> bool:
        jobs = [job for jobs in list(self._queue.active_jobs) for job in jobs or ()]
        mine = [job for job in jobs if job.session_hash == self._session]
        return bool(mine) and not any(job.alive for job in mine)
