"""Attention: how much of it went to visual tokens, by layer and head, and to each frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from vl3.arguments import shown, whole
from vl3.viz.chart import Chart
from vl3.viz.figures.style import Drawn, checked_times, styled

TALLEST_PX = 2400  # of a chart with a row for each word; a browser draws no picture of many more


def head_matrix(attention, word: int | None = None) -> Drawn:
    """Share of attention on visual tokens by layer and head.

    attention: vl3.interpret.Attention of source "language"; word: its number among those asked for,
    None for the mean of all
    """
    _check_attention(attention)
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
    return styled(figure, f"Share of attention on the video, {whose}"), table


def words_by_frame(attention, clip: int = 0, times_s: Sequence[float] | None = None) -> Drawn:
    """How much each word gave to each frame of a clip, mean of the layers and heads asked for.

    A token that stands for several frames counts in each of them.
    attention: vl3.interpret.Attention of a source with words
    """
    _check_attention(attention)
    sums = attention.cells.by_frame(attention.visual_IHQK)
    weight_QT = sums[whole("clip", clip, low=0, high=len(sums) - 1)].mean(axis=(0, 1))
    frames = weight_QT.shape[1]
    if times_s is not None:
        times_s = checked_times(times_s, frames)
    names = (
        [f"{frame + 1}" for frame in range(frames)] if times_s is None else _distinct_names(times_s)
    )
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
    return styled(figure, "Which frames each word looked at", height=height), table


def _check_attention(attention) -> None:
    if not callable(getattr(attention, "maps", None)):
        raise ValueError(f"attention is what studio.attention gives - got {shown(attention)}")


def _distinct_names(times_s: list[float]) -> list[str]:
    """The times as words, to a tenth of a second; finer where frames are closer."""
    for digits in (1, 2, 3):
        names = [f"{time_s:.{digits}f} s" for time_s in times_s]
        if len(set(names)) == len(names):
            return names
    return [f"{frame}: {name}" for frame, name in enumerate(names, 1)]
