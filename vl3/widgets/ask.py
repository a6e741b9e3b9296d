"""A question about a clip in a notebook: a file, a question, the answer as it comes, a stop."""

from __future__ import annotations

import html
import tempfile
import threading
from pathlib import Path

import traitlets
from ipywidgets import HTML, Button, FileUpload, HBox, IntProgress, Layout, Text, VBox

from vl3.arguments import instance, shown
from vl3.values import Progress, Reply

WIDE = {"style": {"description_width": "72px"}, "layout": Layout(width="520px")}


class Ask(VBox):
    """A form that asks a studio; `reply` is the last answer, for every view of it.

    >>> view = widgets.Ask(studio, "clip.mp4", "What happens?")
    >>> reply = view.ask()               waits for the answer; the button does not
    >>> view.observe(redraw, "reply")    after every answer

    clip: a path, a Clip or an opened video; settings: of studio.stream
    """

    reply = traitlets.Instance(Reply, allow_none=True)

    def __init__(self, studio, clip=None, question: str = "", **settings) -> None:
        if not callable(getattr(studio, "stream", None)):
            raise ValueError(f"studio is what vl3.load gives - got {shown(studio)}")
        instance("question", question, str, "a text")
        self._studio, self._settings = studio, settings
        self._clip = None if isinstance(clip, str | Path) else clip
        path = str(clip) if isinstance(clip, str | Path) else getattr(clip, "source", "")
        self._folder = tempfile.TemporaryDirectory(prefix="vl3-ask-")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._path = Text(path, description="File", placeholder="a path of this machine", **WIDE)
        self._upload = FileUpload(accept="video/*,image/*", multiple=False)
        self._question = Text(question, description="Question", continuous_update=False, **WIDE)
        self._go = Button(description="Ask", button_style="primary")
        self._end = Button(description="Stop", disabled=True)
        self._bar = IntProgress(max=1, layout=Layout(width="160px", visibility="hidden"))
        self._stage, self._answer = HTML(), HTML()
        super().__init__(
            children=(
                HBox((self._path, self._upload)),
                HBox((self._question, self._go, self._end, self._bar)),
                self._stage,
                self._answer,
            )
        )
        self._path.observe(lambda _: self._forget_clip(), "value")
        self._upload.observe(lambda _: self._take_upload(), "value")
        self._go.on_click(lambda _: self._begin())
        self._end.on_click(lambda _: self._stop.set())

    def ask(self, question: str | None = None, **settings) -> Reply | None:
        """Asks and waits; the Reply, or None where the form then says why there is none."""
        if question is not None:
            instance("question", question, str, "a text")
            self._question.value = question
        self._wait()
        self._stop.clear()
        self._run(self._settings | settings)
        return self.reply

    def stop(self) -> None:
        """Ends the answer that is being given, at the model's next layer, and waits for its end."""
        self._stop.set()
        self._wait()

    def _begin(self) -> None:
        """The button: beside the kernel's own thread, so that Stop can be pressed."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(self._settings,), daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self, settings: dict) -> None:
        self._go.disabled, self._end.disabled = True, False
        self.reply, text = None, ""
        self._show("")
        try:
            for event in self._studio.stream(self._messages(), stop=self._stop, **settings):
                if isinstance(event, Progress):
                    self._say_stage(event)
                elif isinstance(event, str):
                    text += event
                    self._show(text)
                else:
                    self.reply = event
                    self._say_end(event)
        except (ValueError, RuntimeError, OSError) as problem:  # one sentence each
            self._say(str(problem), wrong=True)
        finally:
            self._bar.layout.visibility = "hidden"
            self._go.disabled, self._end.disabled = False, True

    def _messages(self) -> list[dict]:
        clip = self._clip if self._clip is not None else self._path.value.strip()
        if not self._question.value.strip():
            raise ValueError("there is no question; write one and press Ask")
        media = [{"type": "video", "video": clip}] if clip else []
        text = {"type": "text", "text": self._question.value}
        return [{"role": "user", "content": [*media, text]}]

    def _forget_clip(self) -> None:
        self._clip = None

    def _take_upload(self) -> None:
        """A file of the browser's machine, written to a folder that ends with this view."""
        for file in self._upload.value:
            path = Path(self._folder.name, Path(file["name"]).name)
            path.write_bytes(file["content"])
            self._path.value = str(path)

    def _say_stage(self, stage: Progress) -> None:
        self._say(stage.name)
        self._bar.layout.visibility = "visible" if stage.total else "hidden"
        self._bar.max, self._bar.value = max(1, stage.total), stage.done

    def _say_end(self, reply: Reply) -> None:
        ledger = reply.ledger
        state = "stopped" if reply.stopped else "cut off" if reply.truncated else "done"
        self._say(
            " · ".join(
                (
                    f"{state} after {ledger.total_s:.1f} s",
                    f"{ledger.kept_tokens} of {ledger.visual_tokens} visual tokens kept",
                    *reply.notes,
                )
            )
        )

    def _say(self, words: str, wrong: bool = False) -> None:
        colour = "#c2410c" if wrong else "#767c87"
        self._stage.value = f"<span style='color:{colour}'>{html.escape(words)}</span>"

    def _show(self, text: str) -> None:
        shown = html.escape(text).replace("\n", "<br>")
        self._answer.value = f"<div style='font-size:15px;max-width:70ch'>{shown}</div>"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        answer = self.reply.text if self.reply else "(not asked yet)"
        words = f"{self._path.value}\n{self._question.value}\n{answer}"
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": words}
