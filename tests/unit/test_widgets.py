"""Views in notebooks: the canvas shares the page's module, a picture stands in without it."""

import html
import io
import sys
from datetime import UTC, datetime

import ipywidgets
import numpy as np
import pytest
from PIL import Image

import vl3
from vl3 import widgets
from vl3.pipeline import to_patches
from vl3.values import Clip, Grid
from vl3.vision.prune import prune
from vl3.viz import export as pages
from vl3.viz import figures
from vl3.viz.pruning import data
from vl3.weights.export import export
from vl3.widgets.model import ENVIRONMENT

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


def sent(widget, monkeypatch) -> list:
    """What the kernel tells the view from now on."""
    messages = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: messages.append(content))
    return messages


def test_the_canvas_runs_the_pages_module_on_the_pages_data(clip):
    view = widgets.pruning(clip, GRID, USED, frame=3)
    assert view.data == data(clip, GRID, USED, 3)
    assert view._esm.startswith(pages.module())
    assert "export default" in view._esm
    assert view._css.startswith(pages.style())
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
    keep = prune(to_patches([clip], [GRID]), **USED).keep_M.view(5, 2, 3)[4].numpy()
    times = shown.shape[1] // 84
    frame = clip.frames_TYX3[4].repeat(times, 0).repeat(times, 1)
    same = (shown == frame).all(axis=2).reshape(2, 28 * times, 3, 28 * times).all(axis=(1, 3))
    assert 0 < keep.sum() < keep.size
    np.testing.assert_array_equal(same, keep)


def test_without_anywidget_a_picture_stands_in_and_says_so(clip, no_anywidget):
    view = widgets.pruning(clip, GRID, USED, frame=3)
    assert isinstance(view, widgets.Still)
    bundle, extra = view._repr_mimebundle_()
    (kept,) = prune(to_patches([clip], [GRID]), **USED).kept_per_frame
    words = f"Frame 4 of 5 · kept {kept[3]} of 6 · clip {sum(kept)} of 30"
    assert extra["image/png"]["alt"] == words
    assert bundle["text/plain"].startswith(words)
    assert "pip install anywidget" in bundle["text/plain"]
    assert bundle["image/png"].startswith(b"\x89PNG")


def test_other_missing_modules_are_not_hidden(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl3.widgets.canvas", None)
    with pytest.raises(ModuleNotFoundError):
        widgets.pruning(clip, GRID, USED)


def test_positions_as_a_picture(no_anywidget):
    view = widgets.positions(GRID, 32)
    shown = np.asarray(Image.open(io.BytesIO(view._repr_mimebundle_()[0]["image/png"])))
    cells = shown.reshape(4, shown.shape[0] // 4, 6, -1, 3)[:, 0, :, 0].sum(axis=-1).astype(int)
    similarity = figures.similarity_map(GRID, 32, 10000.0, GRID.rows // 2, GRID.cols // 2)
    assert cells.argmax() == similarity.argmax()
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
    mean = studio.attention(reply)
    share = np.nansum(mean.maps()[0][0, 0, 0, 1])
    assert f"{share:.1%}" in view.alt
    assert view.png.startswith(b"\x89PNG")


def test_controls_draw_when_a_slider_is_let_go():
    drawn = []
    slider = ipywidgets.IntSlider(1, 0, 9)
    widgets.Controls(lambda number: drawn.append(number), number=slider)
    slider.value = 4
    assert drawn == [1, 4]
    assert not slider.continuous_update


@pytest.fixture(scope="module")
def official_folder(tiny_model, tiny_processor, tmp_path_factory):
    """The tiny model in the layout of the released checkpoints."""
    folder = tmp_path_factory.mktemp("widgets") / "official"
    export(tiny_model, tiny_processor, folder, "official")
    return folder


def told_by(form) -> str:
    """All text of a form."""
    parts = [form]
    while any(hasattr(part, "children") for part in parts):
        parts = [child for part in parts for child in getattr(part, "children", (part,))]
    return " ".join(part.value for part in parts if isinstance(part, ipywidgets.HTML))


def field(form, name: str):
    """The field of a form that is called so."""
    parts = [form]
    while any(hasattr(part, "children") for part in parts):
        parts = [child for part in parts for child in getattr(part, "children", (part,))]
    return next(part for part in parts if getattr(part, "description", "") == name)


def test_the_model_form_loads_what_it_says_and_loads_it_once(monkeypatch, official_folder):
    for variable in ENVIRONMENT.values():
        monkeypatch.delenv(variable, raising=False)
    form = widgets.Model()
    assert "An answer takes: not quantized" in told_by(form)
    studio = form.studio
    assert studio.card["is_nano"]
    assert form.studio is studio
    assert "nano, float32" in told_by(form)
    field(form, "Model").value = str(official_folder)
    field(form, "Quantization").value = "nf4"
    assert (form.studio.card["name"], form.studio.card["quantize"]) == ("official", "nf4")
    assert not studio.cached_bytes
    assert "official, nf4" in form._repr_mimebundle_()["text/plain"]


def test_the_model_form_says_what_is_wrong_and_what_does_not_fit(monkeypatch, tmp_path):
    monkeypatch.setenv("VL3_MODEL", "DAMO-NLP-SG/VideoLLaMA3-7B")
    monkeypatch.setenv("VL3_MEMORY", "8GB")
    form = widgets.Model()
    assert "nf4" in told_by(form)
    field(form, "Memory").value = "8 bananas"
    assert "is no size" in told_by(form)
    field(form, "Memory").value = ""
    field(form, "Model").value = str(tmp_path / "none")
    field(form, "Load").click()
    assert "no folder" in told_by(form)
    with pytest.raises(ValueError, match="no folder"):
        _ = form.studio
    field(form, "Model").value = ""
    assert form.studio.card["is_nano"]
    monkeypatch.setenv("VL3_QUANTIZE", "nf3")
    with pytest.raises(ValueError, match="did you mean nf4"):
        widgets.Model()
    with pytest.raises(ValueError, match="did you mean memory"):
        widgets.Model(memroy="8GB")


def test_a_question_in_a_form_on_a_released_layout_in_4_bits(clip, official_folder):
    studio = widgets.Model(model=str(official_folder), quantize="nf4").studio
    form = widgets.Ask(studio, clip, "What happens?", max_new_tokens=4)
    seen = []
    form.observe(lambda change: seen.append(change["new"]), "reply")
    reply = form.ask()
    assert seen == [reply]
    assert reply.ledger.frames == GRID.frames
    assert "visual tokens kept" in told_by(form)
    assert reply.text.strip() in html.unescape(told_by(form).replace("<br>", "\n"))
    assert reply.text in form._repr_mimebundle_()["text/plain"]
    view = widgets.attention(studio, reply)
    assert view.data["sizes"]
    (video,) = studio.videos(reply)
    assert widgets.pruning(video.clip, video.grid, reply.settings["prune"]).data
    assert widgets.positions(video.grid, 12).data


def test_a_question_that_cannot_be_asked_is_a_sentence_in_the_form(told, tmp_path):
    studio, _ = told
    form = widgets.Ask(studio, tmp_path / "none.mp4", "What?")
    assert form.ask() is None
    assert "none.mp4" in told_by(form)
    assert form.ask(" ") is None
    assert "no question" in told_by(form)
    field(form, "File").value = ""
    assert form.ask("What colour is it?", max_new_tokens=2).ledger.frames == 0
    assert form.ask("What colour is it?", temperature=-1) is None
    assert "temperature" in told_by(form)


def test_a_file_of_the_browser_is_asked_about(told):
    studio, _ = told
    form = widgets.Ask(studio, question="What colour is it?", max_new_tokens=2)
    picture = io.BytesIO()
    Image.new("RGB", (56, 56), "red").save(picture, "png")
    (upload,) = [part for part in form.children[0].children if hasattr(part, "accept")]
    upload.value = (
        {
            "name": "../red.png",
            "content": picture.getvalue(),
            "size": 1,
            "type": "image/png",
            "last_modified": datetime.now(UTC),
        },
    )
    assert field(form, "File").value.endswith("red.png")
    assert ".." not in field(form, "File").value
    assert form.ask().ledger.frames == 1


def test_stop_ends_an_answer_that_the_button_began(told):
    studio, _ = told
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (60, 112, 112, 3)).astype(np.uint8)
    long = Clip(frames_TYX3=frames, times_s=tuple(map(float, range(60))), source="noise")
    form = widgets.Ask(studio, long, "What happens?", max_new_tokens=500)
    field(form, "Ask").click()
    form.stop()
    assert form.reply.stopped
    assert "stopped after" in told_by(form)
    assert not field(form, "Ask").disabled
