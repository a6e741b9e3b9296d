"""DiffFP, the differential frame pruner: drops tokens whose pixels did not change.

It looks at pixels only, has no weights and no randomness. A token is a merged cell of merge x merge
patches. Four rules, of which the first is the released model's:

    official    255 * mean |difference| of pixels normalised to [-1, 1], against the previous frame.
                Threshold 0.1 is 0.05 grey levels of 0..255: all but bit-identical cells are kept.
    rlt         mean |difference| of ImageNet-normalised pixels, against the previous frame, as in
                the work that the paper cites for its value; 0.1 is about 5.8 grey levels.
    last_kept   the official unit, but against the last *kept* version of the cell, so that slow
                change adds up until it shows.
    keep="later" (with any mode) drops the earlier of two equal cells instead of the later one.

How a change is measured is in kernels/difffp/reference.py.
"""

from __future__ import annotations

from math import inf
from typing import get_args

import torch

from vl3 import ops
from vl3.arguments import instance, number, shown, whole
from vl3.values import Grid, Keep, Patches, PruneMode, PruneSettings, PruneSide

MOST_TOKENS = 2**31 - 1  # of min_tokens: an index
_DEFAULT = PruneSettings()


def prune(
    patches: Patches,
    threshold: float = _DEFAULT.threshold,
    mode: PruneMode = _DEFAULT.mode,
    min_tokens: int = _DEFAULT.min_tokens,
    keep: PruneSide = _DEFAULT.keep,
) -> Keep:
    """Which merged tokens stay, for every clip of patches; images and single frames stay whole.

    A token stays when its change exceeds the threshold (strictly). A frame left with fewer than
    min_tokens also keeps its first min_tokens cells, from the top left.

    Raises: ValueError for an unknown mode or side, a negative threshold.
    Source: VideoLLaMA3 section 3.2; official videollama3_arch.py:_get_compression_mask at 05cee23.
            Difference: uint8 pixels are accepted and give exact sums; normalised floats follow the
            official float arithmetic.
    """
    instance("patches", patches, Patches, "vl3.values.Patches")
    if not _is_one(mode, PruneMode) or not _is_one(keep, PruneSide):
        choices = f"{', '.join(get_args(PruneMode))} with keep = {' or '.join(get_args(PruneSide))}"
        raise ValueError(
            f"no pruner mode {shown(mode)} with keep = {shown(keep)}; choose {choices}"
        )
    if not isinstance(threshold, float) or threshold != inf:  # inf: whatever may be removed is
        threshold = number("the pruning threshold", threshold, low=0)
    min_tokens = whole("min_tokens", min_tokens, low=0, high=MOST_TOKENS)
    parts, start = [], 0
    for grid in patches.grids:
        pixels = patches.pixels_NP[start : start + grid.num_patches]
        parts.append(_prune_clip(pixels, grid, threshold, mode, min_tokens, keep))
        start += grid.num_patches
    keep_M, change_M, placeholder_M = (torch.cat(part) for part in zip(*parts))
    return Keep(
        keep_M=keep_M,
        change_M=change_M,
        placeholder_M=placeholder_M,
        grids=patches.grids,
        mode=mode if keep == "earlier" else f"{mode}, keep later",
        threshold=threshold,
    )


def _is_one(value: object, kinds) -> bool:
    return isinstance(value, str) and value in get_args(kinds)


def keep_all(grids: tuple[Grid, ...]) -> Keep:
    """A mask that removes nothing: pruning switched off."""
    count = sum(grid.num_tokens for grid in grids)
    return Keep(
        keep_M=torch.ones(count, dtype=torch.bool),
        change_M=torch.full((count,), torch.inf),
        placeholder_M=torch.zeros(count, dtype=torch.bool),
        grids=grids,
        mode="off",
        threshold=0.0,
    )


def _prune_clip(pixels_NP, grid: Grid, threshold, mode, min_tokens, side):
    """keep, change and placeholder of one clip, each [M] over all its frames."""
    cells = pixels_NP.view(grid.frames, grid.tokens_per_frame, -1)
    if side == "later":
        cells = cells.flip(0)
    changes, changed, counts = ops.difffp(cells, pixels_NP.shape[1], threshold, mode)
    keeps = changed.clone()
    keeps[counts < min_tokens, :min_tokens] = True
    if side == "later":
        changes, keeps, changed = changes.flip(0), keeps.flip(0), changed.flip(0)
    return keeps.flatten(), changes.flatten(), (keeps & ~changed).flatten()
