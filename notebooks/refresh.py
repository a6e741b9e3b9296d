"""Runs notebooks and keeps small outputs in them: python notebooks/refresh.py pruning rope

Figures stay as plotly's JSON with their PNG beside it, made smaller, which is what GitHub shows;
widgets leave the picture that stands in for them. Needs the extra `notebooks`, and Chrome or
Chromium for the PNGs (BROWSER_PATH where it is not found by itself).
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"
COLOURS = 255  # of a PNG: charts have few
JPEG_QUALITY = 72
MOST_BYTES = 200_000


def refresh(name: str) -> int:
    """Runs one notebook in place; returns its size in bytes."""
    file = HERE / f"{name}.ipynb"
    notebook = nbformat.read(file, 4)
    where = {"metadata": {"path": HERE}}
    client = NotebookClient(notebook, resources=where, timeout=600, record_timing=False)
    client.coalesce_streams = True
    client.execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            settle(output)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, file)
    return file.stat().st_size


def settle(output) -> None:
    """Makes one output fit for being read without a kernel.

    Raises: ValueError for one that a reader should not see.
    """
    if output.output_type == "stream" and output.name == "stderr":
        raise ValueError(f"something was said on stderr: {output.text}")
    data = output.get("data", {})
    data.pop(WIDGET, None)
    if PLOTLY in data:
        data[PLOTLY].pop("config", None)
        if "image/png" not in data:
            raise ValueError(f"a chart without a picture: {data.get('text/plain')}")
        data["image/png"] = fewer_colours(data["image/png"])
    elif "image/png" in data:
        smallest(output)


def smallest(output) -> None:
    """A picture as JPEG or PNG, as is smaller: Pillow's come as both. Its words stay with it."""
    data, words = output.data, output.metadata.pop("image/png", None)
    data.pop("image/jpeg", None)
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    picture.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY)
    jpeg = base64.b64encode(file.getvalue()).decode("ascii")
    if len(jpeg) < len(data["image/png"]):
        data["image/jpeg"] = jpeg
        del data["image/png"]
    if words:
        output.metadata["image/jpeg" if "image/jpeg" in data else "image/png"] = words


def fewer_colours(png: str) -> str:
    """A chart's PNG with a palette, transparent as it was; both in base64."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA")
    method = Image.Quantize.FASTOCTREE  # the one that keeps transparency
    picture.quantize(COLOURS, method, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def main(names: list[str]) -> int:
    os.environ.update(HF_HUB_OFFLINE="1", PLOTLY_RENDERER="plotly_mimetype")
    too_large = False
    for name in names:
        size = refresh(name)
        too_large |= size > MOST_BYTES
        print(f"{name}: {size / 1000:.0f} kB{' - too large' if size > MOST_BYTES else ''}")
    return int(too_large)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
