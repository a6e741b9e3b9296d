"""The same run on two processes: same losses, same weights, no process waits for ever."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from unit.training.test_engine import recipe
from unit.training.test_runs import metrics, weights

from vl3.training import run as runs
from vl3.training.recipe import Batch, Optim, Source, Start, World
from vl3.weights.hub import checkpoints

CHILD = """
import json, os, signal, sys
import torch
from transformers import TrainerCallback
from vl3.training import recipe, run

torch.set_num_threads(1)
chosen = recipe.read(json.loads(sys.argv[1]))

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3 and args.process_index == 0:
            os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "resume":
    run.resume(run.folder(chosen))
else:
    run.run(chosen, callbacks=(Kill(),) if sys.argv[2] == "kill" else ())
"""


def on_two_processes(tmp_path, chosen, what) -> subprocess.CompletedProcess:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0",
        str(script), json.dumps(asdict(chosen)), what,
    ]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:  # fmt: skip
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
        folder, start=Start(model="assets/nano"), data=data, steps=4, save_every=2,
        batch=Batch(samples=3, tokens=150, patches=200),
        dtype="float32",  # bfloat16, where a CPU has it, rounds sums that differ in their order
        optim=Optim(eps=1e-2),  # AdamW's usual one makes whole steps of rounding errors
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(chosen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    two = replace(chosen, out=str(folder / "run"))
    done = on_two_processes(folder, two, "run")
    assert done.returncode == 0, done.stdout[-3000:]
    return folder / "run"


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


def test_two_processes_count_what_both_read(straight):
    first = json.loads((straight / "metrics.jsonl").read_text().splitlines()[0])
    assert {name for name in first if name.startswith("loss/")} <= {"loss/images", "loss/texts"}
    assert "loss/texts" in first


def test_a_killed_run_of_two_processes_resumes_exactly(chosen, straight, tmp_path):
    killed = replace(chosen, out=str(tmp_path / "run"))
    assert on_two_processes(tmp_path, killed, "kill").returncode != 0
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["checkpoint-2"]
    done = on_two_processes(tmp_path, killed, "resume")
    assert done.returncode == 0, done.stdout[-3000:]
    one, other = (weights(checkpoints(out)[-1]) for out in (straight, tmp_path / "run"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
