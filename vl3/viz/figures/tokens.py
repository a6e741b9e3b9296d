"""Tokens: what a clip costs, the order of its patches, its prompt, and what pruning leaves."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import cast, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vl3.arguments import choice, instance, items, number
from vl3.settings import PruneMode
from vl3.values import Grid, Keep, Patches, PromptSegment
from vl3.vision.prune import prune
from vl3.vision.resize import fit_grid
from vl3.vision.rope2d import positions as patch_positions
from vl3.viz.chart import Chart
from vl3.viz.figures.style import (
    AMBER,
    BLUE,
    DOTTED,
    GREY,
    INK,
    LINE,
    MODE_COLOURS,
    MODE_DASHES,
    Drawn,
    Mapped,
    annotation,
    checked_times,
    legend,
    pair,
    square,
    styled,
)
from vl3.viz.pruning import LEVELS

KINDS = {"slots": BLUE, "text": AMBER, "special": GREY}
KIND_NAMES = {"slots": "visual tokens", "text": "words and time stamps", "special": "template"}
THRESHOLDS = tuple(np.geomspace(0.01, 100, 41))


def budget(
    size: tuple[int, int], budget_tokens: int, frames: Sequence[int], merge: int = 2
) -> Drawn:
    """What a clip of this height and width costs, by its number of frames."""
    height, width = items("size", size, "(height, width) in pixels", count=2)
    counts = items("frames", frames, "a list of numbers of frames")
    grids = [fit_grid([(count, height, width)], merge, budget_tokens)[0] for count in counts]
    rows = [
        (grid.frames, grid.token_rows, grid.token_cols, grid.tokens_per_frame, grid.num_tokens)
        for grid in grids
    ]
    table = pd.DataFrame(rows, columns=["frames", "rows", "cols", "tokens_per_frame", "tokens"])
    figure = pair("All frames together", "One frame")
    for col, name in ((1, "tokens"), (2, "tokens_per_frame")):
        figure.add_scatter(
            x=table["frames"],
            y=table[name],
            mode="lines+markers",
            line={"color": BLUE},
            customdata=table[["rows", "cols"]],
            row=1,
            col=col,
            hovertemplate="%{x} frames: %{y} tokens, %{customdata[0]} x %{customdata[1]} each",
            name="",
            showlegend=False,
        )
    figure.add_hline(budget_tokens, line=DOTTED, row=1, col=1)
    figure.update_xaxes(title="frames")
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="visual tokens", col=1)
    return styled(figure, f"A budget of {budget_tokens} visual tokens", height=340), table


def block_order(grid: Grid) -> Mapped:
    """In which order the patches of a frame enter the encoder: int64 [rows, cols]."""
    position_N2 = patch_positions(grid).numpy()
    order_RC = np.empty((grid.rows, grid.cols), int)
    order_RC[tuple(position_N2.T)] = np.arange(len(position_N2))
    figure = Chart(
        go.Heatmap(
            z=order_RC,
            colorscale="Cividis",
            showscale=False,
            xgap=1,
            ygap=1,
            texttemplate="%{z}",
            hovertemplate="row %{y}, column %{x}: patch %{z}<extra></extra>",
        )
    )
    square(figure)
    for row in range(grid.token_rows):
        for col in range(grid.token_cols):
            left, top = col * grid.merge - 0.5, row * grid.merge - 0.5
            figure.add_shape(
                type="rect",
                x0=left,
                x1=left + grid.merge,
                y0=top,
                y1=top + grid.merge,
                line={"color": INK, "width": 3},
            )
    return styled(figure, "Block order: patches of one token follow each other"), order_RC


def prompt(pieces: Sequence[PromptSegment]) -> Drawn:
    """The prompt as one bar, position by position."""
    for piece in items("pieces", pieces, "what studio.pieces gives"):
        instance(
            "each of pieces",
            piece,
            PromptSegment,
            "a vl3.values.PromptSegment, as studio.pieces gives them",
        )
    rows = [(piece.kind, piece.text, piece.tokens, piece.time_s) for piece in pieces]
    table = pd.DataFrame(rows, columns=["kind", "text", "tokens", "time_s"])
    table.insert(0, "first", table["tokens"].cumsum() - table["tokens"])
    figure = Chart()
    for kind, part in table.groupby("kind", sort=False):
        shown = [_segment_text(*row) for row in zip(part["kind"], part["text"], part["time_s"])]
        figure.add_bar(
            base=part["first"],
            x=part["tokens"],
            y=[""] * len(part),
            orientation="h",
            name=KIND_NAMES[kind],
            marker={"color": KINDS[kind], "line_width": 0},
            hovertext=shown,
            hovertemplate="%{hovertext}: %{x} tokens from position %{base}<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.3, legend=legend(), xaxis_title="position")
    return styled(figure, f"A prompt of {table['tokens'].sum()} tokens", height=210), table


def _segment_text(kind: str, text: str, time_s: float) -> str:
    return f"frame at {time_s:.1f} s" if kind == "slots" else text.replace("\n", "↵")


def kept_per_frame(keep: Keep, times_s: Sequence[float] | None = None) -> Drawn:
    """What the pruner leaves of every frame of one clip."""
    instance("keep", keep, Keep, "a vl3.values.Keep, as vl3.vision.prune gives it")
    if len(keep.grids) != 1:
        raise ValueError(f"keep is of one clip - got one of {len(keep.grids)}")
    (grid,) = keep.grids
    if times_s is not None:
        times_s = checked_times(times_s, grid.frames)
    shape = (grid.frames, grid.tokens_per_frame)
    kept, placeholders = (
        mask.view(shape).sum(dim=1).numpy() for mask in (keep.keep_M, keep.placeholder_M)
    )
    table = pd.DataFrame(
        {
            "frame": np.arange(1, grid.frames + 1),
            "time_s": np.full(grid.frames, np.nan) if times_s is None else np.array(times_s),
            "kept": kept,
            "placeholders": placeholders,
            "removed": grid.tokens_per_frame - kept,
        }
    )
    figure = Chart()
    bars = (
        ("changed", table["kept"] - table["placeholders"], {"color": BLUE}),
        ("placeholder", table["placeholders"], {"color": AMBER}),
        (
            "removed",
            table["removed"],
            {
                "color": LINE,
                "pattern": {"shape": "-", "fgcolor": GREY, "size": 6, "solidity": 0.15},
            },
        ),
    )
    for name, values, marker in bars:
        figure.add_bar(
            x=table["frame"],
            y=values,
            name=name,
            marker=marker,
            hovertemplate=f"frame %{{x}}: %{{y}} {name}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack", bargap=0.1, legend=legend(), xaxis_title="frame", yaxis_title="tokens"
    )
    total = f"{kept.sum()} of {grid.num_tokens} tokens kept"
    return styled(figure, f"{total}, {keep.mode}, threshold {keep.threshold:g}"), table


def kept_by_threshold(
    patches: Patches,
    modes: Sequence[PruneMode] = get_args(PruneMode),
    thresholds: Sequence[float] = THRESHOLDS,
    used: float | None = None,
) -> Drawn:
    """Share of tokens kept by every mode at every threshold; used: the model's own, official."""
    rows = []
    thresholds = [
        number("each of thresholds", threshold, above=0)
        for threshold in items("thresholds", thresholds, "a list of numbers")
    ]
    if not thresholds:
        raise ValueError("thresholds is empty; leave it out for those of the pruning view")
    used = None if used is None else number("used", used, above=0)
    modes = [
        cast(PruneMode, choice("each of modes", mode, tuple(LEVELS)))
        for mode in items("modes", modes, "a list of modes of the pruner")
    ]
    for mode in modes:
        for threshold in thresholds:
            kept = int(prune(patches, threshold, mode).keep_M.sum())
            rows.append((mode, threshold, threshold * LEVELS[mode], kept))
    table = pd.DataFrame(rows, columns=["mode", "threshold", "grey_levels", "kept"])
    table["share"] = table["kept"] / sum(grid.num_tokens for grid in patches.grids)
    figure = Chart()
    for mode, part in table.groupby("mode", sort=False):
        figure.add_scatter(
            x=part["grey_levels"],
            y=part["share"],
            name=mode,
            customdata=part["threshold"],
            line={"color": MODE_COLOURS[mode], "dash": MODE_DASHES[mode], "width": 3},
            hovertemplate=f"{mode} %{{customdata:.3g}}: %{{y:.0%}} kept<extra></extra>",
        )
    if used is not None:
        level = used * LEVELS["official"]
        figure.add_vline(level, line=DOTTED)
        figure.add_annotation(
            x=log10(level), y=1.03, xanchor="left", **annotation("the model's own")
        )
    figure.update_layout(legend=legend(), hovermode="closest")
    ends = (thresholds[0] * LEVELS["official"], 255)
    figure.update_xaxes(
        type="log",
        title="threshold in grey levels of 255",
        dtick=1,
        range=[log10(end) for end in ends],
    )
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", title="tokens kept")
    return styled(figure, "Kept at each threshold"), table
