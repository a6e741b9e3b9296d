"""The browser page: run `python app.py` and open the address it prints.

Wiring only. What stands where is in vl3/webapp/layout.py, what the page does in
vl3/webapp/controller.py, what it says in vl3/webapp/text_format.py, how it looks in assets/web.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from vl3.webapp import cli
from vl3.weights import places

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Figures for a page that is switched off, computed with pandas at the end of every event.
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)
if __name__ == "__main__":
    # Before the imports that take seconds, so that --help and mistakes answer at once.
    READY = cli.ready(check=places.check)

import gradio as gr
from gradio import queueing, route_utils, routes

import vl3
import vl3.families.layouts
import vl3.studio
import vl3.video
from vl3.webapp import chat_rows, form, server, text_format, uploads, widget_values
from vl3.webapp import tabs as looking
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError, toast
from vl3.webapp.layout import THEMES, Layout
from vl3.webapp.media import Media
from vl3.webapp.sessions import Session, settle

CLIPS = Path(__file__).resolve().parent / "assets" / "clips"
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
QUICK = {"queue": False, **QUIET}  # for handlers that refuse nothing
IN_LINE = {"concurrency_limit": None}  # waits in the desk's own line, which says how long it is
ONE_STRIP = {"concurrency_id": "strip", "concurrency_limit": 1}  # decoding takes every core
ONE_LOOK = {"concurrency_id": "look", "concurrency_limit": 1}  # waits where an answer is written
SWEEP_S = 30.0
END_S = 1.5


class Page(Layout):
    """The page for one desk: which handler listens to which component, and the handlers.

    estimate(model, quantize=...) says what another model will take (vl3.studio.estimate)
    """

    def __init__(
        self, desk: Controller, can_load: bool = True, estimate: Callable = vl3.studio.estimate
    ) -> None:
        super().__init__(desk, can_load)
        self.fit = estimate
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

    def _on_turn(self, event: Callable, function: Callable, inputs, outputs, **options):
        """As _on, but the handler waits for its turn in the line; meanwhile the page says how many
        are before it."""
        shown = outputs if isinstance(outputs, list) else [outputs]

        def handler(visitor: Session, event: dict, *values):
            waits = visitor.waiting
            with self.desk.line.place() as place:
                for before in place.wait(lambda: visitor.has_left or waits > visitor.waiting):
                    yield {self.queue: text_format.before(before)}
                yield {self.queue: ""}
                made = function(visitor, event, *values)
                for each in made if inspect.isgenerator(made) else [made]:
                    yield dict(zip(shown, each if len(shown) > 1 else [each], strict=True))

        return self._on(event, handler, inputs, [*shown, self.queue], **{**IN_LINE, **options})

    def _on_video(self, event: Callable, function: Callable, inputs, outputs, **options):
        """As _on; then come the film strip and the open tab, which nobody has to wait for."""
        done = self._on(event, function, inputs, outputs, **options)
        drawn = self._on(done.then, self.on_strip, None, self.player, **ONE_STRIP)
        self._on_look(drawn.then, self.on_look)
        return done

    def _on_look(self, event: Callable, function: Callable):
        shown, fields = [*self.looks.values(), self.budget], [*self.reading, *self.answer]
        # One after the other, none left out: the last says what is shown.
        return self._on(event, function, fields, shown, trigger_mode="multiple", **ONE_LOOK)

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
        for field in (*self.reading, self.longest, *self.pruning):
            self._on_video(field.change, self.on_plan, plan, planned, **followed)
        for field in self.numbers:
            self._on(field.change, self.on_plan, plan, planned, **followed)

    def _wire_conversation(self) -> None:
        asked = (
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
        self._on(self.box.stop, self.on_stop, None, [self.chat, self.box], queue=False)
        undone = self._on(self.undo.click, self.on_undo, None, [self.chat, self.box])
        emptied = [self.chat, self.box, self.memory]
        cleared = self._on(self.clear.click, self.on_clear, None, emptied)
        for changed in (undone, cleared):
            self._on_look(changed.then, self.on_look)
        for button in self.exports:
            self._on(button.click, self.on_export, button, self.saver)

    def _wire_tabs(self) -> None:
        fields = [*self.reading, *self.answer]
        self._on_look(self.tabs.open, self.on_tab)
        self._on(self.tabs.whole, self.on_page, fields, self.saver, **ONE_LOOK)
        pruning = self.looks["pruning"]
        self._on(pruning.adopt, self.on_adopt, None, self.pruning)
        self._on(pruning.save, self.on_save, None, self.saver, **ONE_LOOK)
        choices = [self.question, *self.reading, *self.answer]
        choices += [field for fields in (*self.pruners, *self.models) for field in fields]
        compared = self.looks["compare"]
        self._on_turn(self.both.click, self.on_compare, choices, compared)
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
        self._on_look(seen.then, self.on_look)
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
        loaded = self._on_turn(self.load.click, self.on_load, chosen, changed, **options)
        self._on_look(loaded.then, self.on_look)

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

    @contextmanager
    def _toasts(self, markup: bool = True) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not uploads.is_full(error):
                raise
            raise gr.Error(text_format.FULL, title="Disk full", print_exception=False) from None
        except (UserError, *self.desk.refusals) as error:
            refused = self.desk.refusal(error)
            message = toast(refused.title, str(refused)) if markup else str(refused)
            raise gr.Error(message, title=refused.title, print_exception=False) from None
        except gr.Error:
            raise
        except Exception as error:  # nobody looks into it further up, and a person has to hear it
            message = (
                toast("Not done", text_format.UNKNOWN_FAULT)
                if markup
                else text_format.UNKNOWN_FAULT
            )
            raise gr.Error(message, title="Not done") from error

    def visitor(self, request: gr.Request) -> Session:
        return self.desk.visitors.get(request.session_hash, request.request.state.owner)

    def leave(self, request: gr.Request) -> None:
        self.desk.visitors.leave(request.session_hash)

    # the video

    def _video(self, visitor: Session, values: tuple) -> tuple:
        """What the left half shows after another video was chosen."""
        drop = gr.File(value=None, visible="hidden" if visitor.current else True)
        selected = self.desk.example_index(visitor.current)
        examples = widget_values.gallery(self.desk.examples, selected)
        return drop, *self.on_plan(visitor, {}, *values), examples

    def on_plan(self, visitor: Session, event: dict, *values) -> tuple[dict, dict, dict]:
        """What the fields cost, or what is wrong with them; never what was so before."""
        faults = form.faults(values, self.desk.context_tokens)
        budget = self._budget(visitor, faults, values)
        return widget_values.player(visitor), budget, {"faults": faults}

    def _budget(self, visitor: Session, faults: dict[str, str], values: Sequence) -> dict:
        if faults:
            return text_format.Budget(" ".join(faults.values()), "refused").as_value()
        return self.desk.budget(visitor, *form.split(values)).as_value()

    def on_strip(self, visitor: Session, event: dict) -> dict:
        self.desk.look(visitor)
        return widget_values.player(visitor)

    def on_upload(self, visitor: Session, event: dict, path: str, *values) -> tuple:
        self.desk.take(visitor, path)
        values = ("", "", *values[2:])
        return *self._video(visitor, values), *values[:5]

    def on_example(self, visitor: Session, event: dict, *values) -> tuple:
        self.desk.take_example(visitor, event.get("index"))
        values = ("", "", *values[2:])
        return *self._video(visitor, values), *values[:5]

    def on_recall(self, visitor: Session, event: dict, *values) -> tuple:
        fields = form.read_as(self.desk.recall(visitor, event.get("key")), values[:5])
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
        self.desk.ask(visitor, text, files, *self._split(values), asked_s)
        return self._begun(visitor)

    def on_question(self, visitor: Session, event: dict, moment: object, *values) -> tuple:
        index = event.get("index")
        question = self.desk.example_question(index, event.get("number"))
        if self.desk.example_index(visitor.current) != index:  # another file came meanwhile
            self.desk.take_example(visitor, index)
        self.desk.ask(
            visitor, question, [], *self._split(values), widget_values.asked_s(visitor, moment)
        )
        return self._begun(visitor)

    def _split(self, values: Sequence) -> tuple[dict, dict]:
        """Reading and answer settings. Raises: UserError with the first wrong one."""
        for sentence in form.faults(values, self.desk.context_tokens).values():
            raise UserError("Setting out of range", sentence)
        return form.split(values)

    def on_again(self, visitor: Session, event: dict, *values) -> tuple:
        self.desk.ask_again(visitor)
        return self._begun(visitor)

    def on_edit(self, visitor: Session, event: dict, *values) -> tuple:
        turn = chat_rows.turn_of(event.get("index"))
        self.desk.ask_again(visitor, turn, chat_rows.plain(str(event.get("value"))))
        return self._begun(visitor)

    def on_answer(self, visitor: Session, event: dict, *values) -> Iterator[list[dict]]:
        for turns in self.desk.answer(visitor, *form.answer(values)):
            yield chat_rows.rows(turns)

    def on_ended(self, visitor: Session, event: dict) -> tuple:
        self.desk.give_up(visitor)
        return self._rows(visitor)

    def on_stop(self, visitor: Session, event: dict) -> tuple:
        if self.desk.stop(visitor):
            return self._rows(visitor)
        return gr.skip(), gr.skip()

    def on_undo(self, visitor: Session, event: dict) -> tuple:
        question = self.desk.undo(visitor)
        box = {"value": {"text": question, "files": []}}
        return self._rows(visitor, **box)

    def on_clear(self, visitor: Session, event: dict) -> tuple:
        self.desk.clear(visitor)
        return *self._rows(visitor), self._memory(visitor)

    def on_export(self, visitor: Session, event: dict, kind: str) -> dict:
        return widget_values.export(visitor, self.desk.card, kind)

    # the tabs of Inspect

    def on_tab(self, visitor: Session, event: dict, *values) -> Iterator[list]:
        looking.opened(visitor, event.get("tab"))
        yield from self.on_look(visitor, event, *values)

    def on_look(self, visitor: Session, event: dict, *values) -> Iterator[list]:
        """What the open tab shows, and the budget line, which may know more by then."""
        yield [gr.skip()] * (len(self.looks) + 1)
        faults = form.faults(values, self.desk.context_tokens)
        if faults:
            return
        rule = self.desk.rule(form.split(values)[1]["prune"])
        for value in looking.draw_tab(self.desk, visitor, rule):
            panels = [value if name == visitor.tab else gr.skip() for name in self.looks]
            yield [*panels, self._budget(visitor, faults, values)]

    def on_adopt(self, visitor: Session, event: dict) -> tuple:
        rule = form.rule(event)
        return True, rule["threshold"], rule["mode"], rule["keep"]

    def on_save(self, visitor: Session, event: dict) -> dict:
        return looking.save(self.desk, visitor, event)

    def on_compare(self, visitor: Session, event: dict, question: str, *values) -> Iterator[dict]:
        fields, rest = values[: len(form.FIELDS)], values[len(form.FIELDS) :]
        pruners, models = (rest[:4], rest[4:8]), (rest[8:11], rest[11:14])
        reading, answer = form.split(fields)
        answers = [{**answer, "prune": form.pruning(pruner)} for pruner in pruners]
        chosen = [self.desk.chosen(*model) if self.can_load else None for model in models]
        system = form.answer(fields[len(form.READING) :])[1]
        yield from looking.compare(self.desk, visitor, question, reading, answers, chosen, system)

    def on_halt(self, visitor: Session, event: dict) -> None:
        visitor.comparing.set()

    def on_page(self, visitor: Session, event: dict, *values) -> dict:
        return looking.page(self.desk, visitor, self.desk.rule(form.split(values)[1]["prune"]))

    # coming back, and links

    def _memory(self, visitor: Session) -> dict:
        return widget_values.memory(visitor, form.defaults(self.desk.card, self.desk.prune))

    def on_open(self, visitor: Session, event: dict, remembered: dict) -> tuple:
        """A page was opened: for the first time, again, or by a link."""
        remembered = remembered if isinstance(remembered, dict) else {}
        link, theme = remembered.get("link"), remembered.get("theme")
        try:
            self.desk.open(visitor, link, remembered.get("name"))
            if link:
                gr.Info(toast("A copy of a conversation", text_format.OPENED))
        except UserError as refused:
            gr.Warning(toast(refused.title, str(refused)))
        if remembered.get("tab") in looking.TABS:
            looking.opened(visitor, remembered["tab"])
        memory = self._memory(visitor)
        fields = form.restored(remembered.get("settings"), memory["defaults"])
        reading = form.read_as(visitor.current, ("", "", *fields[:3]))
        video = self._video(visitor, (*reading, *fields[3:]))
        theme = theme if theme in THEMES else gr.skip()
        return *video, *reading, *fields[3:], *self._rows(visitor), theme, memory

    def on_share(self, visitor: Session, event: dict) -> dict:
        return {"link": self.desk.share(visitor), "note": text_format.SHARED}

    def on_revoke(self, visitor: Session, event: dict) -> None:
        was_any = self.desk.revoke(visitor)
        gr.Info(toast("Links revoked", text_format.REVOKED if was_any else text_format.NO_LINKS))

    def on_copied(self, visitor: Session, event: dict) -> None:
        gr.Info(toast("Link copied", text_format.SHARED))

    # the model

    def on_estimate(self, visitor: Session, event: dict, model: str, quantize: str) -> str:
        try:
            kind = None if quantize == "none" else quantize
            return text_format.needed(self.fit(model.strip() or None, quantize=kind))
        except (
            vl3.families.layouts.LayoutError,
            OSError,
        ):  # their words hold the name, maybe markup
            return text_format.UNKNOWN_SIZE
        except ValueError as error:
            return f"{error}."

    def on_load(self, visitor: Session, event: dict, model: str, quantize: str, adapter: str):
        if not self.can_load:
            raise UserError("Not possible", "The model is chosen by whoever started this page.")
        self.desk.load(model, quantize, adapter, visitor)
        known = self.desk.card["defaults"]
        fields = [known[name] for name in ("fps", "max_frames", "budget_tokens", "max_new_tokens")]
        rest = widget_values.player(visitor), gr.skip(), gr.skip(), *fields, self._memory(visitor)
        return self.header_now(), *self._rows(visitor), *rest

    def header_now(self) -> dict:
        return widget_values.header(self.desk.card, self.desk.models_loaded)

    def on_changed(self, visitor: Session, event: dict, *values) -> tuple:
        """Somebody else had another model loaded."""
        if visitor.news:
            gr.Info(toast("Another model", visitor.news))
        given, now = dict(zip(form.FIELDS, values, strict=True)), self.desk.card["defaults"]
        # What nobody has changed follows the model.
        fields = {
            name: now[name] if given[name] == visitor.before.get(name) else given[name]
            for name in now
        }
        values = {**given, **fields}.values()
        visitor.news, visitor.before = "", {}
        player, budget, _ = self.on_plan(visitor, {}, *values)
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
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        request: gr.Request | None = None,
    ) -> str:
        """Answers a question about one video or image file; the text that the page would show."""
        with self._toasts(markup=False):
            video = {"fps": fps, "max_frames": max_frames, "start": start, "end": end}
            options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
            path = file.get("path") if isinstance(file, dict) else None
            left = Left(self.demo._queue, request and request.session_hash)
            return self.desk.ask_once(str(path), question, video, options, left)


class Left:
    """Whether the script that asked is gone; to be looked at as an event that stops an answer."""

    def __init__(self, queue, session: str | None) -> None:
        self._queue, self._session = queue, session

    def is_set(self) -> bool:
        jobs = [job for jobs in list(self._queue.active_jobs) for job in jobs or ()]
        mine = [job for job in jobs if job.session_hash == self._session]
        return bool(mine) and not any(job.alive for job in mine)


def _data(event: gr.EventData | None) -> dict:
    data = event._data if event is not None else None
    return data if isinstance(data, dict) else {}


def build(desk: Controller, *options) -> gr.Blocks:
    """The page as a Gradio application, its queue included; options as of Page."""
    demo = Page(desk, *options).demo
    # No bound on events: they are light, and what is not waits in the desk's line, which has one.
    demo.queue(max_size=None, default_concurrency_limit=4, api_open=False)
    # It looks for work that often, a thousand times a second by itself: 6 % of a core for nothing.
    demo._queue.sleep_when_free, demo._queue.progress_update_sleep_when_free = 0.01, 0.1
    return demo


async def store(request, place: Path, most_bytes: int, upload_id: str | None) -> list[str]:
    """Writes the files of an upload into the place; their paths."""
    tracked = routes.file_upload_statuses if upload_id else None
    try:
        paths, _, _ = await route_utils.upload_fn(
            request, str(place), most_bytes, upload_id, upload_progress=tracked
        )
        return paths
    finally:
        if tracked:
            tracked.set_done(upload_id)


def launch_options(desk: Controller, max_bytes: int, **names) -> dict:
    """The arguments of launch(), but for address and lock; names as of launch.options."""
    theme = gr.themes.Monochrome(
        font=server.FONT, font_mono=server.FONT_MONO, radius_size="md", spacing_size="sm"
    ).set(  # a button under the mouse fades otherwise, as if it could not be pressed
        button_secondary_text_color_hover="*button_secondary_text_color",
        button_secondary_background_fill_hover="*neutral_100",
    )
    return {"theme": theme, **server.options(desk, max_bytes, store, **names)}


def log_briefly() -> None:
    """What goes wrong in a call enters the log without a word of the caller's.

    gradio prints the whole error, message included, of each call that does not fit its handlers.
    """
    for module in (queueing, routes):
        module.traceback = SimpleNamespace(print_exc=lambda: _print_where(*sys.exc_info()))
    logging.getLogger("uvicorn.error").addFilter(_told)


def _told(record: logging.LogRecord) -> bool:
    """Whether the server shall log the record itself: not one that holds an error."""
    if record.exc_info:
        _print_where(*record.exc_info)
    return not record.exc_info


def _print_where(kind: type, error: BaseException, trace) -> None:
    while error.__cause__:  # what a person was told, raised from what went wrong
        error = error.__cause__
        kind, trace = type(error), error.__traceback__
    frames = traceback.extract_tb(trace)
    homes = [__file__, str(server.ROOT / "vl3")]
    if not any(frame.filename.startswith(home) for frame in frames for home in homes):
        print(f"A call that the page does not make was refused: {kind.__name__}.", file=sys.stderr)
        return
    lines = "".join(traceback.format_list(frames))
    print(f"A call failed: {kind.__name__}\n{lines}", file=sys.stderr, end="")


def refusals() -> dict[type[Exception], str]:
    """The errors that a user can mend, with the title they are shown under."""
    return {
        vl3.studio.OutOfMemory: "Out of memory",
        vl3.studio.TooLong: "Video too long for this setting",
        vl3.video.VideoError: "Cannot read this file",
        ValueError: "Not possible",
    }


def main() -> None:
    options, folder = READY
    _on_end(signal.default_int_handler)
    with ExitStack() as made, suppress(KeyboardInterrupt):  # before the page was up
        made.callback(uploads.remove, folder)
        _serve(options, made.enter_context(uploads.nameless(folder)), made)


def _serve(options, folder: Path, made: ExitStack) -> None:
    """Serves the page until a signal asks for its end; made: what goes with it."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    fitting = {"device": options.device, "dtype": options.dtype, "memory": options.memory}
    load = partial(vl3.load, **fitting, offline=options.offline, features_gb=options.features_gb)
    estimate = partial(vl3.studio.estimate, **fitting)
    first = {"model": options.model, "quantize": options.quantize, "adapter": options.adapter}
    media = Media(folder, vl3.video, int(options.keep_gb * 1e9))
    try:
        desk = Controller(load, media, refusals(), **first)
    except (ValueError, ImportError, OSError, RuntimeError) as error:  # one sentence each
        cli.fail(error)
    desk.offer(CLIPS)
    if options.port != options.wanted_port:
        print(f"Port {options.wanted_port} is taken, using {options.port}.", flush=True)
    threading.Thread(target=desk.keep_tidy, args=(SWEEP_S,), daemon=True).start()
    log_briefly()
    demo = build(desk, options.auth is None, estimate)
    names = {"host": options.host, "allowed": options.allowed_host, "is_shared": options.share}
    demo.launch(
        server_name=f"[{options.host}]" if ":" in options.host else options.host,
        server_port=options.port,
        share=options.share,
        auth=tuple(options.auth.split(":", 1)) if options.auth else None,
        inbrowser=options.open,
        root_path=options.root_path.rstrip("/") or None,
        prevent_thread_lock=True,
        **launch_options(desk, options.max_upload, **names),
    )
    settle()
    print(f"vl3 is at {cli.address(options.host, options.port)}", flush=True)
    if options.share and not demo.share_url:
        print("There is no public link: the network does not let one be made.", flush=True)
    ending = threading.Event()
    _on_end(lambda number, frame: ending.set())
    ending.wait()
    desk.close()
    # What does not end by itself in time, a layer or a slow reader, ends with the process.
    last = threading.Timer(END_S, lambda: (made.close(), os._exit(0)))
    last.daemon = True
    last.start()
    demo.close(verbose=False)


def _on_end(handle: Callable) -> None:
    """What the signals do that ask the program to end, also where the shell had them ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        is_nohup = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
        if number and not is_nohup:
            signal.signal(number, handle)


if __name__ == "__main__":
    main()
