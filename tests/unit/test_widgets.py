"""Views in notebooks: the canvas shares the page's module, the plain one stands in without it."""

import io
import sys

import ipywidgets
import numpy as np
import pytest
from PIL import Image

import vl3
from vl3 import widgets
from vl3.processor import cut
from vl3.values import Clip, Grid
from vl3.vision.prune import prune
from vl3.viz import export, figures
from vl3.viz.pruning import data
from vl3.widgets.plain import MISSING, Plain

GRID = Grid(frames=5, rows=4, cols=6, merge=2)
USED = {"mode": "official", "threshold": 5.0, "min_tokens": 1, "keep": "earlier"}


@pytest.fixture(scope="module")
def clip():
    rng = np.random.default_rng(1)
    steps = rng.normal(0, 3, (GRID.frames, 56, 84, 3)) * np.linspace(0, 2, 84)[:, None]
    frames = np.clip(128 + steps.cumsum(axis=0), 0, 255).astype(np.uint8)
    return Clip(frames_TYX3=frames, times_s=(0.0, 1.0, 2.0, 3.0, 4.0), source="noise")


@pytest.fixture(scope="module")
def told():
    """A studio and its reply about two frames."""
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    seen = Clip(frames_TYX3=frames, times_s=(0.0, 1.0), source="two frames")
    studio = vl3.load()
    parts = [{"type": "video", "video": seen}, {"type": "text", "text": "What colour is it?"}]
    reply = studio.reply([{"role": "user", "content": parts}], max_new_tokens=4)
    yield studio, reply
    studio.release()


@pytest.fixture
def no_anywidget(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "vl3.widgets.canvas", raising=False)


def said(view: Plain) -> str:
    """All text of a plain view."""
    return " ".join(child.value for child in view.children if isinstance(child, ipywidgets.HTML))


def sent(widget, monkeypatch) -> list:
    """What the kernel tells the view from now on."""
    messages = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: messages.append(content))
    return messages


def test_the_canvas_runs_the_pages_module_on_the_pages_data(clip):
    view = widgets.pruning(clip, GRID, USED, frame=3)
    assert view.data == data(clip, GRID, USED, 3)
    assert view._esm.startswith(export.module())
    assert "export default" in view._esm
    assert view._css.startswith(export.style())
    assert (view.frame, view.applied) == (3, {})


def test_what_a_person_does_arrives_as_traits(clip):
    view = widgets.pruning(clip, GRID, USED)
    seen = []
    view.observe(lambda change: seen.append((change["name"], change["new"])), ["frame", "applied"])
    rule = {"mode": "rlt", "threshold": 1.0, "keep": "earlier"}
    view.set_state({"frame": 2})  # as a message from the browser does
    view.set_state({"applied": rule})
    assert seen == [("frame", 2), ("applied", rule)]


def test_where_no_widget_runs_a_picture_stands_in(clip):
    bundle = widgets.pruning(clip, GRID, USED, frame=4)._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in bundle
    shown = np.asarray(Image.open(io.BytesIO(bundle["image/png"])))
    keep = prune(cut([clip], [GRID]), **USED).keep_M.view(5, 2, 3)[4].numpy()
    times = shown.shape[1] // 84
    frame = clip.frames_TYX3[4].repeat(times, 0).repeat(times, 1)
    same = (shown == frame).all(axis=2).reshape(2, 28 * times, 3, 28 * times).all(axis=(1, 3))
    assert 0 < keep.sum() < keep.size
    np.testing.assert_array_equal(same, keep)


def test_without_anywidget_the_plain_view_says_so_and_decides_alike(clip, no_anywidget):
    view = widgets.pruning(clip, GRID, USED)
    assert isinstance(view, Plain)
    assert MISSING in said(view)
    view.frame = 3
    assert view.controls["frame"].value == 3
    view.controls["mode"].value = "last_kept"
    view.controls["threshold"].value = 7.0
    (kept,) = prune(cut([clip], [GRID]), 7.0, "last_kept").kept_per_frame
    assert f"Frame 4 of 5 · kept {kept[3]} of 6 · clip {sum(kept)} of 30" in said(view)
    view.children[-1].click()
    assert view.applied == {"mode": "last_kept", "threshold": 7.0, "keep": "earlier"}
    assert view._repr_mimebundle_()["image/png"].startswith(b"\x89PNG")


def test_other_missing_modules_are_not_hidden(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl3.widgets.canvas", None)
    with pytest.raises(ModuleNotFoundError):
        widgets.pruning(clip, GRID, USED)


def test_positions_and_their_plain_view(no_anywidget):
    view = widgets.positions(GRID, 32)
    assert isinstance(view, Plain)
    view.controls["row"].value, view.controls["col"].value = 0, 5
    shown = np.asarray(Image.open(io.BytesIO(view._repr_mimebundle_()["image/png"])))
    cells = shown.reshape(4, shown.shape[0] // 4, 6, -1, 3)[:, 0, :, 0].sum(axis=-1).astype(int)
    similarity = figures.similarity_map(GRID, 32, 10000.0, 0, 5)
    assert cells.argmax() == similarity.argmax() == 5
    assert cells.argmin() == similarity.argmin()


def test_attention_asks_the_studio_for_what_the_view_needs(told, monkeypatch):
    studio, reply = told
    view = widgets.attention(studio, reply, frame=1)
    assert (view.data["token"], view.data["frame"]) == (0, 1)
    answers = sent(view, monkeypatch)
    need = {"source": "language", "token": 0, "layer": 1}
    view._handle_custom_msg({"need": need}, [])
    (maps,) = (answer["maps"] for answer in answers)
    assert maps["source"] == "language"
    assert maps["tokens"] == [0]
    view._handle_custom_msg({"other": 1}, [])
    assert len(answers) == 1


def test_a_look_that_fails_is_told_to_the_view(told, monkeypatch):
    studio, reply = told
    view = widgets.attention(studio, reply)
    answers = sent(view, monkeypatch)

    def refuse(*args, **options):
        raise ValueError("too large for this machine")

    monkeypatch.setattr(studio, "attention", refuse)
    view._handle_custom_msg({"need": {"source": "rollout", "token": 0}}, [])
    assert answers[0]["maps"]["problem"] == "too large for this machine"


def test_attention_without_anywidget(told, no_anywidget):
    studio, reply = told
    view = widgets.attention(studio, reply, frame=1)
    assert isinstance(view, Plain)
    mean = studio.attention(reply)
    share = np.nansum(mean.maps()[0][0, 0, 0, 1])
    assert f"{share:.1%}" in said(view)


def test_controls_draw_when_a_slider_is_let_go():
    drawn = []
    slider = ipywidgets.IntSlider(1, 0, 9)
    widgets.Controls(lambda number: drawn.append(number), number=slider)
    slider.value = 4
    assert drawn == [1, 4]
    assert not slider.continuous_update
