"""The README's walk of fine-tuning, from an empty folder to the learned answers in a terminal."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recipes import lines
from recipes.learning import Change, old_questions, rights

from train_cli.__main__ import main
from vl3.bundled import NANO
from vl3.weights.load import load

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "media"
STAND_INS = {"DAMO-NLP-SG/VideoLLaMA3-2B": str(NANO)}


def printed() -> list[list[str]]:
    """The commands of train_cli in the README's section on training, on nano instead of the 2B."""
    section = re.search(r"## Train\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    found = re.findall(r"^    python -m train_cli (.*)$", section, re.MULTILINE)
    return [
        [STAND_INS.get(word, word) for word in shlex.split(line, comments=True)] for line in found
    ]


def test_the_readme_walks_from_lines_to_an_answer():
    """What the slow test walks, so that it cannot walk past what is printed."""
    commands = printed()
    assert [words[0] for words in commands] == ["validate", "plan", "run", "chat"]
    assert commands[1][1:] == commands[2][1 : len(commands[1])]  # what is planned is what is run


def test_lost_and_gained_answers_are_counted_apart():
    before, after = torch.tensor([1, 1, 1, 0, 0]).bool(), torch.tensor([1, 0, 0, 1, 0]).bool()
    assert str(Change.of(before, after)) == "2 of 5 (-2 +1)"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_walk_teaches_sixteen_lines_and_forgets_little(tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    media = REAL if REAL.is_dir() else None
    lines.write(tmp_path, lines.NEW, media)
    told = lines.lines_of(media)
    validate, plan, run, chat = printed()
    assert main(validate) == 0
    assert main(plan) == 0
    planned = capsys.readouterr().out
    assert re.search(r"mine: 16 lines, each seen \d+ times", planned)
    assert "warning" not in planned
    assert main(run) == 0

    asked = [f"/new\n/video {file}\n{question}\n" for file, question, _, _ in told]
    answers = terminal(chat[:-3], "".join(asked)).splitlines()  # without --video FILE and question
    assert len(answers) == len(told)
    wrong = [(line, answer) for line, answer in zip(told, answers) if answer != line[2]]
    assert len(wrong) <= len(told) // 10, wrong

    old = old_questions()
    change = Change.of(
        *(
            rights(loaded.model, loaded.processor, old)
            for loaded in (load(NANO), load(tmp_path / "runs" / "mine"))
        )
    )
    assert change.after >= change.before - 0.02 * change.asked, change
    assert not (tmp_path / "runs/mine/quarantine.jsonl").exists()


def terminal(words: list[str], typed: str) -> str:
    """What `python -m train_cli ...` prints when that is typed."""
    command = [sys.executable, "-m", "train_cli", *words]
    done = subprocess.run(
        command,
        input=typed,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
