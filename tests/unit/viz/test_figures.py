"""Charts show the numbers they come with, and those are what the library computes."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from choreographer.browsers.chromium import Chromium

from vl3.interpret import Attention
from vl3.values import Grid, Patches, PromptSegment, TokenGrid
from vl3.vision.patchify import patchify
from vl3.vision.prune import prune
from vl3.vision.resize import fit_grid
from vl3.vision.rope2d import angles, positions
from vl3.vision.token_map import token_layout
from vl3.viz import figures
from vl3.viz.strip import cividis, gridded, heated, strip

GRIDS = (
    Grid(frames=4, rows=4, cols=6, merge=2),
    Grid(frames=3, rows=6, cols=2, merge=2),
    Grid(frames=2, rows=3, cols=5, merge=1),
)


def patches_of(grid: Grid) -> Patches:
    rng = np.random.default_rng(grid.rows)
    noise = rng.normal(0, 4, (grid.frames, grid.rows * 14, grid.cols * 14, 3)).cumsum(axis=0)
    frames = np.clip(128 + noise * np.linspace(0, 1, grid.cols * 14)[:, None], 0, 255)
    return Patches(pixels_NP=patchify(frames.astype(np.uint8), grid), grids=(grid,))


def values(trace) -> np.ndarray:
    return np.asarray(trace.y, float)


def attention() -> Attention:
    grid = Grid(frames=3, rows=2, cols=2, merge=1)
    keep_M = np.array([1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 1], bool)
    places = token_layout([TokenGrid.of_cells(grid)], keep_M, [(0.0, 1.0, 2.0)], [(28, 28)])
    weight = np.random.default_rng(0).dirichlet(np.ones(10), (2, 3, 2)).astype(np.float32)
    return Attention(
        source="language",
        layers=(1, 4),
        heads=(0, 2, 5),
        tokens=(0, 1),
        words=("Red", " red"),
        weight_IHQL=weight,
        share_IHQ=weight[..., 2:9].sum(axis=-1),
        slot_K=np.arange(2, 9),
        sink_K=np.zeros(7, bool),
        cells=places,
    )


def test_budget_is_the_grid_arithmetic():
    figure, table = figures.budget((360, 640), 2000, (1, 8, 64))
    for row in table.itertuples():
        (grid,) = fit_grid([(row.frames, 360, 640)], 2, 2000)
        assert (row.tokens, row.tokens_per_frame) == (grid.num_tokens, grid.tokens_per_frame)
    np.testing.assert_array_equal(values(figure.data[0]), table["tokens"])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_block_order_is_patchifys(grid):
    one = Grid(frames=1, rows=grid.rows, cols=grid.cols, merge=grid.merge)
    _, order = figures.block_order(one)
    raster = np.arange(grid.rows * grid.cols).reshape(grid.rows, grid.cols)
    frame = raster.repeat(14, 0).repeat(14, 1)[None, ..., None].repeat(3, -1)
    in_blocks = patchify(frame, one)[:, 0].numpy()
    np.testing.assert_array_equal(order.ravel()[in_blocks], np.arange(len(in_blocks)))


def test_prompt_lies_end_to_end():
    pieces = [
        PromptSegment(kind="special", text="<s>", tokens=1),
        PromptSegment(kind="text", text="Time 0.0s:\n", tokens=4),
        PromptSegment(kind="slots", text="", tokens=9, clip=0, frame=0, time_s=0.0),
        PromptSegment(kind="text", text="Why?", tokens=2),
    ]
    figure, table = figures.prompt(pieces)
    assert table["first"].tolist() == [0, 1, 5, 14]
    assert {trace.name: tuple(trace.x) for trace in figure.data}["visual tokens"] == (9,)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_kept_per_frame_adds_up(grid):
    keep = prune(patches_of(grid), threshold=3.0)
    figure, table = figures.kept_per_frame(keep)
    assert [table["kept"].tolist()] == keep.kept_per_frame
    assert (table["kept"] + table["removed"] == grid.tokens_per_frame).all()
    stacked = sum(values(trace) for trace in figure.data)
    np.testing.assert_array_equal(stacked, np.full(grid.frames, grid.tokens_per_frame))


def test_kept_by_threshold_is_the_pruners_count():
    patches = patches_of(GRIDS[0])
    _, table = figures.kept_by_threshold(patches, ("rlt", "last_kept"), (0.02, 0.5), used=0.1)
    for row in table.itertuples():
        assert row.kept == prune(patches, row.threshold, row.mode).keep_M.sum()
        assert row.share == row.kept / GRIDS[0].num_tokens


def test_words_on_a_logarithmic_axis_stand_where_they_should():
    figure, _ = figures.kept_by_threshold(patches_of(GRIDS[0]), ("official",), (0.1, 1), used=0.2)
    assert figure.layout.annotations[0].x == pytest.approx(np.log10(figure.layout.shapes[0].x0))
    figure, _ = figures.spectrum(32, 1e4, side=24)
    assert figure.layout.annotations[0].y == pytest.approx(np.log10(24))


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_angle_maps_are_the_encoders_angles(grid):
    place, angle_NR = positions(grid), angles(positions(grid), 24)
    _, angle_2RC = figures.angle_maps(grid, 24, 1e4, 1)
    for part in (0, 1):
        expected = angle_NR[:, part * 6 + 1] % (2 * torch.pi)
        shown = angle_2RC[part][tuple(place.numpy().T)]
        np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_decay_is_the_similarity_along_a_row_and_a_diagonal():
    grid = Grid(frames=1, rows=8, cols=8, merge=2)
    _, alike = figures.similarity(grid, 32, 1e4, 0, 0)
    _, table = figures.decay(32, 1e4, 7)
    np.testing.assert_allclose(table["along_a_side"], alike[0], atol=1e-5)
    np.testing.assert_allclose(table["along_a_side"], alike[:, 0], atol=1e-5)
    np.testing.assert_allclose(table["along_the_diagonal"], alike.diagonal(), atol=1e-5)


def test_a_patch_outside_the_grid_is_refused():
    with pytest.raises(ValueError, match="4 rows and 6 columns"):
        figures.similarity_map(GRIDS[0], 32, 1e4, 4, 0)


def test_language_positions_leave_out_what_was_removed():
    grid = Grid(frames=2, rows=1, cols=3, merge=1)
    keep_M = np.array([1, 1, 1, 0, 1, 0], bool)
    figure, table = figures.language([(5, 3), (10, 1)], keep_M, grid)
    assert table["before"].tolist() == [5, 6, 7, 10, 11, 12]
    assert table["after"].isna().tolist() == [False] * 3 + [True, False, True]
    assert tuple(figure.data[1].y) == (5, 6, 7, 10)


def test_attention_by_word_and_frame_and_by_head():
    look = attention()
    figure, table = figures.words_by_frame(look)
    visual = look.visual_IHQK.mean(axis=(0, 1))
    expected = np.stack([visual[:, look.cells.frame_K == t].sum(axis=1) for t in range(3)], axis=1)
    np.testing.assert_allclose(table, expected, rtol=1e-5)
    assert tuple(figure.data[0].y) == ("0 Red", "1 red")  # a repeated word is two
    _, shares = figures.head_matrix(look, word=1)
    np.testing.assert_array_equal(shares, look.share_IHQ[..., 1])
    assert (shares.index.tolist(), shares.columns.tolist()) == ([1, 4], [0, 2, 5])


def test_tradeoff_has_an_interval_that_holds_the_share():
    rows = [
        ("off", np.nan, 1.0, 20, 20, 9.0),
        ("rlt", 0.1, 0.4, 15, 20, 7.0),
        ("rlt", 1.0, 0.2, 0, 20, 6.0),
    ]
    table = pd.DataFrame(rows, columns=["mode", "threshold", "kept", "right", "asked", "ms"])
    figure, table = figures.tradeoff(table)
    assert (table["low"] <= table["share"] + 1e-9).all()
    assert (table["share"] <= table["high"] + 1e-9).all()
    assert table["low"][1] == pytest.approx(0.531, abs=1e-3)  # published: 15 of 20
    assert table["high"][1] == pytest.approx(0.888, abs=1e-3)
    assert [trace.name for trace in figure.data] == ["off", "off", "rlt", "rlt"]


def test_figures_are_small_and_fetch_nothing(tmp_path):
    figure, _ = figures.kept_per_frame(prune(patches_of(GRIDS[0])))
    assert len(figure.to_json()) < 4000
    file = tmp_path / "figure.html"
    figure.write_html(file, include_plotlyjs=True)
    tags = re.findall(r"<(?:script|link)[^>]*(?:src|href)=[^>]*>", file.read_text("utf-8"))
    assert tags == []


@pytest.mark.slow
def test_figures_are_saved_without_a_screen(tmp_path):
    if not Chromium.find_browser(skip_local=False):
        pytest.skip("no Chrome or Chromium")
    figure, _ = figures.spectrum(32, 1e4, side=8)
    starts = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}
    for kind, start in starts.items():
        figure.write_image(tmp_path / f"figure.{kind}")
        assert (tmp_path / f"figure.{kind}").read_bytes().startswith(start)


def test_a_strip_holds_its_pictures_in_order():
    pictures = [np.full((20, 40, 3), level, np.uint8) for level in (10, 90, 200)]
    sheet = np.asarray(strip(pictures, ["a", "b", "c"], columns=2, width=40))
    assert sheet.shape == (2 * 20 + 20 + 20 + 8, 88, 3)
    assert [sheet[5, 5, 0], sheet[5, 60, 0], sheet[55, 5, 0]] == [10, 90, 200]
    with pytest.raises(ValueError, match="3 pictures but 1 captions"):
        strip(pictures, ["a"])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_one_hot_value_lights_exactly_its_box(grid):
    side = 14 * grid.merge
    frame = np.full((grid.rows * 14, grid.cols * 14, 3), 128, np.uint8)
    for row, col in np.ndindex(grid.token_rows, grid.token_cols):
        value = np.zeros((grid.token_rows, grid.token_cols), np.float32)
        value[row, col] = 0.5
        dark = heated(frame, np.zeros_like(value), 0.5)
        lit = (heated(frame, value, 0.5) != dark).all(axis=2)
        expected = np.zeros(lit.shape, bool)
        expected[row * side : (row + 1) * side, col * side : (col + 1) * side] = True
        np.testing.assert_array_equal(lit, expected)


def test_removed_tokens_never_get_a_value():
    frame = np.full((28, 56, 3), 128, np.uint8)
    shown = heated(frame, np.array([[np.nan, 1.0]]), 1.0)
    assert len(np.unique(shown[:, :28].reshape(-1, 3) @ [1, 1, 1])) == 2  # dimmed, and hatched
    assert (shown[:, :28].max(axis=2) == shown[:, :28].min(axis=2)).all()  # grey as before
    np.testing.assert_allclose(shown[0, 40], 128 + 0.8 * (cividis()[-1] - 128), atol=1)


def test_lines_between_tokens_are_thicker():
    picture = gridded(np.zeros((56, 56, 3), np.uint8), Grid(frames=1, rows=4, cols=4, merge=2))
    assert picture[3, :, 0].tolist().count(255) == 2
    assert picture[3, :, 0].tolist().count(100) == 2
