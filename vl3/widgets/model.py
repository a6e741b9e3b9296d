"""Which model a notebook runs: chosen in a form, by arguments, or by the environment."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any, cast

from ipywidgets import HTML, Button, Combobox, Dropdown, HBox, Layout, Output, Text, VBox

from vl3.arguments import choice, instance
from vl3.bundled import NANO_AV_NAME
from vl3.studio import Studio, estimate, load

# What an unattended run sets instead of filling in the form.
ENVIRONMENT = {
    "model": "VL3_MODEL",
    "quantize": "VL3_QUANTIZE",
    "memory": "VL3_MEMORY",
    "adapter": "VL3_ADAPTER",
    "device": "VL3_DEVICE",
    "dtype": "VL3_DTYPE",
}
BUNDLED = "nano (bundled)"
SUGGESTED = (BUNDLED, NANO_AV_NAME, "DAMO-NLP-SG/VideoLLaMA3-2B", "DAMO-NLP-SG/VideoLLaMA3-7B")
KINDS = ("nf4", "nf4+int8", "int8")
QUANTIZATIONS = {"none, or as Memory asks": ""} | {kind: kind for kind in KINDS}
WIDE = {"style": {"description_width": "96px"}, "layout": Layout(width="420px")}


class Model(VBox):
    """A form for the model that the cells below run; `studio` is what was chosen, loaded.

    >>> model = widgets.Model()     the last line of a cell shows the form
    >>> studio = model.studio       loads it, with a bar; at once where it is loaded already

    Arguments are those of vl3.load; one that is not given is taken from the environment
    (VL3_MODEL, VL3_QUANTIZE, VL3_MEMORY, VL3_ADAPTER, VL3_DEVICE, VL3_DTYPE), and is nano without
    either. A changed form loads anew when `studio` is asked for again, and frees what was loaded.
    """

    def __init__(self, model: str | None = None, **options: str | None) -> None:
        given = {"model": model} | options
        for name in given:
            choice("a setting of the form", name, ENVIRONMENT)
            instance(name, given[name], str | Path | None, "a text, as vl3.load takes it")
        start = {
            name: str(given.get(name) or os.environ.get(variable) or "")
            for name, variable in ENVIRONMENT.items()
        }
        if start["quantize"]:
            choice("quantize", start["quantize"], KINDS)
        self._name = Combobox(
            value=start["model"] or BUNDLED,
            options=SUGGESTED,
            ensure_option=False,
            description="Model",
            placeholder="a folder, or a hub id like owner/name",
            **WIDE,
        )
        self._quantize = Dropdown(
            options=QUANTIZATIONS, value=start["quantize"], description="Quantization", **WIDE
        )
        self._memory = Text(
            value=start["memory"], description="Memory", placeholder="all, or auto, or 8GB", **WIDE
        )
        self._adapter = Text(
            value=start["adapter"], description="Adapter", placeholder="none, or a folder", **WIDE
        )
        self._fixed = {name: start[name] or "auto" for name in ("device", "dtype")}
        self._button = Button(description="Load", button_style="primary")
        self._button.on_click(lambda _: self._load_in_words())
        self._told, self._bars = HTML(), Output()
        self._studio: Studio | None = None
        self._loaded: dict | None = None
        fields = (self._name, self._quantize, self._memory, self._adapter)
        super().__init__(children=(*fields, HBox((self._button, self._told)), self._bars))
        for field in fields:
            field.observe(lambda _: self._say_what_fits(), "value")
        self._say_what_fits()

    @property
    def chosen(self) -> dict[str, Any]:
        """The arguments of vl3.load that the form stands for."""
        name = self._name.value.strip()
        return {
            "model": None if name in ("", BUNDLED) else name,
            "quantize": self._quantize.value or None,
            "memory": self._memory.value.strip() or None,
            "adapter": self._adapter.value.strip() or None,
        } | self._fixed

    @property
    def studio(self) -> Studio:
        """The chosen model, loaded.

        Raises: what vl3.load raises, one sentence each.
        """
        if self._studio is None or self._loaded != self.chosen:
            self._load()
        return cast(Studio, self._studio)

    def _load(self) -> None:
        chosen = self.chosen
        if self._studio is not None:
            self._studio.release()
            self._studio = self._loaded = None
        self._say(f"Loading {self._name.value} ...")
        self._button.disabled = True
        try:
            with self._bars:
                self._studio = load(**chosen)
        except Exception as error:
            self._say(str(error), wrong=True)
            raise
        finally:
            self._button.disabled = False
            self._bars.clear_output()
        self._loaded = chosen
        self._say(f"Loaded: {self.words}")

    def _load_in_words(self) -> None:
        """What the button does; the sentence of an error stands in the form already."""
        try:
            self._load()
        except (ValueError, ImportError, OSError, RuntimeError) as error:
            self._say(str(error), wrong=True)

    @property
    def words(self) -> str:
        """What is loaded, in a line; empty before."""
        if self._studio is None:
            return ""
        card = self._studio.card
        kind = card["quantize"] or card["dtype"]
        adapter = f" with {card['adapter']}" if card["adapter"] else ""
        note = f"; {card['note']}" if card["note"] else ""
        millions = card["parameters"] / 1e6
        return f"{card['name']}{adapter}, {kind}, {millions:,.0f} M on {card['device']}{note}"

    def _say_what_fits(self) -> None:
        """The estimate of what an answer takes, as the page and the terminal give it."""
        wanted = {name: value for name, value in self.chosen.items() if name != "adapter"}
        try:
            fit = estimate(**wanted)
            words = f"An answer takes: {fit}"
            if not wanted["memory"]:
                free = estimate(**wanted | {"memory": "auto"})
                if (free.quantize, free.budget_tokens) != (fit.quantize, fit.budget_tokens):
                    words += f". That is more than is free; Memory auto would take: {free}"
        except (ValueError, OSError) as problem:
            self._say(str(problem), wrong=True)
        else:
            self._say(words)

    def _say(self, words: str, wrong: bool = False) -> None:
        mark = " style='color:#c2410c'" if wrong else ""
        self._told.value = f"<span{mark}>{html.escape(words)}</span>"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        words = self.words or f"{self._name.value}, not loaded yet"
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": words}
