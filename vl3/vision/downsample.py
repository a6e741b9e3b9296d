"""Merging patches into tokens: bilinear down-sampling of the feature map."""

from __future__ import annotations

import torch

from vl3 import ops
from vl3.values import Grid


def downsample(
    x_ND: torch.Tensor, grids: tuple[Grid, ...], keep: torch.Tensor | None = None
) -> torch.Tensor:
    """One feature per merged token, clip after clip; with keep those of the kept tokens alone.

    Halfway between the central patches of every merge x merge block, which for merge 2 is the mean
    of its four; see kernels/merge_keep/reference.py.

    Shapes: x_ND - patch features in block order; keep - [M] bool or [K] int64; returns x_MD, x_KD
    Source: VideoLLaMA3 modeling_videollama3_encoder.py (interpolate after the post-layernorm).
    """
    clips = [(grid.num_tokens, grid.merge) for grid in grids]
    return ops.merge_keep(x_ND, clips, None if keep is None else keep.to(x_ND.device))
