"""Still pictures (and animated webp, which the video library cannot decode), through PIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vl3.values import Clip
from vl3.video.container import local_file, shown_name
from vl3.video.errors import VideoError

_FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO",
    "TGA", "PCX", "SGI",
)  # fmt: skip
_ANIMATED = {"GIF", "PNG", "WEBP", "AVIF"}

# A picture YX3 at (height, width), as `resized` gives it.
Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


def is_image(path: str | os.PathLike) -> bool:
    """True when the content is a still picture; an animation of several frames is a video.

    Raises: VideoError - as local_file; a picture too large to be opened safely
    """
    picture = _identify(local_file(path))
    if picture is None:
        return False
    with picture:
        return picture.format not in _ANIMATED or getattr(picture, "n_frames", 1) == 1


def is_animated_webp(path: Path) -> bool:
    """True for a webp of several frames."""
    with open(path, "rb") as file:
        if file.read(12)[8:12] != b"WEBP":
            return False
    picture = _identify(path)
    if picture is None:
        return False
    with picture:
        return getattr(picture, "n_frames", 1) > 1


def resized(rgb_YX3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (height, width), by PIL's bicubic filter on uint8."""
    if rgb_YX3.shape[:2] == size:
        return np.ascontiguousarray(rgb_YX3)
    picture = Image.fromarray(np.ascontiguousarray(rgb_YX3))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC))


def read_image(
    picture: str | os.PathLike | Image.Image | np.ndarray,
    *,
    size: object = None,
    resize: Resize = resized,
) -> Clip:
    """A clip of one frame without time: upright uint8 RGB, alpha laid over white.

    picture is a path, a PIL image, or an array (height, width[, 1, 3 or 4]) of uint8, or of
    floats from 0 to 1. size and resize as in vl3.video.read.
    Raises: VideoError - a file that is not a picture, damaged, or too large; an array of another
    shape or type
    """
    if isinstance(picture, np.ndarray):
        rgb, source = _from_array(picture), "array"
    elif isinstance(picture, Image.Image):
        rgb, source = _upright(picture, "the picture"), "picture"
    else:
        path = local_file(picture)
        rgb, source = _from_file(path), str(path)
    target = resolve_size(size, 1, *rgb.shape[:2])
    return Clip(frames_TYX3=resize(rgb, target)[None], times_s=None, source=source)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as displayed, from the header.

    Raises: VideoError - a file that is not a picture
    """
    picture = _identify(local_file(path))
    if picture is None:
        raise VideoError(f"{shown_name(path)} is not a picture that can be read.")
    with picture:
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (picture.width, picture.height) if turned else (picture.height, picture.width)


def image_format(path: Path) -> str:
    """PIL's name of the format, in lower case."""
    with _identify(path) as picture:
        return (picture.format or "picture").lower()


def resolve_size(size: object, num_frames: int, height_px: int, width_px: int) -> tuple[int, int]:
    """(height, width) to resize to: size may be None, a pair, or a callable that gives a pair."""
    chosen = size(num_frames, height_px, width_px) if callable(size) else size
    height, width = (height_px, width_px) if chosen is None else (int(x) for x in chosen)
    if min(height, width) < 1:
        raise VideoError(f"size is at least 1 x 1 pixels - got {height} x {width} (height, width).")
    return height, width


def over_white(rgba_YX4: np.ndarray) -> np.ndarray:
    """RGB of a picture with alpha, laid over white."""
    picture = Image.fromarray(np.ascontiguousarray(rgba_YX4))
    ground = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(ground, picture).convert("RGB"))


def _identify(path: Path) -> Image.Image | None:
    try:
        return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise VideoError(
            f"{shown_name(path)} is too large to open safely: more than "
            f"{2 * Image.MAX_IMAGE_PIXELS // 10**6} million pixels; make it smaller first."
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


def _from_file(path: Path) -> np.ndarray:
    picture = _identify(path)
    if picture is None:
        raise VideoError(f"{shown_name(path)} is not a picture that can be read.")
    with picture:
        return _upright(picture, shown_name(path))


def _upright(picture: Image.Image, name: str) -> np.ndarray:
    try:
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise VideoError(f"{name} is damaged or incomplete: {error}.") from None
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        return np.repeat(_eight_bits(np.asarray(picture))[..., None], 3, axis=2)
    if picture.has_transparency_data:
        return over_white(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _eight_bits(grey_YX: np.ndarray) -> np.ndarray:
    """8-bit grey of a 16-bit, 32-bit or float picture, scaled by its range and not clipped."""
    if grey_YX.dtype.kind == "f" and grey_YX.max(initial=0.0) <= 1.0:
        top = 1.0
    else:
        top = 255.0 if grey_YX.max(initial=0) <= 255 and grey_YX.dtype.kind == "f" else 65535.0
    top = max(top, float(grey_YX.max(initial=0)))
    return np.round(np.clip(grey_YX / top, 0, 1) * 255).astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise VideoError(
            f"A picture array has the shape (height, width, 3) - got {array.shape}; channels last."
        )
    if array.dtype.kind == "f":
        array = np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)
    elif array.dtype == np.uint16:
        array = np.round(array / 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise VideoError(f"A picture array is uint8, or float from 0 to 1 - got {array.dtype}.")
    if array.shape[2] == 4:
        return over_white(array)
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array)
