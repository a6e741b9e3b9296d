"""Steps of parts: so many samples of each, all of the first in an epoch, none again before all."""

from collections import Counter
from dataclasses import replace

import pytest
from unit.training.test_trainer import WORLDS, recipe

from vl3.config import nano
from vl3.training.order import DataOrder, Part, PartedOrder, order_of
from vl3.training.plan import Looked, machine_for, make_plan, taken
from vl3.training.recipe import Batch, Source

SHARES = {"av": 2, "video": 1, "audio": 1}
# Two data sets with sound and picture, one of videos and one of texts beside them, one of sounds.
PARTS = [Part(20, 20), Part(9, 9), Part(12, 12), Part(28, 28), Part(7, 7)]
NAMES = ["av", "audio", "video", "av", "video"]


def order(seed=3, parts=PARTS):
    return PartedOrder(parts, NAMES, SHARES, 8, seed)


def kinds(step):
    return Counter(NAMES[data] for data, _ in step)


def test_every_step_has_the_mix():
    drawn = order()
    assert all(
        kinds(drawn.step(number)) == {"av": 4, "video": 2, "audio": 2} for number in range(40)
    )


def test_an_epoch_is_every_row_with_both_once():
    drawn = order()
    assert drawn.steps(1) == 12  # 48 rows by 4
    assert drawn.steps(2, least=30) == 30
    for epoch in range(3):
        rows = Counter(
            place
            for number in range(12 * epoch, 12 * (epoch + 1))
            for place in drawn.step(number)
            if NAMES[place[0]] == "av"
        )
        assert rows == {(data, i): 1 for data, count in ((0, 20), (3, 28)) for i in range(count)}


@pytest.mark.parametrize(("name", "members"), [("video", {2: 12, 4: 7}), ("audio", {1: 9})])
def test_the_others_are_all_taken_before_any_comes_again(name, members):
    """Over the ends of epochs, whatever their number is: half of them is never left out."""
    drawn, count = order(), sum(members.values())
    rows = [
        place
        for number in range(4 * count)
        for place in drawn.step(number)
        if NAMES[place[0]] == name
    ]
    every = {(data, index) for data, length in members.items() for index in range(length)}
    rounds = [rows[first : first + count] for first in range(0, len(rows), count)]
    assert len(rounds) == 8
    assert all(set(one) == every for one in rounds)
    assert rounds[0] != rounds[1]  # in another order each time


def test_the_same_steps_come_again_and_from_any_step_on():
    first, again, other = order(), order(), order(seed=4)
    assert [first.step(n) for n in range(9)] == [again.step(n) for n in range(9)]
    assert again.step(5) == order().step(5)
    assert first.step(0) != other.step(0)


def test_how_many_of_a_data_set_were_seen():
    drawn = order()
    for data in range(5):
        counted = sum(place[0] == data for number in range(24) for place in drawn.step(number))
        assert abs(drawn.seen(data, 24) - counted) <= 6


def asked(tmp_path, **batch):
    data = [
        Source(name="films", part="av", world=WORLDS["clips"], samples=40),
        Source(name="sounds", part="audio", world=WORLDS["images"], samples=400),
    ]
    parts = {"parts": {"av": 3, "audio": 1}, "samples": 8}
    return recipe(tmp_path, data=data, batch=Batch(**parts | batch))


def test_a_recipe_names_its_parts(tmp_path):
    assert isinstance(order_of(asked(tmp_path), PARTS[:2]), PartedOrder)
    assert isinstance(order_of(recipe(tmp_path), PARTS[:2]), DataOrder)
    for batch, words in (
        ({"samples": 6}, "batch.samples is a multiple of 4"),
        ({"parts": {}}, r"data.films.part is one of batch.parts .none."),
        ({"parts": {"av": 1}}, "data.sounds.part is one of batch.parts .av."),
        ({"parts": {"av": 1, "audio": 1, "text": 2}}, "batch.parts.text has no data set"),
        ({"parts": {"av": 0, "audio": 1}}, "batch.parts.av is a whole number, 1 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            asked(tmp_path, **batch)
    plain = recipe(tmp_path).data[0]
    with pytest.raises(ValueError, match=r"data.images.part is one of batch.parts .none."):
        recipe(tmp_path, data=[replace(plain, part="av")])


def test_a_plan_counts_epochs_of_the_first_part(tmp_path):
    chosen, config = asked(tmp_path), nano(vocab_size=300, image_token_id=0)
    looked = [Looked(name=one.name, samples=one.samples) for one in chosen.data]
    assert [one.samples for one in taken(chosen, looked)] == [40, 13]
    plan = make_plan(chosen, config, machine_for(chosen, config, "cpu", False), looked)
    assert plan.steps == 7  # 40 films by 6
    assert plan.steps == order_of(chosen, [Part(None, 40), Part(None, 400)]).steps(1)
    unknown = [Looked(name="films", samples=40), Looked(name="sounds", samples=None)]
    assert [one.samples for one in taken(chosen, unknown)] == [None, None]
