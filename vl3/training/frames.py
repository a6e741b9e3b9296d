"""Decoded frames kept on disk between epochs, within a bound."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from vl3.families.settings import ProcessorSettings
from vl3.messages.media import MediaPart
from vl3.messages.sources import content_digest
from vl3.values import Clip, Grid

TRIM_EVERY = 64  # writes between two looks at the size of the folder


class FrameCache:
    """Frames at the size of their grid, by content, range and size; the oldest go first.

    Owns a folder, which several processes may share: files appear whole or not at all.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._writes = 0

    def read(self, medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
        """The medium's frames at the size of the grid, decoded only where they are not kept."""
        if not isinstance(medium.source, str | Path):
            return medium.read(settings, grid, None)
        file = self.folder / f"{self._key(medium, settings, grid)}.npz"
        if file.is_file():
            os.utime(file)
            with np.load(file, allow_pickle=False) as kept:
                times_s = json.loads(str(kept["times_s"]))
                return Clip(
                    frames_TYX3=kept["frames"],
                    times_s=None if times_s is None else tuple(times_s),
                    source=str(medium.source),
                )
        clip = medium.read(settings, grid, None)
        self._write(file, clip)
        return clip

    def _key(self, medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> str:
        taken = sorted(medium.sampling(settings).items())
        chosen = (content_digest(medium.source), taken, grid, settings.square)
        return hashlib.sha256(repr((chosen, medium.kind)).encode()).hexdigest()

    def _write(self, file: Path, clip: Clip) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as part:
            np.savez(part, frames=clip.frames_TYX3, times_s=json.dumps(clip.times_s))
        os.replace(part.name, file)
        if self._writes % TRIM_EVERY == 0:
            self._trim()
        self._writes += 1

    def _trim(self) -> None:
        """Removes the files used longest ago until the rest fits."""
        stats = {file: file.stat() for file in self.folder.glob("*.npz")}
        total = sum(stat.st_size for stat in stats.values())
        for file in sorted(stats, key=lambda file: stats[file].st_mtime):
            if total <= self.limit_bytes:
                break
            total -= stats[file].st_size
            file.unlink(missing_ok=True)
