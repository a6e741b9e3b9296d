"""Media that are no files of their own: URLs of files and of data, and a folder to put bytes in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import tempfile
import urllib.parse
import weakref
from collections import OrderedDict
from functools import cache
from pathlib import Path

SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
SPOOL_BYTES = 1 << 30
SPOOL_FILES = 64  # the newest ones are kept whatever their size: a record in use needs them


class Spool:
    """A temporary folder for media that are no files of their own; old ones make room for new.

    Every process has a folder in it, so that workers do not remove each other's files; the process
    that made the spool removes it.
    """

    def __init__(self, most_bytes: int = SPOOL_BYTES) -> None:
        self.most_bytes = most_bytes
        self.folder = Path(tempfile.mkdtemp(prefix="vl3-media-"))
        self._begin()
        self._clear = weakref.finalize(self, _remove, self.folder, os.getpid())

    def __getstate__(self) -> dict:
        return {"most_bytes": self.most_bytes, "folder": self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """Nothing kept yet in this process."""
        self._sizes: OrderedDict[Path, int] = OrderedDict()
        self._bytes, self._process = 0, os.getpid()

    def keep(self, data: bytes) -> str:
        """The path of a file that holds the data."""
        if self._process != os.getpid():
            self._begin()
        name = f"inline-{hashlib.blake2b(data, digest_size=16).hexdigest()}"
        path = self.folder / str(os.getpid()) / name
        if path not in self._sizes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self._sizes[path] = len(data)
            self._bytes += len(data)
        self._sizes.move_to_end(path)
        while self._bytes > self.most_bytes and len(self._sizes) > SPOOL_FILES:
            old, size = self._sizes.popitem(last=False)
            old.unlink(missing_ok=True)
            self._bytes -= size
        return str(path)


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked worker inherits the finalizer, not the folder
        shutil.rmtree(folder, ignore_errors=True)


@cache
def shared() -> Spool:
    """The spool of this program, for bytes and data: URLs in messages."""
    return Spool()


def is_data_url(text: str) -> bool:
    return text[:5].lower() == "data:"


def file_of_url(text: str) -> str:
    """The path of a file: URL; any other text as it is."""
    if text[:7].lower() != "file://":
        return text
    return urllib.parse.unquote(text[7:].removeprefix("localhost"))


def data_of_url(url: str) -> bytes:
    """The bytes of a data: URL. Raises: ValueError where its base64 is damaged."""
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise binascii.Error
        if head.lower().endswith(";base64"):
            return base64.b64decode(urllib.parse.unquote(body), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise ValueError("its base64 is damaged") from None
