"""Mistakes of a command line are told in one sentence, with exit code 2, before torch is there."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
from unit.training.test_trainer import recipe

from vl3.training.ready import TRACKERS, check_ready
from vl3.training.recipe import Source, Start
from vl3.weights.whole import check_weights, damage

# Runs every command line of a list and reports its exit code, its last words and what was imported.
MANY = """
import contextlib, io, json, sys
from train_cli.__main__ import main
found = []
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = stopped.code
        except Exception as error:
            code = repr(error)
    heavy = sorted({"torch", "transformers"} & set(sys.modules))
    found.append([code, said.getvalue(), heavy])
print(json.dumps(found))
"""
LINE = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
BASE = """
name: mine
start: {{model: {model}}}
rates: {{connector: 1e-3}}
out: {out}
data: [{{name: own, path: {data}}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a recipe that could begin, and everything that one may trip over."""
    folder = tmp_path_factory.mktemp("ready")
    (folder / "lines.jsonl").write_text(LINE * 3)
    (folder / "file").write_text("x")
    (folder / "empty.yaml").write_text("")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "tab.yaml").write_text("name: x\nbatch:\n\tsamples: 3\n")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "pointer").mkdir()
    (folder / "pointer" / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    checkpoint = folder / "run" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    begun = recipe(folder, data=[Source(name="own", path=str(folder / "lines.jsonl"))], steps=9)
    written = {"step": 3, "steps": 9, "bad": 0, "recipe": asdict(begun)}
    (checkpoint / "vl3_run.json").write_text(json.dumps(written))
    good = BASE.format(model="assets/nano", out=folder / "new", data=folder / "lines.jsonl")
    (folder / "good.yaml").write_text(good)
    (folder / "itself.yaml").write_text(good + f"config: {folder / 'itself.yaml'}\n")
    return folder


MISTAKES = [
    (["run", "G", "--steps", "0"], "steps is a whole number, 1 or more - got 0"),
    (["run", "G", "--batch.samples", "0"], "batch.samples is a whole number, 1 or more"),
    (["run", "G", "--rates.connector", "-1"], "rates.connector is a number, 0 or more - got -1"),
    (["run", "G", "--workers", "-1"], "workers is a whole number, 0 or more - got -1"),
    (["run", "G", "--until", "0"], "--until is a whole number, 1 or more - got 0"),
    (["run", "G", "--out", "F/run"], "holds a run already; resume it"),
    (["run", "G", "--out", "F/file"], "is a file; choose another --out"),
    (["run", "G", "--out", "F/file/deeper"], "is a file; choose another --out"),
    (["run", "G", "--out", "/proc/run"], "cannot be written to"),
    (["run", "G", "--report_to", "[tensorbord]"], "did you mean tensorboard?"),
    (["run", "G", "--start.model", "F/gone"], "there is no folder"),
    (["run", "G", "--start.model", "runs/gone"], "start.model: there is no folder runs/gone"),
    (["run", "G", "--start.model", "F/file"], "is a file"),
    (["run", "G", "--start.model", "F/pointer"], "pointer of Git LFS"),
    (["run", "G", "--data.own.path", "F/gone.jsonl"], "--data.own.path says where it is"),
    (["run", "G", "--data.own.media_root", "F/gone"], "--data.own.media_root says where it is"),
    (["run", "F/empty.yaml"], "empty.yaml holds no settings"),
    (["run", "F/list.yaml"], "list.yaml holds no settings"),
    (["run", "F/tab.yaml"], "tab.yaml is not YAML at line 3"),
    (["run", "F/binary.yaml"], "binary.yaml is not"),
    (["run", "F/itself.yaml"], "there is no setting config"),
    (["run", "F"], "is a folder"),
    (["run", "stage5"], "no file and no bundled recipe 'stage5'; `recipes list` shows all"),
    (["run", "stage4_vidoe"], "did you mean stage4_video?"),
    (["run"], "name"),
    (["plan", "G", "--steps", "-5"], "steps is a whole number, 1 or more - got -5"),
    (["plan", "G", "--memory", "lots"], "--memory"),
    (["plan", "G", "--start.model", "F/pointer"], "pointer of Git LFS"),
    (["resume"], "name the folder of the run"),
    (["resume", "F/gone"], "holds no checkpoint to resume from"),
    (["resume", "F/file"], "holds no checkpoint to resume from"),
    (["resume", "--until", "3", "F/run"], "the folder of the run comes first"),
    (["resume", "F/run", "--seed", "3"], "seed cannot change while a run goes on"),
    (["resume", "F/run", "--optim.kind", "adamw"], "optim.kind cannot change"),
    (["resume", "F/run", "--batch.samples", "9"], "batch.samples cannot change"),
    (["resume", "F/run", "--optim.clpi", "9"], "did you mean optim.clip?"),
    (["resume", "F/run", "--workers", "-1"], "workers is a whole number, 0 or more"),
    (["resume", "F/run", "--data.own.path", "F/gone"], "there is no file"),
    (["resume", "F/run", "--until", "-3"], "--until is a whole number"),
    (["recipes", "show", "qlroa"], "did you mean qlora"),
    (["recipes", "copy", "lora", "F/file"], "exists already"),
    (["recipes", "copy", "lora", "F/gone/lora.yaml"], "there is no folder"),
    (["demo", "--minutes", "0"], "--minutes is a number of minutes above 0"),
    (["demo", "--minutes", "nan"], "--minutes is a number of minutes above 0"),
    (["demo", "--out", "F/file"], "is a file; choose another --out"),
    (["demo", "--out", "F/run"], "holds a run already"),
    (["recipes", "which", "--goal", "own", "--size", "2b", "--memory-gb", "nan"], "--memory-gb is"),
    (["assmble"], "invalid choice"),
    (["assemble"], "the following arguments are required: DST"),
    (["assemble", "--ear", "F/gone.pt", "F/new"], "an ear is BEATs' .pt file"),
    (["assemble", "--ear", "nano-whisper", "F/file"], "is not empty; name a new or empty folder"),
    (["run", "ear1_align", "--start.model", "F/gone"], "start.model: there is no folder"),
    (["run", "ear1_align", "--start.ear", "F/gone"], "start.ear: an ear is BEATs' .pt file"),
    (["run", "G", "--batch.parts", "{av: 1}"], "is one of batch.parts (av) - got None"),
]


def test_mistakes_are_one_sentence_before_torch_is_imported(folder):
    lines = [
        [
            word.replace("F/", f"{folder}/")
            if word not in ("G", "F")
            else str(folder / "good.yaml")
            if word == "G"
            else str(folder)
            for word in arguments
        ]
        for arguments, _ in MISTAKES
    ]
    done = subprocess.run(
        [sys.executable, "-c", MANY, json.dumps(lines)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    wrong = []
    for (arguments, words), (code, said, heavy) in zip(MISTAKES, found, strict=True):
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if (code, heavy) != (2, []) or words not in last or "Traceback" in said:
            wrong.append((arguments, code, said, heavy))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_tracker_without_its_package_is_told_before_any_work(tmp_path, monkeypatch):
    chosen = recipe(tmp_path, start=Start(model="assets/nano"), report_to=["tensorboard"])
    monkeypatch.setitem(TRACKERS, "tensorboard", ("a_package_that_is_not_there",))
    with pytest.raises(ValueError, match="report_to: tensorboard needs a package") as refused:
        check_ready(chosen)
    assert "metrics.jsonl is written always" in str(refused.value)
    monkeypatch.setitem(TRACKERS, "tensorboard", ("json",))
    check_ready(chosen)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "is not whole: it ends after 0 bytes"),
        (0.0001, "inside its table"),
        (0.5, "is not whole: it has "),
        (0.9999, "fetch it again"),
    ],
)
def test_half_a_file_of_weights_is_told_from_a_whole_one(tiny_folder, tmp_path, share, words):
    whole = (tiny_folder / "model.safetensors").read_bytes()
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole[: int(share * len(whole))])
    assert words in damage(file)
    with pytest.raises(ValueError, match=r"^[^\n]*model.safetensors is not whole[^\n]*$"):
        check_weights(tmp_path)
    file.write_bytes(b"PK\3\4 something else altogether")
    assert "no safetensors file" in damage(file)
    file.write_bytes(whole)
    assert damage(file) is None
    check_weights(tmp_path)
