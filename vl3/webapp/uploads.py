"""The folder of uploaded files: private, bounded, empty at the start.

Inside the folder that a person names there is one sub-folder of ours, known by a file in it, with
one folder for each process that runs. Nothing else is ever changed or removed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SPARED_S = 60.0
SPARE_BYTES = 256_000_000  # what uploads leave of a disk: the rest of the machine needs some
OURS, MARK, LOCK = "vl3-uploads", ".made-by-vl3", ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_held: list = []  # the locks of this process; they end with it


def prepare(folder: Path) -> Path:
    """A private folder for this process inside `folder`; those of processes that ended go.

    Raises: ValueError in one sentence where there can be none.
    """
    try:
        ours = _ours(folder)
        for old in ours.iterdir():
            if old.is_dir() and not old.is_symlink() and _is_left(old):
                shutil.rmtree(old, ignore_errors=True)
        own = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=ours))
        with (own / LOCK).open("w") as lock:
            lock.write(str(os.getpid()))
            lock.flush()
            _held.append(_locked(own / LOCK))
        return own.resolve()
    except OSError as error:
        raise ValueError(_no_folder(folder, error)) from None


def _ours(folder: Path) -> Path:
    """The sub-folder that is ours, made where there is none."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    ours = folder / OURS
    if ours.is_symlink() or (ours.exists() and not _is_marked(ours)):
        raise ValueError(
            f"--data-dir {folder} holds something called {OURS} that vl3 did not make; "
            "choose another folder"
        )
    ours.mkdir(exist_ok=True, mode=0o700)
    (ours / MARK).write_text("Uploads of vl3 while it runs. vl3 removes what is in here.\n")
    return ours


def _is_marked(folder: Path) -> bool:
    """Whether the folder is of ours; an empty one may be, of a start that failed."""
    return folder.is_dir() and ((folder / MARK).is_file() or not any(folder.iterdir()))


def _no_folder(folder: Path, error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        problem = "is no folder"
    elif is_full(error):
        problem = "is on a disk without free space"
    else:
        problem = f"cannot be written to ({error.strerror})"
    return f"--data-dir {folder} {problem}; choose a folder of your own for uploads"


def is_full(error: OSError) -> bool:
    """Whether the error says that no more fits: the disk, a quota, a limit on files."""
    return error.errno in _FULL


def remove(folder: Path) -> None:
    """Removes the folder with everything in it; also of files still open the room is free then."""
    for _, _, path in _files(folder):
        with suppress(OSError):
            if not path.is_symlink():
                os.truncate(path, 0)
    shutil.rmtree(folder, ignore_errors=True)


def _locked(path: Path):
    """The file held open under a lock that ends with the process; None where somebody has it.

    Not by process number: those of another container, or of after a restart, mean nothing here.
    """
    file = path.open("r+")
    if fcntl is None:
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _is_left(folder: Path) -> bool:
    """Whether the process that the folder was made for has ended."""
    lock = folder / LOCK
    if not lock.is_file():
        return time() - folder.stat().st_mtime > SPARED_S  # one being made has none yet
    if fcntl is None:
        return not _is_running(int(lock.read_text() or 0))
    file = _locked(lock)
    if file is not None:
        file.close()
    return file is not None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (OSError, ValueError):
        return False
    return True


@contextmanager
def nameless(folder: Path) -> Iterator[Path]:
    """Another path of the folder, without the name of whoever runs this: browsers get to see it.

    A link in the folder for temporary files; where links cannot be made, the folder itself.
    """
    outer = Path(tempfile.mkdtemp(prefix="vl3-"))
    link = outer / "files"
    try:
        link.symlink_to(folder, target_is_directory=True)
    except OSError:
        link = folder
    try:
        yield link
    finally:
        if link != folder:
            link.unlink(missing_ok=True)
        with suppress(OSError):
            outer.rmdir()


def contains(folder: Path, path: str) -> bool:
    """Whether the path is a file inside the folder, links followed."""
    try:
        real = Path(path).resolve()
        return real.is_relative_to(folder.resolve()) and real.is_file()
    except (OSError, ValueError):  # no path at all: a null byte, a name of thousands of letters
        return False


def is_in_place_of(folder: Path, owner: str, path: str) -> bool:
    """Whether the path lies in the owner's own part of the folder, links followed."""
    return Path(path).resolve().is_relative_to(folder.resolve() / owner)


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path to write to: what was written is the target once all is there, and gone on errors."""
    unfinished = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def adopt(folder: Path, path: Path) -> Path:
    """A copy of the file inside the folder, under the hash of its content."""
    with path.open("rb") as file:
        name = hashlib.file_digest(file, "sha256").hexdigest()
    target = folder / name / path.name
    if not target.is_file():
        target.parent.mkdir(exist_ok=True, mode=0o700)
        with whole(target) as unfinished:
            shutil.copyfile(path, unfinished)
    return target


def keep(folder: Path, name: str, content: bytes) -> Path:
    """The content as a file of that name inside the folder, where nobody finds it by guessing."""
    target = new_place(folder) / name
    try:
        with whole(target) as unfinished:
            unfinished.write_bytes(content)
    except OSError:
        with suppress(OSError):
            target.parent.rmdir()
        raise
    return target


def new_place(folder: Path) -> Path:
    """A new folder inside the folder, where nobody finds it by guessing."""
    place = folder / secrets.token_urlsafe(18)
    place.mkdir(mode=0o700, parents=True)
    return place


def drop(path: str) -> None:
    """Removes a file made by keep; nothing where it is gone."""
    file = Path(path)
    file.unlink(missing_ok=True)
    with suppress(OSError):
        file.parent.rmdir()


def free_bytes(folder: Path) -> int:
    """What uploads may still take of the disk."""
    return max(shutil.disk_usage(folder).free - SPARE_BYTES, 0)


def trim(folder: Path, limit_bytes: int, in_use: Collection[str] = ()) -> int:
    """Removes files not in use, oldest first, until the rest fits; how many bytes went.

    Files of the last minute stay: somebody may be about to use them. A limit of 0 removes every
    other file not in use.
    """
    used = {str(Path(path).resolve()) for path in in_use} | {str((folder / LOCK).resolve())}
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
    for place, _, names in os.walk(folder):  # which passes over what vanishes
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                stat = path.stat()
                yield stat.st_mtime, stat.st_size, path


def _remove_empty(folder: Path) -> None:
    for place, folders, _ in os.walk(folder, topdown=False):
        for child in (Path(place, name) for name in folders):
            with suppress(OSError):  # not empty (any more), or gone
                if time() - child.stat().st_mtime > SPARED_S:
                    child.rmdir()
