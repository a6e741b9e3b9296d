"""Patches in block order, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vl3.values import Grid
from vl3.vision import patchify, positions, unpatchify


@given(
    frames=st.integers(1, 3),
    rows=st.integers(1, 4),
    cols=st.integers(1, 4),
    merge=st.sampled_from([1, 2, 3]),
    patch=st.sampled_from([2, 14]),
)
def test_unpatchify_is_the_inverse(frames, rows, cols, merge, patch):
    grid = Grid(frames=frames, rows=rows * merge, cols=cols * merge, merge=merge)
    shape = (frames, grid.rows * patch, grid.cols * patch, 3)
    frames_TYX3 = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels_NP = patchify(frames_TYX3, grid)
    assert pixels_NP.shape == (grid.num_patches, 3 * patch * patch)
    assert np.array_equal(unpatchify(pixels_NP, grid).numpy(), frames_TYX3)


def test_block_order_of_the_drawing():
    grid = Grid(frames=1, rows=2, cols=4, merge=2)
    raster = torch.arange(8).view(1, 2, 4, 1).expand(1, 2, 4, 3)
    pixels = raster.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert patchify(pixels, grid)[:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    first, second = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0, 2], [0, 3], [1, 2], [1, 3]]
    assert positions(grid).tolist() == first + second


def test_a_patch_is_channel_then_row_then_column():
    frame = np.zeros((1, 2, 2, 3), np.uint8)
    frame[0, 0, 1, 2] = 7  # blue, first row, second column
    assert patchify(frame, Grid(frames=1, rows=1, cols=1, merge=1))[0].tolist().index(7) == 9


def test_frames_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not fill"):
        patchify(np.zeros((1, 30, 28, 3), np.uint8), Grid(frames=1, rows=2, cols=2, merge=1))
