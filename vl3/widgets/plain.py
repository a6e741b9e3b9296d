"""Views of ipywidgets alone: the kernel paints a picture whenever a control moves."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets
import numpy as np
import traitlets
from ipywidgets import HTML, Button, Image, Layout, VBox

from vl3.viz.pictures import png

MISSING = (
    "This is the plain view, because anywidget is not installed; pip install anywidget and a "
    "restart of the kernel bring the full one."
)
WIDTH_PX = 480
LABELS = {"style": {"description_width": "90px"}, "layout": Layout(width="480px")}


class Plain(VBox):
    """A picture with controls; frame and applied are those of vl3.widgets.canvas.Canvas.

    paint, words: given the values of the controls by name, a picture [Y, X, 3] and a line of text
    controls: ipywidgets with a value; one called frame is the view's frame
    rule: gives, of the same values, what a button "Apply to next answer" applies; None: no button
    """

    frame = traitlets.Int(0)
    applied = traitlets.Dict()

    def __init__(
        self,
        paint: Callable[..., np.ndarray],
        words: Callable[..., str],
        controls: dict[str, ipywidgets.ValueWidget],
        rule: Callable[..., dict] | None = None,
    ) -> None:
        self.controls = controls
        self._paint, self._words = paint, words
        self._image = Image(format="png", width=WIDTH_PX)
        self._told = HTML()
        buttons = []
        if rule is not None:
            buttons.append(Button(description="Apply to next answer"))
            buttons[0].on_click(lambda _: self.set_trait("applied", rule(**self.values)))
        parts = (self._told, self._image, *controls.values(), *buttons)
        super().__init__(children=(HTML(f"<p>{MISSING}</p>"), *parts))
        if "frame" in controls:
            traitlets.link((controls["frame"], "value"), (self, "frame"))
        for control in controls.values():
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    @property
    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def draw(self) -> None:
        """Paints the picture and writes the words for the controls as they are."""
        self._image.value = png(self._paint(**self.values))
        self._told.value = f"<b>{html.escape(self._words(**self.values))}</b>"

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        bundle, alt = super()._repr_mimebundle_(**kwargs), self._words(**self.values)
        words = f"{alt}. A view with sliders, when the notebook runs."
        picture = {"image/png": bytes(self._image.value), "text/plain": words}
        return bundle | picture, {"image/png": {"alt": alt}}


def frame_slider(count: int, frame: int = 0) -> ipywidgets.IntSlider:
    """A slider over the frames of a clip, counted from 0 as everywhere in code."""
    return ipywidgets.IntSlider(frame, 0, count - 1, description="Frame", **LABELS)
