import random

import torch

from vl3.prompt import IGNORE
from vl3.training.nano import Recipe, build
from vl3.training.sight import PARTS, draw_lesson, lesson_loss, readout, token_sprites
from vl3.training.world import COLOURS, SHAPES, Level, Scene, Sprite
from vl3.values import Grid

LEVEL = Level(seconds=(0, 0), sprites=(2, 3))


def test_tokens_name_the_sprite_that_covers_them():
    square = Sprite("square", "red", COLOURS["red"], 28, 0, 1, "still", 0.0, 42.0, 14.0)
    scene = Scene(112, 112, 0, (60, 60, 60), 0, 1, (square,))
    found = token_sprites(scene, Grid(frames=1, rows=8, cols=8, merge=2))
    assert [index for index, sprite in enumerate(found) if sprite == 0] == [1]
    assert found.count(-1) == 15


def test_a_lesson_holds_shape_colour_and_place_of_covered_tokens():
    lesson = draw_lesson(random.Random(0), LEVEL, 6)
    seen = lesson.shape_M != IGNORE
    assert len(lesson.shape_M) == 6 * 16
    assert 12 <= seen.sum() < 70
    assert torch.equal(seen, lesson.colour_M != IGNORE)
    assert lesson.place_M2[seen].abs().max() < 1
    assert lesson.place_M2[~seen].abs().max() == 0
    assert set(lesson.shape_M[seen].tolist()) <= set(range(len(SHAPES)))


def test_the_lesson_teaches_the_encoder_and_only_the_encoder():
    model, _ = build(Recipe(tokenizer_scenes=100))
    layer = readout(model.config.vision_config.hidden_size)
    assert layer.out_features == sum(PARTS)
    loss, right = lesson_loss(model, layer, draw_lesson(random.Random(0), LEVEL, 3))
    loss.backward()
    touched = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert touched == {"vision"}
    assert {name for name, _ in right} == {"token shape", "token colour"}
