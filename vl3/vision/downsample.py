"""Merging patches into tokens: bilinear down-sampling of the feature map."""

from __future__ import annotations

import torch

from vl3.values import Grid


def downsample(x_ND: torch.Tensor, grids: tuple[Grid, ...]) -> torch.Tensor:
    """One feature per merged token, clip after clip.

    Bilinear reduction by a whole factor m (corners not aligned) reads the map halfway between the
    central patches of every m x m block: their mean for an even m (for m = 2 the mean of all
    four), the central patch alone for an odd one. In block order that is an index, no map needed.

    Shapes: x_ND - patch features in block order; returns x_MD
    Source: VideoLLaMA3 modeling_videollama3_encoder.py (interpolate after the post-layernorm).
    """
    parts, start = [], 0
    for grid in grids:
        block = x_ND[start : start + grid.num_patches]
        start += grid.num_patches
        m = grid.merge
        if m > 1:
            centre = slice((m - 1) // 2, m // 2 + 1)
            block = block.view(grid.num_tokens, m, m, -1)[:, centre, centre].mean(dim=(1, 2))
        parts.append(block)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
