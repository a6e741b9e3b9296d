"""What stands where on the page: its components and widgets, without what they do.

handlers.py says what they do, page.py which handler listens to which of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import gradio as gr

from vl3.settings import PruneSettings
from vl3.viz import pruning
from vl3.webapp import form, tabs, text_format, widget_values
from vl3.webapp.controller import Controller

# By their endings those whose kind not every browser knows.
MEDIA = ["video", "image", ".mkv", ".mts", ".m2ts", ".ts", ".avi", ".flv", ".wmv", ".ogv", ".mpg"]
MEDIA += [".vob", ".mxf", ".heic", ".heif", ".avif"]
MEDIA += ["audio", ".m4a", ".flac", ".ogg", ".oga", ".opus"]
THEMES = ["System", "Light", "Dark"]


def widget(
    kind: str, value: dict | None = None, events: tuple[str, ...] = (), asks: Callable | None = None
) -> gr.HTML:
    """An element that assets/web/page draws from its value; no text ever enters a template.

    asks: what it can ask of the server beside the queue, with one argument from the browser
    """
    # Gradio offers the events whose quoted names stand in the script.
    names = ", ".join(repr(name) for name in events)
    given = f"element, props, watch, trigger, {'server' if asks else 'null'}, [{names}]"
    return gr.HTML(
        value or {},
        html_template=f'<div class="vl3-{kind}"></div>',
        js_on_load=f"window.vl3.mount('{kind}', {given})",
        server_functions=[asks] if asks else None,
        apply_default_css=False,
        elem_id=kind,
    )


class Layout:
    """The components of the page, each under its name, and the demo that holds them.

    reading, answer: the fields of vl3.webapp.form in its order; longest, pruning, sound: those of
    answer that change what a video costs; numbers: those that do not, but can be out of range
    panels: what the tabs of Inspect draw, by their names
    """

    def __init__(self, controller: Controller, can_load: bool) -> None:
        self.controller, self.can_load = controller, can_load
        with gr.Blocks(title="vl3", analytics_enabled=False, fill_width=True) as self.demo:

            def news(known):  # has no session, and tells only how many models were loaded
                return controller.models_loaded

            known = widget_values.header(controller.card, controller.models_loaded)
            self.header = widget("header", known, events=("changed",), asks=news)
            with gr.Row(elem_id="halves"):
                with gr.Column(scale=5, min_width=320, elem_id="left"):
                    self._video_half(controller.card["defaults"])
                with gr.Column(scale=7, min_width=320, elem_id="right"):
                    self._conversation_half()
            with gr.Column(elem_id="inspect"):
                self._tabs()
            with gr.Sidebar(position="right", open=False, elem_id="settings", width=340):
                self._settings(controller.card["defaults"])

    def _video_half(self, defaults: dict) -> None:
        self.drop = gr.File(label="Video or image", file_types=MEDIA, elem_id="drop", height=220)
        self.player = widget("player", events=("recall",))
        with gr.Row(elem_id="reading"):
            start = gr.Textbox(label="From", placeholder="0:00", max_lines=1, min_width=64)
            end = gr.Textbox(label="To", placeholder="end", max_lines=1, min_width=64)
            fps = gr.Number(defaults["fps"], label="Frames per s", min_width=64)
            frames = gr.Number(defaults["max_frames"], label="Max frames", min_width=64)
            budget = gr.Number(defaults["budget_tokens"], label="Token budget", min_width=64)
        self.reading = [start, end, fps, frames, budget]
        self.budget = widget("budget")
        self.gallery = widget(
            "gallery",
            widget_values.gallery(self.controller.examples),
            events=("example", "question"),
        )

    def _conversation_half(self) -> None:
        self.chat = gr.Chatbot(
            elem_id="chat",
            label="Conversation",
            show_label=False,
            editable="user",
            height=None,
            buttons=["copy"],
            feedback_options=None,
            latex_delimiters=[],
            group_consecutive_messages=False,  # a text beside a picture cannot be edited otherwise
            placeholder="Upload a video, then ask about it.",
        )
        self.queue = gr.Markdown(elem_id="queue")
        self.box = gr.MultimodalTextbox(
            elem_id="ask",
            label="Question",
            show_label=False,
            placeholder="Ask about the video",
            file_types=MEDIA,
            file_count="multiple",
            max_plain_text_length=20_000,
        )
        self.moment = widget("moment", events=("without",))
        widget("held")
        with gr.Row(elem_id="actions"):
            self.again = gr.Button("Try again", size="sm", elem_id="again")
            self.undo = gr.Button("Undo", size="sm", elem_id="undo")
            self.clear = gr.Button("Clear conversation", size="sm", elem_id="clear")
            self.share = gr.Button("Copy link", size="sm", elem_id="share")
            gr.Markdown("Export", elem_id="export-label")
            names = ("Markdown", "JSON", "WebVTT")
            self.exports = [gr.Button(name, size="sm", elem_classes="export") for name in names]
        self.saver = widget("saver", events=("copied",))
        self.memory = widget("memory")

    def _tabs(self) -> None:
        self.tabs = widget("tabs", {"tabs": tabs.TABS}, events=("open", "whole"))

        def need(detail):  # has no session: the detail names what was made for the visitor alone
            return tabs.maps(self.controller, detail)

        self.panels = {}
        for name in tabs.TABS:
            with gr.Column(elem_id=f"panel-{name}"):
                if name == "compare":
                    self._compare_controls()
                events = ("adopt", "save") if name == "pruning" else ()
                asks = need if name == "attention" else None
                self.panels[name] = widget(name, events=events, asks=asks)

    def _compare_controls(self) -> None:
        self.question = gr.Textbox(
            label="Question for both", placeholder="the last one", max_lines=2, elem_id="both"
        )
        self.pruners, self.models = [], []
        with gr.Row(elem_id="runs"):
            for name, removes in (("First run", True), ("Second run", False)):
                with gr.Column():
                    gr.Markdown(f"### {name}")
                    with gr.Row():
                        self.pruners.append(self._pruner(removes))
                    with gr.Row(visible=self.can_load):
                        self.models.append(self._model_fields("the model of this page"))
        with gr.Row(elem_id="run-both"):
            self.both = gr.Button("Run both", size="sm", elem_classes="go")
            self.halt = gr.Button("Stop", size="sm")

    def _pruner(self, removes: bool) -> list:
        """Fields that say how the pruner decides: whether, threshold, mode, which of two stays."""
        own = asdict(PruneSettings()) | (
            self.controller.prune or {}
        )  # none where nothing is pruned
        prune = gr.Checkbox(removes, label="Remove repeated patches")
        threshold = gr.Number(own["threshold"], label="Threshold", step=0.1, min_width=80)
        modes, sides = (
            [(label, name) for name, label in names.items()]
            for names in (pruning.MODES, pruning.SIDES)
        )
        mode = gr.Dropdown(modes, value=own["mode"], label="Compare with")
        keep = gr.Dropdown(sides, value=own["keep"], label="Of two alike")
        return [prune, threshold, mode, keep]

    def _model_fields(self, empty: str) -> list:
        model = gr.Textbox(label="Model", placeholder=f"folder or hub id; empty: {empty}")
        quantize = gr.Dropdown(
            text_format.QUANTIZATIONS, value="none", label="Quantization", min_width=80
        )
        adapter = gr.Textbox(label="Adapter", placeholder="folder; empty: none")
        return [model, quantize, adapter]

    def _settings(self, defaults: dict) -> None:
        with gr.Group(visible=self.can_load):
            gr.Markdown("### Model")
            self.model = self._model_fields("nano")
            self.estimate = gr.Markdown(elem_id="estimate")
            self.load = gr.Button("Load", elem_id="load")
        with gr.Group():
            gr.Markdown("### Answers")
            with gr.Row():
                temperature = gr.Number(
                    form.DEFAULTS["temperature"], label="Temperature", step=0.1, min_width=80
                )
                top_p = gr.Number(form.DEFAULTS["top_p"], label="Top-p", step=0.05, min_width=80)
            with gr.Row():
                longest = gr.Number(
                    defaults["max_new_tokens"], label="Max new tokens", min_width=80
                )
                seed = gr.Number(form.DEFAULTS["seed"], label="Seed", min_width=80)
            penalty = gr.Number(
                form.DEFAULTS["repetition_penalty"], label="Repetition penalty", step=0.05
            )
            system = gr.Textbox(label="System prompt", lines=2, placeholder="the model's own")
            # Shown by the header's word that the model hears.
            sound = gr.Checkbox(True, label="Sound", elem_id="sound")
        self.faults = widget("faults")
        with gr.Group():
            gr.Markdown("### Pruning")
            self.pruning = self._pruner(bool(self.controller.prune))
        with gr.Group():
            gr.Markdown("### Appearance")
            self.theme = gr.Radio(THEMES, value="System", label="Theme", elem_id="theme")
        with gr.Group():
            gr.Markdown("### Links")
            self.revoke = gr.Button("Revoke links", size="sm", elem_id="revoke")
        self.longest, self.numbers = longest, [temperature, top_p, penalty, seed]
        self.sound = sound
        self.answer = [temperature, top_p, longest, penalty, seed, *self.pruning, system, sound]
