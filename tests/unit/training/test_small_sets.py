"""A few lines are seen often enough, few steps and repeats are told, old answers are remembered."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from unit.training.test_trainer import recipe

from train_cli import plan
from train_cli.__main__ import main
from vl3 import bundled
from vl3.toyworld import score
from vl3.training import remember
from vl3.training import run as runs
from vl3.training.optim import rates_for
from vl3.training.order import DataOrder, Part
from vl3.training.plan import Looked, repeats, warnings
from vl3.training.recipe import Adapter, Batch, Rates, Source, Start
from vl3.training.setup import prepare
from vl3.weights import merge
from vl3.weights.load import load

NANO = Start(model=str(bundled.NANO))
ADAPTED = {
    "start": NANO,
    "rates": Rates(adapter=1e-3),
    "adapter": Adapter(rank=4, alpha=8, on=["language", "words"]),
}


def written(folder, *answers):
    """A data set of so many lines of text."""
    file = folder / "mine.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Question {number}?"},
                {"role": "assistant", "content": answer},
            ]
        }
        for number, answer in enumerate(answers)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# How often a line is seen


def test_a_small_set_is_seen_until_there_are_least_steps():
    order = DataOrder([Part(10, 10)], 8, seed=1)
    assert (order.steps(1.0), order.steps(1.0, 200), order.steps(400.0, 200)) == (2, 200, 500)


def planned(file, *settings):
    return [
        "plan",
        "--config",
        "lora",
        "--start.model",
        str(bundled.NANO),
        "--data.mine.path",
        str(file),
        *settings,
    ]


@pytest.mark.parametrize(
    ("lines", "settings", "said"),
    [
        (10, (), "mine: 10 lines, each seen 160 times"),
        (1, (), "mine: 1 line, each seen 1,600 times"),
        (1, (), "a step of 8 samples holds the only line 8 times"),
        (10, ("--batch.samples", "128"), "a step of 128 samples holds each of the 10 lines 12.8"),
        (10, ("--least_steps", "0", "--epochs", "1"), "2 steps are few"),
        (10, ("--least_steps", "0", "--epochs", "1"), "filled up with 6 repeated lines"),
        (10, ("--data.mine.samples", "30"), "takes 30 samples of mine, which has 10"),
    ],
)
def test_plan_tells_how_often_each_line_is_seen_and_what_is_odd(
    lines, settings, said, tmp_path, capsys
):
    file = written(tmp_path, *("Red.",) * lines)
    assert main(planned(file, *settings)) == 0
    assert said in capsys.readouterr().out


def test_a_run_of_many_lines_is_planned_without_a_warning(tmp_path, capsys):
    assert main(planned(written(tmp_path, *("Red.",) * 1000))) == 0
    shown = capsys.readouterr().out
    assert "1,000 lines, each seen 3 times" in shown
    assert "warning" not in shown


def test_repeats_go_by_the_share_of_a_set_in_the_mix():
    looked = [
        Looked(name="mine", samples=10, lines=10),
        Looked(name="big", samples=90, lines=900),
        Looked(name="endless", samples=100),
    ]
    assert repeats(2000, 200, looked) == [("mine", 10, 10.0), ("big", 900, 1.0)]
    assert repeats(None, None, looked) == []


def test_a_stage_of_millions_is_not_warned_about(tmp_path):
    stage = recipe(tmp_path, batch=Batch(samples=128), steps=None, epochs=1.0)
    assert warnings(stage, 121_641, [Looked(name="a", samples=15_570_000, lines=None)]) == []


def test_the_end_of_a_run_says_how_many_answers_came_back():
    logged = [{"loss": 3.0, "right/mine": 0.1}, {"loss": 0.1, "right/mine": 0.98}, {"epoch": 1.0}]
    assert runs.last_right(logged).endswith("last logged steps: mine 98%")
    assert runs.last_right([]).endswith("none asked")


def test_a_run_warns_as_its_plan_does(tmp_path, caplog):
    file = written(tmp_path, "Red.", "Blue.")
    runs.run(
        recipe(
            tmp_path,
            **ADAPTED,
            data=[Source(name="mine", path=str(file))],
            batch=Batch(samples=4),
            steps=1,
        )
    )
    assert "1 step is few" in caplog.text
    assert "holds each of the 2 lines 2 times" in caplog.text


# Nothing to learn


def test_no_data_and_an_empty_file_are_told(tmp_path, capsys):
    own = [
        "run",
        "--config",
        "lora",
        "--start.model",
        str(bundled.NANO),
        "--out",
        f"{tmp_path}/run",
    ]
    assert exit_code(own) != 0
    assert "--data.mine.path" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert exit_code([*own, "--data.mine.path", str(empty)]) != 0
    assert "empty" in capsys.readouterr().err


def exit_code(words):
    try:
        return main(words)
    except SystemExit as end:
        return end.code


def test_a_step_without_a_token_to_learn_ends_the_run(tmp_path):
    file = tmp_path / "mine.jsonl"
    row = {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "gone.png"}]},
            {"role": "assistant", "content": "Red."},
        ]
    }
    file.write_text(json.dumps(row) + "\n")
    data = [Source(name="mine", path=str(file))]
    with pytest.raises(ValueError, match=r"step 0 has no token to learn.*quarantine\.jsonl"):
        runs.run(recipe(tmp_path, **ADAPTED, data=data, batch=Batch(samples=1), max_bad=1.0))


# What was said before


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """Nano with an untrained adapter, in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    made = recipe(tmp_path_factory.mktemp("run"), **ADAPTED)
    yield prepare(made, torch.device("cpu"))
    torch.set_num_threads(before)


def test_scenes_as_nano_is_scored_on_are_remembered():
    images, clips = remember.WORLDS
    for world, level, families in (
        (images, score.IMAGES, score.STILL_FAMILIES),
        (clips, score.CLIPS, score.CLIP_FAMILIES),
    ):
        assert (tuple(world.seconds), tuple(world.sprites)) == (level.seconds, level.sprites)
        effects = ("shaky", "noisy", "rescaled")
        assert all(getattr(world, name) == getattr(level, name) for name in effects)
        assert world.families.keys() >= set(families)


def test_remembering_costs_nothing_until_the_adapter_says_something_else(adapted):
    model, processor = adapted
    scenes = remember.scenes("a seed", 2)
    assert scenes[0].conversations != remember.scenes("another", 2)[0].conversations
    same = pytest.approx(0, abs=1e-6)
    assert [loss.item() for loss in remember.losses(model, processor, scenes)] == [same, same]
    with torch.autocast("cpu", torch.bfloat16):
        assert next(remember.losses(model, processor, scenes)).item() == same
    raised = [param for name, param in model.named_parameters() if "lora_B" in name]
    torch.manual_seed(1)
    with torch.no_grad():
        for param in raised:
            param.normal_(std=0.5)
    whole = 0.0
    for loss in remember.losses(model, processor, scenes):
        loss.backward()
        whole += loss.item()
    assert whole > 0.1
    learned = {name for name, param in model.named_parameters() if param.grad is not None}
    assert learned
    assert all("lora_" in name for name in learned)


def test_remembering_beside_others_in_mixed_precision_gives_the_gradients_of_each_alone(adapted):
    """The weights that autocast keeps from one scene to the next learn from both."""
    model, processor = adapted
    scenes, grads = remember.scenes("a seed", 2), {}
    for chosen in ((0, 2), (0, 1), (1, 2)):
        model.zero_grad()
        torch.manual_seed(0)  # of dropout
        with torch.autocast("cpu", torch.bfloat16):
            for number, loss in enumerate(remember.losses(model, processor, scenes)):
                if number in range(*chosen):
                    loss.backward()
        grads[chosen] = {
            name: param.grad for name, param in model.named_parameters() if param.grad is not None
        }
    assert {grad.dtype for grad in grads[0, 2].values()} == {torch.float32}
    for name, grad in grads[0, 2].items():
        torch.testing.assert_close(grad, grads[0, 1][name] + grads[1, 2][name])


@pytest.mark.slow
def test_the_arithmetic_of_remembering_is_planned(adapted, tmp_path):
    """Counted by torch; the plan leaves out norms and tables, and takes every patch as kept."""
    model, processor = adapted
    scenes = remember.scenes("another seed", 16)
    with FlopCounterMode(display=False) as counter:
        for loss in remember.losses(model, processor, scenes):
            loss.backward()
    data = [Source(name="mine", path=str(written(tmp_path, "Red.", "Blue.")))]
    without, planned = (
        plan.make(recipe(tmp_path, **ADAPTED, data=data, steps=1, remember=count)).flops
        for count in (0, 16)
    )
    assert 0.75 < (planned - without) / counter.get_total_flops() < 1.4


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": None, "rates": Rates(language=1e-4)},
        {"rates": Rates(adapter=1e-4, connector=1e-4), "adapter": Adapter(on=["language"])},
    ],
)
def test_remembering_needs_the_model_as_it_was(changes, tmp_path):
    with pytest.raises(ValueError, match="remember"):
        recipe(tmp_path, start=NANO, remember=2, **changes)


@pytest.mark.slow
def test_a_run_that_remembers_goes_on_as_if_never_interrupted(tmp_path):
    data = [Source(name="mine", path=str(written(tmp_path, "Red.", "Blue.")))]
    settings = {**ADAPTED, "data": data, "batch": Batch(samples=1)}
    settings |= {"remember": 1, "steps": 2, "save_every": 1}
    straight = runs.run(recipe(tmp_path, **settings, out=str(tmp_path / "straight")))
    runs.run(recipe(tmp_path, **settings, out=str(tmp_path / "stopped")), until=1)
    resumed = runs.resume(tmp_path / "stopped")
    one, other = (folder / "adapter_model.safetensors" for folder in (straight, resumed))
    assert one.read_bytes() == other.read_bytes()
    lines = (tmp_path / "straight/metrics.jsonl").read_text().splitlines()
    assert any("loss/remembered" in json.loads(line) for line in lines)


# Adapters for words, and their rate


def test_an_adapter_of_the_output_head_is_small_and_merges_beside_tied_embeddings(tmp_path):
    data = [Source(name="mine", path=str(written(tmp_path, "Red.")))]
    made = recipe(tmp_path, **ADAPTED, data=data, steps=2, batch=Batch(samples=1))
    last = runs.run(made)
    # Of 768 words of 192 numbers each, neither the head nor the embeddings are written.
    assert (last / "adapter_model.safetensors").stat().st_size < 400_000
    with_words = load(last, dtype="float32")
    assert "language.lm_head" in {
        name.removesuffix(".lora_A") for name, _ in with_words.model.named_modules()
    }
    exported = merge.export_checked(last, tmp_path / "whole", "native", dtype="float32")
    assert all(check.passed for check in exported.checks)
    whole = load(tmp_path / "whole", dtype="float32").model
    assert not whole.config.tie_word_embeddings
    table = load(bundled.NANO, dtype="float32").model.get_input_embeddings().weight
    assert torch.equal(whole.get_input_embeddings().weight, table)


@pytest.mark.parametrize(("width", "rate"), [(None, 2e-4), (1536, 1.6e-3), (192, 2e-4)])
def test_the_rate_of_an_adapter_goes_with_the_width_of_the_model(width, rate, tmp_path):
    made = recipe(tmp_path, start=NANO, rates=Rates(adapter=2e-4), adapter=Adapter(width=width))
    assert rates_for(made, 192).adapter == pytest.approx(rate)
