"""A stream pruned piece by piece: the mask of the whole clip, whatever the pieces are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3.values import Grid, Patches
from vl3.vision import patchify, prune
from vl3.vision.prune import prune_piece


def _moving(frames: int, seed: int) -> Patches:
    """Noise that changes a little in each frame, in a few cells by more than the thresholds."""
    rng = np.random.default_rng(seed)
    frames_TYX3 = [rng.integers(0, 256, (56, 84, 3))]
    for _ in range(frames - 1):
        step = rng.integers(-1, 2, (56, 84, 3)) * rng.integers(0, 2, (4, 6, 1)).repeat(
            14, 0
        ).repeat(14, 1)
        frames_TYX3.append(np.clip(frames_TYX3[-1] + step, 0, 255))
    grid = Grid(frames=frames, rows=4, cols=6, merge=2)
    pixels_NP = patchify(np.stack(frames_TYX3).astype(np.uint8), grid)
    return Patches(pixels_NP=pixels_NP, grids=(grid,))


def _piece(patches: Patches, start: int, stop: int) -> Patches:
    (grid,) = patches.grids
    each = grid.patches_per_frame
    return Patches(
        pixels_NP=patches.pixels_NP[start * each : stop * each],
        grids=(replace(grid, frames=stop - start),),
    )


MODES = {"official": (0.1, 0.5, 1.0), "rlt": (0.005, 0.01), "last_kept": (0.1, 1.0, 1.5, 2.5)}


@pytest.mark.parametrize("keep", ["earlier", "later"])
@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    pick=st.integers(0, 9),
    min_tokens=st.integers(0, 3),
    normalised=st.booleans(),
)
def test_pieces_of_any_sizes_give_the_mask_of_the_whole_clip(
    mode, keep, sizes, seed, pick, min_tokens, normalised
):
    patches = _moving(sum(sizes), seed)
    if normalised:
        patches = replace(patches, pixels_NP=patches.pixels_NP.float() / 127.5 - 1)
    rule = {
        "threshold": MODES[mode][pick % len(MODES[mode])],
        "mode": mode,
        "min_tokens": min_tokens,
        "keep": keep,
    }
    whole = prune(patches, **rule)
    state, found, start = None, [], 0
    for number, size in enumerate(sizes, 1):
        piece = _piece(patches, start, start + size)
        part, state = prune_piece(piece, state, **rule, ends=number == len(sizes))
        start += size
        found.append(part)
        decided = sum(grid.frames for kept in found for grid in kept.grids)
        if keep == "earlier":
            assert decided == start
            assert len(state.cells_TMP) == 1
        elif number < len(sizes):
            assert decided == (0 if mode == "last_kept" else start - 1)
    for name in ("keep_M", "change_M", "placeholder_M"):
        assert torch.equal(torch.cat([getattr(part, name) for part in found]), getattr(whole, name))
    assert {(part.mode, part.threshold) for part in found} == {(whole.mode, whole.threshold)}


def test_without_its_state_a_piece_begins_a_stream():
    """The canary: pieces pruned alone keep their first frames whole."""
    patches = _moving(6, 3)
    alone = torch.cat([prune(_piece(patches, at, at + 2), 1.0).keep_M for at in (0, 2, 4)])
    assert not torch.equal(alone, prune(patches, 1.0).keep_M)


def test_a_stream_keeps_its_size_and_format():
    patches = _moving(4, 0)
    _, state = prune_piece(_piece(patches, 0, 2))
    floats = replace(patches, pixels_NP=patches.pixels_NP.float())
    wide = replace(patches, grids=(Grid(frames=2, rows=4, cols=12, merge=2),))
    for other in (floats, wide):
        with pytest.raises(ValueError, match="the frames of a stream are alike"):
            prune_piece(other, state)
