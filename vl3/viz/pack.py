"""Arrays and pictures as text that fits in JSON, read back by assets/web/views/unpack.js."""

from __future__ import annotations

import base64
import io
from math import ceil, sqrt

import numpy as np
from PIL import Image

SHEET_PX = 12_000_000  # of all thumbnails together; four bytes of memory each once decoded
BLOCK_PX = 16  # JPEG works in blocks; a picture that fills its blocks does not bleed into the next
JPEG_QUALITY = 85


def packed(values: np.ndarray) -> str:
    """The bytes of the array, little-endian, in base64."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(values.data).decode("ascii")


def packed_24_bit(values: np.ndarray) -> str:
    """Integers 0 <= value < 2**24 in three bytes each, lowest first, in base64."""
    if values.size and not 0 <= values.min() <= values.max() < 1 << 24:
        raise ValueError("three bytes hold 0 to 16777215")
    wide = np.ascontiguousarray(values, "<u4").reshape(-1, 1).view(np.uint8)
    return packed(wide[:, :3])


def sheet(frames_TYX3: np.ndarray) -> dict:
    """All frames as one JPEG, reduced where they would be too many pixels.

    Returns url (a data URL), columns, width and height of a thumbnail, and pitch, the distance in
    pixels from one to the next across and down.
    """
    count, height, width = frames_TYX3.shape[:3]
    scale = min(1.0, sqrt(SHEET_PX / (count * height * width)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pitch = tuple(ceil(side / BLOCK_PX) * BLOCK_PX for side in size)
    columns = max(1, round(sqrt(count * pitch[1] / pitch[0])))
    rows = ceil(count / columns)
    canvas = np.zeros((rows * pitch[1], columns * pitch[0], 3), np.uint8)
    margins = ((0, pitch[1] - size[1]), (0, pitch[0] - size[0]), (0, 0))
    for index, frame in enumerate(frames_TYX3):
        top, left = index // columns * pitch[1], index % columns * pitch[0]
        small = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
        cell = np.pad(np.asarray(small), margins, mode="edge")
        canvas[top : top + pitch[1], left : left + pitch[0]] = cell
    jpeg = io.BytesIO()
    Image.fromarray(canvas).save(jpeg, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode("ascii")
    return {
        "url": url,
        "columns": columns,
        "width": size[0],
        "height": size[1],
        "pitch": list(pitch),
    }
