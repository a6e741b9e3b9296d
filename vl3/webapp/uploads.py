"""Uploaded files: the folder they lie in, private and bounded, and the attachments made of them.

Inside the folder that a person names there is one sub-folder of ours, known by a file in it, with
one folder for each process that runs. Nothing else is ever changed or removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, Protocol, cast
from urllib.parse import quote

from PIL import Image

from vl3.values import Plan
from vl3.viz import sound
from vl3.webapp import film_strip, text_format
from vl3.webapp.conversation import Attachment
from vl3.webapp.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

POSTER_PX = 320
SPARED_S = 60.0
SPARE_BYTES = 256_000_000  # what uploads leave of a disk: the rest of the machine needs some
OURS, MARK, LOCK = "vl3-uploads", ".made-by-vl3", ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_held: list = []  # the locks of this process; they end with it


class Reader(Protocol):
    """What the page asks of vl3.video; its functions by name, so that a renamed one is noticed."""

    @property
    def probe(self) -> Callable[..., Any]: ...
    @property
    def schedule(self) -> Callable[..., Any]: ...
    @property
    def read(self) -> Callable[..., Any]: ...
    @property
    def read_image(self) -> Callable[..., Any]: ...
    @property
    def thumbnails(self) -> Callable[..., Any]: ...
    @property
    def encode(self) -> Callable[..., Any]: ...


class Listener(Protocol):
    """What the page asks of vl3.audio, in the same way."""

    @property
    def is_sound(self) -> Callable[..., bool]: ...
    @property
    def probe(self) -> Callable[..., Any]: ...
    @property
    def measure(self) -> Callable[..., Any]: ...
    @property
    def blocks(self) -> Callable[..., Any]: ...


class Uploads:
    """The folder of files and the packages that read them (vl3.video and vl3.audio, handed in).

    audio: without it a file of sound is one that cannot be read
    """

    def __init__(
        self, folder: Path, video: Reader, limit_bytes: int, audio: Listener | None = None
    ) -> None:
        self.folder = folder
        self._video, self._audio = video, audio
        self._limit_bytes = limit_bytes

    def attach(self, path: str) -> Attachment:
        """The file, if it lies in the folder and can be read.

        Raises: UserError, or the reader's own error with one sentence for the user.
        """
        if not self.contains(path):
            raise UserError("Cannot read this file", "The file is gone. Upload it again.")
        if self._audio is not None and self._audio.is_sound(path):
            return self._attach_sound(path, self._audio)
        probe = self._video.probe(path)
        item = Attachment(
            path=path,
            name=Path(path).name,
            key=key_of(path),
            kind=probe.kind,
            facts=tuple(text_format.media_facts(probe)),
        )
        if item.kind == "image":
            return replace(item, poster=self._poster(item, ()))
        known = self._video.schedule(path, max_frames=3)
        item = replace(item, zero_s=known.zero_s, first_s=known.first_s)
        return replace(item, poster=self._poster(item, known.times_s))

    def _attach_sound(self, path: str, audio: Listener) -> Attachment:
        return Attachment(
            path=path,
            name=Path(path).name,
            key=key_of(path),
            kind="audio",
            facts=tuple(text_format.sound_facts(audio.probe(path))),
        )

    def adopt(self, path: Path) -> Attachment:
        """The same for a file from elsewhere: its copy in the folder, under its content's hash."""
        with path.open("rb") as file:
            name = hashlib.file_digest(file, "sha256").hexdigest()
        target = self.folder / name / path.name
        if not target.is_file():
            target.parent.mkdir(exist_ok=True, mode=0o700)
            with whole(target) as unfinished:
                shutil.copyfile(path, unfinished)
        return self.attach(str(target))

    def keep(self, name: str, content: bytes) -> str:
        """The content as a file under a path that cannot be guessed, for the page to fetch."""
        target = new_place(self.folder) / name
        try:
            with whole(target) as unfinished:
                unfinished.write_bytes(content)
        except OSError:
            with suppress(OSError):
                target.parent.rmdir()
            raise
        return str(target)

    def contains(self, path: str) -> bool:
        """Whether the path is a file inside the folder, links followed."""
        try:
            real = Path(path).resolve()
            return real.is_relative_to(self.folder.resolve()) and real.is_file()
        except (OSError, ValueError):  # no path at all: a null byte, a name of thousands of letters
            return False

    def is_of(self, owner: str, path: str) -> bool:
        """Whether the path lies in the owner's own part of the folder, links followed."""
        return Path(path).resolve().is_relative_to(self.folder.resolve() / owner)

    def trim(self, in_use: Collection[str], limit_bytes: int | None = None) -> int:
        """Removes files not in use, oldest first, until the folder is within its limit or this.

        Files of the last minute stay: they may be about to be used. A limit of 0 removes every
        other file not in use. Returns how many bytes went.
        """
        limit_bytes = self._limit_bytes if limit_bytes is None else limit_bytes
        used = {str(Path(path).resolve()) for path in in_use} | {
            str((self.folder / LOCK).resolve())
        }
        files = sorted(_files(self.folder))
        total, removed = sum(size for _, size, _ in files), 0
        for changed_s, size, path in files:
            if total - removed <= limit_bytes or time() - changed_s < SPARED_S:
                break
            if str(path.resolve()) not in used:
                path.unlink(missing_ok=True)
                removed += size
        _remove_empty(self.folder)
        return removed

    def film(self, pictures_TYX3, times_s) -> bytes:
        """The pictures as an MP4 file that runs at their own times."""
        return self._video.encode(pictures_TYX3, times_s)

    def film_strip(self, item: Attachment) -> film_strip.FilmStrip:
        """The pictures of the film strip of a planned video, in a file next to it."""
        plan = cast(Plan, item.plan)
        chosen = film_strip.spans(cast(Sequence[float], plan.times_s))
        cell = film_strip.cell_size(plan.height_px, plan.width_px)
        clip = self._video.thumbnails(
            item.path, chosen, lambda count, height, width: film_strip.fitted(height, width, cell)
        )
        image, times_s = film_strip.draw(clip.frames_TYX3, clip.times_s, chosen, cell)
        name = hashlib.sha256(repr((item.key, chosen)).encode()).hexdigest()[:16]
        target = Path(item.path).with_name(f"{name}.jpg")
        # Whole at once: another visitor's page may be reading the strip of the same file.
        with whole(target) as unfinished:
            image.save(unfinished, "JPEG", quality=75)
        return film_strip.FilmStrip(path=str(target), times_s=times_s, spans=chosen)

    def sound_strip(self, item: Attachment) -> str | None:
        """The file with the data of a sound view of all that is heard, next to the file; made once.

        None where there is nothing to hear.
        """
        target = Path(item.path).with_name(f"{item.key}.sound.json")
        if target.is_file():
            return str(target)
        length = self._audio.measure(item.path) if self._audio is not None else None
        if self._audio is None or length is None or not length.num_samples:
            return None
        data = sound.data(
            self._audio.blocks(item.path),
            length.num_samples,
            start_s=length.start_s + length.first_frame_s,
            end_s=item.duration_s,
            source=item.name,
        )
        with whole(target) as unfinished:
            unfinished.write_text(json.dumps(data, allow_nan=False), "utf-8")
        return str(target)

    def sound_data(self, item: Attachment) -> dict:
        """The data of a sound view of a file that was heard."""
        return json.loads(Path(cast(str, self.sound_strip(item))).read_text("utf-8"))

    def _poster(self, item: Attachment, times_s: Sequence[float]) -> str:
        """The path of a small JPEG of the middle one of the times, next to the file; made once."""
        target = Path(item.path).with_name(f"{item.key}.jpg")
        if not target.exists():
            if item.kind == "image":
                clip = self._video.read_image(item.path)
            else:
                middle_s = times_s[len(times_s) // 2]
                clip = self._video.read(item.path, max_frames=1, start=middle_s)
            image = Image.fromarray(clip.frames_TYX3[0])
            image.thumbnail((POSTER_PX, POSTER_PX))
            with whole(target) as unfinished:
                image.save(unfinished, "JPEG", quality=82)
        return str(target)


def key_of(path: str) -> str:
    """A short name for an uploaded file that tells nothing about where it lies.

    The folder of an upload is named after its content, so equal files have equal keys.
    """
    return hashlib.sha256(path.encode()).hexdigest()[:12]


def file_url(path: str) -> str:
    """Where the page finds a file of the folder, relative to its own address."""
    return f"gradio_api/file={quote(path)}"


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
    """The file, held open under a lock that ends with the process; None where another has it.

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
    """Another path of the folder, without the user's name in it: browsers get to see it.

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


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path to write to: what was written is the target once all is there, and gone on errors."""
    unfinished = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def new_place(folder: Path) -> Path:
    """A new folder inside the folder, of a name that cannot be guessed."""
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


def _files(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last change, size and path of every file; files that vanish are left out."""
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
