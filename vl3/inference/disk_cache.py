"""Encoded clips on disk, found again by content, within a bound: for encoders that take minutes."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

NAME = "features"
ABANDONED_S = 3600  # a file being written for longer belongs to a program that was killed


def features_dir() -> Path:
    """The folder of encoded clips: in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vl3" / "features"


class FeatureCache:
    """Features of clips in a folder, one file each, the longest unused ones removed first.

    What is read back is bit for bit what was written. A file that cannot be read is no error: it is
    removed and the clip encoded. Several programs may share a folder.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes

    def check(self) -> None:
        """Raises ValueError in one sentence where nothing can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(
                f"features_gb keeps encoded videos in {self.folder}, which cannot be written to "
                f"({error.strerror}); set XDG_CACHE_HOME to a folder of yours, or leave it out"
            ) from error

    def get(self, key: str) -> torch.Tensor | None:
        """The features [M, D] written under this key, on the CPU."""
        path = self._path(key)
        try:
            features_MD = load_file(path)[NAME]
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError):
            with suppress(OSError):  # a file that cannot be read can perhaps not be removed
                path.unlink(missing_ok=True)
            return None
        return features_MD

    def put(self, key: str, features_MD: torch.Tensor) -> None:
        """Writes features, whole or not at all; a full disk loses nothing but the file."""
        if features_MD.nbytes > self.max_bytes:
            return
        with suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            os.close(handle)
            try:
                save_file({NAME: features_MD.contiguous().cpu()}, name)
                os.replace(name, self._path(key))
            finally:
                Path(name).unlink(missing_ok=True)
            self._tidy()

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"

    def _tidy(self) -> None:
        """Removes the longest unused files above the bound, and what killed programs left."""
        for path in self.folder.glob("*.partial"):
            if time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink(missing_ok=True)
        kept_bytes = 0
        files = [(path.stat(), path) for path in self.folder.glob("*.safetensors")]
        for stat, path in sorted(files, key=lambda each: -each[0].st_mtime):
            kept_bytes += stat.st_size
            if kept_bytes > self.max_bytes:
                path.unlink(missing_ok=True)
