"""Several models in memory: each loaded once, and gone where another needs its room."""

import gc
import weakref

import pytest

import vl3
import vl3.bundled
from vl3.inference.registry import Registry


class Weights:
    """What a studio and its sessions hold together."""


class Named:
    def __init__(self, name: str, weights: Weights | None = None) -> None:
        self.name, self.weights = name, weights or Weights()

    def new_session(self) -> "Named":
        return Named(self.name, self.weights)


class Loader:
    """Loads by name, with room for so many."""

    def __init__(self, room: int) -> None:
        self.room, self.loaded, self.there = room, [], []

    def load(self, model: str) -> Named:
        if model == "broken":
            raise OSError("No such folder.")
        studio = Named(model)
        self.loaded.append(model)
        self.there.append(weakref.ref(studio.weights))
        return studio

    def fits(self, model: str) -> bool:
        return sum(each() is not None for each in self.there) < self.room


def test_a_model_is_loaded_once_and_every_session_is_another_one():
    loader = Loader(room=2)
    models = Registry(loader.load, loader.fits, gc.collect)
    one, again = models.session(model="a"), models.session(model="a")
    assert one is not again
    assert one.weights is again.weights
    models.session(model="b")
    assert loader.loaded == ["a", "b"]
    assert models.has_room(model="a")
    assert not models.has_room(model="c")


def test_the_one_used_longest_ago_goes_first_and_no_more_than_must():
    loader = Loader(room=2)
    models = Registry(loader.load, loader.fits, gc.collect)
    for name in ("a", "b", "a", "c"):
        models.session(model=name)
    assert [each() is not None for each in loader.there] == [True, False, True]
    models.session(model="a")
    models.session(model="b")
    assert loader.loaded == ["a", "b", "c", "b"]
    assert len(models) == 2


def test_what_cannot_be_loaded_is_said_and_not_held():
    loader = Loader(room=1)
    models = Registry(loader.load, loader.fits, gc.collect)
    models.session(model="a")
    with pytest.raises(OSError, match="No such folder"):
        models.session(model="broken")
    assert len(models) == 0
    assert models.session(model="a").name == "a"
    assert loader.loaded == ["a", "a"]


def test_sessions_of_one_model_share_its_weights_and_forget_apart():
    models = Registry(lambda model: vl3.load(model), lambda model: True, gc.collect)
    one, other = models.session(model=None), models.session(model=None)
    assert one.engine is other.engine
    one.open(vl3.bundled.CLIPS / "circle_then_star.mp4")
    assert one.cached_bytes > 0
    assert other.cached_bytes == 0
