"""Charts of what happens inside, as plotly figures, each with the numbers that it shows.

Every function returns (figure, numbers): numbers is the pandas DataFrame or NumPy array that was
drawn, figure a plotly Figure with nothing to fetch. figure.write_html works anywhere,
figure.write_image (svg, png, pdf) where kaleido finds a Chrome or Chromium.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from vl3.arguments import choice, instance, items, number, shown, whole
from vl3.ops import Mode
from vl3.values import Grid, Keep, Patches, PromptSegment, TokenGrid
from vl3.vision.prune import prune
from vl3.vision.resize import fit_grid
from vl3.vision.rope2d import angles, frequencies
from vl3.vision.rope2d import positions as patch_positions
from vl3.viz import positions
from vl3.viz.chart import Chart
from vl3.viz.pruning import LEVELS

# A chart has no ground of its own, and nobody tells the kernel whether the page is light or dark:
# every colour stands out by 4 to 1 and more from white and from black alike, words by 4.2 to 1.
CLEAR, INK, LINE = "rgba(0,0,0,0)", "#767c87", "rgba(128,134,145,0.25)"
BLUE, AMBER, GREY, GREEN = "#5b6ee1", "#c06a00", "#8b93a3", "#2a8f6c"
COLOURS = {"official": BLUE, "rlt": GREEN, "last_kept": AMBER, "off": INK}
DASHES = {"official": "solid", "rlt": "dash", "last_kept": "dot"}
SYMBOLS = {"official": "circle", "rlt": "square", "last_kept": "diamond", "off": "star"}
KINDS = {"slots": BLUE, "text": AMBER, "special": GREY}
KIND_NAMES = {"slots": "visual tokens", "text": "words and time stamps", "special": "template"}
THRESHOLDS = tuple(np.geomspace(0.01, 100, 41))
MOST_PATCHES = 100_000  # of a side: no picture has as many
RESULTS = ("mode", "threshold", "kept", "right", "asked", "ms")  # columns of an ablation
DOTTED = {"color": INK, "dash": "dot"}
TALLEST_PX = 2400  # of a chart with a row for each word; a browser draws no picture of many more
SURE = 1.96  # standard errors of an interval that holds the truth 95 times in 100

Drawn = tuple[Chart, pd.DataFrame]
Mapped = tuple[Chart, np.ndarray]


# Frames to tokens


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
    figure = _pair("All frames together", "One frame")
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
    return _styled(figure, f"A budget of {budget_tokens} visual tokens", height=340), table


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
    _square(figure)
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
    return _styled(figure, "Block order: patches of one token follow each other"), order_RC


def prompt(pieces: Sequence[PromptSegment]) -> Drawn:
    """The prompt as one bar, position by position."""
    for piece in items("pieces", pieces, "what studio.pieces gives"):
        instance(
            "each of pieces",
            piece,
            PromptSegment,
            "a vl3.values.Piece, as studio.pieces gives them",
        )
    rows = [(piece.kind, piece.text, piece.tokens, piece.time_s) for piece in pieces]
    table = pd.DataFrame(rows, columns=["kind", "text", "tokens", "time_s"])
    table.insert(0, "first", table["tokens"].cumsum() - table["tokens"])
    figure = Chart()
    for kind, part in table.groupby("kind", sort=False):
        shown = [_told(*row) for row in zip(part["kind"], part["text"], part["time_s"])]
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
    figure.update_layout(barmode="overlay", bargap=0.3, legend=_legend(), xaxis_title="position")
    return _styled(figure, f"A prompt of {table['tokens'].sum()} tokens", height=210), table


def _told(kind: str, text: str, time_s: float) -> str:
    return f"frame at {time_s:.1f} s" if kind == "slots" else text.replace("\n", "↵")


# Pruning


def kept_per_frame(keep: Keep, times_s: Sequence[float] | None = None) -> Drawn:
    """What the pruner leaves of every frame of one clip."""
    instance("keep", keep, Keep, "a vl3.values.Keep, as vl3.vision.prune gives it")
    if len(keep.grids) != 1:
        raise ValueError(f"keep is of one clip - got one of {len(keep.grids)}")
    (grid,) = keep.grids
    if times_s is not None:
        times_s = _times(times_s, grid.frames)
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
        barmode="stack", bargap=0.1, legend=_legend(), xaxis_title="frame", yaxis_title="tokens"
    )
    total = f"{kept.sum()} of {grid.num_tokens} tokens kept"
    return _styled(figure, f"{total}, {keep.mode}, threshold {keep.threshold:g}"), table


def kept_by_threshold(
    patches: Patches,
    modes: Sequence[Mode] = ("official", "rlt", "last_kept"),
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
        cast(Mode, choice("each of modes", mode, tuple(LEVELS)))
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
            line={"color": COLOURS[mode], "dash": DASHES[mode], "width": 3},
            hovertemplate=f"{mode} %{{customdata:.3g}}: %{{y:.0%}} kept<extra></extra>",
        )
    if used is not None:
        level = used * LEVELS["official"]
        figure.add_vline(level, line=DOTTED)
        figure.add_annotation(x=log10(level), y=1.03, xanchor="left", **_said("the model's own"))
    figure.update_layout(legend=_legend(), hovermode="closest")
    ends = (thresholds[0] * LEVELS["official"], 255)
    figure.update_xaxes(
        type="log",
        title="threshold in grey levels of 255",
        dtick=1,
        range=[log10(end) for end in ends],
    )
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%", title="tokens kept")
    return _styled(figure, "Kept at each threshold"), table


# Positions


def spectrum(head_channels: int, theta: float, side: int, chosen: int | None = None) -> Drawn:
    """After how many patches the rotation of each frequency repeats; side: of the larger grid."""
    step = frequencies(head_channels, theta).numpy()
    side = whole("side", side, low=1, unit="patches")
    if chosen is not None:
        chosen = whole("chosen", chosen, low=0, high=len(step) - 1)
    table = pd.DataFrame(
        {
            "frequency": np.arange(len(step)),
            "radians_per_patch": step,
            "wavelength_patches": positions.wavelengths(head_channels, theta),
        }
    )
    colours = [AMBER if number == chosen else BLUE for number in table["frequency"]]
    figure = Chart(
        go.Scatter(
            x=table["frequency"],
            y=table["wavelength_patches"],
            mode="lines+markers",
            line={"color": GREY},
            marker={"color": colours, "size": 10},
            hovertemplate="frequency %{x}: repeats after %{y:.4g} patches<extra></extra>",
        )
    )
    figure.add_hline(side, line=DOTTED)
    figure.add_annotation(
        x=0, y=log10(side), yanchor="bottom", xanchor="left", **_said("as long as the frame")
    )
    figure.update_xaxes(title="frequency, rows and columns alike", dtick=1)
    figure.update_yaxes(type="log", title="wavelength in patches", dtick=1)
    return _styled(figure, "How far each frequency reaches"), table


def angle_maps(grid: Grid, head_channels: int, theta: float, frequency: int) -> Mapped:
    """By how much one frequency turns every patch: radians below 2 pi, [row and column part, Y, X].

    Shapes: returns angle_2RC - float32, rows and cols of the grid
    """
    position_N2 = patch_positions(grid)
    angle_NR = angles(position_N2, head_channels, theta).numpy()
    count = angle_NR.shape[1] // 2
    frequency = whole("frequency", frequency, low=0, high=count - 1)
    angle_2RC = np.empty((2, grid.rows, grid.cols), np.float32)
    place = tuple(position_N2.numpy().T)
    for part in (0, 1):
        angle_2RC[part][place] = angle_NR[:, part * count + frequency] % (2 * np.pi)
    figure = _pair("row part", "column part")
    for part in (0, 1):
        figure.add_heatmap(
            z=angle_2RC[part],
            coloraxis="coloraxis",
            row=1,
            col=1 + part,
            hovertemplate="row %{y}, column %{x}: %{z:.2f} rad<extra></extra>",
        )
    bar = {"title": "angle", "tickvals": [0, np.pi, 2 * np.pi], "ticktext": ["0", "π", "2π"]}
    figure.update_layout(
        coloraxis={"colorscale": "Twilight", "cmin": 0, "cmax": 2 * np.pi, "colorbar": bar}
    )
    _square(figure)
    return _styled(figure, f"Rotation of frequency {frequency}"), angle_2RC


def similarity(grid: Grid, head_channels: int, theta: float, row: int, col: int) -> Mapped:
    """`similarity_map`, drawn."""
    similarity_RC = similarity_map(grid, head_channels, theta, row, col)
    figure = Chart(
        go.Heatmap(
            z=similarity_RC,
            colorscale="Viridis",
            zmax=1,
            colorbar={"title": "cosine"},
            hovertemplate="row %{y}, column %{x}: %{z:.2f}<extra></extra>",
        )
    )
    figure.add_scatter(
        x=[col],
        y=[row],
        mode="markers",
        hoverinfo="skip",
        marker={"symbol": "x", "size": 11, "color": "black"},
    )
    _square(figure)
    return _styled(figure, f"Alike to the patch in row {row}, column {col}"), similarity_RC


def similarity_map(grid: Grid, head_channels: int, theta: float, row: int, col: int) -> np.ndarray:
    """How alike 2D-RoPE makes every patch and one of them: float32 [rows, cols], 1 at itself.

    Raises: ValueError for a patch outside the grid.
    """
    instance("grid", grid, Grid, "a vl3.values.Grid")
    row, col = whole("row", row), whole("col", col)
    if not (0 <= row < grid.rows and 0 <= col < grid.cols):
        raise ValueError(
            f"no patch in row {row}, column {col}; there are {grid.rows} rows and {grid.cols} "
            "columns, counted from 0"
        )
    position_N2 = patch_positions(grid)
    patch = int((position_N2 == torch.tensor([row, col])).all(dim=1).nonzero())
    similarity_RC = np.empty((grid.rows, grid.cols), np.float32)
    angle_NR = angles(position_N2, head_channels, theta)
    similarity_RC[tuple(position_N2.numpy().T)] = positions.similarity(angle_NR, patch).numpy()
    return similarity_RC


def decay(head_channels: int, theta: float, farthest: int) -> Drawn:
    """Similarity of two patches by their distance, along a row and along a diagonal."""
    step = frequencies(head_channels, theta).double()
    distance = torch.arange(whole("farthest", farthest, low=0, high=MOST_PATCHES) + 1)
    mean = (distance[:, None] * step).cos().mean(dim=1).numpy()
    # half of the angles are a row's: along one side the other half does not turn
    table = pd.DataFrame(
        {"patches": distance.numpy(), "along_a_side": (1 + mean) / 2, "along_the_diagonal": mean}
    )
    figure = Chart()
    lines = (("along_a_side", BLUE, "solid"), ("along_the_diagonal", AMBER, "dash"))
    for name, colour, dash in lines:
        figure.add_scatter(
            x=table["patches"],
            y=table[name],
            name=name.replace("_", " "),
            line={"color": colour, "dash": dash, "width": 3},
            hovertemplate="%{x} patches: %{y:.2f}<extra></extra>",
        )
    figure.update_layout(
        legend=_legend(), xaxis_title="distance in patches", yaxis_title="mean cosine"
    )
    return _styled(figure, "Alike by distance"), table


def language(
    spans: Sequence[positions.Span],
    keep_M: np.ndarray,
    grid: Grid,
    tokens: TokenGrid | None = None,
) -> Drawn:
    """Positions of a clip's tokens in the prompt, had none been removed, and as they are.

    tokens: as of vl3.viz.positions.language; a token of several frames stands at its first
    """
    before_M, after_M = positions.language(spans, keep_M, grid, tokens)
    tokens = tokens or TokenGrid.of_cells(grid)
    per_step, first_S = tokens.tokens_per_step, np.array(tokens.frames)[:, 0]
    table = pd.DataFrame(
        {
            "frame": 1 + first_S.repeat(per_step),
            "token": np.arange(tokens.num_tokens) % per_step,
            "before": before_M,
            "after": pd.array(np.where(after_M < 0, 0, after_M), dtype="Int64"),
        }
    )
    table.loc[after_M < 0, "after"] = pd.NA
    kept = table.dropna()
    figure = Chart()
    for name, part, y, colour in (
        ("before pruning", table, "before", GREY),
        ("after pruning", kept, "after", BLUE),
    ):
        figure.add_scatter(
            x=part["frame"] + (part["token"] / per_step - 0.5) * 0.8,
            y=part[y].astype(int),
            mode="markers",
            name=name,
            marker={"color": colour, "size": 5},
            customdata=part[["frame", "token"]],
            hovertemplate="frame %{customdata[0]}, token %{customdata[1]}: position %{y}"
            "<extra></extra>",
        )
    figure.update_layout(legend=_legend(), xaxis_title="frame", yaxis_title="position")
    return _styled(figure, "Where the language model finds each token"), table


# Attention


def head_matrix(attention, word: int | None = None) -> Drawn:
    """Share of attention on visual tokens by layer and head.

    attention: vl3.interpret.Attention of source "language"; word: its number among those asked for,
    None for the mean of all
    """
    _check_look(attention)
    share_IHQ = attention.share_IHQ
    if word is not None:
        word = whole("word", word, low=0, high=len(attention.words) - 1)
    share_IH = share_IHQ.mean(axis=2) if word is None else share_IHQ[..., word]
    table = pd.DataFrame(
        share_IH,
        index=pd.Index(attention.layers, name="layer"),
        columns=pd.Index(attention.heads, name="head"),
    )
    figure = Chart(
        go.Heatmap(
            z=np.round(share_IH, 4),
            x=[str(head) for head in attention.heads],
            y=[str(layer) for layer in attention.layers],
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            texttemplate="%{z:.0%}" if share_IH.size <= 64 else None,
            colorbar={"tickformat": ".0%"},
            hovertemplate="layer %{y}, head %{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="head", type="category")
    figure.update_yaxes(title="layer", type="category")
    whose = "all words" if word is None else f"“{attention.words[word].strip()}”"
    return _styled(figure, f"Share of attention on the video, {whose}"), table


def words_by_frame(attention, clip: int = 0, times_s: Sequence[float] | None = None) -> Drawn:
    """How much each word gave to each frame of a clip, mean of the layers and heads asked for.

    A token that stands for several frames counts in each of them.
    attention: vl3.interpret.Attention of a source with words
    """
    _check_look(attention)
    sums = attention.cells.by_frame(attention.visual_IHQK)
    weight_QT = sums[whole("clip", clip, low=0, high=len(sums) - 1)].mean(axis=(0, 1))
    frames = weight_QT.shape[1]
    if times_s is not None:
        times_s = _times(times_s, frames)
    names = [f"{frame + 1}" for frame in range(frames)] if times_s is None else _told_apart(times_s)
    numbered = [f"{number} {word.strip()}" for number, word in enumerate(attention.words)]
    table = pd.DataFrame(
        weight_QT,
        index=pd.Index(numbered, name="word"),
        columns=pd.Index(names, name="frame"),
    )
    figure = Chart(
        go.Heatmap(
            z=table.round(4),
            x=names,
            y=numbered,
            colorscale="Cividis",
            zmin=0,
            xgap=2,
            ygap=2,
            colorbar={"tickformat": ".0%"},
            hovertemplate="%{y}: %{z:.1%} on the frame at %{x}<extra></extra>",
        )
    )
    figure.update_xaxes(title="frame", type="category")
    figure.update_yaxes(autorange="reversed", type="category")
    height = min(max(240, 150 + 34 * len(numbered)), TALLEST_PX)
    return _styled(figure, "Which frames each word looked at", height=height), table


# Ablation


def tradeoff(table: pd.DataFrame) -> Drawn:
    """Right answers and time of answers by the share of tokens kept, one line for each mode.

    table: columns mode, threshold, kept (share of tokens), right and asked (numbers of answers),
    ms (CPU, of an answer). Returned with the share of right answers and the ends of its 95 %
    interval, low and high.
    """
    instance("table", table, pd.DataFrame, f"a pandas.DataFrame of {', '.join(RESULTS)}")
    for name in RESULTS:
        choice("a column of table", name, list(map(str, table.columns)))
    low, high = wilson(table["right"], table["asked"])
    table = table.assign(share=table["right"] / table["asked"], low=low, high=high)
    figure = _pair("Answers right", "CPU milliseconds of an answer")
    for mode, part in table.groupby("mode", sort=False):
        part = part.sort_values("kept")
        common = {
            "x": part["kept"],
            "name": mode,
            "mode": "lines+markers",
            "legendgroup": mode,
            "line": {"color": COLOURS[mode], "dash": DASHES.get(mode, "solid")},
            "marker": {"symbol": SYMBOLS[mode], "size": 10},
            "customdata": part["threshold"],
        }
        told = f"{mode} %{{customdata:g}}: %{{x:.0%}} kept, "
        error = {
            "array": part["high"] - part["share"],
            "arrayminus": part["share"] - part["low"],
            "thickness": 1,
            "width": 3,
            "symmetric": False,
        }
        figure.add_scatter(
            **common,
            y=part["share"],
            error_y=error,
            row=1,
            col=1,
            hovertemplate=told + "%{y:.0%} right<extra></extra>",
        )
        figure.add_scatter(
            **common,
            y=part["ms"],
            showlegend=False,
            row=1,
            col=2,
            hovertemplate=told + "%{y:.0f} ms<extra></extra>",
        )
    figure.update_layout(legend=_legend() | {"y": 1.1})
    figure.update_xaxes(range=[0, 1.05], tickformat=".0%", title="visual tokens kept")
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", col=1)
    figure.update_yaxes(rangemode="tozero", col=2)
    return _styled(figure, "What is saved and what is lost", height=400), table


def wilson(right, asked) -> tuple:
    """Ends of the 95 % interval of a share, by Wilson's score."""
    share, doubt = right / asked, SURE**2 / asked
    middle = (share + doubt / 2) / (1 + doubt)
    half = (doubt * (share * (1 - share) + doubt / 4)) ** 0.5 / (1 + doubt)
    return middle - half, middle + half


# Arguments


def _check_look(attention) -> None:
    if not callable(getattr(attention, "maps", None)):
        raise ValueError(f"attention is what studio.attention gives - got {shown(attention)}")


def _told_apart(times_s: list[float]) -> list[str]:
    """The times as words, to a tenth of a second; finer where frames are closer."""
    for digits in (1, 2, 3):
        names = [f"{time_s:.{digits}f} s" for time_s in times_s]
        if len(set(names)) == len(names):
            return names
    return [f"{frame}: {name}" for frame, name in enumerate(names, 1)]


def _times(times_s: Sequence[float], frames: int) -> list[float]:
    listed = items("times_s", times_s, "a list of seconds, one a frame", frames)
    return [number("each of times_s", time_s, unit="seconds") for time_s in listed]


# Style


def _styled(figure: Chart, title: str, height: int = 380) -> Chart:
    """On the ground of the page, light or dark; no template, most of a small figure it would be."""
    figure.update_layout(
        template=go.layout.Template(),
        title={"text": title, "x": 0.01, "font": {"size": 17}},
        height=height,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": INK, "size": 13},
        margin={"l": 64, "r": 20, "t": 84, "b": 56},
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(gridcolor=LINE, zeroline=False, automargin=True, title_standoff=8)
    return figure


def _pair(left: str, right: str) -> Chart:
    """Two charts beside each other, with these titles."""
    return make_subplots(1, 2, figure=Chart(), subplot_titles=(left, right))


def _said(text: str) -> dict:
    """A few words in a chart. On a logarithmic axis they want the logarithm of their place."""
    return {"text": text, "font": {"color": INK}, "showarrow": False}


def _legend() -> dict:
    return {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
    }


def _square(figure: go.Figure) -> None:
    """Cells are square and row 0 is at the top."""
    for place, axis in enumerate(figure.select_yaxes(), 1):
        anchor = "x" if place == 1 else f"x{place}"
        axis.update(autorange="reversed", scaleanchor=anchor, constrain="domain", title="row")
    figure.update_xaxes(constrain="domain", title="column")
