"""Compare: what differs between two answers, and what each of them was made of."""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.pipeline import to_patches
from vl3.values import Clip, Grid, Ledger, Reply
from vl3.vision.prune import keep_all, prune
from vl3.viz import compare
from vl3.viz.compare import Side, differences

WORDS = st.lists(st.sampled_from(["a", "red", "circle", "圆", "moves\n", "  ", "it's", "0:12"]))
GRID = Grid(frames=4, rows=4, cols=6, merge=2)


def clip(grid: Grid = GRID, seed: int = 0) -> Clip:
    frames = np.full((grid.frames, grid.rows * 14, grid.cols * 14, 3), 90 + seed, np.uint8)
    frames[2:, :28, :28] = 200  # one patch changes once
    return Clip(frames_TYX3=frames, times_s=tuple(range(grid.frames)), source="a clip")


def reply(text: str = "Red.", **ledger) -> Reply:
    return Reply(text=text, token_ids=(1,), prompt="", settings={}, ledger=Ledger(**ledger))


def side(name: str, threshold: float | None, text: str = "Red.", shown: Clip | None = None) -> Side:
    shown = shown or clip()
    patches = to_patches([shown], [GRID])
    keep = keep_all([GRID]) if threshold is None else prune(patches, threshold=threshold)
    kept = int(keep.keep_M.sum())
    ledger = {"visual_tokens": GRID.num_tokens, "kept_tokens": kept, "total_s": 1.0}
    return Side(name=name, reply=reply(text, **ledger), clips=(shown,), keeps=(keep,))


def told(stretches: list) -> str:
    return "".join(text for _, text in stretches)


@given(first=WORDS, second=WORDS)
def test_the_stretches_are_the_texts_and_what_is_common_is_common(first, second):
    first, second = " ".join(first), " ".join(second)
    one, other = differences(first, second)
    assert told(one) == first.rstrip()
    assert told(other) == second.rstrip()
    common = ["".join(text for is_only, text in side if not is_only) for side in (one, other)]
    assert common[0].split() == common[1].split()
    assert (first.split() == second.split()) == (not any(only for only, _ in one + other))


def test_differences_are_whole_words_and_characters_where_there_are_no_spaces():
    one, other = differences("A red circle moves right.", "A blue  circle moves left.")
    assert one == [[False, "A"], [True, " red"], [False, " circle moves"], [True, " right."]]
    assert other == [[False, "A"], [True, " blue"], [False, "  circle moves"], [True, " left."]]
    assert differences("红色的圆", "蓝色的圆")[0] == [[True, "红"], [False, "色的圆"]]
    assert differences("", "") == ([], [])


def test_long_answers_that_go_round_in_circles_are_compared_at_once():
    long, other = "the cat " * 4000, "the cat " * 3000 + "sat. " + "the dog " * 3000
    one, two = differences(long, other)  # hours where every word is weighed with every other
    assert one[0][0] is False
    assert one[0][1].count("cat") == 3000
    assert told(two) == other.rstrip()


def test_the_masks_are_the_pruners_and_equal_frames_travel_once():
    first, second = side("off", None), side("on", 2.0)
    data = compare.data(first, second, "What?", frame=1)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert len(data["sheets"]) == 1
    states = [
        np.frombuffer(base64.b64decode(one["media"][0]["state"]), np.uint8).tolist()
        for one in data["sides"]
    ]
    assert states[0] == [1] * GRID.num_tokens
    # whole first frame; a placeholder; the changed patch; a placeholder
    assert states[1] == [1] * 6 + [2] + [0] * 5 + [1] + [0] * 5 + [2] + [0] * 5
    assert data["sides"][1]["media"][0]["kept"] == [6, 1, 1, 1]
    rows = {row["name"]: row["values"] for row in data["rows"]}
    assert rows["Visual tokens kept"] == [24, 9] == [sum(bool(s) for s in one) for one in states]
    assert rows["Total"] == [1.0, 1.0]
    other = compare.data(first, side("other", None, shown=clip(seed=5)))
    assert len(other["sheets"]) == 2


def test_runs_that_saw_different_numbers_of_clips_are_refused():
    first = side("a", None)
    with pytest.raises(ValueError, match="saw 1 clips and images, the second 0"):
        compare.data(first, replace(first, clips=(), keeps=()))
