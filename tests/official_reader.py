"""Frames as the official VideoLLaMA 3 code asks for them, read in mode "official"."""

import numpy as np

from vl3 import video


def read_official(
    path,
    *,
    start_time=None,
    end_time=None,
    fps=1,
    max_frames=180,
    size=None,
    size_divisible=1,
    temporal_factor=1,
) -> tuple[np.ndarray, tuple[float, ...]]:
    """frames_TYX3 and times_s as the official load_video gives them.

    size: length of the shorter side; size_divisible: both sides are cut down to multiples of it
    temporal_factor: the last frame is repeated up to a multiple of it, and at least once
    """

    def resized(_, height: int, width: int) -> tuple[int, ...]:
        scale = 1 if size is None else size / min(height, width)
        return tuple(
            round(side * scale) // size_divisible * size_divisible for side in (height, width)
        )

    span = {"start": start_time, "end": end_time}
    clip = video.read(path, fps, max_frames, **span, mode="official", size=resized)
    extra = temporal_factor - len(clip) % temporal_factor if temporal_factor > 1 else 0
    frames_TYX3 = np.concatenate([clip.frames_TYX3, *[clip.frames_TYX3[-1:]] * extra])
    return frames_TYX3, (*clip.times_s, *(clip.times_s[-1] + (k + 1) / fps for k in range(extra)))
