"""Whole runs on the CPU: exact resume, what trains, what a checkpoint holds."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from unit.training.test_trainer import recipe

from train_cli.__main__ import main
from vl3.families import read_config
from vl3.model import VL3ForConditionalGeneration
from vl3.training import run as runs
from vl3.training import setup
from vl3.training.changes import last_run
from vl3.training.left_out import TooManyBad
from vl3.training.plan import disk, machine_for
from vl3.training.recipe import (
    Adapter,
    Batch,
    Evaluate,
    Optim,
    Rates,
    Source,
    Start,
    World,
)
from vl3.training.recorded import read
from vl3.training.saving import CannotSave
from vl3.training.stop import Stop
from vl3.training.trainer import NotFinite, VL3Trainer
from vl3.weights.number_format import bfloat16_time
from vl3.weights.runs import checkpoints

BUNDLED = Start(model="assets/nano")
LORA = {"rates": Rates(adapter=1e-3, connector=1e-3), "adapter": Adapter(rank=4, alpha=8)}
KINDS = {
    "full": {},
    "lora": {"start": BUNDLED, **LORA},
    "qlora": {"start": Start(model="assets/nano", quantize="nf4"), **LORA},
}

CHILD = """
import json, os, signal, sys
import torch
from transformers import TrainerCallback
from vl3.training import recorded, run

torch.set_num_threads(1)

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

run.run(recorded.read(json.loads(sys.argv[1])), callbacks=(Kill(),))
"""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(folder):
    return {
        f"{file.name} {name}": tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def metrics(out):
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_and_resumed_equals_one_that_was_not(tmp_path, kind):
    settings = {"steps": 4, "save_every": 2, "workers": 1, **KINDS[kind]}
    straight = recipe(tmp_path, **settings, out=str(tmp_path / "straight"))
    killed = replace(straight, out=str(tmp_path / "killed"))
    last = runs.run(straight)
    assert not multiprocessing.active_children()  # its workers ended with it

    command = [sys.executable, "-c", CHILD, json.dumps(asdict(killed))]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    out = tmp_path / "killed"
    assert [folder.name for folder in checkpoints(out)] == ["checkpoint-2"]
    resumed = runs.resume(out)

    one, other = weights(last), weights(resumed)
    assert one.keys() == other.keys()
    assert len(one) > 4
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    losses = metrics(tmp_path / "straight")
    assert sorted(losses) == [1, 2, 3, 4]
    assert metrics(out) == losses
    before = weights(checkpoints(tmp_path / "straight")[0])
    assert any(not torch.equal(before[name], one[name]) for name in one)  # it did train


STAGES = {
    "stage 1": Rates(vision=1e-5, connector=1e-3),
    "stages 2 to 4": Rates(vision=2e-6, connector=1e-5, language=1e-5),
    "connector alone": Rates(connector=1e-3),
    "language alone": Rates(language=1e-5),
}


@pytest.mark.slow
@pytest.mark.parametrize("rates", STAGES.values(), ids=STAGES)
def test_gradients_are_where_the_recipe_says_and_nowhere_else(tmp_path, rates):
    checked = recipe(tmp_path, rates=rates, checkpointing=["vision", "language"], steps=1)
    assert trained(checked) == {name for name, rate in asdict(rates).items() if rate}


@pytest.mark.parametrize("on", [["language"], ["vision", "language"], ["connector"]])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_adapters_alone_train_where_they_are(tmp_path, on, kind):
    adapter = Adapter(kind=kind, rank=2, alpha=4, on=on)
    rates = Rates(adapter=1e-3)
    checked = recipe(tmp_path, start=BUNDLED, rates=rates, adapter=adapter, steps=1)
    assert trained(checked) == {f"adapter in {name}" for name in on}


def trained(checked):
    """Modules with a gradient that is not zero after one step's backward pass."""
    found = {}

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            for name, param in model.named_parameters():
                module = name.split(".")[0]
                if "lora_" in name:
                    module = f"adapter in {module}"
                nonzero = param.grad is not None and bool(param.grad.any())
                found[module] = found.get(module, False) or nonzero
                assert param.requires_grad or param.grad is None

    runs.run(checked, callbacks=(Look(),))
    return {module for module, nonzero in found.items() if nonzero}


@pytest.mark.slow
def test_a_signal_ends_the_run_with_a_checkpoint(tmp_path):
    class Press(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    stop = Stop()
    last = runs.run(recipe(tmp_path, steps=5, save_every=100), callbacks=(Press(),), stop=stop)
    assert last.name == "checkpoint-1"
    assert stop.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) == before


def test_a_step_that_was_begun_is_forgotten_and_learned_again(tmp_path, monkeypatch):
    """A signal between two passes of a step: the run that goes on equals one without it."""
    adapter = {"start": BUNDLED, "rates": Rates(adapter=1e-3), "adapter": Adapter(rank=2, alpha=4)}
    straight = recipe(tmp_path, steps=3, batch=Batch(samples=4, tokens=150, patches=500), **adapter)
    straight = replace(straight, out=str(tmp_path / "straight"))
    interrupted = replace(straight, out=str(tmp_path / "interrupted"))
    last = runs.run(straight)
    stop, passes, inputs = Stop(), [], VL3Trainer._inputs

    def press(self, part):
        passes.append(self.state.global_step)
        if passes.count(2) == 1:  # inside the third step, before its last pass
            os.kill(os.getpid(), signal.SIGUSR1)
        return inputs(self, part)

    monkeypatch.setattr(VL3Trainer, "_inputs", press)
    assert runs.run(interrupted, stop=stop).name == "checkpoint-2"
    assert stop.signal == signal.SIGUSR1
    assert passes.count(2) == 1
    monkeypatch.undo()
    one, other = weights(last), weights(runs.resume(tmp_path / "interrupted"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert metrics(tmp_path / "interrupted") == metrics(tmp_path / "straight")


def test_a_signal_ends_the_answers_to_held_out_questions(tmp_path, monkeypatch):
    held = Source(name="held", world=World(families={"colour": 1.0}, questions=1), samples=32)
    asked = recipe(
        tmp_path,
        start=BUNDLED,
        rates=Rates(connector=1e-6),
        steps=3,
        evaluate=Evaluate(every=1, sources=[held], samples=32),
    )
    generate, calls = VL3ForConditionalGeneration.generate, []

    def press(self, *args, **kwargs):
        calls.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(VL3ForConditionalGeneration, "generate", press)
    assert runs.run(asked).name == "checkpoint-1"
    assert len(calls) == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_and_can_be_made_up(tmp_path):
    """No file may grow beyond a few bytes from step 3 on, as on a full disk."""

    class Fill(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    chosen = recipe(tmp_path, start=BUNDLED, rates=Rates(vision=1e-3), steps=4, save_every=2)
    try:
        with pytest.raises(CannotSave, match=r"^the checkpoint of step 4 [^\n]*") as failed:
            runs.run(chosen, callbacks=(Fill(),))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    out = tmp_path / "run"
    assert f"checkpoint-2 is whole: make room, then python -m train_cli resume {out}" in str(
        failed.value
    )
    assert [folder.name for folder in checkpoints(out)] == ["checkpoint-2"]
    assert not list(out.glob("partial/*"))
    assert runs.resume(out).name == "checkpoint-4"


def changed(out, **changes):
    """The recipe of a run with some settings changed."""
    _, written = last_run(out)
    return replace(read(written["recipe"]), out=str(out), **changes)


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_130_and_names_the_command_that_goes_on(tmp_path):
    data = tmp_path / "lines.jsonl"
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    data.write_text((json.dumps(row) + "\n") * 8)
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "train_cli",
        "run",
        "--name",
        "mine",
        "--start.model",
        "assets/nano",
        "--rates.connector",
        "1e-3",
        "--data.own.path",
        str(data),
        "--out",
        str(out),
        "--steps",
        "100000",
        "--batch.samples",
        "2",
        "--log_every",
        "1",
        "--workers",
        "0",
        "--anyway",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 200
        while not (out / "metrics.jsonl").is_file() and time.monotonic() < deadline:
            time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said[-2000:]
    (last,) = checkpoints(out)
    step = last.name.rpartition("-")[2]
    line = said.strip().splitlines()[-1]
    assert line == f"stopped after step {step}; python -m train_cli resume {out} goes on"
    assert "Traceback" not in said
    more = ["--steps", str(int(step) + 1), "--rates.connector", "2e-3", "--quiet"]
    assert main(["resume", str(out), *more]) == 0
    assert checkpoints(out)[-1].name == f"checkpoint-{int(step) + 1}"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run with both kinds of optimizer, stopped at its second step of four."""
    folder = tmp_path_factory.mktemp("begun")
    rates = Rates(vision=1e-3, connector=1e-3)
    runs.run(recipe(folder, start=BUNDLED, rates=rates, steps=4), until=2)
    return folder / "run"


def test_a_run_goes_on_with_rates_and_steps_of_its_own(begun, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    rates, flat = Rates(vision=1e-4, connector=2e-3), Optim(kind="muon", schedule="constant")
    last = runs.resume(out, recipe=changed(out, rates=rates, optim=flat, steps=5, workers=1))
    assert last.name == "checkpoint-5"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    logged = {line["step"]: line for line in lines if "loss" in line}
    assert sorted(logged) == [1, 2, 3, 4, 5]
    for step in (3, 4, 5):
        assert logged[step]["rate/vision/matrices"] == pytest.approx(1e-4 * flat.muon_factor)
        assert logged[step]["rate/connector/rest"] == pytest.approx(2e-3)
    written = json.loads((last / "vl3_run.json").read_text())
    assert (written["steps"], written["recipe"]["rates"]["vision"]) == (5, 1e-4)


def test_a_checkpoint_is_as_large_as_the_plan_says(begun):
    chosen = changed(begun)
    config = read_config(checkpoints(begun)[-1])
    planned = disk(chosen, config, machine_for(chosen, config, "cpu", bfloat16_time() <= 1))
    last = checkpoints(begun)[-1]
    weights_bytes = sum(file.stat().st_size for file in last.glob("*.safetensors"))
    assert weights_bytes == pytest.approx(planned["weights"], rel=0.05)
    assert (last / "optimizer.pt").stat().st_size == pytest.approx(planned["optimizer"], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rates": Rates(vision=1e-3, connector=1e-3, language=1e-3)}, "rates.language"),
        ({"rates": Rates(connector=1e-3)}, "rates.vision"),
        ({"optim": Optim(kind="adamw")}, "optim.kind"),
        ({"seed": 7}, "seed"),
        ({"batch": Batch(samples=5)}, "batch.samples"),
        ({"data": [Source(name="other", path="x.jsonl")]}, "data"),
        ({"start": Start(nano=True)}, "start.model"),
    ],
)
def test_what_cannot_change_is_refused_by_name(begun, changes, name):
    with pytest.raises(ValueError, match=f"^{name} cannot change while a run goes on"):
        runs.resume(begun, recipe=changed(begun, **changes))


def test_a_finished_run_says_so(begun, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(begun, out)
    assert runs.resume(out, recipe=changed(out, steps=2)).name == "checkpoint-2"
    assert "is finished already: 2 of" in caplog.text
    assert runs.resume(out, until=1).name == "checkpoint-2"
    assert "is at step 2 already" in caplog.text


@pytest.mark.slow
def test_only_the_last_checkpoints_stay(tmp_path):
    runs.run(recipe(tmp_path, steps=5, save_every=1, keep=2))
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == [
        "checkpoint-4",
        "checkpoint-5",
    ]


@pytest.mark.slow
def test_a_half_written_checkpoint_is_not_taken(tmp_path):
    runs.run(recipe(tmp_path, steps=2, save_every=1))
    (tmp_path / "run" / "checkpoint-9").mkdir()
    assert checkpoints(tmp_path / "run")[-1].name == "checkpoint-2"


@pytest.mark.slow
def test_a_run_does_not_overwrite_another(tmp_path):
    runs.run(recipe(tmp_path, steps=1))
    with pytest.raises(FileExistsError, match="resume it"):
        runs.run(recipe(tmp_path, steps=1))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        runs.resume(tmp_path)


def test_mixed_precision_of_frozen_parts(tmp_path):
    frozen = recipe(tmp_path, rates=Rates(connector=1e-3), dtype="bfloat16", start=BUNDLED)
    model, _ = setup.prepare(frozen, torch.device("cpu"))
    assert {p.dtype for p in model.connector.parameters()} == {torch.float32}
    assert {p.dtype for p in model.vision.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.language.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_batch(tmp_path):
    endless = recipe(tmp_path, rates=Rates(language=1e30), optim=Optim(warmup=0.0), steps=4)
    with pytest.raises(NotFinite, match=r"clips:|images:"):
        runs.run(endless)
    (file,) = (tmp_path / "run").glob("not_finite_step_*.json")
    assert json.loads(file.read_text())["samples"]


def test_held_out_questions_are_answered_during_the_run(tmp_path):
    held = Source(name="held", world=World(families={"colour": 1.0}, questions=1), samples=8)
    checked = recipe(
        tmp_path,
        start=BUNDLED,
        rates=Rates(connector=1e-6),
        steps=2,
        evaluate=Evaluate(every=2, sources=[held], samples=8),
    )
    runs.run(checked)
    rows = (tmp_path / "run/samples/step_2.jsonl").read_text().splitlines()
    assert len(rows) == 8
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    (share,) = [line["eval/colour"] for line in lines if "eval/colour" in line]
    assert share >= 0.5  # the bundled nano knows its colours; one in eight is chance
    assert "[[" in (tmp_path / "run/first_sample.txt").read_text()


@pytest.mark.slow
def test_samples_that_cannot_be_read_are_named_and_end_the_run(tmp_path):
    data = tmp_path / "data.jsonl"
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    lines = [json.dumps(row)] * 4 + ["not json"] * 4
    data.write_text("\n".join(lines))
    broken = recipe(tmp_path, data=[Source(name="mine", path=str(data))], steps=8)
    with pytest.raises(TooManyBad, match=r"quarantine\.jsonl"):
        runs.run(broken)
    entries = (tmp_path / "run/quarantine.jsonl").read_text().splitlines()
    found = [json.loads(entry) for entry in entries]
    assert {entry["code"] for entry in found} == {"E101"}
    assert {entry["id"] for entry in found} <= {f"data.jsonl:{line}" for line in (5, 6, 7, 8)}
    assert list(found[0]) == ["dataset", "index", "id", "code", "message"]
