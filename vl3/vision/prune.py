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
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from vl3.values import Grid, Keep, Patches

Mode = Literal["official", "rlt", "last_kept"]
Side = Literal["earlier", "later"]

IMAGENET_STD = (0.229, 0.224, 0.225)
LEVELS_PER_UNIT = 127.5  # pixels normalised to [-1, 1] with mean = std = 0.5


def prune(
    patches: Patches,
    threshold: float = 0.1,
    mode: Mode = "official",
    min_tokens: int = 1,
    keep: Side = "earlier",
) -> Keep:
    """Which merged tokens stay, for every clip of patches; images and single frames stay whole.

    A token stays when its change exceeds the threshold (strictly). A frame left with fewer than
    min_tokens also keeps its first min_tokens cells, from the top left.

    Raises: ValueError for an unknown mode or side, a negative threshold.
    Source: VideoLLaMA3 section 3.2; official videollama3_arch.py:_get_compression_mask at 05cee23.
            Difference: uint8 pixels are accepted and give exact sums; normalised floats follow the
            official float arithmetic.
    """
    if mode not in get_args(Mode) or keep not in get_args(Side):
        choices = f"{', '.join(get_args(Mode))} with keep = {' or '.join(get_args(Side))}"
        raise ValueError(f"no pruner mode {mode!r} with keep = {keep!r}; choose {choices}")
    if not threshold >= 0:
        raise ValueError(f"the pruning threshold is 0 or more - got {threshold}")
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


def change(
    reference_MP: torch.Tensor, current_MP: torch.Tensor, patch_values: int, mode: Mode
) -> torch.Tensor:
    """Distance of every token between two versions of a frame, in the unit of the mode.

    Shapes: reference_MP, current_MP - merged cells in block order, uint8 levels or normalised
            returns change_M - float32
    """
    if mode == "rlt":
        std = torch.tensor(IMAGENET_STD, device=current_MP.device).view(1, 1, 3, 1)
        by_channel = (
            _absolute(reference_MP, current_MP)
            .float()
            .view(len(current_MP), -1, 3, patch_values // 3)
        )
        scale = 1 / 255 if current_MP.dtype == torch.uint8 else LEVELS_PER_UNIT / 255
        return (by_channel / std).mean(dim=(1, 2, 3)) * scale
    difference = _absolute(reference_MP, current_MP)
    if difference.dtype == torch.uint8:
        total = difference.sum(dim=-1, dtype=torch.int32)
        return _in_levels(total, difference.shape[-1])
    return (difference.mean(dim=-1) * 255).float()


def _absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype == torch.uint8:  # unsigned numbers wrap around when subtracted the wrong way
        return torch.maximum(a, b) - torch.minimum(a, b)
    return (a - b).abs()


def _level_changes(cells_TMP: torch.Tensor) -> torch.Tensor:
    """Official distance of every cell of uint8 levels to the frame before: change_TM, float32.

    Frame by frame, because two frames stay in the processor's cache and a whole clip does not.
    """
    totals = torch.zeros(cells_TMP.shape[:2], dtype=torch.int32, device=cells_TMP.device)
    for index in range(1, len(cells_TMP)):
        difference = _absolute(cells_TMP[index - 1], cells_TMP[index])
        torch.sum(difference, dim=-1, dtype=torch.int32, out=totals[index])
    changes = _in_levels(totals, cells_TMP.shape[-1])
    changes[0] = torch.inf
    return changes


def _in_levels(total: torch.Tensor, values: int) -> torch.Tensor:
    """Sums of differences of levels over so many values in the official unit."""
    return total.float() * (255 / LEVELS_PER_UNIT) / values


def _prune_clip(pixels_NP, grid: Grid, threshold, mode, min_tokens, side):
    """keep, change and placeholder of one clip, each [M] over all its frames."""
    cells = pixels_NP.view(grid.frames, grid.tokens_per_frame, -1)
    if side == "later":
        cells = cells.flip(0)
    if mode == "official" and cells.dtype == torch.uint8:
        changes = _level_changes(cells)
    else:
        changes = torch.full(cells.shape[:2], torch.inf, device=cells.device)
        reference = cells[0]
        for index in range(1, grid.frames):
            frame = cells[index]
            changes[index] = change(reference, frame, pixels_NP.shape[1], mode)
            if mode == "last_kept":
                reference = torch.where(changes[index, :, None] > threshold, frame, reference)
            else:
                reference = frame
    keeps = changes > threshold
    changed = keeps.clone()
    keeps[keeps.sum(dim=1) < min_tokens, :min_tokens] = True
    if side == "later":
        changes, keeps, changed = changes.flip(0), keeps.flip(0), changed.flip(0)
    return keeps.flatten(), changes.flatten(), (keeps & ~changed).flatten()
