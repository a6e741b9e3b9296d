import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vl3.training.batch import clip_grid
from vl3.training.questions import FAMILIES, ask, ask_many, caption
from vl3.training.world import (
    COLOURS,
    Level,
    Scene,
    Sprite,
    coverage,
    film,
    render,
    sample_scene,
    shake,
)
from vl3.values import Patches
from vl3.vision import patchify, prune

CLEAN = Level(seconds=(6, 10), sprites=(1, 3))


def sprite(colour="red", shape="circle", span_s=(0, 8), motion="still", speed_px=0.0, at=(56, 56)):
    return Sprite(shape, colour, COLOURS[colour], 30, *span_s, motion, speed_px, *at)


def scene_of(*sprites, seconds=8, grain=0):
    return Scene(112, 112, seconds, (60, 62, 64), grain, 1, sprites)


def test_the_seed_decides_everything():
    def clip(seed):
        rng = random.Random(seed)
        return film(sample_scene(rng, CLEAN), rng, CLEAN).frames_TYX3

    assert np.array_equal(clip(4), clip(4))
    assert not np.array_equal(clip(4)[0], clip(5)[0])


def test_sprites_stay_inside_and_apart():
    rng = random.Random(0)
    pairs = 0
    for _ in range(300):
        scene = sample_scene(rng, CLEAN)
        for time_s in scene.times_s:
            shown = [s for s in scene.sprites if s.visible(time_s)]
            for one in shown:
                x_px, y_px = one.centre(time_s)
                assert one.size_px / 2 <= x_px <= scene.width_px - one.size_px / 2
                assert one.size_px / 2 <= y_px <= scene.height_px - one.size_px / 2
            for index, one in enumerate(shown):
                for other in shown[:index]:
                    pairs += 1
                    (x1, y1), (x2, y2) = one.centre(time_s), other.centre(time_s)
                    gap_px = max(abs(x1 - x2), abs(y1 - y2))
                    assert gap_px >= (one.size_px + other.size_px) / 2
    assert pairs > 500


def test_a_sprite_is_drawn_where_and_when_it_says():
    scene = scene_of(sprite(span_s=(2, 5), motion="right", speed_px=10.0, at=(30, 40)))
    frames_TYX3 = render(scene)
    is_red_TYX = (frames_TYX3 == COLOURS["red"]).all(axis=-1)
    assert is_red_TYX.any(axis=(1, 2)).tolist() == [False, False, True, True, True, *[False] * 3]
    centres = [np.argwhere(is_red_TYX[t]).mean(axis=0) for t in (2, 3, 4)]
    rows, cols = zip(*centres, strict=True)
    assert rows == pytest.approx([39.5] * 3, abs=1)
    assert cols == pytest.approx([29.5, 39.5, 49.5], abs=1)


def test_coverage_says_which_sprite_shows():
    scene = scene_of(sprite("red", "square", at=(20, 20)), sprite("blue", "square", at=(80, 90)))
    frame_YX3, sprite_YX = render(scene)[0], coverage(scene)
    for index, shown in enumerate(scene.sprites):
        inside = sprite_YX == index
        assert inside.sum() > 600
        assert (frame_YX3[inside] == shown.rgb).all(axis=-1).mean() > 0.9
    assert (frame_YX3[sprite_YX == -1] == scene.background).all(axis=-1).mean() > 0.97


def test_on_the_lattice_a_shape_looks_the_same_each_time():
    rng = random.Random(2)
    level = Level(seconds=(0, 0), sprites=(1, 3), jitter_px=0.0)
    sprites = [s for _ in range(50) for s in sample_scene(rng, level).sprites]
    corners = {(s.x_px - s.size_px / 2) % 14 for s in sprites}
    assert len(sprites) > 60
    assert ({s.size_px for s in sprites}, corners) == ({42}, {0.0})


def test_scale_and_times_are_free():
    scene = scene_of(sprite(motion="down", speed_px=6.0, at=(56, 30)))
    frames_TYX3 = render(scene, times_s=(0.0, 0.125), scale=3)
    assert frames_TYX3.shape == (2, 336, 336, 3)
    assert not np.array_equal(*frames_TYX3)


@pytest.mark.parametrize("grain", [0, 10])
def test_pruning_drops_the_background_and_moving_sprites_survive(grain):
    scene = scene_of(sprite(motion="right", speed_px=9.0, at=(25, 40)), grain=grain)
    frames_TYX3 = render(scene)
    keep_TM = kept(frames_TYX3)
    moved_TM = np.zeros_like(keep_TM)
    for t in range(1, len(frames_TYX3)):
        differs_YX = (frames_TYX3[t] != frames_TYX3[t - 1]).any(axis=-1)
        moved_TM[t] = differs_YX.reshape(4, 28, 4, 28).any(axis=(1, 3)).flatten()
    assert keep_TM[0].all()
    assert np.array_equal(keep_TM[1:], moved_TM[1:])
    assert (keep_TM[1:].sum(axis=1) >= 2).all()
    assert keep_TM[1:].mean() < 0.5


def test_a_still_scene_leaves_one_token_a_frame_and_shaking_brings_them_back():
    frames_TYX3 = render(scene_of(sprite()))
    assert kept(frames_TYX3).sum(axis=1).tolist() == [16, *[1] * 7]
    shaken_TYX3 = shake(frames_TYX3, np.random.default_rng(0), whole=True)
    assert kept(shaken_TYX3).all()
    assert np.abs(shaken_TYX3.astype(int) - frames_TYX3).max() <= 2


def kept(frames_TYX3):
    clip = film(scene_of(sprite()), random.Random(0), Level(seconds=(8, 8), sprites=(1, 1)))
    grid = clip_grid(replace(clip, frames_TYX3=frames_TYX3))
    keep = prune(Patches(pixels_NP=patchify(frames_TYX3, grid), grids=(grid,)))
    return keep.keep_M.view(grid.frames, -1).numpy()


SHOWN = scene_of(
    sprite("blue", "star", (3, 8), "left", 8.0, (90, 80)),
    sprite("red", "circle", (0, 6), "still", 0.0, (30, 30)),
)


def answers(family, scene=SHOWN, tries=400):
    rng = random.Random(1)
    asked = [ask(scene, rng, family) for _ in range(tries)]
    return {qa.question: qa.answer for qa in asked if qa is not None}


@pytest.mark.parametrize(
    ("family", "question", "answer"),
    [
        ("colour", "What colour is the circle?", "Red."),
        ("colour", "What color is the star?", "Blue."),
        ("shape", "What shape is the blue object?", "Star."),
        ("count", "How many shapes are there?", "Two."),
        ("count", "How many circles are there?", "One."),
        ("exist", "Is there a red circle?", "Yes."),
        ("exist", "Is there a red star?", "No."),
        ("order", "Which shape appears first?", "The red circle."),
        ("order", "Which appears first, the star or the circle?", "The circle."),
        ("when", "When does the star appear?", "At 3 seconds."),
        ("when", "When does the circle disappear?", "At 6 seconds."),
        ("when", "When is the circle visible?", "From 0 to 5 seconds."),
        ("direction", "Which way does the star move?", "Left."),
        ("direction", "Where does the circle go?", "It does not move."),
        ("yesno", "Is the circle moving?", "No."),
        ("yesno", "Does the circle appear before the star?", "Yes."),
        ("absent", "What colour is the square?", "There is no square."),
        (
            "caption",
            "What happens in the video?",
            "A red circle stays still. At 3 seconds a blue star appears and moves left.",
        ),
    ],
)
def test_answers_are_true(family, question, answer):
    assert answers(family, tries=3000)[question] == answer


def test_questions_that_a_scene_does_not_settle_are_not_asked():
    twins = scene_of(sprite("red"), sprite("blue", at=(20, 20)))
    assert ask(twins, random.Random(0), "colour") is None
    assert ask(twins, random.Random(0), "order") is None
    assert ask(twins, random.Random(0), "digit") is None
    assert ask(replace(twins, digit=7), random.Random(0), "digit").answer == "7."


def test_image_captions_list_what_is_there():
    still = scene_of(sprite(span_s=(0, 1)), seconds=0)
    assert caption(still) == "A red circle."
    assert caption(scene_of(seconds=0)) == "Nothing but a plain background."


def test_both_spellings_and_yes_and_no_occur_equally():
    rng = random.Random(3)
    scenes = [sample_scene(rng, CLEAN) for _ in range(400)]
    exist = Counter(ask(scene, rng, "exist").answer for scene in scenes)
    assert 0.4 < exist["Yes."] / exist.total() < 0.6
    colour = [qa.question for scene in scenes if (qa := ask(scene, rng, "colour"))]
    british = sum("colour" in question for question in colour)
    assert 0.4 < british / len(colour) < 0.6


def test_ask_many_gives_different_questions():
    qas = ask_many(SHOWN, random.Random(0), dict.fromkeys(FAMILIES, 1.0), 8)
    assert len({qa.question for qa in qas}) == 8
