"""Clips for the notebooks: a file cut for a given number of tokens, and one drawn with NumPy."""

from __future__ import annotations

from os import PathLike

import numpy as np

from vl3 import video
from vl3.values import Clip, Grid
from vl3.vision import fit_grid

SIDE_PX = 28  # of a token: 2 x 2 patches of 14 pixels


def read(
    path: str | PathLike, fps: float = 1.0, max_frames: int = 16, frame_tokens: int = 144
) -> tuple[Clip, Grid]:
    """A video file, each frame resized to at most frame_tokens visual tokens."""
    planned, shown = video.schedule(path, fps, max_frames), video.probe(path)
    size = (len(planned), shown.height_px, shown.width_px)
    (grid,) = fit_grid([size], 2, frame_tokens * len(planned))
    pixels = (grid.rows * 14, grid.cols * 14)
    return video.read(path, fps, max_frames, size=pixels), grid


def lanes(frames: int = 8, rows: int = 6, cols: int = 12, seed: int = 0) -> tuple[Clip, Grid]:
    """Four lanes from left to right: nothing moves, light rises slowly, a camera's noise, a ball.

    Light rises by one grey level from frame to frame; noise is up to 3 levels either way.
    """
    grid = Grid(frames=frames, rows=2 * rows, cols=2 * cols, merge=2)
    height, width = rows * SIDE_PX, cols * SIDE_PX
    y, x = np.mgrid[:height, :width]
    scene = 96 + 40 * ((x // SIDE_PX + y // SIDE_PX) % 2) + y // 8
    film = np.repeat(scene[None, ..., None], frames, axis=0).repeat(3, axis=-1)
    lane = width // 4
    film[:, :, lane : 2 * lane] += np.arange(frames)[:, None, None, None]
    noise = np.random.default_rng(seed).integers(-3, 4, (frames, height, lane, 3))
    film[:, :, 2 * lane : 3 * lane] += noise
    for index in range(frames):
        middle_px = SIDE_PX + index * (height - 2 * SIDE_PX) / max(1, frames - 1)
        ball = (x - 3.5 * lane) ** 2 + (y - middle_px) ** 2 < (0.8 * SIDE_PX) ** 2
        film[index][ball] = (214, 38, 38)
    times_s = tuple(index / 2 for index in range(frames))
    return Clip(frames_TYX3=film.astype(np.uint8), times_s=times_s, source="four lanes"), grid
