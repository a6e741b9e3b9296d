import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from vl3.toyworld.draw import coverage, film, render, shake
from vl3.toyworld.events import caption
from vl3.toyworld.questions import FAMILIES, ask, ask_many, box_text
from vl3.toyworld.score import overlap
from vl3.toyworld.world import COLOURS, HELD_OUT, Digit, Level, Scene, Sprite, sample_scene
from vl3.training.nano.spatial_loss import clip_grid
from vl3.values import Patches
from vl3.vision import patchify, prune

CLEAN = Level(seconds=(6, 10), sprites=(1, 3))
EVENLY = dict.fromkeys(FAMILIES, 1.0)


def sprite(colour="red", shape="circle", span_s=(0, 8), motion="still", speed_px=0.0, at=(56, 56)):
    return Sprite(shape, colour, COLOURS[colour], 30, *span_s, motion, speed_px, *at)


def scene_of(*sprites, seconds=8, grain=0, digit=None):
    return Scene(112, 112, seconds, (60, 62, 64), grain, 1, sprites, digit)


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


def test_the_light_tells_where_in_the_frame_a_patch_lies():
    frame_YX3 = render(scene_of(grain=10))[0].astype(int)
    red_YX, blue_YX = (frame_YX3[:, :, i] - frame_YX3[:, :, 1] for i in (0, 2))
    assert (np.diff(red_YX, axis=1) >= 0).all()
    assert (red_YX == red_YX[0]).all()
    assert (blue_YX - red_YX.T == 4).all()  # the background is (60, 62, 64)
    assert red_YX.max() - red_YX.min() > 20


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
    empty_YX3 = render(replace(scene, sprites=()))[0]
    assert (frame_YX3 == empty_YX3)[sprite_YX == -1].all(axis=-1).mean() > 0.97


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


CHANGING = Digit(7, 3, 6, 40, 6, (255, 255, 255), 84.0, 26.0)
SHOWN = scene_of(
    sprite("blue", "star", (3, 8), "left", 8.0, (90, 80)),
    sprite("red", "circle", (0, 6), "still", 0.0, (30, 30)),
    digit=CHANGING,
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
        ("relation", "Is the star right of the circle?", "Yes."),
        ("relation", "Is the circle below the star?", "No."),
        ("relation", "Is the circle left or right of the star?", "Left."),
        ("position", "Where is the circle at 2 seconds?", "At the top left."),
        ("position", "Where is the star at 7 seconds?", "At the bottom."),
        ("box", "Locate the circle at 5 seconds.", "[[150,150,400,400]]"),
        ("box", "Locate the star at 4 seconds.", "[[600,600,850,850]]"),
        ("digit_at", "What digit is shown at 5 seconds?", "7."),
        ("digit_at", "What digit is shown at 6 seconds?", "3."),
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
    digit = Digit(7, 3, 4, 40, 6, (255, 255, 255), 84.0, 84.0)
    assert ask(replace(twins, digit=digit), random.Random(0), "digit") is None
    lasting = replace(digit, change_s=None)
    assert ask(replace(twins, digit=lasting), random.Random(0), "digit").answer == "7."


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
    qas = ask_many(SHOWN, random.Random(0), EVENLY, 8)
    assert len({qa.question for qa in qas}) == 8


def test_a_digit_is_drawn_inside_and_changes_when_it_says():
    frames_TYX3 = render(scene_of(digit=CHANGING))
    assert [np.array_equal(frame, frames_TYX3[0]) for frame in frames_TYX3] == [True] * 6 + [
        False
    ] * 2
    inked = np.argwhere((frames_TYX3[0] == 255).all(axis=-1))
    (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 1
    drawn = CHANGING.box(0.0)
    assert (left, top, right, bottom) == pytest.approx(drawn, abs=1)
    rng = random.Random(5)
    level = Level(seconds=(3, 8), sprites=(1, 3), digits=1.0)
    digits = [sample_scene(rng, level).digit for _ in range(300)]
    for digit in digits:
        left, top, right, bottom = digit.box(0.0)
        assert min(left, top) >= 0
        assert max(right, bottom) <= 112
        assert (digit.change_s is None) == (digit.first == digit.then)
    assert 0.4 < np.mean([digit.change_s is not None for digit in digits]) < 0.6
    assert len({digit.first for digit in digits}) == 10


def test_held_out_pairs_are_neither_drawn_nor_spoken_of():
    rng = random.Random(6)
    held_out = {" ".join(pair) for pair in HELD_OUT}
    said = []
    for _ in range(400):
        scene = sample_scene(rng, CLEAN)
        assert held_out.isdisjoint(s.name for s in scene.sprites)
        said += [qa.question + qa.answer for qa in ask_many(scene, rng, EVENLY, 8)]
    assert not [text for text in said if any(name in text for name in held_out)]
    shown = sample_scene(rng, replace(CLEAN, pairs=HELD_OUT))
    assert {s.name for s in shown.sprites} <= held_out


@pytest.mark.parametrize("family", ["choice", "letter"])
def test_options_hold_the_answer_once_in_any_place(family):
    rng = random.Random(8)
    letters, ways = Counter(), Counter()
    for _ in range(600):
        scene = sample_scene(rng, replace(CLEAN, digits=0.5))
        qa = ask(scene, rng, family)
        if qa is None:
            continue
        _, *lines, request = qa.question.rstrip("?.").split("\n")
        options = {line[0]: line[3:].rstrip(".") for line in lines}
        assert list(options) == ["A", "B", "C", "D"]
        assert len(set(options.values())) == 4
        letter = qa.answer[-2]
        alone = "letter" in request.lower()
        assert qa.answer == (f"{letter}." if alone else f"{options[letter]}, so {letter}.")
        letters[letter] += 1
        ways[alone] += 1
    assert set(letters) == {"A", "B", "C", "D"}
    assert max(letters.values()) < 0.32 * letters.total()
    assert min(ways.values()) > 0.4 * ways.total()


@pytest.mark.parametrize(
    ("family", "most"),
    [
        ("direction", 0.3),
        ("position", 0.22),
        ("digit", 0.17),
        ("digit_at", 0.17),
        ("colour", 0.2),
        ("shape", 0.27),
        ("count", 0.5),
        ("relation", 0.32),
        ("exist", 0.55),
    ],
)
def test_no_answer_of_a_family_is_much_more_frequent_than_the_others(family, most):
    rng = random.Random(9)
    level = replace(CLEAN, digits=1.0)
    asked = [ask(sample_scene(rng, level), rng, family) for _ in range(1200)]
    found = Counter(qa.answer for qa in asked if qa is not None)
    assert max(found.values()) < most * found.total(), found


def test_boxes_overlap_their_sprite():
    """What rounding to multiples of 50 costs: IoU of the written box with the true one."""
    rng = random.Random(10)
    for _ in range(200):
        scene = sample_scene(rng, Level(seconds=(0, 0), sprites=(1, 1)))
        box_px = scene.sprites[0].box(0.0)
        fine = f"[[{','.join(str(round(1000 * value / 112)) for value in box_px)}]]"
        assert overlap(box_text(box_px, 112, 112), fine) > 0.7
