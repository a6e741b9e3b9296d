"""Decoded frames to upright RGB: colour matrix and range, alpha, interlacing, rotation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from vl3.video.levels import over_white

# AVColorSpace of a frame -> the matrix of the converter. HDR (BT.2020 with PQ or HLG) gets the
# right matrix and no tone mapping: it looks flat but is not distorted.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_UNTAGGED_HD_HEIGHT_PX = 720


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels become the picture shown: mirror left-right first, then turn clockwise."""

    clockwise_deg: int = 0
    mirrored: bool = False
    pixel_aspect: Fraction = Fraction(1)

    def display_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """(height, width) as shown for stored pixels of this size; square pixels."""
        width_px = max(1, round(width_px * self.pixel_aspect))
        return (width_px, height_px) if self.clockwise_deg % 180 else (height_px, width_px)

    def upright(self, stored_YX3: np.ndarray) -> np.ndarray:
        mirrored = stored_YX3[:, ::-1] if self.mirrored else stored_YX3
        return np.rot90(mirrored, -(self.clockwise_deg // 90))


def orientation(frame: av.VideoFrame, stream: av.video.stream.VideoStream) -> Orientation:
    """The orientation of a stream, from the display matrix of a frame or an old rotate tag."""
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if not Fraction(1, 16) <= aspect <= 16:
        aspect = Fraction(1)
    for side in cast(Any, frame.side_data):
        if side.type == SideData.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
            mirrored = a * d - b * c < 0
            angle = math.degrees(math.atan2(-b, -a) if mirrored else math.atan2(b, a))
            return Orientation(round(angle / 90) % 4 * 90, mirrored, aspect)
    tag = stream.metadata.get("rotate", "0")
    turn = round(float(tag) / 90) % 4 * 90 if tag.lstrip("-").isdigit() else 0
    return Orientation(turn, False, aspect)


def stored_rgb(frame: av.VideoFrame, untagged: str = "height") -> np.ndarray:
    """uint8 RGB of a frame as stored: not turned, pixels not made square; of any strides.

    untagged: matrix of footage that names none - "height" (BT.709 from 720 lines, else BT.601) or
    "bt601" (what ffmpeg does whatever the size; the official reader's colours).
    """
    if frame.interlaced_frame:
        frame = _deinterlaced(frame)
    if any(part.is_alpha for part in frame.format.components):
        return over_white(_convert(frame, "rgba", untagged))
    return _convert(frame, "rgb24", untagged)


def _convert(frame: av.VideoFrame, layout: str, untagged: str) -> np.ndarray:
    if frame.format.is_rgb or frame.format.name.startswith(("pal8", "mono")):
        return _packed(frame.reformat(format=layout))
    tall = untagged == "height" and frame.height >= _UNTAGGED_HD_HEIGHT_PX
    default = Colorspace.ITU709 if tall else Colorspace.ITU601
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return _packed(
        frame.reformat(
            format=layout,
            src_colorspace=_MATRICES.get(frame.colorspace, default),
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BICUBIC,
        )
    )


def _packed(frame: av.VideoFrame) -> np.ndarray:
    """The values of a frame of one plane, where they lie: a copy less than to_ndarray makes."""
    (plane,) = frame.planes
    num_values = len(frame.format.components)
    if plane.line_size < num_values * frame.width:
        return frame.to_ndarray()  # stored from the bottom up
    rows = np.frombuffer(cast(Any, plane), np.uint8).reshape(-1, plane.line_size)
    used = rows[: frame.height, : num_values * frame.width]
    return used.reshape(frame.height, frame.width, num_values)


def _deinterlaced(frame: av.VideoFrame) -> av.VideoFrame:
    """One whole picture from the later field alone, so that no neighbour has to be decoded."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    steps = [source, graph.add("estdif", "mode=frame:deint=all"), graph.add("buffersink")]
    graph.link_nodes(*steps).configure()
    graph.push(frame)
    graph.push(None)
    return cast(av.VideoFrame, graph.pull())
