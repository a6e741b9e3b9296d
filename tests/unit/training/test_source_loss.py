"""What tokens of sound are told of which thing makes them, and that a model learns it."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE
from vl3.sound import SoundTokens
from vl3.toyworld.sounds import Heard, Track
from vl3.toyworld.world import COLOURS, SHAPES, Scene, Sprite
from vl3.training.nano.init import add_nano_ear
from vl3.training.nano.source_loss import LAYERS, SourceLoss, token_sources
from vl3.training.recipe import Nano, Rates, Recipe, Start
from vl3.training.setup import auxiliary_losses
from vl3.weights.ears import load_ear

STAR = Sprite("star", "blue", COLOURS["blue"], 28, 0, 6, "still", 0.0, 30.0, 30.0, flash_s=3)
CROSS = Sprite("cross", "red", COLOURS["red"], 28, 1, 6, "still", 0.0, 80.0, 80.0)


@pytest.fixture(scope="module")
def hearing():
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)
    return model, add_nano_ear(model, VL3Processor.from_pretrained(NANO), load_ear("nano-whisper"))


def heard(second) -> Heard:
    return Heard("beep", "high", True, second + 0.1, 0.3, -12.0, 0.5)


def test_tokens_are_told_the_sprite_with_an_event_in_their_second():
    sounds = (heard(1), heard(3), heard(4))
    scene = Scene(112, 112, 6, (60, 60, 60), 0, 1, (STAR, CROSS), track=Track(sounds, None, 0))
    ends = np.arange(60) * 0.1
    tokens = SoundTokens(spans_s=tuple((float(end), float(end + 0.1)) for end in ends))
    told = token_sources(scene, tokens)
    red_cross = [list(COLOURS).index("red"), SHAPES.index("cross")]
    blue_star = [list(COLOURS).index("blue"), SHAPES.index("star")]
    nothing, unknown = [len(COLOURS), len(SHAPES)], [IGNORE, IGNORE]
    assert told[11:14].tolist() == [red_cross] * 3, "it came then"
    assert told[31:34].tolist() == [blue_star] * 3, "it flashed"
    assert told[41:44].tolist() == [nothing] * 3
    silent = [index for index in range(60) if index % 10 not in (0, 1, 2, 3, 4)]
    assert all(told[index].tolist() == unknown for index in silent)
    banded = token_sources(scene, replace(tokens, bands=2))
    assert torch.equal(banded, told.repeat_interleave(2, dim=0))


def test_the_states_of_sound_learn_it_and_the_layers_above_do_not(hearing):
    model, processor = hearing
    loss = SourceLoss(processor, 3, "seed")
    ((first, again), (other,)) = ([*loss.of_step(model, step)] * n for step, n in ((0, 2), (1, 1)))
    assert {name: value.item() for name, value in first.items()} == again
    assert first != other
    sum(first.values()).backward()
    layers = model.language.model.layers
    learns = [layer.mlp.up_proj.weight.grad is not None for layer in layers]
    assert learns == [True] * LAYERS + [False] * (len(layers) - LAYERS)
    assert model.vision.blocks[0].attention.q.weight.grad.abs().sum() > 0
    assert model.ear.encoder.conv1.weight.grad.abs().sum() > 0
    model.zero_grad()


def test_it_is_learned_and_other_truths_are_not(hearing):
    model, processor = hearing
    loss = SourceLoss(processor, 4, "few")
    samples, truths = zip(*(loss.draw(random.Random(n)) for n in range(4)), strict=True)
    params = [*model.language.model.layers[:LAYERS].parameters()]
    optimizer = torch.optim.AdamW(params, lr=3e-3)
    for _ in range(12):
        found = sum(loss.losses(model, samples, truths).values())
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
    turned = tuple(torch.where(truth == IGNORE, truth, (truth + 1) % 6) for truth in truths)
    right, wrong = (sum(loss.losses(model, samples, told).values()) for told in (truths, turned))
    assert right < 0.6 * wrong


def test_a_recipe_asks_for_it(hearing):
    recipe = Recipe(
        name="seen and heard",
        start=Start(model=str(NANO), ear="nano-whisper"),
        rates=Rates(language=1e-3),
        nano=Nano(sound_words=True, sources=2),
    )
    (loss,) = auxiliary_losses(recipe, hearing[1])
    assert (type(loss), loss.clips) == (SourceLoss, 2)
    with pytest.raises(ValueError, match=r"^nano.sources needs a model that hears"):
        auxiliary_losses(recipe, VL3Processor.from_pretrained(NANO))
