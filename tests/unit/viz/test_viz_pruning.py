"""The data of the pruning view decides as the pruner does; what is painted lies where it should."""

import base64
import io
from itertools import pairwise

import clips
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vl3 import video
from vl3.messages.media import resize_clip
from vl3.ops import LEVELS_PER_UNIT, change
from vl3.pipeline import to_patches
from vl3.values import Clip, Grid, Keep
from vl3.vision import prune
from vl3.viz import pictures, pruning

MODES = ("official", "rlt", "last_kept")


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def decided(data: dict, mode: str, threshold: float, min_tokens: int, keep: str) -> np.ndarray:
    """The mask by the data alone, told once more and slowly: bool [T, M]."""
    T, M = data["frames"], data["tokens"]
    if T == 1:
        return np.ones((T, M), bool)
    step = {name: unpacked(text, "<f4").reshape(T, M) for name, text in data["steps"].items()}
    low, middle, high = unpacked(data["pairs"], np.uint8).reshape(-1, 3).T.astype(np.float64)
    sums = low + 256 * middle + 65536 * high
    pairs = (sums * data["unit"] / data["values"]).astype(np.float32).reshape(-1, M)
    order = list(range(T)) if keep == "earlier" else list(reversed(range(T)))
    kept = np.ones((T, M), bool)
    for token in range(M):
        reference = order[0]
        for before, frame in pairwise(order):
            low, high = sorted((reference, frame))
            if mode == "last_kept":
                value = pairs[high * (high - 1) // 2 + low, token]
            else:
                value = step[mode][max(before, frame), token]
            kept[frame, token] = value > np.float32(threshold)
            if kept[frame, token]:
                reference = frame
    kept[kept.sum(axis=1) < min_tokens, :min_tokens] = True
    return kept


def noisy_clip(seed: int, grid: Grid, patch: int = 3) -> Clip:
    """A still clip with noise that grows from token to token, and some frames equal."""
    rng = np.random.default_rng(seed)
    size = (grid.rows * patch, grid.cols * patch, 3)
    still = rng.integers(0, 256, size)
    strength = np.linspace(0, rng.integers(1, 60), size[1])[None, :, None]
    frames = [still]
    for _ in range(grid.frames - 1):
        moved = frames[-1] + rng.normal(0, 1, size) * strength
        frames.append(frames[-1] if rng.random() < 0.3 else moved)
    pixels = np.stack(frames).clip(0, 255).astype(np.uint8)
    return Clip(
        frames_TYX3=pixels,
        times_s=None if grid.frames == 1 else tuple(range(grid.frames)),
        source="noise",
    )


grids = st.builds(
    lambda frames, rows, cols, merge: Grid(
        frames=frames, rows=rows * merge, cols=cols * merge, merge=merge
    ),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 2),
)


def alone(keep: Keep, number: int) -> Keep:
    """The part of one clip of a prompt."""
    start = sum(grid.num_tokens for grid in keep.grids[:number])
    part = slice(start, start + keep.grids[number].num_tokens)
    return Keep(
        keep_M=keep.keep_M[part],
        change_M=keep.change_M[part],
        placeholder_M=keep.placeholder_M[part],
        grids=(keep.grids[number],),
        mode=keep.mode,
        threshold=keep.threshold,
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shapes=st.lists(grids, min_size=1, max_size=3),
    mode=st.sampled_from(MODES),
    threshold=st.one_of(st.floats(0, 100), st.sampled_from([0.01, 0.1, 1.0])),
    min_tokens=st.integers(0, 3),
    side=st.sampled_from(["earlier", "later"]),
)
def test_data_pictures_and_files_agree_with_the_pruner(
    seed, shapes, mode, threshold, min_tokens, side
):
    made = [noisy_clip(seed + number, grid) for number, grid in enumerate(shapes)]
    rule = {"mode": mode, "threshold": threshold, "min_tokens": min_tokens, "keep": side}
    keep = prune(to_patches(made, shapes), **rule)
    for number, (clip, grid) in enumerate(zip(made, shapes)):
        own = alone(keep, number)
        data = pruning.data(clip, grid, rule)
        mask = decided(data, **rule)
        assert mask.ravel().tolist() == own.keep_M.tolist()
        assert mask.sum(axis=1).tolist() == keep.kept_per_frame[number]
        archive = np.load(io.BytesIO(pictures.mask_npz(grid, own, clip.times_s)))
        assert archive["keep"].ravel().tolist() == own.keep_M.tolist()
        assert archive["keep"].shape == (grid.frames, grid.token_rows, grid.token_cols)
        white = Clip(
            frames_TYX3=np.full_like(clip.frames_TYX3, 255), times_s=clip.times_s, source=""
        )
        film = pictures.film(white, grid, own)
        size = 3 * grid.merge
        middles = film[:, size // 2 :: size, size // 2 :: size].min(axis=-1)
        lit = middles.reshape(grid.frames, -1) == 255
        shown = own.keep_M.numpy() & ~own.placeholder_M.numpy()
        hatched_or_framed = ~lit.ravel() | own.placeholder_M.numpy()
        assert lit.ravel()[shown].all()
        assert hatched_or_framed[~shown].all()


def test_a_sum_of_differences_becomes_the_pruners_number_in_one_rounding():
    """What views/pruning_rule.js computes, for every sum that a token can have."""
    for values in (3 * 14 * 14, 4 * 3 * 14 * 14):
        sums = torch.arange(255 * values + 1, dtype=torch.int32)
        official = (sums.float() * (255 / LEVELS_PER_UNIT) / values).numpy()
        in_browser = (sums.numpy() * (255 / LEVELS_PER_UNIT) / values).astype(np.float32)
        assert np.array_equal(official, in_browser)


def test_pairs_are_the_changes_of_the_pruner():
    cells = torch.randint(0, 256, (7, 5, 48), dtype=torch.uint8)
    sums = pruning.differences(cells)
    for late in range(7):
        for early in range(late):
            expected = change(cells[early], cells[late], 12, "last_kept")
            found = sums[late * (late - 1) // 2 + early] * 2.0 / 48
            assert np.array_equal(expected.numpy(), found.astype(np.float32))
    with pytest.raises(ValueError, match="uint8"):
        pruning.differences(cells.float())


def test_a_clip_of_many_frames_comes_without_pairs(monkeypatch):
    monkeypatch.setattr(pruning, "MOST_PAIRS", 10)
    grid = Grid(frames=5, rows=2, cols=2, merge=2)
    assert pruning.data(noisy_clip(1, grid), grid, None)["pairs"] is not None
    grid = Grid(frames=6, rows=2, cols=2, merge=2)
    assert pruning.data(noisy_clip(1, grid), grid, None)["pairs"] is None


def red_clip(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Three grey frames; in the second the box x0, y0, x1, y1 is red."""
    frames = np.full((3, height, width, 3), 128, np.uint8)
    x0, y0, x1, y1 = box
    frames[1, y0:y1, x0:x1] = (230, 20, 20)
    return frames


@pytest.mark.parametrize("turn", [None, 0, 90, 180, 270])
@pytest.mark.parametrize(
    ("size", "rows", "cols"),
    [((252, 448), 9, 16), ((448, 252), 16, 9), ((135, 251), 5, 9), ((97, 61), 4, 2)],
    ids=["landscape", "portrait", "odd", "odd portrait"],
)
def test_a_red_patch_lights_exactly_its_box(tmp_path, size, rows, cols, turn):
    height, width = size
    row, col = rows - 2, 1
    grid = Grid(frames=3, rows=2 * rows, cols=2 * cols, merge=2)
    token = row * cols + col
    share = pruning.token_boxes(grid, (28 * rows, 28 * cols))[token]
    # A quarter inside the box, so that resizing and chroma do not reach over its edge.
    inset_x, inset_y = (share[2] - share[0]) / 4, (share[3] - share[1]) / 4
    inside = (share[0] + inset_x, share[1] + inset_y, share[2] - inset_x, share[3] - inset_y)
    box = tuple(round(edge * side) for edge, side in zip(inside, (width, height) * 2))
    frames = red_clip(height, width, box)
    if turn is None:
        clip = resize_clip(
            Clip(frames_TYX3=frames, times_s=(0, 1, 2), source=""), (28 * rows, 28 * cols)
        )
    else:
        if height % 2 or width % 2:
            frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        path = clips.write_clip(
            tmp_path / "red.mp4",
            fps=1,
            pictures=list(frames),
            clockwise_deg=turn,
            codec_options=clips.LOSSLESS,
        )
        clip = video.read(path, fps=1, size=(28 * rows, 28 * cols))
    keep = prune(to_patches([clip], [grid]), threshold=2.0, min_tokens=0)
    lit = keep.keep_M.view(3, -1)
    assert lit[1].nonzero().flatten().tolist() == [token]
    film = pictures.film(clip, grid, keep)
    x0, y0, x1, y1 = np.round(np.array(share) * ([28 * cols, 28 * rows] * 2)).astype(int)
    assert np.array_equal(film[1, y0:y1, x0:x1], clip.frames_TYX3[1, y0:y1, x0:x1])
    outside = np.ones(film.shape[1:3], bool)
    outside[y0:y1, x0:x1] = False
    assert film[1][outside].max() < 115  # 128 dimmed, hatch lines among it
    assert (x1 - x0, y1 - y0) == (28, 28)


def test_dimmed_to_28_percent_and_hatched():
    white = np.full((56, 56, 3), 200, np.uint8)
    keep = np.array([[True, False], [False, False]])
    placeholder = np.array([[False, False], [True, False]])
    painted = pictures.overlay(white, keep | placeholder, placeholder)
    assert np.array_equal(painted[:28, :28], white[:28, :28])
    assert set(painted[:28, 28:, 0].ravel()) == {56, 116}  # 0.28 * 200, and hatch lines
    assert (painted[:28, 28:, 0] == 116).mean() == pytest.approx(1 / 7, abs=0.02)
    assert tuple(painted[28, 0]) == pictures.FRAME
    assert np.array_equal(painted[32:52, 4:24], white[32:52, 4:24])


def test_png_and_gif_come_back():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures.png(picture)))), picture)
    film = np.zeros((3, 20, 30, 3), np.uint8)
    film[1], film[2] = 100, 200
    shown = Image.open(io.BytesIO(pictures.gif(film, (0.0, 0.5, 2.0))))
    durations, greys = [], []
    for index in range(shown.n_frames):
        shown.seek(index)
        durations.append(shown.info["duration"])
        greys.append(shown.convert("RGB").getpixel((3, 3))[0])
    assert durations == [500, 1500, 1500]
    assert greys == [0, 100, 200]
    assert Image.open(io.BytesIO(pictures.gif(film[:1], None))).n_frames == 1


def test_the_sheet_holds_every_frame_where_the_data_says():
    grid = Grid(frames=7, rows=2, cols=4, merge=2)
    frames = np.zeros((7, 28, 56, 3), np.uint8)
    frames[:] = (np.arange(7) * 36)[:, None, None, None]
    clip = Clip(frames_TYX3=frames, times_s=tuple(range(7)), source="")
    sheet = pruning.data(clip, grid, None)["sheet"]
    image = Image.open(io.BytesIO(base64.b64decode(sheet["url"].split(",")[1])))
    for index in range(7):
        left = index % sheet["columns"] * sheet["pitch"][0]
        top = index // sheet["columns"] * sheet["pitch"][1]
        shown = np.asarray(image)[top : top + sheet["height"], left : left + sheet["width"]]
        assert shown.shape == (28, 56, 3)
        assert abs(shown.astype(int) - 36 * index).max() <= 2
