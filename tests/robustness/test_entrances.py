"""Every public entrance with wrong values: it works, or one sentence says what is wanted.

ENTRANCES has, for each, a call that works; WRONG what stands in the place of its arguments, one at
a time. Hypothesis draws from all of them; SAYS holds some by name, with a word of the sentence.
"""

from __future__ import annotations

import inspect
import math
import traceback
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
import torch
from clips import write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from table import REPO

import vl3
from vl3 import video, vision, widgets
from vl3.processor import VL3Processor
from vl3.values import Clip, Grid, Patches
from vl3.viz import figures
from vl3.weights import assemble, export, hub

NANO = REPO / "assets" / "nano"
if not (NANO / "model.safetensors").is_file():
    pytest.skip("needs the bundled model", allow_module_level=True)

WRONG = {
    "nothing": None,
    "true": True,
    "a word": "x",
    "no word": "",
    "bytes": b"x",
    "not a number": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "minus one": -1,
    "zero": 0,
    "a half": 1.5,
    "huge": 2**70,
    "99": 99,
    "no list": [],
    "words": ["x"],
    "a list of nothing": [None],
    "a pair": (0, 0),
    "sizes": [(0, 56, 56)],
    "few sizes": [(1, 2)],
    "many frames": [(10**9, 56, 56)],
    "words for sizes": [("a", 1, 2)],
    "no dict": {},
    "a dict": {"a": 1},
    "a rule": {"treshold": 1},
    "a rule in words": {"threshold": "x"},
    "a set": {1},
    "an object": object(),
    "complex": 1 + 2j,
    "an array": np.zeros(3),
    "an empty array": np.zeros((0, 0, 3), np.uint8),
    "four channels": np.zeros((1, 28, 28, 4)),
    "a tensor": torch.zeros(2),
    "a table": pd.DataFrame({"mode": ["official"]}),
    "a path": Path("/proc/gone/x"),
    "a file": str(REPO / "README.md"),
    "a folder": str(REPO),
    "a null byte": "a\0b",
    "a long name": "x" * 5000,
    "a hub id": "no/such",
}
# Words of Python, numpy and torch that tell a caller nothing.
RAW = (
    "has no attribute",
    "not subscriptable",
    "unexpected keyword",
    "positional argument",
    "math domain",
    "division by zero",
    "NoneType",
    "unhashable",
    "not iterable",
    "unsupported",
    "invalid literal",
    "could not convert",
    "not supported between",
    "Errno",
    "ambiguous",
)


@pytest.fixture(scope="module")
def entrances(tmp_path_factory) -> dict:
    """Name -> (call, arguments that it works with)."""
    folder = tmp_path_factory.mktemp("entrances")
    clip = str(write_clip(folder / "clip.mp4", 12, 4, size=(56, 56)))
    picture = folder / "picture.png"
    Image.new("RGB", (60, 50), (200, 30, 30)).save(picture)
    studio = vl3.load(NANO, offline=True)
    opened = studio.open(clip)
    grid, seen, keep = opened.grid, opened.clip, opened.keep
    asked = [{"role": "user", "content": [{"type": "video", "video": seen}, "What colour?"]}]
    reply = studio.reply(asked, max_new_tokens=3)
    look = studio.attention(reply, layers=[0], heads=[0])
    pixels = vision.patchify(seen.frames_TYX3, grid)
    patches = Patches(pixels_NP=pixels, grids=(grid,))
    span = {"fps": 1, "max_frames": 4, "start": 0, "end": 2}
    decoding = {"max_new_tokens": 1, "temperature": 0.5, "top_p": 0.9, "seed": 0}
    rope = {"head_channels": 16, "theta": 1e4}
    table = pd.DataFrame(
        {"mode": ["off"], "threshold": [0.1], "kept": [1.0], "right": [1], "asked": [2], "ms": [3]}
    )
    slider = ipywidgets.IntSlider(1, 1, 8)
    return {
        "load": (
            vl3.load,
            {
                "model": NANO,
                "device": "cpu",
                "dtype": "auto",
                "quantize": None,
                "memory": "8GB",
                "adapter": None,
                "offline": True,
                "features_gb": 0,
            },
        ),
        "estimate": (
            vl3.studio.estimate,
            {"model": NANO, "device": "cpu", "dtype": "auto", "quantize": None, "memory": "8GB"},
        ),
        "Studio": (
            vl3.Studio,
            {"engine": studio.engine, "cache_bytes": 9, "features": None, "fitted": None},
        ),
        "open": (
            studio.open,
            {"path": clip, **span, "budget_tokens": 99, "on_stage": None, "reuse": True},
        ),
        "plan": (studio.plan, {"path": clip, **span, "budget_tokens": 99}),
        "ask": (
            studio.ask,
            {
                "video": opened,
                "question": "What?",
                "system": None,
                "history": (),
                "prune": "model",
                "reuse": True,
                **decoding,
            },
        ),
        "reply": (studio.reply, {"messages": asked, "budget_tokens": 99, "stop": None, **decoding}),
        "stream": (studio.stream, {"messages": asked, "reuse": True, **decoding}),
        "attention": (
            studio.attention,
            {
                "reply": reply,
                "layers": [0],
                "heads": [0],
                "tokens": [0],
                "source": "language",
                "reuse": True,
            },
        ),
        "videos": (studio.videos, {"reply": reply}),
        "pieces": (studio.pieces, {"reply": reply}),
        "video.read": (
            video.read,
            {"path": clip, **span, "mode": "exact", "size": None, "on_frame": None, "timeout_s": 9},
        ),
        "video.schedule": (video.schedule, {"path": clip, **span, "mode": "exact", "timeout_s": 9}),
        "video.probe": (video.probe, {"path": clip, "timeout_s": 9}),
        "video.read_image": (video.read_image, {"picture": picture, "size": None}),
        "video.is_image": (video.is_image, {"path": picture}),
        "vision.fit_grid": (
            vision.fit_grid,
            {
                "sizes": [(3, 56, 56)],
                "merge": 2,
                "patch": 14,
                "budget_tokens": 99,
                "min_tokens": 16,
            },
        ),
        "vision.patchify": (vision.patchify, {"frames_TYX3": seen.frames_TYX3, "grid": grid}),
        "vision.unpatchify": (vision.unpatchify, {"pixels_NP": pixels, "grid": grid}),
        "vision.prune": (
            vision.prune,
            {
                "patches": patches,
                "threshold": 0.1,
                "mode": "official",
                "min_tokens": 1,
                "keep": "earlier",
            },
        ),
        "vision.unique_frames": (vision.unique_frames, {"pixels_NP": pixels, "grids": (grid,)}),
        "vision.positions": (vision.positions, {"grid": grid}),
        "vision.angles": (vision.angles, {"position_N2": vision.positions(grid), **rope}),
        "Clip": (Clip, {"frames_TYX3": seen.frames_TYX3, "times_s": seen.times_s, "source": "x"}),
        "Grid": (Grid, {"frames": 1, "rows": 2, "cols": 2, "merge": 1}),
        "Patches": (Patches, {"pixels_NP": pixels, "grids": (grid,)}),
        "processor": (
            studio.processor,
            {
                "messages": asked,
                "prune": "model",
                "budget_tokens": 99,
                "return_tensors": "pt",
                "return_labels": False,
                "add_generation_prompt": True,
                "max_length": 999,
                "add_system_prompt": False,
                "fps": 1,
            },
        ),
        "processor of text": (studio.processor, {"text": "What?", "images": None}),
        "VL3Processor": (
            VL3Processor,
            {
                "tokenizer": studio.processor.tokenizer,
                "settings": studio.processor.settings,
                "image_token_id": 1,
                "video_token_id": None,
            },
        ),
        "from_pretrained": (
            lambda path: VL3Processor.from_pretrained(path, local_files_only=True),
            {"path": NANO},
        ),
        "export": (
            export.export,
            {"model": None, "processor": studio.processor, "folder": folder / "out", "kind": "own"},
        ),
        "export to": (
            lambda folder, kind: export.export(studio.model, studio.processor, folder, kind),
            {"folder": None, "kind": "x"},
        ),
        "assemble": (
            assemble.assemble,
            {"vision": NANO, "language": NANO, "seed": 0, "dtype": torch.float32},
        ),
        "resolve": (hub.resolve, {"name": NANO, "offline": True}),
        "widgets.pruning": (
            widgets.pruning,
            {"clip": seen, "grid": grid, "used": None, "frame": 0},
        ),
        "widgets.positions": (
            widgets.positions,
            {"grid": grid, **rope, "frame": 0, "times_s": None, "spans": None},
        ),
        "widgets.attention": (
            widgets.attention,
            {"studio": studio, "reply": reply, "frame": 0, "token": 0},
        ),
        "widgets.Model": (
            widgets.Model,
            {
                "model": str(NANO),
                "quantize": None,
                "memory": None,
                "adapter": None,
                "device": "cpu",
                "dtype": "auto",
            },
        ),
        "widgets.Ask": (widgets.Ask, {"studio": studio, "clip": clip, "question": "What?"}),
        "widgets.Controls": (widgets.Controls, {"draw": lambda **values: None, "fps": slider}),
        "figures.budget": (
            figures.budget,
            {"size": (56, 56), "budget_tokens": 99, "frames": [1, 2], "merge": 2},
        ),
        "figures.block_order": (figures.block_order, {"grid": grid}),
        "figures.prompt": (figures.prompt, {"pieces": studio.pieces(reply)}),
        "figures.kept_per_frame": (figures.kept_per_frame, {"keep": keep, "times_s": seen.times_s}),
        "figures.kept_by_threshold": (
            figures.kept_by_threshold,
            {"patches": patches, "modes": ["rlt"], "thresholds": [0.1, 1], "used": 0.1},
        ),
        "figures.spectrum": (figures.spectrum, {**rope, "side": 8, "chosen": 1}),
        "figures.angle_maps": (figures.angle_maps, {"grid": grid, **rope, "frequency": 0}),
        "figures.similarity": (figures.similarity, {"grid": grid, **rope, "row": 0, "col": 0}),
        "figures.decay": (figures.decay, {**rope, "farthest": 5}),
        "figures.language": (
            figures.language,
            {
                "spans": [(0, grid.tokens_per_frame)] * grid.frames,
                "grid": grid,
                "keep_M": np.ones(grid.num_tokens, bool),
            },
        ),
        "figures.head_matrix": (figures.head_matrix, {"attention": look, "word": 0}),
        "figures.words_by_frame": (
            figures.words_by_frame,
            {"attention": look, "clip": 0, "times_s": seen.times_s},
        ),
        "figures.tradeoff": (figures.tradeoff, {"table": table}),
    }


def said(call, arguments: dict) -> str | None:
    """What a call says that is refused, which has to be one sentence of ours; None if it works."""
    try:
        found = call(**arguments)
        if inspect.isgenerator(found):
            list(found)
        return None
    except (ValueError, ImportError) as error:
        words, kind = str(error), type(error)
        where = traceback.extract_tb(error.__traceback__)[-1].filename
    assert kind.__module__.partition(".")[0] in ("builtins", "vl3"), kind
    assert Path(where).is_relative_to(REPO / "vl3"), f"from {where}: {words}"
    assert "\n" not in words
    assert 15 <= len(words) <= 400, words
    assert not [raw for raw in RAW if raw in words], words
    return words


def test_every_entrance_works_with_right_values(entrances):
    refused = {
        name: words for name, (call, good) in entrances.items() if (words := said(call, good))
    }
    assert set(refused) == {"export", "export to", "assemble"}  # they have a wrong one already


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_a_wrong_value_is_one_sentence(entrances, data):
    call, good = entrances[data.draw(st.sampled_from(sorted(entrances)), label="entrance")]
    argument = data.draw(st.sampled_from(sorted(good)), label="argument")
    wrong = WRONG[data.draw(st.sampled_from(sorted(WRONG)), label="value")]
    said(call, good | {argument: wrong})


SAYS = [
    ("load", "offline", "a word", "offline is True or False"),
    ("load", "memory", "a word", "is no size; give one like 24GB"),
    ("estimate", "model", "a list of nothing", "a checkpoint folder or a hub id"),
    ("estimate", "quantize", "a word", "quantize is one of nf4, int8"),
    ("Studio", "engine", "nothing", "engine is vl3.inference.engine.Engine"),
    ("Studio", "cache_bytes", "minus one", "cache_bytes is a whole number"),
    ("open", "fps", "not a number", "fps is a number above 0"),
    ("open", "max_frames", "zero", "max_frames is a whole number, 1 or more"),
    ("open", "start", "minus one", "start is a number of seconds, 0 or more"),
    ("open", "reuse", "a word", "reuse is True or False"),
    ("plan", "end", "not a number", "end is a number of seconds"),
    ("ask", "history", "a tensor", "history: wanted is a list"),
    ("stream", "reuse", "a tensor", "reuse is True or False"),
    ("attention", "reuse", "no list", "reuse is True or False"),
    ("video.read", "on_frame", "true", "on_frame is a function of (done, total)"),
    ("video.read", "fps", "huge", "fps is a number above 0 and at most 1000000"),
    ("vision.fit_grid", "sizes", "nothing", "sizes is a list of (frames, height, width)"),
    ("vision.fit_grid", "sizes", "few sizes", "each of sizes is (frames, height, width), 3 of"),
    ("vision.fit_grid", "sizes", "sizes", "frames is a whole number, 1 or more"),
    ("vision.fit_grid", "merge", "zero", "merge is a whole number, 1 or more"),
    ("vision.fit_grid", "budget_tokens", "zero", "budget_tokens is a whole number of visual tok"),
    ("vision.fit_grid", "patch", "a word", "patch is a whole number of pixels"),
    ("vision.patchify", "grid", "nothing", "grid is a vl3.values.Grid"),
    ("vision.patchify", "frames_TYX3", "four channels", "the shape (frames, height, width, 3)"),
    ("vision.unpatchify", "pixels_NP", "a tensor", "pixels_NP has the shape"),
    ("vision.prune", "threshold", "a word", "threshold is a number, 0 or more"),
    ("vision.prune", "min_tokens", "minus one", "min_tokens is a whole number"),
    ("vision.prune", "mode", "no list", "no pruner mode a list"),
    ("vision.angles", "head_channels", "zero", "head_channels is a whole number"),
    ("vision.angles", "theta", "not a number", "theta is a number above 0"),
    ("Clip", "times_s", "true", "times_s of a clip is a list of seconds"),
    ("Clip", "frames_TYX3", "no list", "frames_TYX3 of a clip is a NumPy array"),
    ("Grid", "rows", "a word", "rows of a grid is a whole number, 1 or more - got 'x'"),
    ("Patches", "grids", "words", "each of grids is a vl3.values.Grid"),
    ("processor", "messages", "nothing", "messages or text, one of them"),
    ("processor", "messages", "true", "messages are a list of"),
    ("processor", "messages", "a list of nothing", "conversation 1 is a list of at least one"),
    ("processor", "return_labels", "a word", "return_labels is True or False"),
    ("processor", "prune", "an array", "prune is 'model'"),
    ("processor", "max_length", "minus one", "max_length is a whole number"),
    ("processor of text", "text", "a list of nothing", "text is a text, or a list"),
    ("VL3Processor", "tokenizer", "nothing", "tokenizer is a tokenizer of transformers"),
    ("from_pretrained", "path", "a file", "README.md is a file; give the folder"),
    ("from_pretrained", "path", "no list", "a checkpoint folder or a hub id"),
    ("export", "model", "a word", "model is a VL3ForConditionalGeneration"),
    ("export to", "kind", "a word", "no layout 'x'; choose own"),
    ("assemble", "language", "no word", "language: a model is a checkpoint folder"),
    ("assemble", "seed", "huge", "seed is a whole number from"),
    ("resolve", "offline", "a word", "offline is True or False"),
    ("widgets.pruning", "frame", "99", "frame is a whole number from 0 to"),
    ("widgets.pruning", "used", "a rule", "did you mean threshold"),
    ("widgets.pruning", "used", "a rule in words", "threshold is a number"),
    ("widgets.positions", "frame", "99", "frame is a whole number from 0 to"),
    ("widgets.attention", "token", "99", "token is a whole number from 0 to"),
    ("widgets.attention", "studio", "nothing", "studio is what vl3.load gives"),
    ("widgets.Model", "memory", "99", "memory is a text"),
    ("widgets.Ask", "studio", "nothing", "studio is what vl3.load gives"),
    ("widgets.Ask", "question", "99", "question is a text"),
    ("widgets.Controls", "fps", "99", "fps is a widget with a value"),
    ("figures.kept_by_threshold", "thresholds", "zero", "thresholds is a list of numbers"),
    ("figures.kept_by_threshold", "used", "minus one", "used is a number above 0"),
    ("figures.similarity", "row", "99", "no patch in row 99"),
    ("figures.words_by_frame", "clip", "99", "clip is a whole number from 0 to 0"),
    ("figures.head_matrix", "word", "99", "word is a whole number from 0 to"),
    ("figures.tradeoff", "table", "a table", "a column of table is one of mode"),
]


@pytest.mark.parametrize(("entrance", "argument", "value", "words"), SAYS)
def test_the_sentence_names_what_is_wrong(entrances, entrance, argument, value, words):
    call, good = entrances[entrance]
    right = {} if argument in ("model", "folder") or entrance != "export" else {"model": None}
    assert words in str(said(call, good | right | {argument: WRONG[value]}))


def test_export_says_where_nothing_can_be_written(entrances):
    call, _ = entrances["export to"]
    for name in ("a path", "a file", "no word", "a null byte", "a long name"):
        assert "folder" in str(said(call, {"kind": "own", "folder": WRONG[name]}))


def test_conversations_that_are_none(entrances):
    call, _ = entrances["processor"]
    reply, _ = entrances["reply"]
    for wrong in (
        {"role": "user"},
        [{"role": "user"}],
        [{"content": "x"}],
        [{"role": 5, "content": "x"}],
        [{"role": "user", "content": 5}],
        [{"role": "user", "content": [5]}],
        [None],
        [{}],
        [[]],
        [{"role": "user", "content": [{"type": "video"}]}],
        [[{"role": "user", "content": "x"}], 5],
        [{"role": "user", "content": [{"type": "smell", "smell": 1}]}],
        [{"role": "user", "content": [{"type": "image", "image": object()}]}],
    ):
        assert said(call, {"messages": wrong})
        assert said(reply, {"messages": wrong, "max_new_tokens": 1})


def test_the_form_of_a_notebook_says_what_is_wrong(entrances):
    studio = entrances["widgets.Ask"][1]["studio"]
    for clip, settings_ in (
        ("gone.mp4", {}),
        (None, {"temperature": "x"}),
        (5, {"seed": 2**70}),
        (None, {"max_new_tokens": 0}),
        (None, {"nonsense": 1}),
    ):
        view = widgets.Ask(studio, clip, "What?", **{"max_new_tokens": 1, **settings_})
        assert view.ask() is None
        assert len(view._stage.value) > len("<span style='color:#c2410c'></span>") + 15
        assert not [raw for raw in RAW if raw in view._stage.value]
    assert "there is no question" in _stage(widgets.Ask(studio, None, " "))


def _stage(view: widgets.Ask) -> str:
    view.ask()
    return view._stage.value


def test_frames_that_are_close_have_names_of_their_own(entrances):
    call, good = entrances["figures.words_by_frame"]
    for step_s in (1 / 30, 1 / 240, 0.0):
        times_s = [step_s * frame for frame in range(len(good["times_s"]))]
        _, table = call(**good | {"times_s": times_s})
        assert table.columns.is_unique
