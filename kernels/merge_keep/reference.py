"""Merging and keeping in plain torch. This is the definition; fused.py must agree with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def merge_keep(
    x_ND: torch.Tensor, clips: Sequence[tuple[int, int]], keep: torch.Tensor | None = None
) -> torch.Tensor:
    """One feature per merged token, clip after clip, and of these the kept ones.

    Bilinear reduction by a whole factor m (corners not aligned) reads the map halfway between the
    central patches of every m x m block: their mean for an even m (for m = 2 the mean of all
    four), the central patch alone for an odd one. In block order that is an index, no map needed.

    clips: (tokens, m) of each
    Shapes: x_ND - patch features in block order
            keep - [M] bool, or [K] int64, the token of each slot; None keeps all
            returns x_KD
    """
    parts, start = [], 0
    for tokens, m in clips:
        block = x_ND[start : start + tokens * m * m]
        start += tokens * m * m
        if m > 1:
            centre = slice((m - 1) // 2, m // 2 + 1)
            block = block.view(tokens, m, m, x_ND.shape[1])[:, centre, centre].mean(dim=(1, 2))
        parts.append(block)
    x_MD = parts[0] if len(parts) == 1 else torch.cat(parts)
    return x_MD if keep is None else x_MD[keep]
