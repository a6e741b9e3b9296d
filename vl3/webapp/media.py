"""Uploaded files as attachments: checked, described, with a small picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from PIL import Image

from vl3.webapp import film_strip, text_format, uploads
from vl3.webapp.conversation import Attachment
from vl3.webapp.errors import UserError

POSTER_PX = 320


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


class Media:
    """The folder of files and the package that reads them (vl3.video, handed in)."""

    def __init__(self, folder: Path, video: Reader, limit_bytes: int) -> None:
        self.folder = folder
        self._video = video
        self._limit_bytes = limit_bytes

    def attach(self, path: str) -> Attachment:
        """The file, if it lies in the folder and can be read.

        Raises: UserError, or the reader's own error with one sentence for the user.
        """
        if not uploads.contains(self.folder, path):
            raise UserError("Cannot read this file", "The file is gone. Upload it again.")
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

    def adopt(self, path: Path) -> Attachment:
        """The same for a file from elsewhere, of which the folder gets a copy."""
        return self.attach(str(uploads.adopt(self.folder, path)))

    def keep(self, name: str, content: bytes) -> str:
        """The content as a file that the page can fetch by a name nobody guesses; its path."""
        return str(uploads.keep(self.folder, name, content))

    def film(self, pictures_TYX3, times_s) -> bytes:
        """The pictures as an MP4 file that runs at their own times."""
        return self._video.encode(pictures_TYX3, times_s)

    def trim(self, in_use: Collection[str], limit_bytes: int | None = None) -> None:
        """Removes files not in use, oldest first, until the folder is within its limit or this."""
        limit_bytes = self._limit_bytes if limit_bytes is None else limit_bytes
        uploads.trim(self.folder, limit_bytes, in_use)

    def sheet(self, item: Attachment) -> film_strip.FilmStrip:
        """The pictures of the film strip of a planned video, in a file next to it."""
        chosen = film_strip.spans(item.plan.times_s)
        cell = film_strip.cell_size(item.plan.height_px, item.plan.width_px)
        clip = self._video.thumbnails(
            item.path, chosen, lambda count, height, width: film_strip.fitted(height, width, cell)
        )
        image, times_s = film_strip.sheet(clip.frames_TYX3, clip.times_s, chosen, cell)
        name = hashlib.sha256(repr((item.key, chosen)).encode()).hexdigest()[:16]
        target = Path(item.path).with_name(f"{name}.jpg")
        # Whole at once: the page of somebody with the same file may be reading it.
        with uploads.whole(target) as unfinished:
            image.save(unfinished, "JPEG", quality=75)
        return film_strip.FilmStrip(path=str(target), times_s=times_s, spans=chosen)

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
            with uploads.whole(target) as unfinished:
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
