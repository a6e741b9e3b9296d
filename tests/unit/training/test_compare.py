"""Two runs side by side: the band holds what differs by chance and not what differs in kind."""

import json
import math
import random

import pytest

from train_cli.__main__ import main
from vl3.training import compare


def losses(seed, steps=200, change=lambda step, loss: loss):
    chance = random.Random(seed)
    found = {}
    for step in range(1, steps + 1):
        found[step] = change(step, 0.3 + 3 * math.exp(-step / 40) + chance.gauss(0, 0.1))
    return found


def log(folder, curve, extra=()):
    folder.mkdir(exist_ok=True)
    lines = [{"step": 0, "eval/count": 0.25}]
    lines += [
        {
            "step": s,
            "loss": loss,
            "loss/clips": 2 * loss,
            "right/count": 0.5,
            "tokens_per_s": 100 + s % 2,
        }
        for s, loss in curve.items()
    ]
    lines += [*extra, {"step": len(curve), "train_loss": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def verdict(tmp_path, run, reference):
    one, two = (
        compare.read(log(tmp_path / "one", run)),
        compare.read(log(tmp_path / "two", reference)),
    )
    found = compare.compare(one, two)
    return found, compare.sentence(one, two, found)


@pytest.mark.parametrize("seed", range(1, 9))
def test_other_chance_is_within_the_band(seed, tmp_path):
    found, words = verdict(tmp_path, losses(seed), losses(0))
    assert found.diverged is None
    assert words == "one is within the band of two (200 shared logged steps, up to 200)."


@pytest.mark.parametrize(
    ("change", "side"),
    [
        (lambda step, loss: loss + max(0, step - 100) / 50, "above"),
        (lambda step, loss: loss if step < 100 else -0.4, "below"),
    ],
)
def test_the_step_from_which_a_run_differs_is_named(change, side, tmp_path):
    found, words = verdict(tmp_path, losses(1, change=change), losses(0))
    assert 85 <= found.diverged <= 130
    assert f"diverged at step {found.diverged}" in words
    assert side in words


def test_a_single_spike_and_a_run_that_recovers_are_no_divergence(tmp_path):
    found, _ = verdict(tmp_path, losses(1, change=lambda s, loss: loss + 4 * (s == 90)), losses(0))
    assert found.diverged is None


def test_a_loss_that_is_no_number(tmp_path):
    broken = losses(1, change=lambda s, loss: loss if s < 120 else float("nan"))
    found, words = verdict(tmp_path, broken, losses(0))
    assert found.diverged == found.broken == 120
    assert "no number" in words
    assert found.steps[-1] == 119
    with pytest.raises(ValueError, match="no reference"):
        verdict(tmp_path, losses(0), broken)


def test_only_steps_that_both_logged_count(tmp_path):
    sparse = {step: loss for step, loss in losses(1).items() if step % 10 == 0}
    found, _ = verdict(tmp_path, sparse, losses(0))
    assert found.steps == tuple(range(10, 201, 10))
    with pytest.raises(ValueError, match="share 3 logged steps"):
        verdict(tmp_path, {1: 1.0, 2: 1.0, 3: 1.0}, losses(0))


def test_a_step_logged_again_after_resuming_counts_once(tmp_path):
    again = [{"step": 200, "loss": 9.0}]
    assert compare.read(log(tmp_path / "one", losses(1), again)).losses[200] == 9.0


def test_what_the_command_takes_and_says(tmp_path, capsys):
    one, two = log(tmp_path / "one", losses(1)), log(tmp_path / "two", losses(0))
    (two / "checkpoint-5").mkdir()
    reference = tmp_path / "reference.jsonl"
    reference.write_text((two / "metrics.jsonl").read_text())
    for other in (two, two / "checkpoint-5", two / "metrics.jsonl", reference):
        assert main(["compare", str(one), str(other)]) == 0
    out = capsys.readouterr().out
    for words in ("within the band of reference", "clips", "held-out answers right", "tokens/s"):
        assert words in out
    bad = log(tmp_path / "bad", losses(1, change=lambda s, loss: loss + s / 50))
    assert main(["compare", str(bad), str(two), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert "diverged at step" in report["sentence"]
    assert report["tables"]["speed"][0][1:] == [100.5, 100.5]
    assert len(report["steps"]) == len(report["run"]) == len(report["band"])


@pytest.mark.parametrize("kind", ["nothing", "text", "no loss"])
def test_what_is_no_run_is_told_in_one_sentence(kind, tmp_path, capsys):
    one = log(tmp_path / "one", losses(1))
    other = tmp_path / "other"
    if kind != "nothing":
        other.write_text("hello\n" if kind == "text" else '{"step": 1}\n')
    with pytest.raises(SystemExit, match="2"):
        main(["compare", str(one), str(other)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "other" in last
