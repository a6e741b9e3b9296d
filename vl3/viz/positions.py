"""The data of the positions view: what 2D-RoPE and the language model's positions say of a patch.

Angles and frequencies are the encoder's own tensors, taken from vl3.vision.rope2d; a row's angles
are those of any patch in it, so one line per row and one per column hold them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import tau
from typing import Any

import numpy as np
import torch

from vl3.arguments import instance, items, number, shown, whole
from vl3.values import Grid, TokenGrid
from vl3.vision.rope2d import angles, frequencies
from vl3.vision.rope2d import positions as patch_positions
from vl3.vision.token_map import kept_tokens
from vl3.viz.pack import packed

Span = tuple[int, int]
SPAN = "(first position, slots)"
NO_POSITION = -1  # of a token that was removed


def data(
    grid: Grid,
    head_channels: int,
    theta: float = 10000.0,
    *,
    spans: Sequence[Span] | None = None,
    keep_M: np.ndarray | None = None,
    tokens: TokenGrid | None = None,
    times_s: Sequence[float] | None = None,
    source: str = "",
    frame: int = 0,
) -> dict:
    """What mount() of assets/web/views takes to show the positions of one clip or image.

    head_channels, theta: of the vision encoder's attention heads
    spans: (first position, slots) of the clip's frames in the prompt (vl3.prompt.Prompt.spans), or
           of the steps that a connector joins frames to; without them the language model's
           positions are left out
    keep_M: bool, which of the clip's merged cells were kept; without it all of them
    tokens: what the connector makes of the grid (EncodedVideo.tokens); without it each cell is one
    """
    position_N2 = patch_positions(grid)
    angle_NR = angles(position_N2, head_channels, theta)
    frame = whole("frame", frame, low=0, high=grid.frames - 1)
    if times_s is not None:
        times_s = items("times_s", times_s, "a list of seconds, one a frame", grid.frames)
        times_s = [number("each of times_s", time_s, unit="seconds") for time_s in times_s]
    num_frequencies = angle_NR.shape[1] // 2
    row_RF, col_CF = _lines(position_N2, angle_NR, num_frequencies)
    shown: dict[str, Any] = {
        "view": "positions",
        "source": source,
        "times_s": None if times_s is None else list(times_s),
        "frames": grid.frames,
        "rows": grid.rows,
        "cols": grid.cols,
        "merge": grid.merge,
        "order": packed(position_N2.numpy().astype(np.uint16)),
        "row_angles": packed(row_RF),
        "col_angles": packed(col_CF),
        "frequencies": packed(frequencies(head_channels, theta).numpy()),
        "language": None,
        "frame": frame,
    }
    if spans is not None:
        keep_M = np.ones(grid.num_tokens, bool) if keep_M is None else keep_M
        tokens = tokens or TokenGrid.of_cells(grid)
        before, after = language(spans, keep_M, grid, tokens)
        shown["language"] = {
            "before": packed(before.astype(np.int32)),
            "after": packed(after.astype(np.int32)),
            "tokens": tokens.tokens_per_step,
            "steps": steps_of_frames(tokens),
        }
    return shown


def _lines(position_N2: torch.Tensor, angle_NR: torch.Tensor, count: int):
    """Angles of every row and of every column, in order: float32 [rows, F] and [cols, F]."""
    first = [np.unique(position_N2[:, axis], return_index=True)[1] for axis in (0, 1)]
    angle = angle_NR.numpy()
    return angle[first[0], :count], angle[first[1], count:]


def wavelengths(head_channels: int, theta: float = 10000.0) -> np.ndarray:
    """Patches after which the rotation of each frequency repeats."""
    return tau / frequencies(head_channels, theta).numpy()


def similarity(angle_NR: torch.Tensor, patch: int) -> torch.Tensor:
    """How alike 2D-RoPE makes every patch and one of them: mean cosine of the angles between.

    It is the attention score, relative to its largest, of a query and a key that are equal and have
    the same strength in every pair of channels.

    Shapes: returns similarity_N - float32, 1 at the patch itself
    """
    return (angle_NR - angle_NR[patch]).cos().mean(dim=1)


def steps_of_frames(tokens: TokenGrid) -> list[int]:
    """The number of the step that stands for each frame, or for one before it where none does."""
    return [
        max((step for step, (first, _) in enumerate(tokens.frames) if first <= frame), default=0)
        for frame in range(tokens.grid.frames)
    ]


def language(
    spans: Sequence[Span], keep_M: np.ndarray, grid: Grid, tokens: TokenGrid | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a clip's tokens in the prompt: had none been removed, and as they are.

    Removing a token moves everything after it forward; the words between frames, time stamps among
    them, move along. Positions before the clip are those of the prompt as it is.

    tokens: what the connector makes of the grid; None where each merged cell is a token
    Shapes: keep_M - bool [M] of merged cells; returns before_K, after_K - int64 of all tokens, step
            after step, after_K NO_POSITION where removed
    Raises: ValueError when spans and mask are not of the same clip.
    """
    instance("grid", grid, Grid, "a vl3.values.Grid")
    if np.shape(keep_M) != (grid.num_tokens,):
        raise ValueError(
            f"keep_M says of each of {grid.num_tokens} tokens whether it is kept - "
            f"got {shown(keep_M)} of shape {np.shape(keep_M)}"
        )
    known = items("spans", spans, f"a list of {SPAN}")
    pairs = (items("each of spans", span, SPAN, 2) for span in known)
    spans = [
        (whole("each of a span", first, low=0), whole("each of a span", slots, low=0))
        for first, slots in pairs
    ]
    tokens = tokens or TokenGrid.of_cells(grid)
    steps, each = len(tokens.frames), tokens.tokens_per_step
    keep_SK = kept_tokens(tokens, np.asarray(keep_M, bool)).reshape(steps, each)
    kept_S = keep_SK.sum(axis=1)
    if [slots for _, slots in spans] != kept_S.tolist():
        raise ValueError(
            f"the spans hold {sum(slots for _, slots in spans)} slots in {len(spans)} frames, the "
            f"mask keeps {kept_S.sum()} tokens in {steps}; take both from one prompt"
        )
    first_S = np.array([first for first, _ in spans])
    removed_before_S = np.concatenate([[0], np.cumsum(each - kept_S)[:-1]])
    before = (first_S + removed_before_S)[:, None] + np.arange(each)
    after = first_S[:, None] + keep_SK.cumsum(axis=1) - 1
    return before.ravel(), np.where(keep_SK, after, NO_POSITION).ravel()
