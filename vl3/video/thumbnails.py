"""A few small pictures of a clip for the least work, for looking at and not for a model."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from vl3.values import Clip
from vl3.video.container import local_file
from vl3.video.frames import Size, read_picks, timeline_of
from vl3.video.timeline import Timeline

Span = tuple[float, float, float]


def thumbnails(
    path: str | os.PathLike, spans: Sequence[Span], size: Size, timeout_s: float = 30.0
) -> Clip:
    """One frame for each span (start, time, end) of seconds, under its own time.

    The keyframe nearest to `time` from start on and before end, since it is decoded alone. In a
    span without a keyframe it is the frame shown at `time`, decoded from the keyframe before.

    Raises: VideoError - one sentence on what is wrong with the file
    """
    found = local_file(path)
    timeline = timeline_of(found, timeout_s)
    wanted = sorted({_cheapest(timeline, *span) for span in spans})
    frames, given, losses = read_picks(found, timeline, wanted, size, timeout_s=timeout_s)
    times_s = timeline.times_s[[index for _, index in given]].tolist()
    return Clip(
        frames_TYX3=frames, times_s=tuple(times_s), source=str(path), lost_frames=losses.lost
    )


def _cheapest(timeline: Timeline, start_s: float, time_s: float, end_s: float) -> int:
    times_s = timeline.times_s
    keys = np.flatnonzero(np.isin(timeline.packet_F, timeline.keys_G))
    keys = keys[(times_s[keys] >= start_s) & (times_s[keys] < end_s)]
    if len(keys):
        return int(keys[np.argmin(np.abs(times_s[keys] - time_s))])
    return max(int(np.searchsorted(times_s, time_s + 1e-6, side="right")) - 1, 0)
