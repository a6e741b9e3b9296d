"""Ablation: what pruning saves and what it loses."""

from __future__ import annotations

import pandas as pd

from vl3.arguments import choice, instance
from vl3.viz.figures.style import MODE_COLOURS, MODE_DASHES, Drawn, legend, pair, styled

MODE_SYMBOLS = {"official": "circle", "rlt": "square", "last_kept": "diamond", "off": "star"}
RESULTS = ("mode", "threshold", "kept", "right", "asked", "ms")  # columns of an ablation
SURE = 1.96  # standard errors of an interval that holds the truth 95 times in 100


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
    figure = pair("Answers right", "CPU milliseconds of an answer")
    for mode, part in table.groupby("mode", sort=False):
        part = part.sort_values("kept")
        common = {
            "x": part["kept"],
            "name": mode,
            "mode": "lines+markers",
            "legendgroup": mode,
            "line": {"color": MODE_COLOURS[mode], "dash": MODE_DASHES.get(mode, "solid")},
            "marker": {"symbol": MODE_SYMBOLS[mode], "size": 10},
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
    figure.update_layout(legend=legend() | {"y": 1.1})
    figure.update_xaxes(range=[0, 1.05], tickformat=".0%", title="visual tokens kept")
    figure.update_yaxes(range=[0, 1.05], tickformat=".0%", col=1)
    figure.update_yaxes(rangemode="tozero", col=2)
    return styled(figure, "What is saved and what is lost", height=400), table


def wilson(right, asked) -> tuple:
    """Ends of the 95 % interval of a share, by Wilson's score."""
    share, doubt = right / asked, SURE**2 / asked
    middle = (share + doubt / 2) / (1 + doubt)
    half = (doubt * (share * (1 - share) + doubt / 4)) ** 0.5 / (1 + doubt)
    return middle - half, middle + half
