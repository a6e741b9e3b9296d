"""Variants of a recipe, each with several seeds, and the table of what they learned."""

import json
from pathlib import Path

import pytest
import yaml

from train_cli.__main__ import main
from vl3.bundled import NANO
from vl3.training import ablation
from vl3.training import run as runs
from vl3.training.ablation import Scores
from vl3.training.recipe import Evaluate, Source, World
from vl3.weights.runs import checkpoints

FAMILIES = {"colour": 1, "count": 1}
FRESH = {"name": "fresh", "samples": 8, "world": {"families": FAMILIES, "questions": 2}}
LINEAR = {"name": "linear", "start": {"model": str(NANO), "connector": "linear"}}
OWN = {"name": "own", "start": {"model": str(NANO)}}


def file_of(tmp_path, every=None, **phases) -> str:
    common = {
        "rates": {"connector": 1e-4},
        "data": [{"name": "images", "samples": 20, "world": {"families": FAMILIES}}],
        "evaluate": {"sources": [FRESH], "samples": 8},
        "batch": {"samples": 2, "tokens": 2000, "max_tokens": 2000},
        "steps": 1,
        "checkpointing": [],
        "workers": 0,
    }
    file = tmp_path / "variants.yaml"
    file.write_text(
        yaml.safe_dump({"every": {**common, **(every or {})}, "phases": phases}, sort_keys=False)
    )
    return str(file)


def ablate(*arguments) -> int:
    return main(["ablate", *map(str, arguments), "--quiet"])


def test_every_variant_is_trained_with_every_seed_and_asked_the_same(tmp_path, capsys, monkeypatch):
    asked = (file_of(tmp_path, own=OWN, linear=LINEAR), "--seeds", 2, "--out", tmp_path / "out")
    assert ablate(*asked) == 0
    table, told = capsys.readouterr()
    folders = [tmp_path / "out" / f"{v}-{s}" for v in ("own", "linear") for s in (1, 2)]
    scores = [ablation.read(folder) for folder in folders]
    assert all(len(checkpoints(folder)) == 1 for folder in folders)
    assert scores[0].asked == scores[2].asked
    assert sum(scores[0].asked.values()) in range(12, 17)
    head, _, own, linear = table.strip().splitlines()
    assert [cell.strip() for cell in head.split("|")][2] == "tokens"
    assert [line.split("|")[1].strip() for line in (own, linear)] == ["own", "linear"]
    assert own.split("|")[2] == linear.split("|")[2] == f" {scores[0].tokens:.0f} "
    assert scores[0].share > 0.9 > 0.7 > scores[2].share  # nano knows; a fresh connector does not
    shares = sorted(100 * s.share for s in scores[:2])
    assert own.endswith(f"| {sum(shares) / 2:.1f} | {shares[0]:.1f} to {shares[1]:.1f} |")
    assert "4 of 4: linear, seed 2" in told

    # what is done is not done again; what was trained and not asked is asked
    (folders[3] / ablation.SCORES).unlink()
    monkeypatch.setattr(runs, "run", None)
    assert ablate(*asked) == 0
    again, told = capsys.readouterr()
    assert again == table
    assert "4 of 4" in told
    assert "1 of 4" not in told


def test_runs_with_other_settings_are_not_taken_for_these(tmp_path, capsys):
    file, out = file_of(tmp_path, linear=LINEAR), tmp_path / "out"
    assert ablate(file, "--seeds", 1, "--out", out) == 0
    for changed in (("--steps", 2), ("--optim.clip", 0.5), ("--evaluate.samples", 4)):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            ablate(file, "--seeds", 1, "--out", out, *changed)
        (told,) = capsys.readouterr().err.strip().splitlines()
        assert changed[0].removeprefix("--") in told
        assert "choose another --out" in told


def test_some_variants_and_settings_for_all(tmp_path, capsys):
    out, file = tmp_path / "out", file_of(tmp_path, own=OWN, linear=LINEAR)
    given = ("--variants", "linear", "--seeds", 1, "--out", out, "--steps", "2", "--save_every", 2)
    assert ablate(file, *given) == 0
    assert [folder.name for folder in out.iterdir()] == ["linear-1"]
    (last,) = checkpoints(out / "linear-1")
    assert last.name == "checkpoint-2"
    assert len(capsys.readouterr().out.strip().splitlines()) == 3


def test_a_signal_ends_it_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    file, out = file_of(tmp_path, own=OWN, linear=LINEAR), tmp_path / "out"
    whole = runs.run

    def stopped(recipe, stop, **options):
        last = whole(recipe, **options)
        stop.signal = 2
        return last

    monkeypatch.setattr(runs, "run", stopped)
    assert ablate(file, "--seeds", 1, "--out", out) == 130
    assert [folder.name for folder in out.iterdir()] == ["own-1"]
    assert ablation.read(out / "own-1") is None
    monkeypatch.setattr(runs, "run", whole)
    assert ablate(file, "--seeds", 1, "--out", out) == 0
    assert ablation.read(out / "own-1") is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "0"], "--seeds is a whole number, 1 or more"),
        (["--variants", "linea"], "has no variant 'linea'; did you mean linear?"),
        (["--stepps", "3"], "stepps"),
        (["--evaluate.every", "2"], "no evaluate.every"),
        (["--evaluate.sources", "[]"], "needs evaluate.sources"),
    ],
)
def test_mistakes_are_a_sentence_before_anything_is_trained(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        ablate(file_of(tmp_path, linear=LINEAR), "--out", tmp_path / "out", *arguments)
    told = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert sentence in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_one_recipe_has_no_variants(capsys):
    with pytest.raises(SystemExit):
        ablate("nano_demo")
    assert "nano_demo has no phases to compare" in capsys.readouterr().err


def test_the_table_has_means_of_seeds_and_how_far_they_lie_apart():
    rows = [Scores({"a": 1, "b": 4}, {"a": 4, "b": 4}, 10.0)]
    rows.append(Scores({"a": 3, "b": 4}, {"a": 4, "b": 4}, 12.0))
    assert ablation.table({"one": rows}).splitlines() == [
        "| | tokens | a | b | mean | of the seeds |",
        "|---|---:|---:|---:|---:|---:|",
        "| one | 11 | 50.0 | 100.0 | 75.0 | 62.5 to 87.5 |",
    ]


def test_scores_are_those_of_the_questions(tmp_path):
    """Bundled nano, which knows colours and has no word for what is not there."""
    settings = Evaluate(sources=[Source(**{**FRESH, "world": World(**FRESH["world"])})], samples=8)
    scores = ablation.score(Path(NANO), settings)
    ablation.write(scores, tmp_path)
    assert ablation.read(tmp_path) == scores
    assert json.loads((tmp_path / ablation.SCORES).read_text())["tokens"] == 16
    assert scores == ablation.score(Path(NANO), settings)


@pytest.mark.parametrize("name", ["ablation_connectors", "ablation_ears", "ablation_hearing"])
def test_bundled_ablations_differ_in_what_their_names_say_alone(name):
    from train_cli.config import check_file, find_config, read_recipe

    phases = check_file(find_config(name))["phases"]
    made = {phase: read_recipe(["--config", f"{name}:{phase}"]) for phase in phases}
    assert all(recipe.name == f"{name}_{phase}" for phase, recipe in made.items())
    one, *others = made.values()
    for other in others:
        assert (other.evaluate, other.optim) == (one.evaluate, one.optim)
        assert (other.steps, other.batch, other.rates) == (one.steps, one.batch, one.rates)
    if name != "ablation_hearing":  # one of it has other data
        assert all(recipe.data == one.data for recipe in others)
