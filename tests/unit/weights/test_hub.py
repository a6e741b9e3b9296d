"""Hub ids, asked of a hub on this machine: what is fetched, and nothing when offline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hub import hub

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def repos(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    model = shutil.copytree(tiny_folder, folder / "model")
    for name in ("modeling_own.py", "pytorch_model.bin", "README.md"):
        (model / name).write_text("raise SystemExit\n")
    conversations = folder / "conversations"
    conversations.mkdir()
    with (conversations / "train.jsonl").open("w") as file:
        for number in range(3):
            said = [("user", f"Say {number}."), ("assistant", f"{number}.")]
            messages = [{"role": role, "content": content} for role, content in said]
            file.write(json.dumps({"id": str(number), "messages": messages}) + "\n")
    pickled = folder / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    for name in ("pytorch_model-1.bin", "optimizer.bin", "modeling_own.py"):
        (pickled / name).write_text("raise SystemExit\n")
    return {
        "models/own/tiny": model,
        "models/own/pickled": pickled,
        "datasets/own/conversations": conversations,
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def run(address: str, home: Path, *arguments: str):
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home)}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=240
    )


RESOLVE = "from vl3.weights.hub import resolve; print(resolve('own/tiny', offline={}))"


@pytest.mark.slow
def test_a_hub_id_is_downloaded_once_with_a_bar_and_without_code(repos, home):
    with hub(repos) as (address, asked):
        first = run(address, home, "-c", RESOLVE.format(False))
        fetched = {one.rpartition("/")[2] for one in asked if one.startswith("GET own/tiny")}
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
        assert not fetched & {"modeling_own.py", "pytorch_model.bin", "README.md"}
        assert "100%" in first.stderr
        asked.clear()
        run(address, home, "-c", RESOLVE.format(False))
        assert not [one for one in asked if one.startswith("GET own/tiny")]  # all there by now
        asked.clear()
        again = run(address, home, "-c", RESOLVE.format(True))
        assert asked == []
        assert again.stdout == first.stdout


@pytest.mark.slow
def test_pickled_tensors_are_fetched_where_there_are_no_others(repos, home):
    ask = RESOLVE.replace("tiny", "pickled")
    with hub(repos) as (address, asked):
        first = run(address, home, "-c", ask.format(False))
        fetched = {one.rpartition("/")[2] for one in asked if one.startswith("GET own/pickled")}
        assert {"config.json", "pytorch_model-1.bin"} <= fetched
        assert not fetched & {"optimizer.bin", "modeling_own.py"}
        asked.clear()
        assert run(address, home, "-c", ask.format(True)).stdout == first.stdout
        assert asked == []


def test_an_unknown_id_is_one_sentence(repos, home, tmp_path):
    with hub(repos) as (address, _):
        chat = ("-m", "train_cli", "chat", "Hello", "--model", "own/unknown")
        refused = run(address, tmp_path, *chat)
    assert refused.returncode == 2
    said = "error: own/unknown cannot be downloaded: the hub has no such model, or it is private"
    assert refused.stderr.strip().splitlines()[-1].startswith(said)
    assert "Traceback" not in refused.stderr


def test_a_data_set_of_the_hub_is_read(repos, home):
    pytest.importorskip("datasets", reason="the package datasets is not installed")
    with hub(repos) as (address, asked):
        done = run(address, home, "-m", "train_cli", "validate", "hf://own/conversations")
        assert any(one.endswith("train.jsonl") for one in asked)
    assert done.returncode == 0, done.stderr
    assert "conversations: 3 samples, 0 bad" in done.stdout
