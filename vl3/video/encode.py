"""Pictures to a video file that browsers play."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np

TICKS_PER_S = 90_000
STILL_S = 1.0  # how long a single picture is shown


def encode(pictures_TYX3: np.ndarray, times_s: Sequence[float] | None) -> bytes:
    """The pictures as H.264 in an MP4 file, each at its own time counted from the first.

    times_s: rising; None for a single picture
    The last picture is shown as long as the one before it. An odd side is made even, as the usual
    pixel format wants it, by repeating its last line.
    Shapes: pictures_TYX3 - uint8 RGB
    """
    height, width = pictures_TYX3.shape[1:3]
    even = np.pad(pictures_TYX3, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    times_s = times_s or [0.0]
    starts = [round((time_s - times_s[0]) * TICKS_PER_S) for time_s in times_s]
    gaps = [after - before for before, after in pairwise(starts)]
    durations = [*gaps, gaps[-1] if gaps else round(STILL_S * TICKS_PER_S)]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "18"})
        stream.height, stream.width = even.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS_PER_S)
        stream.codec_context.max_b_frames = 0  # packets then come in the order of the pictures
        packets = []
        for picture, start in zip(even, starts, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = start, Fraction(1, TICKS_PER_S)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, duration in zip(packets, durations, strict=True):
            packet.duration = duration
            container.mux(packet)
    return file.getvalue()
