"""Scores on fresh scenes."""

import pytest
import torch

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.score import (
    CLIPS,
    blinded,
    draw,
    overlap,
    replies,
    same_events,
    score,
    table,
    within_a_second,
)


@pytest.fixture(scope="module")
def nano():
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()
    return model, VL3Processor.from_pretrained(NANO)


def test_score_asks_each_family_that_often_and_blind_clips_are_black(nano):
    drawn = draw(CLIPS, ("colour", "order", "box"), 5, seed=0)
    families = [qa.family for _, qas in drawn for qa in qas]
    assert {name: families.count(name) for name in families} == {"colour": 5, "order": 5, "box": 5}
    assert set(score(*nano, drawn)) == {"colour", "order", "box", "box, mean IoU"}
    assert blinded(drawn[0][0]).frames_TYX3.max() == 0
    assert drawn[0][0].frames_TYX3.max() > 0


def test_decoded_replies_agree_with_the_exact_score(nano):
    """Two paths to one number: forced answers behind a shared prefix, free decoding of a prompt."""
    drawn = draw(CLIPS, ("exist", "relation"), 16, seed=3)
    asked = [(clip, qa) for clip, qas in drawn for qa in qas]
    exact = score(*nano, drawn)
    said = list(zip(replies(*nano, asked), asked, strict=True))
    for family in ("exist", "relation"):
        right = [reply == qa.answer for reply, (_, qa) in said if qa.family == family]
        assert sum(right) / len(right) == exact[family]
    assert 0 < exact["relation"] < 1


@pytest.mark.parametrize(
    ("measure", "reply", "truth", "value"),
    [
        (overlap, "[[0,0,100,100]]", "[[0,0,100,100]]", 1.0),
        (overlap, "[[0,0,100,100]]", "[[50,0,150,100]]", 1 / 3),
        (overlap, "[[0,0,100,100]]", "[[100,0,200,100]]", 0.0),
        (overlap, "Red.", "[[100,0,200,100]]", 0.0),
        (within_a_second, "From 1 to 5 seconds.", "From 0 to 6 seconds.", 1.0),
        (within_a_second, "From 1 to 5 seconds.", "From 1 to 7 seconds.", 0.0),
        (within_a_second, "At 1 second.", "At 2 seconds.", 1.0),
        (within_a_second, "It stays until the end.", "At 2 seconds.", 0.0),
        (within_a_second, "At 2 seconds.", "From 2 to 3 seconds.", 0.0),
        (same_events, "A red star moves up.", "At 2 seconds a red star appears and moves up.", 1.0),
        (same_events, "A red star moves up.", "A red star stays still.", 0.0),
        (same_events, "A red star and a blue cross.", "A blue cross and a red star.", 1.0),
        (same_events, "A red star and a blue cross.", "A red cross and a blue star.", 0.0),
    ],
)
def test_measures_of_nearly_right_answers(measure, reply, truth, value):
    assert measure(reply, truth) == pytest.approx(value)


def test_the_table_has_a_row_a_family_and_blanks_where_nothing_was_asked():
    results = {"clips": {"when": 0.5, "colour": 1.0, "when, within 1 s": 0.75}, "images": {}}
    assert table(results).splitlines()[2:] == [
        "| colour | 100.0 |  |",
        "| when | 50.0 |  |",
        "| when, within 1 s | 75.0 |  |",
    ]
