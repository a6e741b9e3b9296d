"""What the notebooks show: a sample as the model reads it, curves of a run, answers side by side.

Values in, something to display out; nothing here loads a model or trains one.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from IPython.display import HTML
from PIL import Image

from vl3.data.preview import Preview, TextPiece
from vl3.viz.chart import Chart
from vl3.viz.figures.style import AMBER, BLUE, CLEAR, INK, LINE

LEARNED, VISUAL, READ = "#9fd8b4", "#d5dcf5", "#eceff1"
RIGHT, WRONG = "#2a8f6c", "#d0504a"  # read on white and on black


def frames(view: Preview) -> HTML:
    """The frames of a sample's first medium; what the pruner removes is faded."""
    cells = ""
    for frame in view.media[0].frames:
        time = "" if frame.time_s is None else f"{frame.time_s:.1f} s: "
        cells += (
            f"<figure style='margin:0'>{_image(frame.picture, 'webp', 140)}"
            f"<figcaption>{time}{frame.kept} of {frame.tokens} tokens</figcaption></figure>"
        )
    return HTML(f"<div style='display:flex;gap:8px;flex-wrap:wrap;font-size:12px'>{cells}</div>")


def prompt(view: Preview, conversations: int) -> HTML:
    """The first conversations of a sample, token by token; learned ones are green."""
    rows = "".join(
        f"<p style='font:13px/1.9 monospace'>{' '.join(map(_piece, conversation))}</p>"
        for conversation in view.conversations[:conversations]
    )
    count = (
        f"{view.tokens} tokens in all {len(view.conversations)} conversations, "
        f"{view.learned} learned"
    )
    return HTML(f"<b>{count}</b>{rows}")


def _piece(piece: TextPiece) -> str:
    text = f"image × {piece.count}" if piece.visual else html.escape(piece.text.strip("\n") or "↵")
    colour = LEARNED if piece.learned else VISUAL if piece.visual else READ
    edge = RIGHT if piece.learned else "transparent"
    return (
        f"<span style='background:{colour};color:#111;border-bottom:2px solid {edge};"
        f"margin:1px;padding:0 3px;border-radius:3px;white-space:pre'>{text}</span>"
        f"{'<br>' if piece.text.endswith(chr(10)) else ''}"
    )


def curves(run: Path, title: str, right: str) -> Chart:
    """The loss of a run and the share of right answers of one family, by step."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    logged = [line for line in lines if "loss" in line]
    steps = [line["step"] for line in logged]
    figure = Chart()
    figure.add_scatter(
        x=steps,
        y=[line["loss"] for line in logged],
        name="loss",
        line={"color": BLUE, "width": 3},
    )
    figure.add_scatter(
        x=steps,
        y=[line[f"right/{right}"] for line in logged],
        name="answers right",
        yaxis="y2",
        line={"color": AMBER, "width": 3, "dash": "dot"},
    )
    figure.update_layout(
        title=title,
        height=340,
        template="none",
        margin={"t": 60, "b": 40},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font_color=INK,
        xaxis_title="step",
        yaxis={"title": "loss", "rangemode": "tozero"},
        yaxis2={
            "title": "answers right",
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.05],
            "tickmode": "array",
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "tickformat": ".0%",
            "showgrid": False,
        },
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.15},
    )
    figure.update_xaxes(gridcolor=LINE)
    figure.update_yaxes(gridcolor=LINE)
    return figure


def answers(
    pictures: Sequence[np.ndarray],
    questions: Sequence[str],
    right: Sequence[str],
    said: dict[str, Sequence[str]],
) -> HTML:
    """Each picture with its question and what each model said, right ones ticked."""
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("", "question", *said))
    rows = ""
    for number, (picture, question, wanted) in enumerate(zip(pictures, questions, right)):
        cells = "".join(_answer(given[number], wanted) for given in said.values())
        rows += (
            f"<tr><td>{_image(_png(picture), 'png', 56)}</td>"
            f"<td style='text-align:left'>{html.escape(question)}</td>{cells}</tr>"
        )
    return HTML(f"<table><tr>{head}</tr>{rows}</table>")


def _answer(given: str, wanted: str) -> str:
    mark, colour = ("✓", RIGHT) if given == wanted else ("✗", WRONG)
    text = html.escape(given if len(given) < 30 else f"{given[:30]} ...")
    return f"<td style='text-align:left'><span style='color:{colour}'>{mark}</span> {text}</td>"


def strip(files: Sequence[Path]) -> HTML:
    """Pictures side by side."""
    shown = "".join(_image(file.read_bytes(), "png", 100) for file in files)
    return HTML(f"<div style='display:flex;gap:8px;flex-wrap:wrap'>{shown}</div>")


def _png(picture_YX3: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture_YX3).save(file, "png")
    return file.getvalue()


def _image(data: bytes, kind: str, width: int) -> str:
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f"<img width={width} style='margin:0' src='{source}' alt=''>"
