"""Training a model whose connector joins two frames and 2 x 2 cells into a token."""

from dataclasses import replace

import pytest
import torch
from clips import noise_clip
from unit.training.test_trainer import recipe

from vl3.config import VL3Config
from vl3.data.records import Record
from vl3.training import run as runs
from vl3.training import setup
from vl3.training.activations import kept_of_pass
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.memory import Machine, largest_pass
from vl3.training.recipe import Adapter, Rates, Source, Start, World
from vl3.training.samples import build
from vl3.weights.load import load
from vl3.weights.runs import checkpoints

CLIPS = [
    Source(
        name="clips", world=World(seconds=[3, 3], families={"colour": 1.0}, questions=3), samples=8
    )
]


def test_a_run_teaches_the_connector_and_its_checkpoint_is_a_model(joining_folder, tmp_path):
    start = Start(model=str(joining_folder))
    learning = recipe(tmp_path, start=start, data=CLIPS, steps=1, dtype="float32")
    runs.run(learning)
    before, after = (
        load(folder, device="cpu").model
        for folder in (joining_folder, checkpoints(tmp_path / "run")[-1])
    )
    assert not torch.equal(before.connector.join.weight, after.connector.join.weight)
    assert after.config.connector == "joining"


def test_what_cannot_be_done_with_it_is_said(joining_folder, tmp_path):
    start = Start(model=str(joining_folder))
    base = recipe(tmp_path, start=start, data=CLIPS, steps=1, dtype="float32")
    pruned = replace(base, media=replace(base.media, prune=True))
    with pytest.raises(ValueError, match="nothing is pruned with this model"):
        setup.prepare(pruned, torch.device("cpu"))
    adapted = replace(base, adapter=Adapter(on=["connector"]), rates=Rates(adapter=1e-3))
    with pytest.raises(ValueError, match="the connector joining has no linear layer for an adap"):
        setup.prepare(adapted, torch.device("cpu"))


class Colours(AuxiliaryLoss):
    """Knows of each patch what colour it has."""

    name, weight = "colours", 1.0

    def targets(self, record, grids):
        return torch.zeros(sum(grid.num_tokens for grid in grids), 1, dtype=torch.long)


def test_what_is_known_of_patches_is_refused(joining_folder):
    processor = load(joining_folder, device="cpu").processor
    film = {"type": "video", "video": noise_clip()}
    conversation = [{"role": "user", "content": [film]}, {"role": "assistant", "content": "Red."}]
    record = Record(id="one", dataset="d", conversations=(conversation,))
    with pytest.raises(ValueError, match="colours say of each patch what it shows"):
        build(record, processor, 400, losses=(Colours(),))


def test_a_step_is_estimated_with_it(joining_folder, tmp_path):
    config = VL3Config.from_pretrained(joining_folder)
    machine = Machine(device="cpu", compute_bytes=4, eager=True)
    learning = recipe(tmp_path)
    kept = kept_of_pass(learning, config, largest_pass(learning), machine)
    assert kept["connector"].around > 0
