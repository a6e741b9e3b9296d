"""DiffFP: what stays, in every mode, for exact integers and for normalised floats."""

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vl3 import ops
from vl3.settings import PruneMode
from vl3.values import Grid, Patches
from vl3.vision import patchify, prune
from vl3.vision.prune import MOST_TOKENS, keep_all

GRID = Grid(frames=4, rows=4, cols=4, merge=2)


def clip(change=lambda frames: None, frames=4) -> np.ndarray:
    """A still clip of 4 x 4 patches, changed by the caller."""
    still = np.random.default_rng(3).integers(0, 256, (1, 56, 56, 3), dtype=np.uint8)
    pixels = still.repeat(frames, axis=0)
    change(pixels)
    return pixels


def patches(frames_TYX3: np.ndarray, as_float=False) -> Patches:
    grid = Grid(frames=len(frames_TYX3), rows=4, cols=4, merge=2)
    pixels = patchify(frames_TYX3, grid)
    if as_float:
        pixels = (pixels.float() / 255 - 0.5) / 0.5
    return Patches(pixels_NP=pixels, grids=(grid,))


def test_a_still_clip_keeps_its_first_frame_and_one_placeholder_per_frame():
    keep = prune(patches(clip()))
    assert keep.kept_per_frame == [[4, 1, 1, 1]]
    assert keep.placeholder_M.view(4, 4)[:, 0].tolist() == [False, True, True, True]
    assert keep.placeholder_M.sum() == 3


def test_one_changed_cell_keeps_exactly_that_token_and_the_one_after():
    def flip(pixels):
        pixels[2, 28:56, 0:28] ^= 255  # bottom-left cell of frame 2; it changes back in frame 3

    keep = prune(patches(clip(flip)), min_tokens=0)
    assert keep.keep_M.view(4, 4)[1:].int().tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]


def test_units_the_threshold_of_the_released_model_is_a_twentieth_of_a_grey_level():
    def one_level_more(pixels):
        pixels[1:] = np.where(pixels[1:] < 255, pixels[1:] + 1, pixels[1:] - 1)

    keep = prune(patches(clip(one_level_more)), mode="official")
    assert keep.change_M.view(4, 4)[1].tolist() == pytest.approx([2.0] * 4)
    assert prune(patches(clip(one_level_more)), mode="rlt").keep_M.view(4, 4)[1].sum() == 1
    levels_of_rlt = 0.1 * 255 * 3 / sum(1 / s for s in (0.229, 0.224, 0.225))
    assert levels_of_rlt == pytest.approx(5.76, abs=0.01)


@given(seed=st.integers(0, 1000), threshold=st.floats(0.01, 60))
def test_integers_and_floats_agree_away_from_equality(seed, threshold):
    noise = np.random.default_rng(seed).integers(0, 4, (4, 56, 56, 3))
    shaky = (clip().astype(int) + noise).clip(0, 255).astype(np.uint8)
    exact, official = (prune(patches(shaky, as_float), threshold) for as_float in (False, True))
    finite = torch.isfinite(exact.change_M)
    assert torch.allclose(exact.change_M[finite], official.change_M[finite], rtol=1e-4)
    near = (exact.change_M - threshold).abs() < 1e-3
    assert torch.equal(exact.keep_M[~near], official.keep_M[~near])


@given(lower=st.floats(0, 50), higher=st.floats(0, 50))
def test_a_higher_threshold_never_keeps_more(lower, higher):
    generator = np.random.default_rng(5)

    def noise(pixels):
        pixels[:] = generator.integers(0, 256, pixels.shape)
        pixels[1] = pixels[0]

    some = patches(clip(noise))
    lower, higher = sorted((lower, higher))
    more = prune(some, lower, min_tokens=0).keep_M
    assert not (prune(some, higher, min_tokens=0).keep_M & ~more).any()


def test_slow_drift_is_lost_by_the_official_rule_and_found_by_last_kept():
    def drift(pixels):
        base = pixels[0].clip(0, 200)
        for index in range(len(pixels)):
            pixels[index] = base + index  # one level a frame: 2.0 in official units

    slow = patches(clip(drift, frames=8))
    assert prune(slow, 5.0, "official", 0).kept_per_frame == [[4] + [0] * 7]
    assert prune(slow, 5.0, "last_kept", 0).kept_per_frame == [[4, 0, 0, 4, 0, 0, 4, 0]]


def test_keep_later_drops_the_earlier_of_two_equal_frames():
    def a_a_b_b(pixels):
        pixels[2:] = 255 - pixels[2:]

    twice = patches(clip(a_a_b_b))
    assert prune(twice, min_tokens=0).kept_per_frame == [[4, 0, 4, 0]]
    assert prune(twice, min_tokens=0, keep="later").kept_per_frame == [[0, 4, 0, 4]]


def test_images_and_single_frames_stay_whole_and_items_do_not_mix():
    still = patches(clip())
    one = Grid(frames=1, rows=4, cols=4, merge=2)
    both = Patches(
        pixels_NP=torch.cat([still.pixels_NP[:16], still.pixels_NP]), grids=(one, *still.grids)
    )
    keep = prune(both)
    assert keep.kept_per_frame == [[4], [4, 1, 1, 1]]


def test_every_item_is_pruned_by_its_own_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (2, 56, 56, 3), dtype=np.uint8)
    items = [patches(clip()), patches(noise), patches(clip(frames=2))]
    joined = Patches(
        pixels_NP=torch.cat([each.pixels_NP for each in items]),
        grids=tuple(grid for each in items for grid in each.grids),
    )
    keep, apart = prune(joined, 3.0), [prune(each, 3.0) for each in items]
    assert keep.kept_per_frame == [[4, 1, 1, 1], [4, 4], [4, 1]]
    for name in ("keep_M", "change_M", "placeholder_M"):
        assert torch.equal(getattr(keep, name), torch.cat([getattr(k, name) for k in apart]))
    assert keep.grids == joined.grids


def test_a_frame_short_of_tokens_gets_its_first_ones():
    """Frames 1 to 3 change in no, one and two cells; changed ones count, and stay besides."""

    def change(pixels):
        pixels[2:, 28:, :28] ^= 255  # the third cell
        pixels[3:, 28:, :] ^= 255  # the third and the last

    keep = prune(patches(clip(change)), min_tokens=2)
    assert keep.keep_M.view(4, 4).int().tolist() == [
        [1, 1, 1, 1],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    assert keep.placeholder_M.view(4, 4).int().tolist() == [
        [0, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]
    later = prune(patches(clip(change)), min_tokens=2, keep="later")
    assert later.keep_M.view(4, 4).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 1, 1],
        [1, 1, 1, 1],
    ]
    assert later.placeholder_M.view(4, 4).int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert torch.equal(later.change_M.view(4, 4)[:3], keep.change_M.view(4, 4)[1:])
    assert later.change_M.view(4, 4)[3].tolist() == [torch.inf] * 4


def test_a_mask_says_how_it_was_made():
    for mode in ("official", "rlt", "last_kept"):
        keep = prune(patches(clip()), 7.0, mode)
        assert (keep.mode, keep.threshold, keep.grids) == (mode, 7.0, (GRID,))
    assert prune(patches(clip()), 7.0, "rlt", keep="later").mode == "rlt, keep later"


def test_pruning_switched_off_keeps_everything():
    one = Grid(frames=1, rows=4, cols=4, merge=2)
    keep = keep_all((GRID, one))
    assert torch.equal(keep.keep_M, torch.ones(20, dtype=torch.bool))
    assert torch.equal(keep.placeholder_M, torch.zeros(20, dtype=torch.bool))
    assert keep.keep_M.dtype == keep.placeholder_M.dtype == torch.bool  # a mask, no indices
    assert keep.change_M.tolist() == [torch.inf] * 20
    assert (keep.grids, keep.mode, keep.threshold) == ((GRID, one), "off", 0.0)


def test_a_threshold_without_end_leaves_what_may_not_be_removed():
    for least in (0, 1, 3):
        keep = prune(patches(clip()), torch.inf, min_tokens=least)
        assert keep.kept_per_frame == [[least] * 4]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_tokens": MOST_TOKENS + 1}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"mode": torch.ones(2)}, "no pruner mode"),
        ({"keep": np.ones(2)}, "no pruner mode"),
        ({"patches": clip()}, "vl3.values.Patches"),
        ({"threshold": -torch.inf}, "0 or more"),
        ({"threshold": "much"}, "threshold"),
    ],
)
def test_values_of_another_kind_are_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        prune(**{"patches": patches(clip())} | change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "nope"}, "no pruner mode"),
        ({"keep": "both"}, "no pruner mode"),
        ({"threshold": -1}, "0 or more"),
        ({"threshold": float("nan")}, "0 or more"),
    ],
)
def test_wrong_settings_are_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        prune(patches(clip()), **change)


def test_the_kernels_know_the_same_modes():
    assert get_args(PruneMode) == get_args(ops.Mode)
