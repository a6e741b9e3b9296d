"""Pictures of other depths, or with alpha, to 8-bit RGB: which value is white."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vl3.video.errors import VideoError

_ROOM = 0.01  # by which filters overshoot
# Cameras and scanners put 10 or 12 bits into 16: where the upper half of that range is used and
# nothing above it, it is the range.
_BITS = {10: (512, 1023), 12: (2048, 4095)}
_DEEP = 65535


def over_white(rgba_YX4: np.ndarray) -> np.ndarray:
    """RGB of a picture with alpha, laid over white."""
    picture = Image.fromarray(np.ascontiguousarray(rgba_YX4))
    ground = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(ground, picture).convert("RGB"))


def eight_bits(
    values: np.ndarray, name: str, white: float | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 of a picture of 16 or 32 bits or of floats, and a note where its range was guessed.

    Floats are 0 to 1 where none is above 1, 0 to 255 where some is 16 or more, and 0 to 65535
    where some is above 255. Whole numbers are 0 to 65535, or the 10 or 12 bits that they use.
    white: the value of white where the file names it

    Raises: VideoError - NaN, values below 0, floats whose range cannot be told
    """
    if values.dtype == np.float16:
        values = values.astype(np.float32)  # 65535 is none of its numbers
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise VideoError(f"{name} holds values that are no numbers (NaN or infinite).")
    notes: tuple[str, ...] = ()
    is_float = values.dtype.kind == "f"
    if white is None or high > white:
        white = _float_white(high) if is_float else _whole_white(high, values.dtype.itemsize)
        if not is_float and white not in (255, _DEEP):
            notes = (f"{name} is read with {white:g} as white, the range that its values use.",)
    if white is None or low < -_ROOM * white:
        raise VideoError(
            f"{name} has values from {low:.4g} to {high:.4g}: floats are read from 0 to 1 or from "
            "0 to 255, and nothing below 0; scale it first."
        )
    return np.round(np.clip(values / white, 0, 1) * 255).astype(np.uint8), notes


def _float_white(high: float) -> float | None:
    if high <= 1 + _ROOM:
        return 1.0
    if high < 16 or high > _DEEP:
        return None
    return 255.0 if high <= 255 * (1 + _ROOM) else float(_DEEP)


def _whole_white(high: float, bytes_each: int) -> float:
    for least, most in _BITS.values():
        if least <= high <= most:
            return most
    if bytes_each > 2 and high <= 255:
        return 255  # numbers of 32 bits have no range of their own
    return max(_DEEP, high)
