"""Decoded frames between epochs."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

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


def test_every_term_of_a_key_is_another_entry(tmp_path, settings):
    """What is read back is what decoding gives, one thing different at a time."""
    first = medium("assets/clips/" + CLIPS[0])
    grid = grid_of(first, settings)
    finer = replace(grid, rows=grid.rows + 2)
    frame = replace(grid, frames=1)
    as_picture = replace(first, kind="image", options={})
    noise = np.random.default_rng(0).integers(0, 255, (2, 64, 96, 3), dtype=np.uint8)
    for name, pixels in zip(("a.bmp", "b.bmp"), noise):
        Image.fromarray(pixels).save(tmp_path / name)
    pictures = [replace(as_picture, source=str(tmp_path / name)) for name in ("a.bmp", "b.bmp")]
    read = [
        (first, settings, grid),
        (first, settings, finer),
        (first, replace(settings, max_frames=3), grid),
        (first, replace(settings, fps=0.5), grid),
        (replace(first, options={"start": 1.0}), settings, grid),
        *((picture, settings, frame) for picture in pictures),
    ]
    cache = FrameCache(tmp_path / "frames", 10**9)
    for item, chosen, size in read * 2:
        found, right = cache.read(item, chosen, size), item.read(chosen, size, None)
        assert np.array_equal(found.frames_TYX3, right.frames_TYX3)
        assert (found.times_s, found.source) == (right.times_s, right.source)
    assert len(list((tmp_path / "frames").iterdir())) == len(read)
    alike = replace(pictures[0], kind="video")
    assert cache._key(alike, settings, frame) != cache._key(pictures[0], settings, frame)


def test_the_longest_unused_frames_go_first(tmp_path, settings, monkeypatch):
    monkeypatch.setattr("vl3.training.frames.TRIM_EVERY", 1)
    items = [medium("assets/clips/" + name) for name in CLIPS]
    grids = [grid_of(item, settings) for item in items]
    cache, files = FrameCache(tmp_path, 10**9), []
    for item, grid in zip(items[:2], grids):
        cache.read(item, settings, grid)
        files.append(max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns))
        os.utime(files[-1], (len(files), len(files)))
    cache.read(items[0], settings, grids[0])  # used just now
    cache.limit_bytes = sum(file.stat().st_size for file in files) + 1000
    cache.read(items[2], settings, grids[2])
    assert [file.exists() for file in files] == [True, False]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_stays_within_its_bound(tmp_path, settings, monkeypatch):
    monkeypatch.setattr("vl3.training.frames.TRIM_EVERY", 1)
    cache = FrameCache(tmp_path, 1)
    for name in CLIPS:
        item = medium("assets/clips/" + name)
        cache.read(item, settings, grid_of(item, settings))
    assert not list(tmp_path.glob("*.npz"))
