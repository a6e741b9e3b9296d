"""The folder of uploaded files: private, bounded, empty at the start."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from time import time

SPARED_S = 60.0


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


def keep(folder: Path, name: str, content: bytes) -> Path:
    """The content as a file of that name inside the folder, where nobody finds it by guessing."""
    target = folder / secrets.token_urlsafe(18) / name
    target.parent.mkdir(mode=0o700)
    target.write_bytes(content)
    return target


def drop(path: str) -> None:
    """Removes a file made by keep; nothing where it is gone."""
    file = Path(path)
    file.unlink(missing_ok=True)
    with suppress(OSError):
        file.parent.rmdir()


def trim(folder: Path, limit_bytes: int, in_use: Collection[str] = ()) -> int:
    """Removes files not in use, oldest first, until the rest fits; how many bytes went.

    Files of the last minute stay: somebody may be about to use them. A limit of 0 removes every
    other file not in use.
    """
    used = {str(Path(path).resolve()) for path in in_use}
    files = sorted(_files(folder))
    total, removed = sum(size for _, size, _ in files), 0
    for changed_s, size, path in files:
        if total - removed <= limit_bytes or time() - changed_s < SPARED_S:
            break
        if str(path.resolve()) not in used:
            path.unlink(missing_ok=True)
            removed += size
    _remove_empty(folder)
    return removed


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last change, size and path of every file; those that vanish meanwhile are not."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            stat = path.stat()
            if path.is_file():
                yield stat.st_mtime, stat.st_size, path


def _remove_empty(folder: Path) -> None:
    for child in folder.iterdir():
        with suppress(OSError):  # not empty (any more), or gone
            if child.is_dir() and time() - child.stat().st_mtime > SPARED_S:
                child.rmdir()
