"""Still pictures, through PIL; those of phones (HEIC) through the video decoder."""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from vl3.arguments import shown, whole
from vl3.values import Clip
from vl3.video import limits
from vl3.video.container import local_file, shown_name
from vl3.video.decoder import result, run
from vl3.video.errors import VideoError
from vl3.video.header_cache import once_per_file
from vl3.video.heif import heif_rgb, heif_size, is_heif
from vl3.video.job import Link, Picture
from vl3.video.levels import eight_bits, over_white
from vl3.video.square import Square, squared

# The limit on pixels is ours (limits.PICTURE_PIXELS); PIL warns below it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_FORMATS = (
    "JPEG",
    "PNG",
    "GIF",
    "WEBP",
    "BMP",
    "DIB",
    "TIFF",
    "PPM",
    "AVIF",
    "JPEG2000",
    "ICO",
    "TGA",
    "PCX",
    "SGI",
)
_ANIMATED = {"gif", "png", "webp", "avif"}
_PLAYED = {"webp", "avif"}  # the animations that PIL plays here; libavformat the others
# Brands of those whose headers PIL has a decoder in C read.
_READ_IN_C = {b"WEBP", b"avif", b"avis", b"mif1", b"msf1"}
_REDUCED, _WHITE = 254, 281  # TIFF tags: a preview of a larger picture; the largest value
# What PIL raises of damaged files.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    zlib.error,
)
# Kinds that libavformat would show as a video, or say nothing of.
_LETTERS = {
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"8BPS": "Photoshop",
}

Target = tuple[int, int] | Square  # (height, width), or the square that a picture is brought to
# A picture YX3 at (height, width), as `resized` gives it.
Resize = Callable[[np.ndarray, Any], np.ndarray]


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What the header of a file says that PIL knows.

    format: PIL's name of it, in lower case; frames: of an animation, or pages
    height_px, width_px: as shown
    """

    format: str
    frames: int
    height_px: int
    width_px: int
    notes: tuple[str, ...]


def is_image(path: str | os.PathLike) -> bool:
    """True when the content is a still picture; an animation of several frames is a video.

    Raises: VideoError - as local_file; a picture too large to be opened safely
    """
    return kind_of(local_file(path)) == "image"


def kind_of(path: Path) -> str:
    """What a local file shows, by its content: "image" or "video".

    Raises: VideoError - a picture too large to be opened safely
    """
    if is_heif(path):
        return "image"
    header = picture_header(path)
    is_still = header is not None and (header.format not in _ANIMATED or header.frames == 1)
    return "image" if is_still else "video"


def is_animation(path: Path) -> bool:
    """True for a webp or avif of several frames, which PIL reads."""
    header = None if is_heif(path) else picture_header(path)
    return header is not None and header.format in _PLAYED and header.frames > 1


@once_per_file(64)
def picture_header(path: Path) -> PictureHeader | None:
    """What PIL reads of a file's header; None where it knows no such file.

    Raises: VideoError - too large; a known kind that is damaged or not read
    """
    with open(path, "rb") as file:
        head = file.read(12)
    if head[8:] in _READ_IN_C:
        return result(path, limits.read_deadline_s(path), partial(identify, path))
    return _header(path)  # read in Python: 0.2 ms, where the way to a process and back takes 0.9


def identify(path: Path, link: Link) -> Iterator[PictureHeader | None]:
    """The header of a picture, as a job."""
    yield _header(path)


def _header(path: Path) -> PictureHeader | None:
    picture = _identify(path)
    if picture is None:
        return None
    with picture:
        name, height, width = (picture.format or "picture").lower(), picture.height, picture.width
        # PIL gives a TIFF's size as it is shown
        if name != "tiff" and _orientation(picture) in (5, 6, 7, 8):
            height, width = width, height
        frames = _num_frames(picture) if name in {*_ANIMATED, "tiff"} else 1
        return PictureHeader(name, frames, height, width, _pages(picture))


def resized(rgb_YX3: np.ndarray, size: Target) -> np.ndarray:
    """The picture at (height, width) or in a square, by PIL's bicubic filter on uint8."""
    if isinstance(size, Square):
        return squared(rgb_YX3, size)
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

    picture is a path, a PIL image, or an array (height, width[, 1, 3 or 4]) of uint8, uint16, or
    floats from 0 to 1 or 0 to 255 (`levels.eight_bits`). size and resize as in vl3.video.read.
    Raises: VideoError - a file that is not a picture, damaged, or too large; an array of another
    shape or type
    """

    def fit(height_px: int, width_px: int) -> Target:
        target = resolve_size(size, 1, height_px, width_px)
        check_target("the picture", target, height_px, width_px)
        return target

    if not isinstance(picture, np.ndarray | Image.Image):
        return _read_file(local_file(picture), fit, resize)
    if isinstance(picture, np.ndarray):
        (rgb, notes), source = _from_array(picture), "array"
    else:
        (rgb, notes), source = _upright(picture, "the picture"), "picture"
    frame_YX3 = resize(rgb, fit(*rgb.shape[:2]))
    return Clip(frames_TYX3=frame_YX3[None], times_s=None, source=source, notes=notes)


def _read_file(path: Path, fit: Callable[[int, int], Target], resize: Resize) -> Clip:
    # what resizes may need this process, or a GPU
    native, limit_s = resize is not resized, limits.read_deadline_s(path)
    job, area_px = partial(still, path, native), math.prod(image_size(path))
    for found in run(path, limit_s, job, area_px=area_px, ask=fit):
        if isinstance(found, Picture):
            pixels_YX3 = found.pixels_YX3
            frame_YX3 = resize(pixels_YX3, fit(*found.shown_px)) if native else pixels_YX3
            frames_TYX3 = np.array(frame_YX3[None])
        else:
            notes = found
    return Clip(frames_TYX3=frames_TYX3, times_s=None, source=str(path), notes=notes)


def still(path: Path, native: bool, link: Link) -> Iterator[Picture | tuple[str, ...]]:
    """A picture at the size that its caller says (native: at its own), then notes; as a job."""
    rgb_YX3, notes = _from_file(path)
    shown_px = rgb_YX3.shape[0], rgb_YX3.shape[1]
    yield Picture(rgb_YX3 if native else resized(rgb_YX3, link.ask(*shown_px)), shown_px)
    yield notes


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as displayed, from the header.

    Raises: VideoError - a file that is not a picture
    """
    found = local_file(path)
    if is_heif(found):
        return heif_size(found)
    header = picture_header(found)
    if header is None:
        raise VideoError(f"{shown_name(found)} is not a picture that can be read.")
    return header.height_px, header.width_px


def image_format(path: Path) -> str:
    """PIL's name of a picture's format, in lower case."""
    return "heic" if is_heif(path) else cast(PictureHeader, picture_header(path)).format


def check_target(name: str, target: Target, height_px: int, width_px: int) -> None:
    """Raises: VideoError - a picture that would become too large on its way to this size"""
    if not isinstance(target, Square):
        limits.check_picture("the size asked for", *target)
    elif target.fit == "pad":
        limits.check_picture(f"{name}, padded to a square,", *[max(height_px, width_px)] * 2)


def shape_of(target: Target) -> tuple[int, int]:
    """Height and width of what comes of a picture."""
    return (target.seen_px, target.seen_px) if isinstance(target, Square) else target


def resolve_size(size: Any, num_frames: int, height_px: int, width_px: int) -> Target:
    """What a picture is brought to: size may be None, a pair, a Square, or a callable that gives
    a pair."""
    if isinstance(size, Square):
        return size
    chosen = size(num_frames, height_px, width_px) if callable(size) else size
    if chosen is None:
        return height_px, width_px
    try:
        height, width = chosen
        return whole("height of size", height, low=1), whole("width of size", width, low=1)
    except TypeError:
        given = shown(chosen)
    except ValueError as error:
        given = shown(chosen) if "of size" not in str(error) else str(error)
    raise VideoError(f"size is (height, width) in pixels, at least 1 x 1 - got {given}.")


def still_notes(path: Path) -> tuple[str, ...]:
    """What a person must know of a still picture before it is decoded."""
    return () if is_heif(path) else cast(PictureHeader, picture_header(path)).notes


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF data say, once."""
    return ImageOps.exif_transpose(picture) if _orientation(picture) > 1 else picture


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 where there is none or it cannot be read."""
    try:
        found = picture.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, TypeError):
        return 1
    return found if found in range(1, 9) else 1


def _num_frames(picture: Image.Image) -> int:
    """Frames or pages; 1 where damage keeps them from being counted."""
    try:
        return getattr(picture, "n_frames", 1)
    except DAMAGE:
        return 1


def _pages(picture: Image.Image) -> tuple[str, ...]:
    pages = _num_frames(picture) if picture.format == "TIFF" else 1
    return (f"The picture has {pages} pages; the first is read.",) if pages > 1 else ()


def _identify(path: Path) -> Image.Image | None:
    """The picture with its header read; None where PIL knows none.

    Raises: VideoError - too large; a known kind that is damaged or not read
    """
    name = shown_name(path)
    try:
        picture = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise VideoError(
            f"{name} is too large: pictures of at most {limits.PICTURE_PIXELS // 10**6} million "
            "pixels are read; make it smaller first."
        ) from None
    except (*DAMAGE, UnidentifiedImageError):
        kind = _claimed_kind(path)
        if kind is None:
            return None
        raise VideoError(
            f"{name} is damaged or a {kind} picture of a kind that is not read; save it as PNG or "
            "JPEG first."
        ) from None
    limits.check_picture(name, picture.height, picture.width)
    if picture.format == "TIFF" and getattr(picture, "tag_v2", {}).get(_REDUCED, 0) & 1:
        picture.close()
        raise VideoError(
            f"{name} is a camera's raw file, of which only a small preview can be read; export it "
            "as JPEG or TIFF first."
        )
    return picture


def _claimed_kind(path: Path) -> str | None:
    """The kind of still picture that a file says it is by its first letters."""
    with open(path, "rb") as file:
        head = file.read(16)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((kind for letters, kind in _LETTERS.items() if head.startswith(letters)), None)


def _from_file(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    if is_heif(path):
        return heif_rgb(path), ()
    picture = _identify(path)
    if picture is None:
        raise VideoError(f"{shown_name(path)} is not a picture that can be read.")
    with picture:
        return _upright(picture, shown_name(path))


def _upright(picture: Image.Image, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 RGB, alpha laid over white, and notes."""
    limits.check_picture(name, picture.height, picture.width)
    notes = _pages(picture)
    try:
        picture.load()
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise VideoError(f"{name} is damaged or incomplete: {_first_line(error)}.") from None
    white = _named_white(picture)
    picture = upright(picture)
    if picture.mode.startswith(("I", "F")):
        grey, more = eight_bits(np.asarray(picture), name, white)
        return np.repeat(grey[..., None], 3, axis=2), notes + more
    if picture.has_transparency_data:
        return over_white(np.asarray(picture.convert("RGBA"))), notes
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")), notes


def _named_white(picture: Image.Image) -> float | None:
    """The largest value of a TIFF's samples, where the file names it."""
    found = picture.tag_v2.get(_WHITE) if isinstance(picture, TiffImageFile) else None
    named = max(found) if isinstance(found, tuple) and found else found
    return float(named) if isinstance(named, int | float) and named > 0 else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _from_array(array: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise VideoError(
            f"A picture array has the shape (height, width, 3) - got {array.shape}; channels last."
        )
    notes: tuple[str, ...] = ()
    if array.dtype.kind == "f" or array.dtype == np.uint16:
        array, notes = eight_bits(array, "The picture")
    elif array.dtype != np.uint8:
        raise VideoError(
            f"A picture array is uint8, uint16, or float from 0 to 1 or 0 to 255 - got "
            f"{array.dtype}."
        )
    if array.shape[2] == 4:
        return over_white(array), notes
    rgb = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
    return np.ascontiguousarray(rgb), notes
