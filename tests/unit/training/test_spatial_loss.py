import random

import pytest
import torch

from vl3.prompt import IGNORE
from vl3.toyworld.world import COLOURS, SHAPES, Digit, Level, Scene, Sprite
from vl3.training.nano.init import untrained
from vl3.training.nano.spatial_loss import (
    BACKGROUND,
    DIGIT,
    PLACES,
    THINGS,
    UNCLEAR,
    WORDS,
    draw_examples,
    example_loss,
    readout,
    token_things,
    word_ids,
)
from vl3.values import Grid

LEVEL = Level(seconds=(0, 0), sprites=(2, 3), digits=0.5)
GRID = Grid(frames=1, rows=8, cols=8, merge=2)


@pytest.fixture(scope="module")
def nano():
    return untrained(seed=0)


def scene_of(*sprites, digit=None):
    return Scene(112, 112, 0, (60, 60, 60), 0, 1, sprites, digit)


def test_tokens_name_what_covers_them():
    square = Sprite("square", "red", COLOURS["red"], 28, 0, 1, "still", 0.0, 42.0, 14.0)
    seven = Digit(7, 7, None, 40, 6, (255, 255, 255), 84.0, 98.0)
    found = token_things(scene_of(square, digit=seven), GRID)
    assert [token for token, index in enumerate(found) if index == 0] == [1]
    assert [token for token, index in enumerate(found) if index == 1] == [10, 11, 14, 15]
    assert found.count(-1) == 11


def test_a_token_that_shows_a_few_pixels_is_not_judged():
    square = Sprite("square", "red", COLOURS["red"], 30, 0, 1, "still", 0.0, 42.0, 16.0)
    assert token_things(scene_of(square), GRID)[5] == UNCLEAR  # one row of the square


def test_examples_hold_thing_colour_digit_and_places():
    examples = draw_examples(random.Random(0), LEVEL, 40)
    thing_M, colour_M, digit_M, across_M, down_M = examples.words_M5.T
    is_sprite = (thing_M >= 0) & (thing_M < len(SHAPES))
    assert len(thing_M) == 40 * 16
    assert torch.equal(is_sprite, colour_M != IGNORE)
    assert torch.equal(thing_M == DIGIT, digit_M != IGNORE)
    assert set(thing_M.tolist()) == {IGNORE, *range(len(THINGS))}
    own, box = examples.place_M6[:, :2], examples.place_M6[:, 2:]
    assert torch.equal(own[:16], own[16:32])
    assert own[:2].tolist() == [[-0.75, -0.75], [-0.25, -0.75]]
    has_box = ~box.isnan().any(dim=1)
    assert torch.equal(has_box, is_sprite | (thing_M == DIGIT))
    assert (box[has_box][:, 2:] > box[has_box][:, :2]).all()
    assert not has_box[thing_M == BACKGROUND].any()
    middle = (box[has_box][:, :2] + box[has_box][:, 2:]) / 2
    assert torch.equal(across_M[has_box] == 0, middle[:, 0] < -1 / 3)
    assert torch.equal(down_M[has_box] == 2, middle[:, 1] >= 1 / 3)
    assert across_M[thing_M == BACKGROUND].unique().tolist() == [0, 1, 2]


def test_every_word_of_the_loss_is_one_token(nano):
    _, processor = nano
    for words, ids in zip(WORDS, word_ids(processor.tokenizer), strict=True):
        assert [processor.tokenizer.decode([i]) for i in ids] == list(words)


def test_it_teaches_encoder_connector_and_words_but_no_decoder_layer(nano):
    model, processor = nano
    layer = readout(model.config.text_config.hidden_size)
    assert layer.out_features == PLACES
    examples = draw_examples(random.Random(0), LEVEL, 6)
    loss, figures = example_loss(model, layer, examples, word_ids(processor.tokenizer))
    loss.backward()
    assert torch.isfinite(loss)
    touched = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in touched} == {"vision", "connector", "language"}
    assert {name for name in touched if "language" in name} == {
        "language.model.embed_tokens.weight"
    }
    assert {"token thing", "token colour", "token digit", "box off"} <= set(figures)
    shown = (examples.words_M5[:, 0] != IGNORE) & (examples.words_M5[:, 0] != BACKGROUND)
    assert len(figures["token thing"]) == shown.sum()


def test_frozen_parts_may_be_of_another_number_format():
    model, processor = untrained(seed=0)
    model.vision.bfloat16().requires_grad_(False)
    model.connector.bfloat16().requires_grad_(False)
    examples = draw_examples(random.Random(0), LEVEL, 2)
    loss, _ = example_loss(model, None, examples, word_ids(processor.tokenizer))
    loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
