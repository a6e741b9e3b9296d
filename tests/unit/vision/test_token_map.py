"""Token index to place and back, over several clips, merge sizes and masks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.values import Grid, TokenGrid
from vl3.vision import rope2d
from vl3.vision.token_map import token_layout

VIDEO = Grid(frames=2, rows=4, cols=6, merge=2)
PICTURE = Grid(frames=1, rows=2, cols=3, merge=1)


def example():
    keep = np.ones(12 + 6, bool)
    keep[[7, 9, 11]] = False  # frame 1 of the video: (0, 1), (1, 0) and (1, 2)
    return token_layout(
        [TokenGrid.of_cells(VIDEO), TokenGrid.of_cells(PICTURE)],
        keep,
        [(0.5, 1.5), None],
        [(56, 84), (280, 420)],
    )


def test_the_drawing_of_the_docstring():
    found = example()
    assert len(found) == 15
    assert [found.slot(0, 1, *cell) for cell in ((0, 0), (0, 2), (1, 1))] == [6, 7, 8]
    assert found.slot(0, 1, 0, 1) is None
    assert (found.time_s_K[8], found.frame_K[8]) == (1.5, 1)
    assert found.box_K4[8].tolist() == [28, 28, 56, 56]
    assert found.slot(1, 0, 1, 2) == 14
    assert np.isnan(found.time_s_K[14])
    assert found.box_K4[14].tolist() == [280, 140, 420, 280]
    assert found.slot_at(1, 0, 419.9, 279.9) == 14
    assert found.slot_at(1, 0, 420, 100) is None
    assert found.slot_at(0, 1, 30, 5) is None
    with pytest.raises(IndexError):
        found.slot(0, -1, 0, 0)


def test_cells_lie_where_the_encoder_puts_their_patches():
    """Patches of one merged token share the row and column that rope2d gives them."""
    position_N2 = rope2d.positions(VIDEO).view(-1, 4, 2)
    found = token_layout(
        [TokenGrid.of_cells(VIDEO)], torch.ones(12, dtype=torch.bool), [(0, 1)], [(56, 84)]
    )
    for slot in range(6):
        assert (
            position_N2[slot] // 2 == torch.tensor([found.row_K[slot], found.col_K[slot]])
        ).all()


def whole():
    """The same clip and a smaller one of other cells, nothing pruned."""
    other = Grid(frames=1, rows=4, cols=2, merge=1)
    return token_layout(
        [TokenGrid.of_cells(VIDEO), TokenGrid.of_cells(other)],
        np.ones(20),
        [(0.5, 1.5), (3.25,)],
        [(57, 85), (40, 30)],
    )


def test_edges_of_a_frame_belong_to_it_on_two_sides():
    found = whole()
    for x, y, slot in (
        (0, 0, 0),
        (84.9, 0, 2),
        (0, 56.9, 3),
        (84.9, 56.9, 5),
        (28.3, 0, 0),
        (28.4, 0, 1),
        (0, 28.4, 0),
        (0, 28.5, 3),
    ):
        assert found.slot_at(0, 0, x, y) == slot
    for x, y in ((85, 0), (0, 57), (-0.1, 0), (0, -0.1), (84, 57.5), (85.5, 56)):
        assert found.slot_at(0, 0, x, y) is None
    assert found.slot_at(1, 0, 29.9, 39.9) == 19
    assert found.slot_at(1, 0, 31, 1) is None


def test_boxes_cover_a_frame_whose_sides_are_no_multiple():
    found = whole()
    down, across = 57 / 2, 85 / 3
    expected = [
        [col * across, row * down, (col + 1) * across, (row + 1) * down]
        for row in range(2)
        for col in range(3)
    ]
    np.testing.assert_allclose(found.box_K4[:6], expected)
    np.testing.assert_allclose(found.box_K4[6:12], expected)
    assert found.box_K4[12:].max(axis=0).tolist() == [15, 30, 30, 40]
    assert found.frame_sizes == ((57, 85), (40, 30))
    assert found.clip_K.tolist() == [0] * 12 + [1] * 8
    assert found.time_s_K.tolist() == [0.5] * 6 + [1.5] * 6 + [3.25] * 8


@pytest.mark.parametrize("number", range(4))
def test_places_are_counted_from_0_to_the_last(number):
    found = whole()
    first, beyond = [0, 0, 0, 0], [2, 2, 2, 3]
    assert found.slot(*first) == 0
    for wrong in (-1, beyond[number]):
        with pytest.raises(IndexError):
            found.slot(*first[:number], wrong, *first[number + 1 :])


def test_paint_keeps_the_format_and_the_leading_dimensions():
    found = whole()
    for dtype, painted_as in (
        (np.float64, np.float64),
        (np.float16, np.float16),
        (np.int64, np.float32),
        (bool, np.float32),
    ):
        maps = found.paint(np.ones((2, 3, 20), dtype))
        assert [one.dtype for one in maps] == [painted_as] * 2
        assert [one.shape for one in maps] == [(2, 3, 2, 2, 3), (2, 3, 1, 4, 2)]
    for count in (19, 21):
        with pytest.raises(ValueError, match=f"{count} values for 20"):
            found.paint(np.ones((20, count)))


def test_a_mask_of_numbers_is_a_mask():
    numbers = np.zeros(12, int)
    numbers[[1, 5]] = 7
    found = token_layout([TokenGrid.of_cells(VIDEO)], numbers, [None], [(56, 84)])
    assert (len(found), found.row_K.tolist(), found.col_K.tolist()) == (2, [0, 1], [1, 2])


def test_lists_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="grids of 12 merged"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(13), [None], [(1, 1)])
    with pytest.raises(ValueError, match="2 frames but 1 times"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(12), [(0,)], [(1, 1)])
    with pytest.raises(ValueError, match="0 lists of times"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(12), [], [(1, 1)])
    with pytest.raises(ValueError, match="grids of 12 merged"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(11), [None], [(1, 1)])
    with pytest.raises(ValueError, match="2 frames but 3 times"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(12), [(0, 1, 2)], [(1, 1)])
    with pytest.raises(ValueError, match="0 frame sizes"):
        token_layout([TokenGrid.of_cells(VIDEO)], np.ones(12), [None], [])
    with pytest.raises(ValueError, match="14 values for 15"):
        example().paint(np.zeros(14))
    assert len(token_layout([], np.ones(0), [], [])) == 0


@st.composite
def masks(draw):
    grids = draw(
        st.lists(
            st.builds(
                lambda frames, rows, cols, merge: Grid(
                    frames=frames, rows=rows * merge, cols=cols * merge, merge=merge
                ),
                st.integers(1, 3),
                st.integers(1, 4),
                st.integers(1, 4),
                st.integers(1, 2),
            ),
            min_size=1,
            max_size=3,
        )
    )
    count = sum(grid.num_tokens for grid in grids)
    return grids, np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))


@settings(max_examples=60, deadline=None)
@given(masks())
def test_there_and_back_and_pruned_cells_stay_empty(drawn):
    grids, keep = drawn
    sizes = [(grid.rows * 14, grid.cols * 14) for grid in grids]
    found = token_layout(
        [TokenGrid.of_cells(grid) for grid in grids],
        keep,
        [range(grid.frames) for grid in grids],
        sizes,
    )
    assert len(found) == keep.sum()
    for slot in range(len(found)):
        place = [int(x[slot]) for x in (found.clip_K, found.frame_K, found.row_K, found.col_K)]
        assert found.slot(*place) == slot
        x0, y0, x1, y1 = found.box_K4[slot]
        assert found.slot_at(*place[:2], (x0 + x1) / 2, (y0 + y1) / 2) == slot
    painted = found.paint(np.arange(2 * len(found)).reshape(2, -1))
    flat = np.concatenate([one.reshape(2, -1) for one in painted], axis=1)
    assert np.array_equal(np.isnan(flat), np.stack([~keep, ~keep]))
    assert np.array_equal(flat[1, keep], len(found) + np.arange(len(found)))
