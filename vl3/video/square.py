"""Pictures for a model that sees squares of one size: cut, stretched or padded to one.

    16 x 9      crop: the middle     stretch: all of it,     pad: all of it,
                                     out of shape            bars above and below

Source: CLIP's image processor (crop), SigLIP's (stretch), VideoLLaMA2 mm_utils.py (pad, before the
one or the other), on uint8 with PIL's bicubic filter; the same bits, but for the middle of pictures
more than LONGEST times as long as wide, which is cut before they would be resized as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from vl3.arguments import choice, items, shown, whole

Fit = Literal["crop", "stretch", "pad"]
FITS: tuple[Fit, ...] = ("crop", "stretch", "pad")
LONGEST = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Square:
    """The square that every picture is brought to.

    side_px: of the square; seen_px: what is looked at of it, from the top left, where its patches
    do not fill it; fit: how a picture comes to it; fill: grey levels of the bars of "pad"
    Raises: ValueError in one sentence.
    """

    side_px: int
    seen_px: int
    fit: Fit = "crop"
    fill: tuple[int, int, int] = (127, 127, 127)

    def __post_init__(self) -> None:
        side = whole("side_px of a square", self.side_px, low=1)
        object.__setattr__(self, "side_px", side)
        seen = whole("seen_px of a square", self.seen_px, low=1, high=side)
        object.__setattr__(self, "seen_px", seen)
        object.__setattr__(self, "fit", choice("fit", self.fit, FITS))
        levels = items("fill of a square", self.fill, "three grey levels", 3)
        fill = tuple(whole("each level of fill", level, low=0, high=255) for level in levels)
        object.__setattr__(self, "fill", fill)


def read_square(raw: object) -> Square | None:
    """The square that a JSON object spells out; None for none. Raises: ValueError."""
    if raw is None:
        return None
    if not isinstance(raw, dict) or not {"side_px", "seen_px"} <= raw.keys():
        raise ValueError(
            f"square is an object with side_px, seen_px, fit and fill - got {shown(raw)}"
        )
    for name in raw.keys() - set(Square.__slots__):
        raise ValueError(f"a square has no setting {name}")
    return Square(**raw)


def squared(rgb_YX3: np.ndarray, square: Square) -> np.ndarray:
    """What is looked at of a picture that was brought to the square: [seen_px, seen_px, 3]."""
    picture = Image.fromarray(np.ascontiguousarray(rgb_YX3))
    if square.fit == "pad":
        picture = padded(picture, square.fill)
    side = square.side_px
    if square.fit == "stretch" or picture.width == picture.height:
        found = picture.resize((side, side), Image.Resampling.BICUBIC)
    else:
        found = middle(picture, side)
    return np.asarray(found)[: square.seen_px, : square.seen_px]


def padded(picture: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    """The picture in the middle of a square; of two sizes that differ by one, nearer to 0."""
    width, height = picture.size
    side = max(width, height)
    found = Image.new("RGB", (side, side), fill)
    found.paste(picture, ((side - width) // 2, (side - height) // 2))
    return found


def middle(picture: Image.Image, side: int) -> Image.Image:
    """The middle side x side pixels of the picture whose shorter side became `side`."""
    width, height = picture.size
    short = min(width, height)
    size = side * width // short, side * height // short
    left, top = ((length - side) // 2 for length in size)
    if max(size) > LONGEST * side:
        across, down = width / size[0], height / size[1]
        box = (left * across, top * down, (left + side) * across, (top + side) * down)
        return picture.resize((side, side), Image.Resampling.BICUBIC, box)
    whole_picture = picture.resize(size, Image.Resampling.BICUBIC)
    return whole_picture.crop((left, top, left + side, top + side))
