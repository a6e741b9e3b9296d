"""What the charts have in common: colours, ground, legend, titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vl3.arguments import items, number
from vl3.viz.chart import Chart

# A chart is transparent, and a kernel does not know whether the page is light or dark: every colour
# has a contrast of 4 to 1 and more with white and with black alike, words one of 4.2 to 1.
CLEAR, INK, LINE = "rgba(0,0,0,0)", "#767c87", "rgba(128,134,145,0.25)"
BLUE, AMBER, GREY, GREEN = "#5b6ee1", "#c06a00", "#8b93a3", "#2a8f6c"
MODE_COLOURS = {"official": BLUE, "rlt": GREEN, "last_kept": AMBER, "off": INK}
MODE_DASHES = {"official": "solid", "rlt": "dash", "last_kept": "dot"}
DOTTED = {"color": INK, "dash": "dot"}

Drawn = tuple[Chart, pd.DataFrame]
Mapped = tuple[Chart, np.ndarray]


def styled(figure: Chart, title: str, height: int = 380) -> Chart:
    """Title, fonts and a transparent ground; no template, which would be most of a small figure."""
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


def pair(left: str, right: str) -> Chart:
    """Two charts beside each other, with these titles."""
    return make_subplots(1, 2, figure=Chart(), subplot_titles=(left, right))


def annotation(text: str) -> dict:
    """A few words in a chart. On a logarithmic axis they are placed by the logarithm of x or y."""
    return {"text": text, "font": {"color": INK}, "showarrow": False}


def legend() -> dict:
    return {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "traceorder": "normal",
    }


def square(figure: go.Figure) -> None:
    """Cells are square and row 0 is at the top."""
    for place, axis in enumerate(figure.select_yaxes(), 1):
        anchor = "x" if place == 1 else f"x{place}"
        axis.update(autorange="reversed", scaleanchor=anchor, constrain="domain", title="row")
    figure.update_xaxes(constrain="domain", title="column")


def checked_times(times_s: Sequence[float], frames: int) -> list[float]:
    """The times as floats. Raises: ValueError where they are not one number a frame."""
    listed = items("times_s", times_s, "a list of seconds, one a frame", frames)
    return [number("each of times_s", time_s, unit="seconds") for time_s in listed]
