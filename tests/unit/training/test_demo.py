"""The demo: it learns to look in a minute, ends on time, and teaches the bundled model a colour."""

import json
import time
from dataclasses import replace

import pytest
from transformers import TrainerCallback

from train_cli.__main__ import main
from train_cli.config import read_recipe
from vl3.bundled import NANO
from vl3.data.readers import open_records
from vl3.toyworld.score import draw
from vl3.training import demo
from vl3.training import run as runs
from vl3.training.nano import new_colour
from vl3.training.recipe import Batch, Nano, Source
from vl3.weights.load import load
from vl3.weights.runs import RUN_FILE, checkpoints


def small(name, tmp_path, **changes):
    """A recipe of the demo, in a folder of the test, without workers."""
    recipe = read_recipe(["--config", name])
    return replace(recipe, out=str(tmp_path / "run"), workers=0, **changes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_training_beats_guessing(tmp_path):
    """By counts, not by the clock: a slow machine takes longer and learns the same."""
    (images,) = read_recipe(["--config", "nano_demo"]).data
    colours = replace(images.world, sprites=[1, 2], families={"colour": 1})
    recipe = small("nano_demo", tmp_path, data=[replace(images, world=colours)], steps=60)
    last = runs.run(replace(recipe, nano=Nano(encoder_steps=60)))
    loaded = load(last)
    drawn = draw(replace(demo.PICTURES, sprites=(1, 2)), ("colour",), 150, 0)
    (colour,) = demo.shares(loaded.model, loaded.processor, drawn)
    # Of 150 answers: five standard deviations of a guess of one in eight are 14 points.
    assert colour.seen >= colour.blind + 0.2
    assert colour.seen >= 0.125 + 0.2


@pytest.mark.slow
def test_it_ends_at_its_deadline(tmp_path):
    recipe = small("nano_demo", tmp_path, batch=Batch(samples=2))
    told = []
    last = demo.from_nothing(
        recipe, time.process_time(), lambda count: lambda: told.append(count)
    )  # the time is over before it began
    assert told == [1]
    assert last.name == "checkpoint-1"
    written = json.loads((last / RUN_FILE).read_text())["recipe"]
    assert written["steps"] == 1
    assert written["start"]["model"] == str(tmp_path / "run" / "start")
    with pytest.raises(FileExistsError, match="--out"):
        demo.from_nothing(recipe, time.process_time(), lambda count: told.append)


@pytest.mark.slow
def test_the_run_stops_when_the_machine_became_slower(tmp_path):
    (images,) = read_recipe(["--config", "nano_demo"]).data
    recipe = small("nano_demo", tmp_path, data=[replace(images, samples=8)], steps=50)
    recipe = replace(recipe, nano=Nano(), batch=Batch(samples=2))
    runs.run(recipe, callbacks=(demo.Deadline(time.process_time()),))
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["checkpoint-1"]


@pytest.mark.slow
def test_the_time_that_counts_is_that_of_this_process(tmp_path):
    """Sleep, as other work on the machine makes it, neither ends the run nor slows its speed."""
    (images,) = read_recipe(["--config", "nano_demo"]).data
    recipe = small("nano_demo", tmp_path, data=[replace(images, samples=8)], steps=3)
    recipe = replace(recipe, nano=Nano(), batch=Batch(samples=2))

    class Sleep(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            time.sleep(0.5)

    watch = demo.Stopwatch()
    deadline = demo.Deadline(time.process_time() + 60)
    runs.run(recipe, callbacks=(Sleep(), watch, deadline))
    assert watch.ended_s[-1] - watch.ended_s[0] < 0.9  # two sleeps alone are more by the clock
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["checkpoint-3"]


def test_it_says_so_when_it_did_not_learn():
    guessed = [demo.Shares("colour", 0.2, 0.15), demo.Shares("count", 0.45, 0.42)]
    assert "did not learn to look" in demo.verdict(guessed)
    assert demo.verdict([*guessed, demo.Shares("shape", 0.4, 0.1)]) is None
    before, after = demo.Learned(0.0, 1.0, ()), demo.Learned(0.1, 1.0, ())
    assert "did not learn brown" in demo.taught_verdict(new_colour.BROWN, before, after)
    assert demo.taught_verdict(new_colour.BROWN, before, demo.Learned(0.98, 1.0, ())) is None


def test_pictures_of_a_new_colour_are_a_data_set(tmp_path):
    file = new_colour.write(tmp_path, new_colour.BROWN, 30, "test")
    records = open_records(str(file), name="brown")
    assert len(records) == 30
    words = [
        turn["content"]
        for record in map(records.__getitem__, range(30))
        for conversation in record.conversations
        for turn in conversation
        if turn["role"] == "assistant"
    ]
    assert words.count("Brown.") > 10
    assert len({word for word in words if word != "Brown."}) > 8  # the old answers are there, too
    again = new_colour.write(tmp_path / "again", new_colour.BROWN, 30, "test")
    assert again.read_text() == file.read_text()


def test_questions_for_the_new_colour_have_that_answer():
    asked = new_colour.asked_colour(new_colour.BROWN, 20, "test")
    assert len(asked) == 20
    assert {qa.answer for _, qas in asked for qa in qas} == {"Brown."}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_bundled_model_learns_brown(tmp_path):
    file = new_colour.write(tmp_path / "data", new_colour.BROWN, 160, "taught")
    recipe = small("nano_colour", tmp_path, data=[Source(name="brown", path=str(file))])
    recipe = replace(recipe, start=replace(recipe.start, model=str(NANO)))
    test = demo.colour_test(new_colour.BROWN, 50, 0)
    before, after = load(NANO), load(runs.run(recipe))
    was = demo.learned(before.model, before.processor, test)
    now = demo.learned(after.model, after.processor, test)
    assert was.new == 0
    assert now.new >= 0.4
    assert now.old >= was.old - 0.15
    assert "brown" in demo.before_after(new_colour.BROWN, was, now)


@pytest.mark.slow
def test_the_command_says_how_to_go_on(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["demo", "--minutes", "0.2", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "blind" in said
    assert f"python app.py --model {out}" in said
    picture = str(out / "pictures" / "1.png")
    assert main(["chat", "--model", str(out), "--video", picture, "How many shapes?"]) == 0
    with pytest.raises(SystemExit):
        main(["demo", "--minutes", "0.2", "--out", str(out)])
    assert "choose another --out" in capsys.readouterr().err
