"""Controls for notebooks: the page's own views on a canvas, and forms for a model and questions.

    view = vl3.widgets.pruning(clip, grid, used)        the last line of a cell shows it
    view.frame = 3                                      and follows what a person does
    view.applied                                        the rule that was applied, {} before

    model = vl3.widgets.Model()                         a form for the model; model.studio loads it
    vl3.widgets.Ask(model.studio, "clip.mp4")           a form for questions; .reply is the answer

The canvas (vl3.widgets.canvas) runs the module that the page runs. Where no widget runs, a notebook
on GitHub for one, or where anywidget is missing, a picture stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict

import ipywidgets
import numpy as np
from IPython.display import display

from vl3.arguments import choice, instance, shown, whole
from vl3.settings import PruneSettings
from vl3.values import Clip, Grid, Patches
from vl3.vision.patchify import patchify
from vl3.vision.prune import prune
from vl3.viz import attention as attention_view
from vl3.viz import positions as positions_view
from vl3.viz import pruning as pruning_view
from vl3.viz.chart import Chart, NoPicture, alt_text
from vl3.viz.chart import png as chart_png
from vl3.viz.figures import similarity_map
from vl3.viz.pictures import overlay, png
from vl3.viz.strip import cividis, heated
from vl3.widgets.ask import Ask
from vl3.widgets.model import Model

__all__ = ["Ask", "Controls", "Model", "attention", "positions", "pruning"]

SIDE_PX = 336  # a picture is made at least about this wide
RULE = asdict(PruneSettings())


def pruning(clip: Clip, grid: Grid, used: Mapping | None = None, frame: int = 0):
    """The pruning view: any threshold on any frame of a clip.

    clip: at the size of its grid; used: mode, threshold, min_tokens, keep of the model's pruner
    Returns a widget with the traits frame and applied.
    """
    instance("clip", clip, Clip, "a vl3.values.Clip, as an opened video has it")
    instance("grid", grid, Grid, "a vl3.values.Grid, as an opened video has it")
    patches = Patches(pixels_NP=patchify(clip.frames_TYX3, grid), grids=(grid,))
    base, frame = _rule(used), whole("frame", frame, low=0, high=grid.frames - 1)
    prune(patches, **base)  # which checks them
    shape = (grid.frames, grid.token_rows, grid.token_cols)

    def decide(threshold: float, mode: str):
        return prune(patches, **base | {"threshold": threshold, "mode": mode})

    def paint(frame: int, threshold: float, mode: str) -> np.ndarray:
        keep = decide(threshold, mode)
        masks = (keep.keep_M, keep.placeholder_M)
        layers = (mask.numpy().reshape(shape)[frame] for mask in masks)
        return overlay(clip.frames_TYX3[frame], *layers)

    def words(frame: int, threshold: float, mode: str) -> str:
        (kept,) = decide(threshold, mode).kept_per_frame
        return (
            f"Frame {frame + 1} of {grid.frames} · kept {kept[frame]} of {grid.tokens_per_frame} "
            f"· clip {sum(kept)} of {grid.num_tokens}"
        )

    return _shown(
        lambda: pruning_view.data(clip, grid, used and base, frame),
        lambda: paint(frame, base["threshold"], base["mode"]),
        words(frame, base["threshold"], base["mode"]),
    )


def _rule(used: Mapping | None) -> dict:
    """The rule of the model's pruner; what it does not say as the released models have it."""
    if used is None:
        return RULE
    instance("used", used, Mapping, f"a dict of {', '.join(RULE)}, or None")
    for name in used:
        choice("a setting of used", name, RULE)
    return RULE | dict(used)


def positions(grid: Grid, head_channels: int, theta: float = 10000.0, **options):
    """The positions view of a grid; options are those of vl3.viz.positions.data."""

    def paint(row: int, col: int) -> np.ndarray:
        similarity_RC = similarity_map(grid, head_channels, theta, row, col)
        low = similarity_RC.min()
        share_RC = (similarity_RC - low) / max(1 - low, np.finfo(np.float32).tiny)
        steps = cividis()
        colour_RC3 = steps[np.round(share_RC * (len(steps) - 1)).astype(int)].astype(np.uint8)
        return enlarged(colour_RC3)

    def words(row: int, col: int) -> str:
        return f"Alike to the patch in row {row}, column {col}: yellow is the same, blue far away"

    instance("grid", grid, Grid, "a vl3.values.Grid, as an opened video has it")
    middle = {"row": grid.rows // 2, "col": grid.cols // 2}

    return _shown(
        lambda: positions_view.data(grid, head_channels, theta, **options),
        lambda: paint(**middle),
        words(**middle),
    )


def attention(studio, reply, frame: int = 0, token: int = 0):
    """The attention view of a reply; what it does not have yet, it asks the studio for.

    studio: vl3.studio.Studio whose memory still holds the reply's clips
    token: of the answer, by number; the one to begin with
    Raises: ValueError in one sentence, also where the reply saw no picture.
    """
    if not callable(getattr(studio, "attention", None)):
        raise ValueError(f"studio is what vl3.load gives - got {shown(studio)}")
    mean = studio.attention(reply)
    if not len(mean.slot_K):
        raise ValueError(
            "this reply saw no picture, and the view shows where words look in pictures; its rows "
            "are studio.attention(reply).weight_IHQL"
        )
    clips = [video.clip for video in studio.videos(reply)]
    frame = whole("frame", frame, low=0, high=len(clips[0]) - 1)
    token = whole("token", token, low=0, high=len(mean.words) - 1)
    map_QTRC = mean.maps()[0][0, 0]  # of the first clip: [words, frames, cell rows, cell cols]
    share_QT = mean.cells.by_frame(mean.visual_IHQK)[0][0, 0]

    def paint(frame: int, word: int) -> np.ndarray:
        return heated(clips[0].frames_TYX3[frame], map_QTRC[word, frame], np.nanmax(map_QTRC[word]))

    def words(frame: int, word: int) -> str:
        share = share_QT[word, frame]
        return (
            f"Word {word}, “{mean.words[word].strip()}”: {share:.1%} of its attention on frame "
            f"{frame + 1} of {len(clips[0])}"
        )

    model = studio.model
    layers = (len(model.vision.blocks), model.config.vision_config.num_attention_heads)
    data = attention_view.data(mean, clips, vision=layers, token=token, frame=frame)

    def answer(message: dict) -> dict | None:
        if "need" not in message:
            return None
        asked = attention_view.asked(message["need"], data["sizes"])
        try:
            return {"maps": attention_view.maps(studio.attention(reply, **asked))}
        except ValueError as problem:
            return {"maps": attention_view.refused(message["need"], str(problem))}

    return _shown(lambda: data, lambda: paint(frame, token), words(frame, token), answer)


class Still:
    """A view as a picture, where anywidget is missing. png: the picture; alt: what it shows"""

    def __init__(self, png: bytes, alt: str) -> None:
        self.png, self.alt = png, alt

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        words = f"{self.alt}. pip install anywidget, and restart the kernel, for the view itself."
        return {"image/png": self.png, "text/plain": words}, {"image/png": {"alt": self.alt}}


def _shown(
    data: Callable[[], dict],
    preview: Callable[[], np.ndarray],
    alt: str,
    answer: Callable[[dict], dict | None] = lambda message: None,
):
    """The canvas where anywidget is installed, a picture where it is not."""
    try:
        from vl3.widgets.canvas import Canvas
    except ModuleNotFoundError as missing:
        if missing.name != "anywidget":
            raise
        return Still(png(enlarged(preview())), alt)
    return Canvas(data(), lambda: png(enlarged(preview())), alt, answer)


def enlarged(picture_YX3: np.ndarray) -> np.ndarray:
    """The picture in whole multiples of its size, about SIDE_PX across where it was smaller."""
    times = max(1, SIDE_PX // picture_YX3.shape[1])
    return picture_YX3.repeat(times, axis=0).repeat(times, axis=1)


class Controls(ipywidgets.VBox):
    """Controls above what draw(**their values) returns, drawn again whenever one is let go.

    >>> Controls(lambda fps: figure_of(fps), fps=ipywidgets.IntSlider(1, 1, 8))
    """

    def __init__(self, draw: Callable, **controls: ipywidgets.ValueWidget) -> None:
        if not callable(draw):
            raise ValueError(f"draw is a function of the controls - got {shown(draw)}")
        for name, control in controls.items():
            instance(name, control, ipywidgets.ValueWidget, "a widget with a value, as a slider")
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            if control.has_trait("continuous_update"):
                control.continuous_update = False
        self._draw, self._controls = draw, controls
        output = ipywidgets.interactive_output(lambda **values: _display(draw(**values)), controls)
        super().__init__(children=(ipywidgets.HBox(tuple(controls.values())), output))

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        """With what the sliders show now, for places where no widget runs."""
        bundle = super()._repr_mimebundle_(**kwargs)
        drawn = self._draw(**{name: control.value for name, control in self._controls.items()})
        bundle["text/plain"] = "Sliders that draw this again, when the notebook runs."
        if isinstance(drawn, Chart):
            with suppress(NoPicture):
                bundle["image/png"] = chart_png(drawn)
            return bundle, {"image/png": {"alt": alt_text(drawn)}}
        if hasattr(drawn, "_repr_html_"):
            bundle["text/html"] = drawn._repr_html_()
        return bundle, {}


def _display(drawn) -> None:
    """Shows what a slider drew; a chart without its picture, which would take as long again."""
    if isinstance(drawn, Chart):
        super(Chart, drawn)._ipython_display_()
    else:
        display(drawn)
