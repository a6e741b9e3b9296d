"""Losses beside that of the answers: whoever writes one hands it to the trainer."""

from dataclasses import asdict
from pathlib import Path

import torch
from unit.training.test_trainer import WORLDS, recipe

from vl3.training import setup
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.recipe import Nano, Source, Start
from vl3.training.recorded import read
from vl3.training.trainer import VL3Trainer


class Small(AuxiliaryLoss):
    """Draws states of slots towards zero, and the connector's bias in two parts a step."""

    name, weight, reads_states = "small", 0.5, True

    def __init__(self) -> None:
        self.rows, self.steps = [], []

    def targets(self, record, grids):
        if record.truth.kind == "image":
            return None
        return torch.ones(sum(grid.num_tokens for grid in grids), 1, dtype=torch.long)

    def of_pass(self, model, part, output):
        if self.name not in part.targets:
            return {}
        slot_BL = part.inputs["input_ids"] == model.config.image_token_id
        self.rows.append((len(part.targets[self.name]), int(slot_BL.sum())))
        return {"small, slots": output.hidden_states[1][slot_BL].square().mean()}

    def of_step(self, model, step):
        self.steps.append(step)
        for _ in range(2):
            yield {"small, bias": model.connector.readout[0].bias.square().sum()}


def test_a_loss_of_ones_own_is_learned_and_logged(tmp_path):
    data = [Source(name=name, world=world, samples=40) for name, world in WORLDS.items()]
    weights, logs = [], []
    own = Small()
    for losses in ([], [own]):
        folder = tmp_path / str(len(losses))
        chosen = recipe(folder, start=Start(model="assets/nano"), data=data, steps=2)
        model, processor = setup.prepare(chosen, torch.device("cpu"))
        before = float(model.connector.readout[0].bias.detach().square().sum())
        trainer = VL3Trainer(model, processor, chosen, folder, losses=losses)
        trainer.train()
        weights.append(model.connector.readout[0].weight.detach().clone())
        logs.append(trainer.state.log_history[0])
    assert own.steps == [0, 1]
    assert own.rows
    assert all(known == slots for known, slots in own.rows)
    assert not torch.equal(*weights)
    assert {name for name in logs[1] if name not in logs[0]} == {
        "loss/small, slots",
        "loss/small, bias",
    }
    assert abs(logs[1]["loss/small, bias"] - 2 * before) < 1e-3  # of both parts
    assert logs[0]["loss"] == logs[1]["loss"]  # which is that of the answers alone


def test_a_run_from_before_nanos_settings_had_a_part_of_their_own_can_be_read():
    now = recipe(Path("runs"), nano=Nano(encoder_steps=7, spatial_images=3, temporal_loss=True))
    then = asdict(now)
    del then["nano"]
    then |= {"start": {**then["start"], "lessons": 7}, "lessons": 3, "story": True}
    assert read(then) == now == read(asdict(now))
