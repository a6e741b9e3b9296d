"""The same run on two processes: same losses, same weights, no process waits for ever."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from unit.training.test_runs import metrics, weights
from unit.training.test_trainer import recipe

from vl3.training import run as runs
from vl3.training.recipe import Adapter, Batch, Optim, Rates, Source, Start, World
from vl3.weights.runs import checkpoints

LAUNCH = Path(__file__).resolve().parents[3] / "train_cli" / "launch"

CHILD = """
import json, os, signal, sys
import torch
from transformers import TrainerCallback
from vl3.training import recorded, run

torch.set_num_threads(1)
if "ACCELERATE_USE_FSDP" in os.environ:
    # accelerate spreads models over GPUs only; its state is told that processes on a CPU count.
    from accelerate import state
    from accelerate.utils import DistributedType

    start = state.AcceleratorState.__init__

    def spread(self, *args, **kwargs):
        start(self, *args, **kwargs)
        if kwargs.get("fsdp_plugin"):
            self._shared_state["fsdp_plugin"] = kwargs["fsdp_plugin"]
        if self._shared_state.get("fsdp_plugin"):
            self._shared_state["distributed_type"] = DistributedType.FSDP

    state.AcceleratorState.__init__ = spread
chosen = recorded.read(json.loads(sys.argv[1]))

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3 and args.process_index == 0:
            os.kill(os.getpid(), signal.SIGKILL)

class Press(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGUSR1)

if sys.argv[2] == "press":
    from vl3.training.stop import Stop

    stop = Stop()
    run.run(chosen, callbacks=(Press(),), stop=stop)
    both = [None, None]
    torch.distributed.all_gather_object(both, int(stop.signal))
    if torch.distributed.get_rank() == 0:
        print("ended by", both[0], "and", both[1])
elif sys.argv[2] == "resume":
    run.resume(run.folder(chosen), until=chosen.steps)
else:
    run.run(chosen, callbacks=(Kill(),) if sys.argv[2] == "kill" else ())
"""


def on_two_processes(tmp_path, chosen, what, **extra) -> subprocess.CompletedProcess:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        str(script),
        json.dumps(asdict(chosen)),
        what,
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **extra},
    ) as process:
        try:
            output, _ = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail("two processes wait for each other")
    return subprocess.CompletedProcess(command, process.returncode, output)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A run whose steps hold an image and texts: one process often has texts alone."""
    folder = tmp_path_factory.mktemp("processes")
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}]
    (folder / "texts.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 12)
    families = {"colour": 1.0, "shape": 1.0}
    data = [
        Source(name="images", world=World(families=families, questions=2), samples=6),
        Source(name="texts", path=str(folder / "texts.jsonl")),
    ]
    return recipe(
        folder,
        start=Start(model="assets/nano"),
        data=data,
        steps=4,
        save_every=2,
        batch=Batch(samples=3, tokens=150, patches=200),
        dtype="float32",  # bfloat16, where a CPU has it, rounds sums that differ in their order
        optim=Optim(eps=1e-2),  # AdamW's usual one makes whole steps of rounding errors
    )


@pytest.fixture(scope="module")
def straight(chosen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    two = replace(chosen, out=str(folder / "run"))
    done = on_two_processes(folder, two, "run")
    assert done.returncode == 0, done.stdout[-3000:]
    return folder / "run"


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(chosen, straight, tmp_path):
    alone = runs.run(replace(chosen, out=str(tmp_path / "one")))
    one, two = metrics(tmp_path / "one"), metrics(straight)
    assert sorted(one) == sorted(two) == [1, 2, 3, 4]
    assert two == pytest.approx(one, abs=1e-5)
    other = weights(checkpoints(straight)[-1])
    for name, weight in weights(alone).items():
        torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=0)
    start = weights(checkpoints(straight)[0])
    moved = max(float((other[name] - start[name]).abs().max()) for name in start)
    assert moved > 1e-4  # between steps 2 and 4: a hundred times what is tolerated


@pytest.mark.slow
def test_two_processes_count_what_both_read(straight):
    first = json.loads((straight / "metrics.jsonl").read_text().splitlines()[0])
    assert {name for name in first if name.startswith("loss/")} <= {"loss/images", "loss/texts"}
    assert "loss/texts" in first


@pytest.mark.slow
def test_a_killed_run_of_two_processes_resumes_exactly(chosen, straight, tmp_path):
    killed = replace(chosen, out=str(tmp_path / "run"))
    assert on_two_processes(tmp_path, killed, "kill").returncode != 0
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    done = on_two_processes(tmp_path, killed, "resume")
    assert done.returncode == 0, done.stdout[-3000:]
    one, other = (weights(checkpoints(out)[-1]) for out in (straight, tmp_path / "run"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.slow
def test_a_signal_to_one_process_ends_both_with_a_checkpoint(chosen, tmp_path):
    two = replace(chosen, out=str(tmp_path / "run"), steps=2000, save_every=5000)
    done = on_two_processes(tmp_path, two, "press")
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    assert "ended by 10 and 10" in done.stdout, done.stdout[-3000:]
    done = on_two_processes(tmp_path, replace(two, steps=4), "resume")
    assert done.returncode == 0, done.stdout[-3000:]
    assert checkpoints(tmp_path / "run")[-1].name == "checkpoint-4"


def fsdp2() -> dict[str, str]:
    """The shipped settings as accelerate's launcher hands them on."""
    settings = yaml.safe_load((LAUNCH / "fsdp2.yaml").read_text())["fsdp_config"]
    names = {"FSDP_TRANSFORMER_LAYER_CLS_TO_WRAP": "FSDP_TRANSFORMER_CLS_TO_WRAP"}
    given = {name.upper(): str(value) for name, value in settings.items()}
    return {names.get(name, name): value for name, value in given.items()} | {
        "ACCELERATE_USE_FSDP": "true"
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_spread_over_two_processes_nothing_changes(kind, chosen, straight, tmp_path):
    if kind == "lora":
        rates = Rates(connector=1e-3, adapter=1e-3)
        chosen = replace(chosen, adapter=Adapter(rank=4, alpha=8, dropout=0.0), rates=rates)
        straight = tmp_path / "straight"
        done = on_two_processes(tmp_path, replace(chosen, out=str(straight)), "run")
        assert done.returncode == 0, done.stdout[-3000:]
    spread = replace(chosen, out=str(tmp_path / "run"))
    assert on_two_processes(tmp_path, spread, "kill", **fsdp2()).returncode != 0
    assert any((tmp_path / "run" / "checkpoint-2").glob("pytorch_model_fsdp_*/*.distcp"))
    done = on_two_processes(tmp_path, spread, "resume", **fsdp2())
    assert done.returncode == 0, done.stdout[-3000:]
    one, other = (checkpoints(out)[-1] for out in (straight, tmp_path / "run"))
    files = sorted(path.name for path in one.glob("*.safetensors"))
    assert files == sorted(path.name for path in other.glob("*.safetensors"))
    for name in files:
        tensors, same = load_file(one / name), load_file(other / name)
        assert tensors.keys() == same.keys()
        for key, tensor in tensors.items():
            torch.testing.assert_close(same[key], tensor, atol=1e-6, rtol=0, msg=f"{name} {key}")
