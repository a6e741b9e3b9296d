"""Frames that show exactly what the frame before showed: they need not be encoded again."""

from __future__ import annotations

from dataclasses import replace

import torch

from vl3.values import Grid, Patches


def unique_frames(
    pixels_NP: torch.Tensor, grids: tuple[Grid, ...]
) -> tuple[torch.Tensor, tuple[Grid, ...], torch.Tensor]:
    """Patches without frames that equal the one before, their grids, and source_M.

    Frames never see each other in the encoder, so equal frames have equal features.
    Shapes: source_M - for every merged token of the given grids its place among those of the new
            returns pixels_NP itself where no frame repeats
    """
    Patches(pixels_NP=pixels_NP, grids=grids)  # which checks that they belong together
    fresh_T, sources, fewer = [], [], []
    start = tokens = 0
    for grid in grids:
        frames = pixels_NP[start : start + grid.num_patches].view(grid.frames, -1)
        start += grid.num_patches
        changed = [True, *(not torch.equal(a, b) for a, b in zip(frames[1:], frames[:-1]))]
        changed_T = torch.tensor(changed)
        first_T = (changed_T.cumsum(0) - 1) * grid.tokens_per_frame + tokens
        sources.append((first_T[:, None] + torch.arange(grid.tokens_per_frame)).flatten())
        fewer.append(replace(grid, frames=int(changed_T.sum())))
        tokens += fewer[-1].num_tokens
        fresh_T.append(changed_T.repeat_interleave(grid.patches_per_frame))
    if tuple(fewer) != tuple(grids):
        pixels_NP = pixels_NP[torch.cat(fresh_T).to(pixels_NP.device)]
    return pixels_NP, tuple(fewer), torch.cat(sources)
