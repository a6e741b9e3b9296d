"""Lessons in time: what each visual token is to point to, and what learns from it."""

from __future__ import annotations

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


def test_the_story_of_kept_tokens_reaches_their_slots(studio):
    processor = studio.processor
    clips, images = Scenes("clips", CLIP, 3, told=True), Scenes("images", IMAGE, 3, told=True)
    clip, image = (build(data[0], processor, 10240) for data in (clips, images))
    part = joined(processor, clip, image)
    slot_BL = part.inputs["input_ids"] == studio.model.config.image_token_id
    assert len(part.story_KF) == slot_BL.sum() == len(clip.source_K) + len(image.source_K)
    own_K = part.inputs["sample_BL"][slot_BL]
    pictured = part.story_KF[own_K == own_K[-1]]
    assert torch.equal(part.story_KF[: len(clip.source_K)], clip.story_KF)
    assert (pictured == IGNORE).all()
    assert len(pictured) == len(image.source_K)
    # slots are stamped with the second that their story tells
    stamps = list(processor.decode(part.inputs["input_ids"][0]).split("Time ")[1:])
    seconds = [float(stamp.split("s")[0]) for stamp in stamps]
    assert sorted(set(clip.story_KF[:, 0].tolist())) == sorted({int(s) for s in seconds})
    untold = build(Scenes("clips", CLIP, 3)[0], processor, 10240)
    assert untold.story_KF is None
    assert joined(processor, untold, image).story_KF is None


def test_lessons_teach_the_lower_layers_alone(studio):
    model, processor = studio.model, studio.processor
    scenes = Scenes("clips", CLIP, 3, told=True)
    part = joined(processor, *(build(scenes[number], processor, 10240) for number in range(6)))
    inputs = dict(part.inputs)
    slot_BL = inputs["input_ids"] == model.config.image_token_id
    mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), torch.float32)

    def losses(truth_KF):
        return temporal_loss.lesson_losses(
            model, states[-1], slot_BL, truth_KF, processor.tokenizer
        )

    try:
        with temporal_loss.overheard(model) as states:
            model(**inputs, attention_mask=mask)
        told = losses(part.story_KF)
        turned = losses(part.story_KF.roll(7, dims=0))  # the canary: stories of other slots
        assert told["second"] < 0.1 < turned["second"]
        sum(told.values()).backward()
        layers = model.language.model.layers
        learns = [layer.mlp.up_proj.weight.grad is not None for layer in layers]
        assert learns == [number < temporal_loss.LAYERS for number in range(len(layers))]
        nothing = losses(torch.full_like(part.story_KF, IGNORE))
        assert all(loss.item() == 0 for loss in nothing.values())
    finally:
        model.zero_grad()
