"""From a file to patches and mask: probe, decode and sample, preprocess, prune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from train_cli.bench import peers
from train_cli.bench.measure import OURS, Mismatch, Row, beside, peak_bytes
from vl3 import video
from vl3.pipeline import prune_patches, to_patches
from vl3.settings import PruneSettings
from vl3.values import Clip, Grid, Patches
from vl3.video import images, official, timeline
from vl3.video.images import resized
from vl3.video.probe import read_header
from vl3.vision import fit_grid
from vl3.vision.prune import prune

PATCH, MERGE, BUDGET_TOKENS, THRESHOLD = 14, 2, 16384, 0.1
FPS, MAX_FRAMES = 1.0, 180
OFFICIAL = "official (ffmpeg pipe)"
LEVEL = 2 / 255  # one grey level of normalised pixels


def decode(clips: Sequence[Path], rounds: int) -> list[Row]:
    """Frames at native size, one a second, up to 180."""
    return [row for path in clips for row in _decode(path, rounds)]


def _decode(path: Path, rounds: int) -> list[Row]:
    sides = {}
    picks, _ = official.picks(
        path, timeline.scan(path), start_time=None, end_time=None, fps=FPS, max_frames=MAX_FRAMES
    )
    if peers.has_ffmpeg():
        sides[OFFICIAL] = lambda: peers.official_frames(path, FPS, MAX_FRAMES)
    if peers.has_torchcodec():
        sides["torchcodec"] = lambda: peers.torchcodec_frames(path, picks)
    sides["transformers (PyAV)"] = lambda: peers.transformers_frames(path, picks)
    return beside(
        f"decode {path.stem}, {len(picks)} frames", lambda: our_frames(path), sides, rounds, same
    )


def probe(clips: Sequence[Path], rounds: int) -> list[Row]:
    """What is known of a file before it is decoded, beside all of its decoding."""
    return [
        row
        for path in clips
        for row in beside(
            f"probe and plan {path.stem}",
            lambda path=path: our_plan(path),
            {"decoding its frames": lambda path=path: len(our_frames(path))},
            rounds,
            same,
        )
    ]


def _forget() -> None:
    """What headers said is read again, as for a file that was not read before."""
    for known in (timeline.scan, read_header, images.picture_header):
        known.forget()


def our_plan(path: Path) -> int:
    _forget()  # each measured call starts anew
    video.probe(path)
    return len(video.schedule(path, fps=FPS, max_frames=MAX_FRAMES, mode="official"))


def our_frames(path: Path, size=None) -> np.ndarray:
    _forget()
    read = video.read(path, fps=FPS, max_frames=MAX_FRAMES, mode="official", size=size)
    return read.frames_TYX3


def preprocess(clips: Sequence[Path], rounds: int) -> list[Row]:
    """Resize and patches of frames that are decoded."""
    rows = []
    for path in clips:
        frames = our_frames(path)
        grid, size = grid_of(frames.shape[:3])

        def ours(frames=frames, grid=grid, size=size):
            small = np.stack([resized(frame, size) for frame in frames])
            clip = Clip(frames_TYX3=small, times_s=tuple(range(len(small))), source="")
            return to_patches([clip], [grid]).pixels_NP

        sides = {
            "official (PIL, float32)": lambda frames=frames, grid=grid: peers.official_patches(
                frames, grid, PATCH
            )
        }
        if peers.has_torchvision():
            processor = peers.video_processor(grid, PATCH, BUDGET_TOKENS, prune=False)
            sides["transformers' video processor"] = lambda frames=frames, processor=processor: (
                _processed(processor, frames)["pixel_values_videos"]
            )
        work = f"preprocess {path.stem}, {len(frames)} frames to {size[1]} x {size[0]}"
        rows += beside(work, ours, sides, rounds, close_pixels)
    return rows


def mask(clips: Sequence[Path], rounds: int, frames: int) -> list[Row]:
    """DiffFP on patches that are cut: still noise with few changes, and the clips."""
    rows = []
    still = f"still noise, {frames} frames", _still_clip(frames)
    for name, patches in [still, *((path.stem, _patches(path)) for path in clips)]:
        (grid,) = patches.grids
        floats = normalised(patches.pixels_NP)
        sides = {
            "official (float32)": lambda f=floats, g=grid: peers.official_mask(f, g, THRESHOLD)
        }
        share = f"{100 * (1 - prune(patches).keep_M.float().mean()):.0f} % pruned"
        rows += beside(
            f"mask {name}, {share}",
            lambda p=patches: prune(p, THRESHOLD).keep_M,
            sides,
            rounds,
            same,
        )
    return rows


def front(clips: Sequence[Path], rounds: int) -> list[Row]:
    """A file to patches and mask."""
    rows = []
    for path in clips:
        sides = {}
        if peers.has_ffmpeg():
            sides[OFFICIAL] = lambda path=path: official_front(path)
        if peers.has_torchvision():
            sides["transformers (PyAV)"] = lambda path=path: transformers_front(path)
        work = f"file to patches and mask, {path.stem}"
        rows += beside(work, lambda path=path: our_front(path), sides, rounds, _same_front)
    return rows


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident memory of this process above the start; None where the system does not tell."""

    work: str
    side: str
    peak_bytes: int | None


def front_memory(path: Path) -> list[Memory]:
    """Memory of the way from file to patches and mask."""
    sides = {OURS: our_front}
    if peers.has_ffmpeg():
        sides[OFFICIAL] = official_front
    return [
        Memory(f"file to patches and mask, {path.stem}", name, peak_bytes(_prepared, side, path))
        for name, side in sides.items()
    ]


def _prepared(side, path: Path):
    side(path)
    return lambda: side(path)


def our_front(path: Path):
    _forget()
    found = video.schedule(path, fps=FPS, max_frames=MAX_FRAMES, mode="official")
    shown = video.probe(path)
    grid, size = grid_of((len(found), shown.height_px, shown.width_px))
    frames = video.read(path, fps=FPS, max_frames=MAX_FRAMES, mode="official", size=size)
    patches = to_patches([frames], [grid])
    return patches.pixels_NP, prune_patches(patches, PruneSettings()).keep_M


def official_front(path: Path):
    frames = peers.official_frames(path, FPS, MAX_FRAMES)
    grid, _ = grid_of(frames.shape[:3])
    pixels = peers.official_patches(frames, grid, PATCH)
    return pixels, peers.official_mask(pixels, grid, THRESHOLD)


def transformers_front(path: Path):
    picks, _ = official.picks(
        path, timeline.scan(path), start_time=None, end_time=None, fps=FPS, max_frames=MAX_FRAMES
    )
    frames = peers.transformers_frames(path, picks)
    grid, _ = grid_of(frames.shape[:3])
    found = _processed(peers.video_processor(grid, PATCH, BUDGET_TOKENS, prune=True), frames)
    return found["pixel_values_videos"], found["video_compression_mask"]


def grid_of(frames_height_width: tuple[int, int, int]) -> tuple[Grid, tuple[int, int]]:
    """The grid of one clip under the released budget, and its height and width in pixels."""
    (grid,) = fit_grid([frames_height_width], MERGE, BUDGET_TOKENS, patch=PATCH)
    return grid, (grid.rows * PATCH, grid.cols * PATCH)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels.float() * (1 / 255) - 0.5) / 0.5 if pixels.dtype == torch.uint8 else pixels


def same(ours, theirs) -> str:
    """Raises: Mismatch unless both are equal to the last bit."""
    a, b = (np.asarray(side) for side in (ours, theirs))
    if a.shape != b.shape:
        raise Mismatch(f"{a.shape} against {b.shape}")
    if not np.array_equal(a, b):
        raise Mismatch(f"{100 * np.mean(a != b):.2g} % of values differ")
    return "identical"


def close_pixels(ours, theirs) -> str:
    """Raises: Mismatch where pixels are further apart than two ways of resizing are."""
    difference = (normalised(ours) - normalised(theirs)).abs() / LEVEL
    share = float((difference > 0.5).float().mean())
    if share == 0:
        return "identical"
    if difference.max() > 2.5 or share > 0.01:
        raise Mismatch(f"{100 * share:.2g} % of values differ, by up to {difference.max():.1f}")
    return f"{100 * share:.1g} % of values differ, by up to {difference.max():.0f} levels of 255"


def _same_front(ours, theirs) -> str:
    pixels = close_pixels(ours[0], theirs[0])
    apart = int((ours[1] != theirs[1]).sum())
    if apart > len(ours[1]) // 1000 + 1:
        raise Mismatch(f"{apart} of {len(ours[1])} tokens are pruned by one side alone")
    return pixels if not apart else f"{pixels}; {apart} of {len(ours[1])} mask bits"


def _processed(processor, frames: np.ndarray):
    return processor(videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], return_tensors="pt")


def _patches(path: Path) -> Patches:
    frames = our_frames(path)
    grid, size = grid_of(frames.shape[:3])
    small = np.stack([resized(frame, size) for frame in frames])
    return to_patches(
        [Clip(frames_TYX3=small, times_s=tuple(range(len(small))), source="")], [grid]
    )


def _still_clip(frames: int) -> Patches:
    """Noise of which most cells stay as they were, some change by very little."""
    noise = torch.Generator().manual_seed(0)
    grid = Grid(frames=frames, rows=14, cols=24, merge=MERGE)
    cells = torch.randint(
        0,
        255,
        (1, grid.tokens_per_frame, MERGE**2 * 3 * PATCH**2),
        generator=noise,
        dtype=torch.uint8,
    ).repeat(frames, 1, 1)
    for frame in range(frames):
        moved = torch.randperm(grid.tokens_per_frame, generator=noise)[:20]
        cells[frame:, moved, : 100 + 2 * frame] ^= 1
    return Patches(pixels_NP=cells.view(grid.num_patches, -1), grids=(grid,))
