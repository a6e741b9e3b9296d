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

A stream is pruned piece by piece (prune_piece): what its next frames are compared with goes from
one piece to the next as a value. How a change is measured is in kernels/difffp/reference.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import get_args

import torch

from vl3 import ops
from vl3.arguments import instance, number, shown, whole
from vl3.settings import PruneMode, PruneSettings, PruneSide
from vl3.values import Grid, Keep, Patches

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
    settings = _Settings(threshold, mode, min_tokens, keep)
    parts, start = [], 0
    for grid in patches.grids:
        pixels = patches.pixels_NP[start : start + grid.num_patches]
        cells_TMP = pixels.view(grid.frames, grid.tokens_per_frame, -1)
        parts.append(_prune_cells(cells_TMP, pixels.shape[1], settings))
        start += grid.num_patches
    found = [torch.cat([part.flatten() for part in each]) for each in zip(*parts)]
    return _keep(found, patches.grids, settings)


@dataclass(frozen=True, slots=True, eq=False)
class PruneState:
    """What the next frames of a stream are compared with.

    cells_TMP: one frame, each cell in the version that counts; with keep = later the frames that
        wait for what follows: the last one or, in the mode last_kept, all
    grid: of one frame
    """

    cells_TMP: torch.Tensor
    grid: Grid


def prune_piece(
    patches: Patches,
    state: PruneState | None = None,
    threshold: float = _DEFAULT.threshold,
    mode: PruneMode = _DEFAULT.mode,
    min_tokens: int = _DEFAULT.min_tokens,
    keep: PruneSide = _DEFAULT.keep,
    *,
    ends: bool = False,
) -> tuple[Keep, PruneState]:
    """Which tokens stay of the next frames of a stream, and the state for the frames after them.

    The masks of all pieces, one after the other, are the mask that `prune` gives for the whole
    clip. With keep = later a frame is decided by what follows: the Keep is of the frames that are
    decided now, which may be none, and of all that are left where the stream ends.

    patches: frames of one clip; state: what the piece before gave, None for the first piece
    threshold, mode, min_tokens, keep: as for `prune`, the same for all pieces
    ends: whether these are the last frames
    Raises: ValueError as `prune`, and for frames of another size or format than those before.
    """
    instance("patches", patches, Patches, "vl3.values.Patches")
    settings = _Settings(threshold, mode, min_tokens, keep)
    (grid,) = patches.grids
    one = replace(grid, frames=1)
    cells_TMP = patches.pixels_NP.view(grid.frames, grid.tokens_per_frame, -1)
    if state is not None:
        if one != state.grid or cells_TMP.dtype != state.cells_TMP.dtype:
            raise ValueError(
                f"the frames of a stream are alike - got {one} of {cells_TMP.dtype} after "
                f"{state.grid} of {state.cells_TMP.dtype}; begin another one with state=None"
            )
        cells_TMP = torch.cat([state.cells_TMP, cells_TMP])
    found = _prune_cells(cells_TMP, patches.pixels_NP.shape[1], settings)
    if keep == "earlier":
        decided = slice(0 if state is None else 1, None)  # the state's frame was decided before
        next_TMP = _compared_with(cells_TMP, found[0] & ~found[2], mode)
    else:
        waiting = 0 if ends else len(cells_TMP) if mode == "last_kept" else 1
        decided = slice(len(cells_TMP) - waiting)
        next_TMP = cells_TMP[len(cells_TMP) - waiting :]
    found = [part[decided] for part in found]
    grids = (replace(grid, frames=len(found[0])),) if len(found[0]) else ()
    return _keep([part.flatten() for part in found], grids, settings), PruneState(next_TMP, one)


def _compared_with(cells_TMP, changed_TM, mode: PruneMode) -> torch.Tensor:
    """The frame that the next one is compared with, [1, M, P]; of last_kept each cell's version
    that was the last to exceed the threshold, or the first."""
    if mode != "last_kept":
        return cells_TMP[-1:]
    frame_T1 = torch.arange(len(cells_TMP), device=cells_TMP.device)[:, None]
    last_M = torch.where(changed_TM, frame_T1, 0).amax(0)
    return cells_TMP[last_M, torch.arange(cells_TMP.shape[1], device=cells_TMP.device)][None]


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


@dataclass(slots=True)
class _Settings:
    """What `prune` is asked for, checked."""

    threshold: float
    mode: PruneMode
    min_tokens: int
    keep: PruneSide

    def __post_init__(self) -> None:
        if not _is_one(self.mode, PruneMode) or not _is_one(self.keep, PruneSide):
            choices = (
                f"{', '.join(get_args(PruneMode))} with keep = {' or '.join(get_args(PruneSide))}"
            )
            raise ValueError(
                f"no pruner mode {shown(self.mode)} with keep = {shown(self.keep)}; choose "
                f"{choices}"
            )
        # inf: whatever may be removed is
        if not isinstance(self.threshold, float) or self.threshold != inf:
            self.threshold = number("the pruning threshold", self.threshold, low=0)
        self.min_tokens = whole("min_tokens", self.min_tokens, low=0, high=MOST_TOKENS)


def _prune_cells(cells_TMP, patch_values: int, settings: _Settings) -> list[torch.Tensor]:
    """keep, change and placeholder of the frames of one clip, each [T, M]."""
    is_later = settings.keep == "later"
    if is_later:
        cells_TMP = cells_TMP.flip(0)
    change, changed, count_T = ops.difffp(
        cells_TMP, patch_values, settings.threshold, settings.mode
    )
    kept = changed.clone()
    kept[count_T < settings.min_tokens, : settings.min_tokens] = True
    found = [kept, change, kept & ~changed]
    return [part.flip(0) for part in found] if is_later else found


def _keep(found: Sequence[torch.Tensor], grids: tuple[Grid, ...], settings: _Settings) -> Keep:
    keep_M, change_M, placeholder_M = found
    mode, side = settings.mode, settings.keep
    return Keep(
        keep_M=keep_M,
        change_M=change_M,
        placeholder_M=placeholder_M,
        grids=grids,
        mode=mode if side == "earlier" else f"{mode}, keep later",
        threshold=settings.threshold,
    )
