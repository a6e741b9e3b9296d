"""Numbers and names of callers: what is meant is taken, the rest is one sentence."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from vl3.arguments import choice, number, whole


@pytest.mark.parametrize(
    "value", [2, 2.0, np.int64(2), np.float32(2), torch.tensor(2), torch.tensor([2.0]), Fraction(2)]
)
def test_every_kind_of_number_is_a_number(value):
    assert number("fps", value, low=0) == 2.0
    assert type(number("fps", value)) is float
    if not isinstance(value, Fraction):
        assert whole("max_frames", value, low=1, high=4) == 2
        assert type(whole("max_frames", value)) is int


@pytest.mark.parametrize(
    "value",
    [True, "2", None, [2], {}, np.zeros(2), float("nan"), float("inf"), torch.ones(2), 10**400],
)
def test_what_is_no_number_is_one_sentence(value):
    with pytest.raises(ValueError, match=r"^fps is a number of frames a second above 0 - got "):
        number("fps", value, above=0, unit="frames a second")
    if type(value) is not int:
        with pytest.raises(ValueError, match=r"^(n|max_frames) is a whole number"):
            whole("max_frames", value)


def test_ranges_are_told():
    for wrong in (0, -1, 2.5, 9):
        with pytest.raises(ValueError, match=rf"^n is a whole number from 1 to 8 - got {wrong}$"):
            whole("n", wrong, low=1, high=8)
    with pytest.raises(ValueError, match=r"^t is a number, 0 or more - got -1$"):
        number("t", -1, low=0)
    with pytest.raises(ValueError, match=r"^p is a number above 0 and at most 1 - got 2$"):
        number("p", 2, above=0, high=1)


def test_a_slip_of_a_name_is_pointed_out():
    assert choice("mode", "rlt", ("official", "rlt")) == "rlt"
    with pytest.raises(
        ValueError, match=r"one of official, rlt - got 'oficial'; did you mean official"
    ):
        choice("mode", "oficial", ("official", "rlt"))
    with pytest.raises(ValueError, match=r"got a list$"):
        choice("mode", ["rlt"], ("official", "rlt"))
