"""Where the media of a row are: in a folder, inside an archive, or in the row itself."""

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vl3.training.data import rules

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
        path = self.folder / str(os.getpid()) / hashlib.blake2b(data, digest_size=16).hexdigest()
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


@dataclass(frozen=True)
class Files:
    """Finds the media of one row.

    root: where relative paths begin
    members: files of the row's archive by name, each with a function that reads it
    """

    root: Path
    spool: Spool
    members: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)

    def find(self, kind: str, source: object) -> str:
        """The path of a medium given as a path, file: or data: URL, bytes, or {"bytes", "path"}.

        Raises: BadSample E120 for what is not there or on another machine, E102 for other values.
        """
        if isinstance(source, dict):
            given = (source[key] for key in ("bytes", "path", "url") if source.get(key) is not None)
            source = next(given, None)
        if isinstance(source, bytes):
            return self.spool.keep(source)
        if not isinstance(source, str) or not source:
            raise rules.wrong_type(f"the source of {kind}", "a path", source)
        if source in self.members:
            return self.spool.keep(self.members[source]())
        if source[:5].lower() == "data:":
            return self.spool.keep(_data(source))
        if source[:7].lower() == "file://":
            source = urllib.parse.unquote(source[7:].removeprefix("localhost"))
        elif SCHEME.match(source):
            raise rules.web_address(source)
        path = os.path.join(self.root, source)
        if not os.path.exists(path):
            raise rules.not_found(kind, path, str(self.root))
        return path


def _data(url: str) -> bytes:
    """The bytes of a data: URL."""
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise binascii.Error
        if head.lower().endswith(";base64"):
            return base64.b64decode(urllib.parse.unquote(body), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise rules.undecodable(url[:40], "its base64 is damaged") from None
