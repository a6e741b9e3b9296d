"""The page: which handler listens to which component, and where its result is shown."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr

from vl3.webapp import text_format
from vl3.webapp.controller import Controller
from vl3.webapp.handlers import Handlers
from vl3.webapp.sessions import Session

Options = dict[str, Any]  # of a listener

QUIET: Options = {"show_progress": "hidden", "api_visibility": "private"}
QUICK: Options = {"queue": False, **QUIET}  # for handlers that refuse nothing
IN_LINE: Options = {
    "concurrency_limit": None
}  # waits in the controller's own line, which says how long it is
ONE_STRIP: Options = {
    "concurrency_id": "strip",
    "concurrency_limit": 1,
}  # decoding takes every core
ONE_TAB: Options = {
    "concurrency_id": "tab",
    "concurrency_limit": 1,
}  # waits where an answer is written


class Page(Handlers):
    """The page for one controller, wired; arguments as of Handlers."""

    def __init__(
        self,
        controller: Controller,
        can_load: bool,
        needed: Callable[[str | None, str | None], str],
    ) -> None:
        super().__init__(controller, can_load, needed)
        with self.demo:
            self._wire_video()
            self._wire_conversation()
            self._wire_tabs()
            self._wire_settings()
            self._wire_coming_back()
            self.demo.unload(self.leave)
            gr.api(self.ask, api_name="ask", **IN_LINE)

    def _told(self, function: Callable) -> Callable:
        """The method as a handler: it gets visitor and event; known errors become toasts."""

        def call(request: gr.Request, event: gr.EventData, *values):
            with self._toasts():
                return function(self.visitor(request), _data(event), *values)

        def stream(request: gr.Request, event: gr.EventData, *values):
            with self._toasts():
                yield from function(self.visitor(request), _data(event), *values)

        return stream if inspect.isgeneratorfunction(function) else call

    def _on(self, event: Callable, function: Callable, inputs=None, outputs=None, **options):
        # Through the queue (though never behind an answer): outside of it, a toast is also an
        # HTTP error in the browser's console.
        return event(self._told(function), inputs, outputs, **{**QUIET, **options})

    def _on_turn(
        self, event: Callable, function: Callable, inputs, outputs, alone=False, **options
    ):
        """As _on, but the handler waits for its turn in the line, and the page says how many are
        before it. alone: while no other answer is written"""
        shown = outputs if isinstance(outputs, list) else [outputs]

        def handler(visitor: Session, event: dict, *values):
            waits = visitor.waiting
            with self.controller.line.place(alone) as place:
                for before in place.wait(lambda: visitor.has_left or waits > visitor.waiting):
                    yield {self.queue: text_format.before(before)}
                yield {self.queue: ""}
                made = function(visitor, event, *values)
                for each in made if inspect.isgenerator(made) else [made]:
                    yield dict(zip(shown, each if len(shown) > 1 else [each], strict=True))

        return self._on(event, handler, inputs, [*shown, self.queue], **{**IN_LINE, **options})

    def _on_video(self, event: Callable, function: Callable, inputs, outputs, **options):
        """As _on; then come the film strip and the open tab, which do not hold up the page."""
        done = self._on(event, function, inputs, outputs, **options)
        drawn = self._on(done.then, self.on_strip, None, self.player, **ONE_STRIP)
        self._on_tab_shown(drawn.then, self.on_tab_shown)
        return done

    def _on_tab_shown(self, event: Callable, function: Callable):
        shown, fields = [*self.panels.values(), self.budget], [*self.reading, *self.answer]
        # One after the other, none left out: the last says what is shown.
        return self._on(event, function, fields, shown, trigger_mode="multiple", **ONE_TAB)

    def _wire_video(self) -> None:
        plan = [*self.reading, *self.answer]
        video = [self.drop, self.player, self.budget, self.faults, self.gallery]
        chosen = (
            ("upload", self.drop.upload, self.on_upload, [self.drop, *plan]),
            ("example", self.gallery.example, self.on_example, plan),
            ("recall", self.player.recall, self.on_recall, plan),
        )
        for kind, event, function, fields in chosen:
            shows = [*video, *self.reading]
            # None left out: of two that follow each other at once the later one counts.
            taken = self._on_video(event, function, fields, shows, trigger_mode="multiple")
            for ended, is_there in ((taken.success, "true"), (taken.failure, "false")):
                ended(None, js=f"() => window.vl3.arrived('{kind}', {is_there})", **QUICK)
            if kind == "upload":
                taken.failure(lambda: None, None, self.drop, **QUICK)
        followed = {"trigger_mode": "always_last", "queue": False}
        planned = [self.player, self.budget, self.faults]
        for field in (*self.reading, self.longest, *self.pruning, self.sound):
            self._on_video(field.change, self.on_plan, plan, planned, **followed)
        for field in self.numbers:
            self._on(field.change, self.on_plan, plan, planned, **followed)

    def _wire_conversation(self) -> None:
        asked: tuple[tuple[Callable, Callable, list], ...] = (
            (self.box.submit, self.on_ask, [self.moment, self.box]),
            (self.gallery.question, self.on_question, [self.moment]),
            (self.again.click, self.on_again, []),
            (self.chat.edit, self.on_edit, []),
        )
        for event, function, inputs in asked:
            fields = [*inputs, *self.reading, *self.answer]
            stands = {"js": "(_, ...fields) => [window.vl3.moment(), ...fields]"} if inputs else {}
            begun = self._on(event, function, fields, [self.chat, self.box], **stands)
            run = self._on_turn(begun.success, self.on_answer, self.answer, self.chat)
            for ended in (run.then, run.failure):
                self._on(ended, self.on_ended, None, [self.chat, self.box], queue=False)
                plan = [*self.reading, *self.answer]
                planned = [self.player, self.budget, self.faults]
                self._on_video(ended, self.on_plan, plan, planned, queue=False)
        self._on_turn(self.moment.without, self.on_without, None, self.chat)
        self._on(self.box.stop, self.on_stop, None, [self.chat, self.box], queue=False)
        undone = self._on(self.undo.click, self.on_undo, None, [self.chat, self.box])
        emptied = [self.chat, self.box, self.memory]
        cleared = self._on(self.clear.click, self.on_clear, None, emptied)
        for changed in (undone, cleared):
            self._on_tab_shown(changed.then, self.on_tab_shown)
        for button in self.exports:
            self._on(button.click, self.on_export, button, self.saver)

    def _wire_tabs(self) -> None:
        fields = [*self.reading, *self.answer]
        self._on_tab_shown(self.tabs.open, self.on_tab)
        self._on(self.tabs.whole, self.on_page, fields, self.saver, **ONE_TAB)
        pruning = self.panels["pruning"]
        self._on(pruning.adopt, self.on_adopt, None, self.pruning)
        self._on(pruning.save, self.on_save, None, self.saver, **ONE_TAB)
        choices = [self.question, *self.reading, *self.answer]
        choices += [field for fields in (*self.pruners, *self.models) for field in fields]
        compared = self.panels["compare"]
        self._on_turn(self.both.click, self.on_compare, choices, compared, alone=True)
        self._on(self.halt.click, self.on_halt, queue=False)

    def _wire_settings(self) -> None:
        fields = [*self.reading, *self.answer]
        self.theme.change(None, self.theme, None, js="(name) => window.vl3.theme(name)", **QUICK)
        self.demo.load(self.header_now, None, self.header, **QUICK)
        news = [
            self.header,
            self.chat,
            self.box,
            self.player,
            self.budget,
            *self.reading[2:],
            self.longest,
            self.memory,
        ]
        seen = self._on(self.header.changed, self.on_changed, fields, news)
        self._on_tab_shown(seen.then, self.on_tab_shown)
        chosen = self.model
        for field in chosen[:2]:
            self._on(field.change, self.on_estimate, chosen[:2], self.estimate)
        changed = [
            self.header,
            self.chat,
            self.box,
            self.player,
            *self.reading,
            self.longest,
            self.memory,
        ]
        options = {"show_progress": "minimal", "show_progress_on": self.estimate}
        loaded = self._on_turn(
            self.load.click, self.on_load, chosen, changed, alone=True, **options
        )
        self._on_tab_shown(loaded.then, self.on_tab_shown)

    def _wire_coming_back(self) -> None:
        everything = [
            self.drop,
            self.player,
            self.budget,
            self.faults,
            self.gallery,
            *self.reading,
            *self.answer,
            self.chat,
            self.box,
            self.theme,
            self.memory,
        ]
        remembered = {"js": "() => [window.vl3.remembered()]"}
        self._on_video(self.demo.load, self.on_open, self.memory, everything, **remembered)
        kept = [*self.reading[2:], *self.answer]
        for field in kept:
            field.change(None, kept, None, js="(...fields) => window.vl3.keep(fields)", **QUICK)
        self._on(self.share.click, self.on_share, None, self.saver)
        self._on(self.saver.copied, self.on_copied)
        self._on(self.revoke.click, self.on_revoke)


def _data(event: gr.EventData | None) -> dict:
    data = event._data if event is not None else None
    return data if isinstance(data, dict) else {}
