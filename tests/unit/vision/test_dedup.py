"""Frames equal to the one before are encoded once, and nobody can tell from the features."""

import pytest
import torch

from vl3.values import Grid
from vl3.vision import downsample, unique_frames
from vl3.visual_inputs import chunk_grids

GRIDS = (Grid(frames=6, rows=4, cols=2, merge=2), Grid(frames=3, rows=2, cols=2, merge=1))
SHOWN = [0, 0, 1, 0, 0, 0]  # the picture of each frame of the first clip


@pytest.fixture
def pixels():
    """A first clip of six frames of which two pictures alternate; a second without repetition."""
    noise = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 8, 588), dtype=torch.uint8, generator=noise)
    other = torch.randint(0, 256, (12, 588), dtype=torch.uint8, generator=noise)
    return torch.cat([pictures[SHOWN].flatten(0, 1), other])


def test_repeated_frames_are_left_out_and_found_again(pixels):
    fresh, grids, source_M = unique_frames(pixels, GRIDS)
    assert [grid.frames for grid in grids] == [3, 3]
    assert source_M.tolist() == [0, 1, 0, 1, 2, 3, 4, 5, 4, 5, 4, 5, *range(6, 18)]
    tokens = [
        part.unflatten(0, (grid.num_tokens, -1)) for grid, part in zip(grids, fresh.split([24, 12]))
    ]
    first = tokens[0][source_M[:12]]
    assert torch.equal(first.flatten(0, 1), pixels[:48])
    assert torch.equal(fresh[24:], pixels[48:])


def test_one_changed_level_is_another_frame(pixels):
    pixels[8, 0] ^= 1
    assert unique_frames(pixels, GRIDS)[1][0].frames == 4


def test_the_last_frame_of_a_clip_says_nothing_of_the_next(pixels):
    same = torch.cat([pixels[:8], pixels[:8]])
    grid = Grid(frames=1, rows=4, cols=2, merge=2)
    assert unique_frames(same, (grid, grid))[1] == (grid, grid)


def test_nothing_is_copied_where_nothing_repeats(pixels):
    fresh, grids, source_M = unique_frames(pixels[48:], GRIDS[1:])
    assert fresh.data_ptr() == pixels[48:].data_ptr()
    assert grids == GRIDS[1:]
    assert source_M.tolist() == list(range(12))


def test_the_model_encodes_a_repeated_frame_once(tiny_model, pixels):
    sizes, merges = [[6, 4, 2], [3, 2, 2]], [2, 1]
    seen, told = [], []
    hook = tiny_model.vision.register_forward_pre_hook(
        lambda _module, args: seen.append(args[0].shape[0])
    )
    with torch.no_grad():
        got = tiny_model.encode_vision(pixels, sizes, merges, lambda *done: told.append(done))
        hook.remove()
        each = torch.cat(
            [
                downsample(tiny_model.vision(part, chunk), chunk)
                for part, chunk in zip(pixels.split([*[8] * 6, *[4] * 3]), chunk_grids(GRIDS, 1))
            ]
        )
    assert sum(seen) == 3 * 8 + 3 * 4
    assert told[-1] == (60, 60)
    assert torch.allclose(got, each, atol=1e-6)
    assert torch.equal(got[0:2], got[2:4])
    assert not torch.allclose(got[0:2], got[4:6], atol=1e-3)


def test_learning_encodes_what_it_is_given(tiny_model, pixels):
    """With gradients nothing is left out here: training leaves repeats out before."""
    got = tiny_model.encode_vision(pixels, [[6, 4, 2], [3, 2, 2]], [2, 1])
    assert got.requires_grad
    assert got.shape[0] == 24
