"""The rotation of 2D-RoPE in plain torch. This is the definition; fused.py must agree with it."""

from __future__ import annotations

import torch

# Of each run of equal frames: how many frames, patches of one frame, angle_NR of one frame.
Runs = tuple[tuple[int, int, torch.Tensor], ...]


def rotate(
    q_NHC: torch.Tensor, k_NHC: torch.Tensor, runs: Runs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys turned by the angles of their patches.

    The caller gives q and k away: the fused version writes into them where no gradient is recorded.

    Shapes: q_NHC, k_NHC - packed over frames, in the order of the runs, which fill N
            returns q_NHC, k_NHC
    """
    return _each(q_NHC, runs), _each(k_NHC, runs)


def _each(x_NHC: torch.Tensor, runs: Runs) -> torch.Tensor:
    parts, start = [], 0
    for frames, length, angle_NR in runs:
        part = x_NHC[start : start + frames * length].unflatten(0, (frames, length))
        parts.append(turn(part, angle_NR).flatten(0, 1))
        start += frames * length
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def turn(x_NHC: torch.Tensor, angle_NR: torch.Tensor) -> torch.Tensor:
    """x with channel pairs (j, j + C/2) turned by angle j; computed in float32, cast back.

    Shapes: x_NHC - queries or keys; N may be preceded by a frame dimension
    """
    cos, sin = angle_NR.cos()[:, None], angle_NR.sin()[:, None]
    first, second = x_NHC.float().chunk(2, dim=-1)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x_NHC.dtype)
