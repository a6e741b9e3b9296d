"""Pictures, and what is heard with them, to a video file that browsers play."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np

from vl3.sound import RATE_HZ, Sound

TICKS_PER_S = 90_000
STILL_S = 1.0  # how long a single picture is shown
AAC_BITS_PER_S = 96_000  # of one channel: as good as it gets at 16 kHz


def encode(
    pictures_TYX3: np.ndarray, times_s: Sequence[float] | None, sound: Sound | None = None
) -> bytes:
    """The pictures as H.264 in an MP4 file, each at its own time counted from the first.

    times_s: rising; None for a single picture
    sound: as AAC beside them, counted from the first picture as well; what is before that is left
    out, and without samples there is no track
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
        if sound is not None:
            packets += _sound_packets(container, sound)
        for packet in packets:
            container.mux(packet)
    return file.getvalue()


def _sound_packets(container: av.container.OutputContainer, sound: Sound) -> list[av.Packet]:
    """The packets of a track that is added for what is heard from the first picture on."""
    start = round(sound.start_s * RATE_HZ)
    samples_S = sound.samples_S[max(0, -start) :]
    if not len(samples_S):
        return []
    stream = container.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=AAC_BITS_PER_S)
    frame = av.AudioFrame.from_ndarray(samples_S[None], format="fltp", layout="mono")
    frame.rate, frame.pts, frame.time_base = RATE_HZ, max(0, start), Fraction(1, RATE_HZ)
    return [*stream.encode(frame), *stream.encode(None)]
