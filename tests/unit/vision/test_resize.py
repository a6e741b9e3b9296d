"""Grid arithmetic: whole tokens, budget, orientation, and the recorded table."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.values import Grid
from vl3.vision import fit_grid

side = st.integers(8, 4000)


@given(frames=st.integers(1, 180), height=side, width=side, merge=st.sampled_from([1, 2]))
def test_a_grid_is_whole_tokens_within_the_budget(frames, height, width, merge):
    (grid,) = fit_grid([(frames, height, width)], merge, 16384)
    assert grid.rows % merge == grid.cols % merge == 0
    over = grid.num_tokens - 16384
    smallest = grid.tokens_per_frame <= 16 + grid.token_rows + grid.token_cols
    assert over <= 0 or smallest  # only the least size per frame may exceed the budget


def test_known_sizes_of_the_released_model():
    assert fit_grid([(180, 720, 1280)], 2, 10240)[0] == Grid(frames=180, rows=10, cols=20, merge=2)
    assert fit_grid([(180, 720, 1280)], 2, 16384)[0] == Grid(frames=180, rows=14, cols=24, merge=2)
    assert fit_grid([(1, 1080, 1920)], 1, 10240)[0] == Grid(frames=1, rows=75, cols=134, merge=1)
    assert fit_grid([(1, 30, 30)], 1, 16384)[0] == Grid(frames=1, rows=4, cols=4, merge=1)


def test_a_tall_picture_has_more_rows_than_columns():
    (grid,) = fit_grid([(1, 600, 200)], 1, 16384)
    assert (grid.rows, grid.cols) == (43, 14)


def test_several_merge_sizes_never_give_an_empty_side():
    grids = fit_grid([(1, 5, 16000), (180, 28, 3000)], [1, 2], 16384)
    assert min(grid.rows for grid in grids) >= 1


def test_a_picture_without_area_is_refused():
    with pytest.raises(ValueError, match="no area"):
        fit_grid([(1, 0, 20)], 1, 100)


def test_recorded_sizes(shared):
    """Every row of the table whose target has an area, for one merge size."""
    with open(shared / "fixtures/vl3_preprocess/resize_table.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["function"] == "simple"]
    compared = 0
    for row in rows:
        if row["error"] or not row["target_h"]:
            continue
        height, width, count = int(row["height"]), int(row["width"]), int(row["count"])
        still = row["kind"] == "image"
        sizes = [(1, height, width)] * count if still else [(count, height, width)]
        grid = fit_grid(
            sizes,
            int(row["merge_size"]),
            int(row["max_tokens"]),
            patch=int(row["patch_size"]),
            min_tokens=int(row["min_tokens"]),
        )[0]
        assert (grid.rows, grid.cols) == (int(row["grid_h"]), int(row["grid_w"])), row
        compared += 1
    assert compared > 70
