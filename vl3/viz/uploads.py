"""The folder of uploaded files: private, bounded, empty at the start."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path


def prepare(folder: Path) -> Path:
    """A private folder for this process inside `folder`; those of processes that ended go."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for old in folder.iterdir():
        if old.is_dir() and old.name.isdigit() and not _is_running(int(old.name)):
            shutil.rmtree(old, ignore_errors=True)
    own = folder / str(os.getpid())
    own.mkdir(exist_ok=True, mode=0o700)
    return own.resolve()


def remove(folder: Path) -> None:
    """Removes the folder of this process with everything in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def contains(folder: Path, path: str) -> bool:
    """Whether the path is a file inside the folder, links followed."""
    real = Path(path).resolve()
    return real.is_relative_to(folder.resolve()) and real.is_file()


def adopt(folder: Path, path: Path) -> Path:
    """A copy of the file inside the folder, under the hash of its content."""
    with path.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()
    target = folder / name / path.name
    if not target.is_file():
        target.parent.mkdir(exist_ok=True, mode=0o700)
        shutil.copyfile(path, target)
    return target


def trim(folder: Path, limit_bytes: int, in_use: Collection[str] = ()) -> int:
    """Removes files not in use, oldest first, until the rest fits; how many bytes went.

    A limit of 0 removes every file not in use.
    """
    used = {str(Path(path).resolve()) for path in in_use}
    files = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    total = sum(stat.st_size for stat, _ in files)
    removed = 0
    for stat, path in sorted(files, key=lambda item: item[0].st_mtime):
        if total - removed <= limit_bytes:
            break
        if str(path.resolve()) not in used:
            path.unlink(missing_ok=True)
            removed += stat.st_size
    _remove_empty(folder)
    return removed


def _remove_empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir() and not any(child.iterdir()):
            child.rmdir()
