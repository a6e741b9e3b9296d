"""Every setting of a recipe is held against its range, and says in words what it is."""

import math
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest

from train_cli.config import read_recipe
from vl3.training.ranges import RANGES
from vl3.training.recipe import (
    Adapter,
    Evaluate,
    Rates,
    Recipe,
    Source,
    Start,
    World,
    check,
)


def whole_recipe() -> Recipe:
    """A recipe with every part that a recipe may have."""
    world = World(families={"colour": 1})
    return Recipe(
        name="every part",
        start=Start(model="assets/nano"),
        rates=Rates(connector=1e-3, adapter=1e-3),
        adapter=Adapter(),
        data=[Source(name="own", world=world, samples=4)],
        evaluate=Evaluate(sources=[Source(name="held", path="x.jsonl")]),
    )


def settings(part, prefix=""):
    """(object, field, dotted name, type hint) of all settings, those of data sets among them."""
    for name, hint in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if is_dataclass(value):
            yield from settings(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            yield from settings(value[0], f"{prefix}{name}.{value[0].name}.")
        else:
            yield part, name, prefix + name, hint


def kinds(hint):
    """The plain types inside a hint."""
    inner = [one for arg in get_args(hint) for one in kinds(arg)]
    return inner or [hint]


NUMBERS = [
    name
    for _, _, name, hint in settings(whole_recipe())
    if {int, float} & set(kinds(hint)) and get_origin(hint) not in (list, tuple, dict)
]


def test_the_walk_finds_the_numbers():
    some = {"steps", "optim.clip", "data.own.world.digits", "data.own.samples", "adapter.rank"}
    assert some <= set(NUMBERS)
    assert len(NUMBERS) >= 45


@pytest.mark.parametrize("wanted", NUMBERS)
@pytest.mark.parametrize("value", [-5, math.nan, math.inf, "many", True, [3], 1e400])
def test_a_number_outside_its_range_is_one_sentence(wanted, value):
    recipe = whole_recipe()
    (place,) = [(part, field) for part, field, name, _ in settings(recipe) if name == wanted]
    setattr(*place, value)
    with pytest.raises(ValueError, match=r" is a (whole )?number.* - got ") as refused:
        check(recipe)
    assert str(refused.value).startswith(f"{wanted} is a ")
    assert "\n" not in str(refused.value)


def test_every_range_is_of_a_setting():
    classes = {"": Recipe, "data.": Source} | {
        f"{kind.__name__.lower()}.": kind
        for kind in (type(part) for part, *_ in settings(whole_recipe()))
        if kind not in (Recipe, Source)
    }
    known = {prefix + field.name for prefix, kind in classes.items() for field in fields(kind)}
    assert set(RANGES) <= known


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("start.quantize", "nf5", "start.quantize is one of nf4, int8 - got 'nf5'; did you mean"),
        ("dtype", "bfloat15", "did you mean bfloat16?"),
        ("batch.overlong", "cut", "batch.overlong is one of skip, truncate - got 'cut'"),
        ("nano.temporal_loss", "yes", "nano.temporal_loss is true or false - got 'yes'"),
        ("name", "", "name is a text that is not empty - got ''"),
        ("optim.betas", (0.9,), "optim.betas is a list of 2 numbers - got"),
        ("optim.betas", (0.9, 1.5), "optim.betas is a number from 0 to 1 - got 1.5"),
        ("checkpointing", ["vison"], "did you mean vision?"),
        ("checkpointing", "vision", "checkpointing is a list - got 'vision'"),
        ("adapter.on", ["languge"], "did you mean language?"),
        ("data.own.world.sizes_px", [[112]], "sizes_px is a list of 2 numbers"),
        ("data.own.world.sizes_px", [112, 112], "sizes_px is a list of 2 numbers"),
        ("data.own.world.seconds", [9, 3], "got 9 and 3; swap them"),
        ("data.own.world.families", {"color": 1}, "did you mean colour?"),
        ("data.own.world.families", {"colour": 0}, "asks nothing"),
        ("data.own.world.families", {}, "asks nothing"),
        ("out", "runs/{nmae}", "out"),
        ("seed", 2**32, "seed is a whole number from 0"),
    ],
)
def test_what_is_no_number_is_refused_as_well(path, value, words):
    recipe = whole_recipe()
    (place,) = [(part, field) for part, field, name, _ in settings(recipe) if name == path]
    setattr(*place, value)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        check(recipe)
    assert words in str(refused.value)


def test_numbers_of_numpy_are_numbers_and_stay_ones_that_can_be_written():
    recipe = whole_recipe()
    recipe.steps, recipe.max_bad, recipe.optim.betas = np.int64(7), np.float32(0.5), [0.5, 0.75]
    check(recipe)
    assert (type(recipe.steps), type(recipe.max_bad)) == (int, float)
    assert recipe.optim.betas == (0.5, 0.75)
    again = deepcopy(recipe)
    check(again)
    assert again == recipe


@pytest.mark.parametrize(
    "arguments",
    [
        ["--steps", "-5"],
        ["--optim.clip", "nan"],
        ["--data.images.samples", "0"],
        ["--workers=-1"],
        ["--batch.samples", "0"],
        ["--seed", "-1"],
    ],
)
def test_the_command_line_refuses_it_too(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        read_recipe(["--config", "nano_stage1", *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    name = arguments[0].removeprefix("--").partition("=")[0]
    assert line.startswith(f"error: {name} is a ") or line.startswith(f"error: {name}: expected")
