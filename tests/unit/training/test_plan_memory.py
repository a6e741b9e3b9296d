"""The predicted memory of a step against the measured one: real steps of the trainer, on a CPU."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from language_models import plain_tokenizer, write_language, write_siglip
from sounds import write_sound

from train_cli.__main__ import main
from vl3.sound import RATE_HZ
from vl3.weights.assemble import assemble
from vl3.weights.export import export

TOLERANCE = 0.15
CODE = """
import json, sys
import torch
from pathlib import Path
from vl3.training.memory import Shape, heard_pieces, memory
from vl3.training.plan import machine_for
from vl3.training.recipe import *
from vl3.training.setup import prepare
from vl3.training.trainer import VL3Trainer
import peft, torch._dynamo

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(name)))

torch.set_num_threads(1)
way, checkpointing, out, START = sys.argv[1], sys.argv[2].split(), sys.argv[3], sys.argv[4]
rates = {
    "full": Rates(vision=1e-4, connector=1e-4, language=1e-4),
    "stage 1": Rates(vision=1e-4, connector=1e-4),
    "ear": Rates(ear=1e-4, audio_connector=1e-4),
}.get(way, Rates(adapter=1e-4))
recipe = Recipe(
    name="measured", start=Start(model=START), rates=rates,
    adapter=None if way not in ("lora", "dora") else Adapter(kind=way, rank=16),
    data=[Source(name="sounds", path=sys.argv[5])] if sys.argv[5:] else [
        Source(name="clips", samples=48, world=World(
        seconds=[8, 12], questions=8, families={"colour": 1.0, "count": 1.0, "caption": 1.0}))],
    batch=Batch(samples=48 if sys.argv[5:] else 16, tokens=4096, max_tokens=4096, patches=16384,
                pieces=16),
    media=Media(prune=False), dtype="float32", checkpointing=checkpointing, workers=0, steps=2,
)
x = torch.randn(64, 64, requires_grad=True)
torch.nn.functional.cross_entropy(x @ x, torch.zeros(64).long()).backward()
torch.nn.functional.conv2d(torch.randn(4, 3, 14, 14), torch.randn(8, 3, 14, 14))
torch.optim.AdamW([x]).step()
if sys.argv[5:]:  # what comes with the first sound: decoder, extractors, plans of transforms
    from vl3 import audio
    from vl3.weights.ears import NANO, load_ear
    sound = audio.read(Path(sys.argv[5]).parent / "0.wav")
    for name in NANO:
        load_ear(name).hear([sound.samples_S[:16000]])
before = status("VmRSS")
model, processor = prepare(recipe, torch.device("cpu"))
trainer = VL3Trainer(model, processor, recipe, Path(out))
shapes, inner = [], trainer._inputs

def noted(part):
    rows, length = part.inputs["input_ids"].shape
    patches = len(part.inputs["pixel_values"])
    pieces = len(part.inputs.get("feature_lengths", ()))
    shapes.append(Shape(tokens=rows * length, row=length, visual=patches // 4, patches=patches,
                        frame=64, learned=part.learned,
                        **(heard_pieces(model.config, pieces) if pieces else {})))
    return inner(part)

trainer._inputs = noted
Path("/proc/self/clear_refs").write_text("5")
trainer.train()
machine = machine_for(recipe, model.config, "cpu", False)
tables = [memory(recipe, model.config, shape, machine) for shape in shapes]
fullest = max(tables, key=lambda table: sum(table.values()))
print(json.dumps({"measured": status("VmHWM") - before, "plan": sum(fullest.values()),
                  "passes": len(shapes), "table": fullest}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("way", "checkpointing"),
    [
        ("full", ""),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("lora", ""),
                ("full", "vision language"),
                ("lora", "language"),
                ("dora", ""),
                ("stage 1", ""),
            )
        ),
    ],
)
def test_the_plan_is_near_the_measured_peak(way, checkpointing, tmp_path):
    check_peak(way, checkpointing, "assets/nano", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("way", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2"])
def test_the_plan_holds_for_another_language_model(kind, way, tmp_path):
    """No biases, experts that are kept as one tensor, an activation of several steps."""
    sizes = {"hidden_size": 192, "num_hidden_layers": 6, "intermediate_size": 288}
    if kind == "gpt2":
        sizes = {"n_embd": 192, "n_layer": 6, "n_head": 4, "n_positions": 4096}
    write_language(tmp_path / "language", kind, plain_tokenizer(), rows=1024, **sizes)
    model, processor = assemble(write_siglip(tmp_path / "siglip"), tmp_path / "language")
    export(model, processor, tmp_path / "start")
    check_peak(way, "", str(tmp_path / "start"), tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("ear", "checkpointing"),
    [("nano-whisper", ""), ("nano-whisper", "ear language"), ("nano-beats", "")],
)
def test_the_plan_holds_for_an_ear(ear, checkpointing, tmp_path):
    """Of a frozen one the passing need is smaller than what saving takes at this size."""
    assert main(["assemble", "--ear", ear, str(tmp_path / "start")]) == 0
    noise = np.random.default_rng(0)
    rows = []
    for number in range(48):
        samples = noise.normal(0, 0.1, 9 * RATE_HZ).astype(np.float32)
        write_sound(tmp_path / f"{number}.wav", samples[None], RATE_HZ)
        user = {"from": "human", "value": "<audio>What is heard?"}
        turns = [user, {"from": "gpt", "value": "A long noise, louder and softer."}]
        rows.append({"id": number, "audio": f"{number}.wav", "conversations": turns})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = str(tmp_path / "start")
    check_peak("ear", checkpointing, start, tmp_path, str(tmp_path / "rows.jsonl"))


def check_peak(way, checkpointing, start, tmp_path, *rows):
    # Above this size freed blocks go back to the system, so that the peak is of living memory.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, way, checkpointing, str(tmp_path / "run"), start, *rows],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["passes"] > 2, "several passes make a step, so gradients stay meanwhile"
    ratio = found["plan"] / found["measured"]
    print(f"{way} [{checkpointing}]: measured {found['measured'] / 1e6:.0f} MB, ratio {ratio:.3f}")
    assert 1 - TOLERANCE < ratio < 1 + TOLERANCE, found
