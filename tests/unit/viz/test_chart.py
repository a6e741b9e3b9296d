"""Charts keep a picture of themselves, and are read on a light page and on a dark one."""

import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbclient import NotebookClient

from vl3.values import Grid, Keep, PromptSegment
from vl3.viz import figures
from vl3.viz.chart import Chart, NoPicture, _drawing, alt_text, png
from vl3.viz.figures.style import CLEAR

PLOTLY = "application/vnd.plotly.v1+json"
WHITE, JUPYTER_DARK = "#ffffff", "#111111"
GRID = Grid(frames=2, rows=4, cols=6, merge=2)
needs_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")


def charts() -> list[Chart]:
    """One of every function that needs no model."""
    import torch

    keep_M = torch.arange(GRID.num_tokens) % 3 > 0
    change_M = torch.zeros(GRID.num_tokens)
    keep = Keep(
        keep_M=keep_M,
        change_M=change_M,
        placeholder_M=~keep_M & False,
        grids=(GRID,),
        mode="official",
        threshold=0.1,
    )
    row = {"mode": "off", "threshold": np.nan, "kept": 1.0, "right": 3, "asked": 4, "ms": 5.0}
    rows = [row, row | {"mode": "rlt", "kept": 0.5}, row | {"mode": "official", "kept": 0.7}]
    pieces = [
        PromptSegment(kind="text", text="hi", tokens=2),
        PromptSegment(kind="special", text="<|im_end|>", tokens=1),
        PromptSegment(kind="slots", text="", tokens=3, clip=0, frame=0, time_s=0.0),
    ]
    drawn = (
        figures.budget((240, 320), 1728, range(1, 20)),
        figures.block_order(GRID),
        figures.prompt(pieces),
        figures.kept_per_frame(keep),
        figures.spectrum(32, 10000.0, 6, 2),
        figures.angle_maps(GRID, 32, 10000.0, 1),
        figures.similarity(GRID, 32, 10000.0, 1, 1),
        figures.decay(32, 10000.0, 6),
        figures.language([(3, 4), (9, 4)], keep_M.numpy(), GRID),
        figures.tradeoff(pd.DataFrame(rows)),
    )
    return [figure for figure, _ in drawn]


def contrast(colour: str, ground: str) -> float:
    """Ratio of the luminances of two #rrggbb colours, as WCAG has it."""
    bright = []
    for written in (colour, ground):
        part = [int(written[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        line = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in part]
        bright.append(np.dot(line, (0.2126, 0.7152, 0.0722)) + 0.05)
    return max(bright) / min(bright)


@pytest.mark.parametrize("figure", charts(), ids=lambda figure: figure.layout.title.text)
def test_every_colour_is_seen_on_a_light_page_and_on_a_dark_one(figure):
    layout = figure.to_plotly_json()["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == CLEAR
    assert contrast(layout["font"]["color"], WHITE) > 4.1
    assert contrast(layout["font"]["color"], JUPYTER_DARK) > 4.1
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    rest = [] if maps else list(figure.data)  # marks on a map have its ground
    drawn = [
        getattr(trace, part).color
        for trace in rest
        for part in ("line", "marker")
        if trace.type == "scatter" or part == "marker"
    ]
    plain = [each for each in drawn if isinstance(each, str) and each.startswith("#")]
    for colour in plain:
        assert contrast(colour, WHITE) > 3, colour
        assert contrast(colour, JUPYTER_DARK) > 3, colour
    assert plain or maps, "a chart without a colour that was looked at"


@pytest.mark.parametrize("figure", charts(), ids=lambda figure: figure.layout.title.text)
def test_words_for_those_who_do_not_see_it(figure):
    words = alt_text(figure)
    assert words.startswith(figure.layout.title.text)
    assert re.search("lines|bars|heat map", words)


@pytest.mark.slow
@needs_browser
def test_a_notebook_that_was_run_keeps_pictures_of_charts_views_and_sliders():
    cells = (
        "import numpy as np, ipywidgets\n"
        "from vl3 import widgets\n"
        "from vl3.values import Clip, Grid\n"
        "from vl3.viz import figures\n"
        "grid = Grid(frames=2, rows=4, cols=6, merge=2)\n"
        "clip = Clip(frames_TYX3=np.zeros((2, 56, 84, 3), np.uint8), times_s=(0, 1), source='x')\n"
        "figures.decay(32, 1e4, 6)[0]",
        "widgets.pruning(clip, grid)",
        "widgets.positions(grid, 32)",
        "widgets.Controls(lambda n: figures.decay(32, 1e4, n)[0], n=ipywidgets.IntSlider(6, 2, 9))",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=200).execute()
    for cell in notebook.cells:
        (output,) = cell.outputs
        assert output.data["image/png"].startswith("iVBOR"), cell.source
        assert len(output.metadata["image/png"]["alt"]) > 20
        assert len(output.data["text/plain"]) > 20
    assert PLOTLY in notebook.cells[0].outputs[0].data


def test_without_a_browser_the_chart_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chrome")
    _drawing.cache_clear()
    with pytest.raises(NoPicture, match="/nowhere/chrome"):
        png(Chart(go.Scatter(x=[1], y=[2])))
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **more: shown.append(data))
    monkeypatch.setattr("plotly.io.renderers.render_on_display", True)
    monkeypatch.setattr("plotly.io._renderers.renderers.default", "plotly_mimetype")
    Chart(go.Scatter(x=[1], y=[2]))._ipython_display_()
    (data,) = shown
    assert PLOTLY in data
    assert "image/png" not in data
    assert "BROWSER_PATH" in data["text/plain"]
