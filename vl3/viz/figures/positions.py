"""Positions: what 2D-RoPE does to patches, and where the language model finds tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

from vl3.arguments import instance, whole
from vl3.values import Grid, TokenGrid
from vl3.vision.rope2d import angles, frequencies
from vl3.vision.rope2d import positions as patch_positions
from vl3.viz import positions
from vl3.viz.chart import Chart
from vl3.viz.figures.style import (
    AMBER,
    BLUE,
    DOTTED,
    GREY,
    Drawn,
    Mapped,
    annotation,
    legend,
    pair,
    square,
    styled,
)

MOST_PATCHES = 100_000  # of a side: no picture has as many


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
        x=0, y=log10(side), yanchor="bottom", xanchor="left", **annotation("as long as the frame")
    )
    figure.update_xaxes(title="frequency, rows and columns alike", dtick=1)
    figure.update_yaxes(type="log", title="wavelength in patches", dtick=1)
    return styled(figure, "How far each frequency reaches"), table


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
    figure = pair("row part", "column part")
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
    square(figure)
    return styled(figure, f"Rotation of frequency {frequency}"), angle_2RC


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
    square(figure)
    return styled(figure, f"Alike to the patch in row {row}, column {col}"), similarity_RC


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
        legend=legend(), xaxis_title="distance in patches", yaxis_title="mean cosine"
    )
    return styled(figure, "Alike by distance"), table


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
    figure.update_layout(legend=legend(), xaxis_title="frame", yaxis_title="position")
    return styled(figure, "Where the language model finds each token"), table
