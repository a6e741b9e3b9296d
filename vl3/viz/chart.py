"""A plotly figure that carries a picture of itself, for every place that does not run plotly."""

from __future__ import annotations

import base64
from functools import cache

import plotly.graph_objects as go
import plotly.io

WIDTH_PX, HEIGHT_PX = 900, 450
DRAWN = {"scatter": "lines", "bar": "bars", "heatmap": "heat map"}  # traces, in words
NO_PICTURE = (
    "no picture beside it, because {}; install kaleido and Chrome or Chromium (BROWSER_PATH names "
    "one that is not found)"
)


class Chart(go.Figure):
    """A figure that a notebook keeps as plotly's JSON and as a PNG with words.

    A chart that only plotly's JavaScript can draw is lost where a notebook is read: on GitHub, in
    what nbconvert makes of it, in an editor without the extension. So each display of this one
    holds both, after every run. The PNG needs kaleido and a Chrome; without them the text says so.
    """

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = self._repr_mimebundle_() if plotly.io.renderers.render_on_display else {}
        if not bundle:  # shown in a window of its own, or not at all
            super()._ipython_display_()
            return
        words = alt_text(self)
        try:
            bundle["image/png"] = base64.b64encode(png(self)).decode("ascii")
        except NoPicture as missing:
            words = f"{words} ({NO_PICTURE.format(missing)})"
        bundle["text/plain"] = words
        display(bundle, metadata={"image/png": {"alt": words}}, raw=True)


class NoPicture(RuntimeError):
    """A figure cannot be drawn outside a browser here; the text is one clause that says why."""


def png(figure: go.Figure, width: int = WIDTH_PX) -> bytes:
    """The figure as a PNG, drawn by a Chrome without a window that stays for the next one.

    Raises: NoPicture where kaleido or a Chrome is missing.
    """
    options = {"format": "png", "width": width, "height": figure.layout.height or HEIGHT_PX}
    try:
        return _drawing().calc_fig_sync(figure.to_plotly_json(), opts=options)
    except ImportError as error:
        raise NoPicture("kaleido is not installed") from error
    except Exception as error:  # of a browser in another process: no family of its own
        said = str(error.args[0]) if error.args else type(error).__name__
        raise NoPicture(said.partition(". ")[0].rstrip(".")) from error


@cache
def _drawing():
    """kaleido with a browser that stays, ten times as fast from the second figure on.

    The first picture is drawn without it: a browser that cannot be started is an error there, and
    an endless wait in kaleido's server.
    """
    import kaleido

    kaleido.calc_fig_sync(go.Figure().to_plotly_json(), opts={"format": "png"})
    kaleido.start_sync_server(silence_warnings=True)  # ends with the program
    return kaleido


def alt_text(figure: go.Figure) -> str:
    """What a figure is, for those who do not see it: its title, what is drawn over what."""
    drawn = sorted({DRAWN.get(trace.type, trace.type) for trace in figure.data})
    series = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    axes = [
        f"{y.title.text} by {x.title.text}"
        for x, y in zip(figure.select_xaxes(), figure.select_yaxes())
        if x.title.text and y.title.text
    ]
    words = f"{figure.layout.title.text or 'Chart'}: {' and '.join(drawn)}"
    words += f" of {', '.join(dict.fromkeys(axes))}" if axes else ""
    return words + (f", for {', '.join(dict.fromkeys(series))}" if series else "")
