"""Every command with wrong values: one line on standard error, and the documented exit code.

2 for what the caller can mend, 3 for data, 4 for what does not fit, 1 for all else. Each is asked
in this process; a few as people do, in a process of their own, where mistakes that need no model
are told before torch is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import write_clip
from table import REPO

from train_cli.__main__ import main

NANO = REPO / "assets" / "nano"
if not (NANO / "model.safetensors").is_file():
    pytest.skip("needs the bundled model", allow_module_level=True)

ROW = '[{"id": 1, "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes"}]}]'  # noqa: E501
RAW = ("Traceback", "Errno", "NoneType", "has no attribute", "unsupported operand", "subscriptable")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("lines")
    write_clip(made / "clip.mp4", 12, 4, size=(56, 56))
    (made / "empty.mp4").write_bytes(b"")
    (made / "words.mp4").write_text("words")
    (made / "row.json").write_text(ROW)
    (made / "none.json").write_text("[]")
    (made / "half.json").write_text("{")
    (made / "half.yaml").write_text("a: [")
    (made / "empty").mkdir()
    (made / "nano").symlink_to(NANO)
    return made


CHAT = ("chat", "--model", "nano", "--video", "clip.mp4", "--max-new-tokens", "1")
SETTINGS = {
    "--fps": ("0", "nan", "1e9", "-1", "x", "inf"),
    "--max-frames": ("0", "-1", "x", "1.5"),
    "--start": ("-1", "nan", "x", "99"),
    "--end": ("0", "-1", "nan", "x"),
    "--budget-tokens": ("0", "x"),
    "--max-new-tokens": ("0", "-1", "x"),
    "--temperature": ("-1", "nan", "x"),
    "--top-p": ("2", "0", "nan"),
    "--repetition-penalty": ("0", "nan"),
    "--seed": (str(2**70), "x", "1.5"),
    "--prune": ("x",),
    "--prune-threshold": ("nan", "-1"),
    "--prune-keep": ("x",),
    "--quantize": ("x",),
    "--memory": ("banana", "1KB", "", "8"),
    "--adapter": ("nowhere", "clip.mp4", "empty", ""),
    "--device": ("cuda:99", "x", ""),
    "--dtype": ("x", "int8"),
    "--features-gb": ("-1", "nan", "x"),
}
FILES = (
    "gone.mp4",
    "empty.mp4",
    "words.mp4",
    "empty",
    "",
    "/dev/null",
    "https://x/y.mp4",
    "a\0b",
    "x" * 5000,
    "-",
)
MODELS = (
    "no such thing",
    "gone",
    "clip.mp4",
    "empty",
    "",
    "a/b/c",
    "https://x/y",
    "x" * 5000,
    "./gone/x",
    "owner/name",
)
CHATS = [
    *([*CHAT, option, value, "?"] for option, values in SETTINGS.items() for value in values),
    *(["chat", "--model", "nano", "--video", file, "?"] for file in FILES),
    *(["chat", "--offline", "--model", model, "?"] for model in MODELS),
    [*CHAT, "--start", "9", "--end", "3", "?"],
    [*CHAT, "--nonsense", "?"],
    [*CHAT, "?", "more"],
    [*CHAT, ""],
    [*CHAT, "  "],
    ["chat", "--model"],
]
RECIPE = ["lora", "--start.model", "nano", "--data.x.path", "row.json"]
RECIPES = [
    ["--config", "gone"],
    ["--config", "half.yaml"],
    ["--config", "empty"],
    ["lora", "--steps", "-5"],
    ["lora", "--optim.clp", "1"],
    ["lora", "--optim.clip", "x"],
    ["lora", "--start.model", "gone", "--data.x.path", "row.json"],
    [*RECIPE[:4], "gone.json"],
]
OTHERS = [
    [],
    ["nonsense"],
    ["doctor", "x"],
    ["recipes"],
    ["recipes", "shw"],
    ["recipes", "show", "gone"],
    ["recipes", "copy", "lora", "/proc/x"],
    ["recipes", "copy", "lora", "/gone/x/y.yaml"],
    ["recipes", "which", "--goal", "own", "--size", "2b", "--memory-gb", "nan"],
    ["validate"],
    ["validate", "gone.json"],
    ["validate", "none.json"],
    ["validate", "empty"],
    ["validate", "row.json", "--model", "gone"],
    ["validate", "row.json", "--sample", "0"],
    ["validate", "row.json", "--visual-tokens", "0"],
    ["validate", "row.json", "--format", "x"],
    ["validate", "row.json", "--html", "/gone/x.html"],
    ["validate", "row.json", "--fix", "/proc/x"],
    ["validate", "row.json", "--fix", "row.json"],
    *(["plan", *arguments] for arguments in RECIPES),
    ["plan", *RECIPE, "--memory", "banana"],
    ["plan", "lora", "--on", "tpu"],
    *(["run", *arguments] for arguments in RECIPES),
    ["run", *RECIPE, "--until", "-1"],
    ["run", *RECIPE, "--out", "/proc/x"],
    ["resume"],
    ["resume", "gone"],
    ["resume", "empty"],
    ["resume", "clip.mp4"],
    ["demo", "--minutes", "0"],
    ["demo", "--minutes", "nan"],
    ["demo", "--out", "/proc/x"],
    ["demo", "--out", "clip.mp4"],
    ["assemble"],
    ["assemble", "new"],
    ["assemble", "--ear", "gone", "new"],
    ["assemble", "--ear", "nano-whisper", "clip.mp4"],
    ["assemble", "--ear", "nano-whisper", "/proc/x/y"],
    ["assemble", "--ear", "clip.mp4", "new", "--model", "gone"],
    ["assemble", "--vision", "nano", "new"],
    ["export"],
    ["export", "gone", "new", "--to", "own"],
    ["export", "nano", "new", "--to", "x"],
    ["export", "nano", "clip.mp4", "--to", "own"],
    ["export", "nano", "/proc/x", "--to", "own"],
    ["export", "nano", "new", "--to", "own", "--adapter", "gone", "--merge-adapters"],
    ["compare"],
    ["compare", "gone", "gone"],
    ["compare", "empty", "empty"],
    ["compare", "clip.mp4", "clip.mp4"],
    ["compare", "row.json", "half.json"],
    ["bench", "--only", "x"],
    ["bench", "--rounds", "0"],
    ["bench", "--rounds", "x"],
    ["bench", "--from", "gone"],
    ["bench", "--from", "half.json"],
    ["bench", "--from", "none.json"],
    ["bench", "--clips", "gone.mp4"],
    ["bench", "--json", "/gone/x"],
]


# plan does not know of data that is not there, and may say that a run does not fit.
EXPECTED = {"bench": (1, 2), "export": (1, 2), "validate": (2, 3), "plan": (2, 3, 4), "run": (2, 3)}


def told(arguments: list[str], capsys) -> tuple[int, str]:
    """Exit code and the one line of a command that is refused."""
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = ended.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert 15 <= len(lines[0]) <= 420, lines
    assert not [raw for raw in RAW if raw in lines[0]], lines
    return code, lines[0]


def shown(arguments: list[str]) -> str:
    return " ".join(word[:20] for word in arguments).replace("\0", "0") or "nothing"


@pytest.mark.parametrize("arguments", CHATS, ids=shown)
def test_chat(arguments, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, line = told(arguments, capsys)
    assert code == 2
    option = arguments[-3].lstrip("-").replace("-", "_") if len(arguments) == 10 else ""
    if f"--{option}".replace("_", "-") in SETTINGS and option not in ("memory", "adapter"):
        names = (option, option.replace("_", "-"), option.removeprefix("prune_"), "range")
        assert any(name in line for name in names)


@pytest.mark.parametrize("arguments", OTHERS, ids=shown)
def test_other_commands(arguments, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code, _ = told(arguments, capsys)
    assert code in EXPECTED.get(arguments[0] if arguments else "", (2,))


def run(arguments: list[str], folder: Path, **environment: str) -> tuple[int, str, str, float]:
    """Exit code, output, errors and seconds of processor of a process of its own."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPO), **environment},
        check=False,
    )
    after = os.times()
    used_s = sum(after[2:4]) - sum(before[2:4])
    return done.returncode, done.stdout, done.stderr, used_s


PAGE = [
    ["--model", "no such thing"],
    ["--model", "gone"],
    ["--model", "clip.mp4"],
    ["--model", "empty"],
    ["--model", "a/b/c"],
    ["--adapter", "nowhere"],
    ["--adapter", "empty"],
    ["--dtype", "x"],
    ["--device", "x"],
    ["--quantize", "x"],
    ["--memory", "banana"],
    ["--max-upload", "banana"],
    ["--data-dir", "clip.mp4"],
    ["--port", "99999"],
    ["--host", "0.0.0.0"],
    ["--features-gb", "-1"],
    ["--nonsense"],
]


@pytest.mark.parametrize("arguments", PAGE, ids=shown)
def test_the_page_refuses_before_anything_is_loaded(arguments, folder, monkeypatch, capsys):
    from vl3.webapp import cli
    from vl3.weights import places

    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        cli.ready(arguments, places.check)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(lines) == 1
    assert 15 <= len(lines[0]) <= 420


@pytest.mark.parametrize(
    "arguments",
    [
        [str(REPO / "app.py"), "--model", "gone"],
        [str(REPO / "app.py"), "--adapter", "nowhere"],
        ["-m", "train_cli", "chat", "--model", "clip.mp4", "?"],
    ],
    ids=shown,
)
def test_a_process_says_it_without_torch(arguments, folder):
    code, out, errors, used_s = run(["-X", "importtime", *arguments], folder)
    said = [line for line in errors.splitlines() if not line.startswith("import time:")]
    assert (code, out, len(said)) == (2, "", 1), said
    assert not [line for line in errors.splitlines() if line.endswith((" torch", " gradio"))]
    assert used_s < 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs file modes")
def test_a_cache_that_cannot_be_written_to_is_said(folder):
    words = "XDG_CACHE_HOME"
    for arguments in (
        [str(REPO / "app.py"), "--features-gb", "1", "--data-dir", "data"],
        ["-m", "train_cli", *CHAT, "--features-gb", "1", "?"],
    ):
        code, _, errors, _ = run(arguments, folder, XDG_CACHE_HOME=str(folder / "clip.mp4"))
        assert code == 2, errors
        assert errors.count("\n") == 1
        assert words in errors


def test_a_device_that_is_not_there_ends_the_page_in_a_line(folder):
    import torch

    if torch.cuda.is_available():
        pytest.skip("is about machines without CUDA")
    began_s = time.monotonic()
    code, _, errors, _ = run(
        [str(REPO / "app.py"), "--device", "cuda", "--data-dir", "data", "--port", "7999"], folder
    )
    assert code == 2
    assert "cuda is not to be had" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert time.monotonic() - began_s < 60
    assert not list((folder / "data" / "vl3-uploads").glob("[0-9]*"))
