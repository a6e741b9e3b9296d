"""What becomes of a run: merged and exported with a check that can fail, and used as it lies."""

import json
import shutil
from functools import partial

import pytest
import torch
from unit.training.test_runs import LORA
from unit.training.test_trainer import recipe

import vl3
import vl3.video
from train_cli.__main__ import main
from vl3 import bundled
from vl3.families.layouts import LayoutError
from vl3.training import run as runs
from vl3.training.recipe import Adapter, Rates, Start
from vl3.webapp import widget_values
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError
from vl3.webapp.uploads import Uploads
from vl3.weights import merge
from vl3.weights.adapters import read_base
from vl3.weights.digest import weights_digest
from vl3.weights.load import load

pytest.importorskip("peft")
NANO = str(bundled.NANO)
KINDS = {
    "full": {"start": Start(model=NANO), "rates": Rates(connector=1e-3)},
    "lora": {"start": Start(model=NANO), **LORA},
    "dora": {
        "start": Start(model=NANO),
        "rates": Rates(adapter=1e-2),
        "adapter": Adapter(kind="dora", rank=2, alpha=4, on=["vision", "language"]),
    },
    "qlora": {"start": Start(model=NANO, quantize="nf4"), **LORA},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind, of two steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    for kind, settings in KINDS.items():
        runs.run(recipe(folder, **settings, out=str(folder / kind), steps=2, save_every=2))
    yield folder
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def said(trained):
    """What each run says to the bundled clip, loaded with no flag but its folder."""
    found = {}
    for kind in KINDS:
        loaded = load(trained / kind, dtype="float32")
        inputs = merge.prompt(loaded.processor)
        found[kind] = inputs, merge.logits(loaded.model, inputs)
    return found


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("full", "native"),
        ("lora", "own"),
        ("lora", "native"),
        ("dora", "own"),
        ("qlora", "official"),
    ],
)
def test_the_folder_says_what_the_run_says(kind, layout, trained, said, tmp_path):
    written = merge.export_checked(trained / kind, tmp_path / "out", layout, dtype="float32")
    inputs, before = said[kind]
    if layout == "native":
        slots = inputs["input_ids"] == load(bundled.NANO).model.config.image_token_id
        after = merge.native_logits(tmp_path / "out", inputs, slots)
    else:
        after = merge.logits(load(tmp_path / "out").model, inputs)
    assert (after - before).abs().max() < 1e-4 * before.std()
    assert load(tmp_path / "out").adapter is None
    steps = ["written"] if kind == "full" else ["merged", "written"]
    assert [check.step for check in written.checks] == steps
    assert not list(tmp_path.glob("*.partial"))


def test_notes_say_what_was_merged_into_what(trained, tmp_path):
    written = merge.export_checked(trained / "qlora", tmp_path / "out", "official")
    assert "dequantized from nf4" in written.notes[0]
    assert "connector" in written.notes[1]
    assert "frame_tokens" in written.notes[2], "which that layout cannot say"
    onto = merge.export_checked(NANO, tmp_path / "onto", "own", adapter=trained / "qlora")
    assert "loaded whole" in onto.notes[0]
    assert onto.dtype == "float16", "as its base is stored"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_stays_within_what_is_allowed(dtype, trained, tmp_path):
    written = merge.export_checked(trained / "lora", tmp_path / "out", "own", dtype=dtype)
    rounding = written.checks[-1]
    assert 0 < rounding.largest < 0.8 * rounding.tolerance * rounding.spread
    assert rounding.agreement > 0.95


def test_a_layer_that_was_not_merged_is_noticed(trained, tmp_path, monkeypatch):
    right = merge.fold

    def forgetful(model):
        model.language.model.layers[2].mlp.up_proj.lora_B.default.weight.data.zero_()
        return right(model)

    monkeypatch.setattr(merge, "fold", forgetful)
    with pytest.raises(merge.Differs, match="not the same model"):
        merge.export_checked(trained / "lora", tmp_path / "out", "own")
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_written_wrongly_is_noticed(trained, tmp_path, monkeypatch):
    right = merge.export

    def damaged(model, *arguments):
        model.connector.readout[0].bias.data += 0.5
        return right(model, *arguments)

    monkeypatch.setattr(merge, "export", damaged)
    with pytest.raises(merge.Differs, match="written"):
        merge.export_checked(trained / "full", tmp_path / "out", "own", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(trained, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep me")
    arguments = ["export", str(trained / "full"), str(tmp_path / "mine"), "--to", "own"]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "not empty" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_the_command(trained, tmp_path, capsys):
    arguments = ["export", str(trained / "lora"), str(tmp_path / "out"), "--to", "native"]
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "--merge-adapters" in capsys.readouterr().err
    assert main([*arguments, "--merge-adapters", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["layout"] == "native"
    assert [check["step"] for check in report["checks"]] == ["merged", "written"]


# the base of an adapter


def test_an_adapter_knows_its_base(trained, said, tmp_path):
    checkpoint = trained / "lora" / "checkpoint-2"
    assert read_base(checkpoint).digest == weights_digest(bundled.NANO)
    assert load(bundled.NANO, adapter=trained / "lora").folder == bundled.NANO
    with pytest.raises(LayoutError, match=r"lora/checkpoint-2 was trained on .*nano"):
        load(trained / "full", adapter=trained / "lora")


def test_an_adapter_without_a_digest_is_loaded(trained, tmp_path):
    folder = shutil.copytree(trained / "lora" / "checkpoint-2", tmp_path / "old")
    run = json.loads((folder / "vl3_run.json").read_text())
    del run["base"]
    (folder / "vl3_run.json").write_text(json.dumps(run))
    assert load(trained / "full", adapter=folder).adapter == str(folder)


@pytest.mark.parametrize(
    ("model", "adapter", "words"),
    [
        ("lora", "lora", "itself an adapter"),
        (None, "full", "whole model; load it as the model"),
        (None, ".", "no adapter"),
    ],
)
def test_mixed_up_folders_are_told_apart(model, adapter, words, trained):
    with pytest.raises(LayoutError, match=words):
        load(model and trained / model, adapter=trained / adapter)


def test_a_base_that_is_gone_is_named(trained, tmp_path):
    folder = shutil.copytree(trained / "lora" / "checkpoint-2", tmp_path / "mine")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "/gone/away"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(LayoutError, match=r"base of the adapter mine is missing .*--adapter"):
        load(folder)
    assert load(bundled.NANO, adapter=folder).adapter == str(folder)


# used where it was trained: no flag but the folder


def question(clip):
    parts = [{"type": "video", "video": str(clip)}, {"type": "text", "text": "What?"}]
    return [{"role": "user", "content": parts}]


@pytest.mark.parametrize("kind", ["full", "lora", "qlora"])
def test_chat_takes_a_run(kind, trained, capsys):
    arguments = ["--model", str(trained / kind), "--video", str(merge.CLIP)]
    assert main(["chat", *arguments, "--max-new-tokens", "6", "What?"]) == 0
    studio = vl3.load(trained / kind)
    assert (studio.card["quantize"] == "nf4") == (kind == "qlora")
    said = studio.reply(question(merge.CLIP), max_new_tokens=6).text
    assert capsys.readouterr().out == said + "\n"


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return Uploads(tmp_path_factory.mktemp("uploads"), vl3.video, 10**9)


@pytest.mark.parametrize("kind", ["full", "lora", "qlora"])
def test_the_app_opens_a_run(kind, trained, media):
    first = {"model": str(trained / kind), "quantize": None, "adapter": None}
    controller = Controller(partial(vl3.load, device="cpu", offline=True), media, {}, **first)
    facts = widget_values.header(controller.card, 0)["facts"]
    assert facts[0] == kind
    assert ("nf4" in facts) == (kind == "qlora")
    assert (f"adapter {kind}/checkpoint-2" in facts) == (kind != "full")


@pytest.mark.slow
def test_the_app_puts_on_the_adapter_of_a_run_or_a_checkpoint(trained, media):
    controller = Controller(partial(vl3.load, device="cpu", offline=True), media, {}, model=NANO)
    for folder in (trained / "lora", trained / "lora" / "checkpoint-2"):
        controller.load("", "none", str(folder))
        assert "adapter lora/checkpoint-2" in widget_values.header(controller.card, 0)["facts"]
    with pytest.raises(UserError, match="whole model; load it as the model"):
        controller.load("", "none", str(trained / "full"))
    with pytest.raises(UserError, match="and the weights in full/checkpoint-2 are others"):
        controller.load(str(trained / "full"), "none", str(trained / "lora"))
    assert "adapter lora/checkpoint-2" in widget_values.header(controller.card, 0)["facts"], (
        "as it was before"
    )
