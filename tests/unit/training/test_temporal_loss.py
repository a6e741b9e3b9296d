"""The temporal loss: what each visual token is to point to, and what learns from it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import vl3
from vl3.bundled import NANO
from vl3.prompt import IGNORE
from vl3.toyworld.world import COLOURS, MOTIONS, SHAPES, Digit, Scene, Sprite
from vl3.training.collate import attention_mask, collate
from vl3.training.nano import temporal_loss
from vl3.training.recipe import World
from vl3.training.samples import build
from vl3.training.sources import Scenes
from vl3.values import Grid

CLIP = World(seconds=[4, 6], sprites=[1, 2], families={"when": 1, "direction": 1}, questions=4)
IMAGE = World(seconds=[0, 0], sprites=[1, 2], families={"colour": 1})


@pytest.fixture(scope="module")
def studio():
    return vl3.load(NANO, device="cpu", dtype="float32")


def words(truth_M5) -> list[tuple]:
    """(second, came, motion, gone colour, gone shape), None where there is nothing to know."""
    lists = (range(10), range(10), tuple(MOTIONS), tuple(COLOURS), SHAPES)
    return [
        tuple(None if i == IGNORE else known[i] for known, i in zip(lists, row, strict=True))
        for row in truth_M5.tolist()
    ]


def test_tokens_know_their_second_what_came_when_how_it_moves_and_what_has_gone():
    # 4 x 4 tokens of 28 px: a square goes down a row a second, a cross stands in the last column
    square = Sprite("square", "red", COLOURS["red"], 28, 1, 4, "down", 28.0, 14.0, 14.0)
    cross = Sprite("cross", "blue", COLOURS["blue"], 28, 0, 2, "still", 0.0, 98.0, 14.0)
    scene = Scene(112, 112, 4, (60, 60, 60), 0, 1, (square, cross))
    told = words(temporal_loss.truth(scene, Grid(frames=4, rows=8, cols=8, merge=2)))
    assert [row[0] for row in told] == [second for second in range(4) for _ in range(16)]
    known = {(i // 16, i % 16): row[1:] for i, row in enumerate(told) if any_known(row)}
    assert known == {
        (0, 3): (0, None, None, None),  # how it moves cannot be known yet
        (1, 3): (0, "still", None, None),
        (1, 0): (1, None, None, None),
        (2, 4): (1, "down", None, None),
        (2, 3): (None, None, "blue", "cross"),
        (3, 8): (1, "down", None, None),  # where it was a second ago nothing has gone
    }


def any_known(row: tuple) -> bool:
    return any(value is not None for value in row[1:])


def test_a_digit_came_when_it_changed():
    digit = Digit(3, 8, 2, 40, 6, (255, 255, 255), 56.0, 56.0)
    scene = Scene(112, 112, 13, (60, 60, 60), 0, 1, (), digit)
    told = words(temporal_loss.truth(scene, Grid(frames=13, rows=8, cols=8, merge=2)))
    assert [told[16 * second + 5][:2] for second in (0, 1, 2, 11)] == [
        (0, 0),
        (1, 0),
        (2, 2),
        (1, 2),
    ]


def joined(processor, *samples):
    return collate(samples, processor.tokenizer.pad_token_id, 3 * processor.settings.patch**2)


def test_what_kept_tokens_should_know_reaches_their_slots(studio):
    processor = studio.processor
    loss = temporal_loss.TemporalLoss(processor.tokenizer)
    clips, images = Scenes("clips", CLIP, 3), Scenes("images", IMAGE, 3)
    clip, image = (build(data[0], processor, 10240, losses=[loss]) for data in (clips, images))
    part = joined(processor, clip, image)
    truth_KF, own_KF = part.targets[loss.name], clip.targets[loss.name]
    slot_BL = part.inputs["input_ids"] == studio.model.config.image_token_id
    assert len(truth_KF) == slot_BL.sum() == len(clip.source_K) + len(image.source_K)
    own_K = part.inputs["sample_BL"][slot_BL]
    pictured = truth_KF[own_K == own_K[-1]]
    assert torch.equal(truth_KF[: len(clip.source_K)], own_KF)
    assert (pictured == IGNORE).all()
    assert len(pictured) == len(image.source_K)
    # slots are stamped with the second that they should know
    stamps = list(processor.decode(part.inputs["input_ids"][0]).split("Time ")[1:])
    seconds = [float(stamp.split("s")[0]) for stamp in stamps]
    assert sorted(set(own_KF[:, 0].tolist())) == sorted({int(s) for s in seconds})
    unasked = build(clips[0], processor, 10240)
    assert unasked.targets == {}
    assert joined(processor, unasked, image).targets == {}


def test_the_lower_layers_alone_learn_from_it(studio):
    model, processor = studio.model, studio.processor
    loss = temporal_loss.TemporalLoss(processor.tokenizer)
    scenes = Scenes("clips", CLIP, 3)
    samples = [build(scenes[number], processor, 10240, losses=[loss]) for number in range(6)]
    part = joined(processor, *samples)
    inputs, truth_KF = dict(part.inputs), part.targets[loss.name]
    mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), torch.float32)

    def losses(truth_KF):
        found = loss.of_pass(model, replace(part, targets={loss.name: truth_KF}), output)
        return {name.removeprefix("story, "): value for name, value in found.items()}

    try:
        output = model(**inputs, attention_mask=mask, output_hidden_states=True)
        right = losses(truth_KF)
        turned = losses(truth_KF.roll(7, dims=0))  # the canary: what other slots should know
        assert right["second"] < 0.1 < turned["second"]
        sum(right.values()).backward()
        layers = model.language.model.layers
        learns = [layer.mlp.up_proj.weight.grad is not None for layer in layers]
        assert learns == [number < temporal_loss.LAYERS for number in range(len(layers))]
        nothing = losses(torch.full_like(truth_KF, IGNORE))
        assert all(value.item() == 0 for value in nothing.values())
    finally:
        model.zero_grad()
