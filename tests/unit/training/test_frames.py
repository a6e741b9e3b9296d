"""Decoded frames between epochs."""

from dataclasses import replace

import numpy as np
import pytest

from vl3 import video
from vl3.messages.media import find_media
from vl3.training.frames import FrameCache
from vl3.weights.load import load


@pytest.fixture(scope="module")
def settings():
    return load().processor.settings


CLIPS = ("circle_then_star.mp4", "square_leaves.mp4", "three_shapes.mp4")


def medium(path):
    return find_media([{"role": "user", "content": [{"type": "video", "video": str(path)}]}])[0]


def grid_of(item, settings):
    from vl3.vision import fit_grid

    size = item.measure(settings)
    return fit_grid([(size.frames, size.height_px, size.width_px)], [2], 200, min_tokens=4)[0]


def test_the_second_reading_decodes_nothing_and_is_the_same(tmp_path, settings, monkeypatch):
    item = medium("assets/clips/" + CLIPS[0])
    grid = grid_of(item, settings)
    cache = FrameCache(tmp_path, 10**9)
    first = cache.read(item, settings, grid)
    monkeypatch.setattr(video, "read", None)
    second = cache.read(item, settings, grid)
    assert np.array_equal(first.frames_TYX3, second.frames_TYX3)
    assert first.times_s == second.times_s


def test_another_range_is_another_entry(tmp_path, settings):
    item = medium("assets/clips/" + CLIPS[0])
    grid = grid_of(item, settings)
    cache = FrameCache(tmp_path, 10**9)
    cache.read(item, settings, grid)
    cache.read(item, replace(settings, max_frames=2), replace(grid, frames=2))
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_the_folder_stays_within_its_bound(tmp_path, settings, monkeypatch):
    monkeypatch.setattr("vl3.training.frames.TRIM_EVERY", 1)
    cache = FrameCache(tmp_path, 1)
    for name in CLIPS:
        item = medium("assets/clips/" + name)
        cache.read(item, settings, grid_of(item, settings))
    assert len(CLIPS) == 3
    assert not list(tmp_path.glob("*.npz"))
