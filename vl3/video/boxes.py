"""The boxes of MP4, MOV, HEIC and AVIF files: found without libavformat, and before it is asked."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid")
_INSIDE = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
_HEADER_BYTES = 16
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # where in its content a table says its length
_INDEX_BYTES = 1 << 26


@dataclass(frozen=True, slots=True)
class Box:
    """A box: its kind, and where its content begins and ends."""

    kind: bytes
    start: int
    end: int


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The boxes between two places of a file; ends where no further one is well formed."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(_HEADER_BYTES)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        stop = end if size == 0 else start + size
        if stop < content or len(head) < 8:
            return
        yield Box(kind, content, min(stop, end))
        start = stop


def is_boxed(head: bytes) -> bool:
    """Whether a file that begins with these bytes consists of boxes."""
    return head[4:8] in _FIRST


def claimed_samples(path: Path) -> int:
    """How many samples (frames, stretches of sound) the tables of a file claim; 0 for no MP4."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        return _claimed(file, 0, size) if is_boxed(file.read(12)) else 0


def _claimed(file: BinaryIO, start: int, end: int, is_sound: bool = False, depth: int = 0) -> int:
    total = 0
    for box in boxes(file, start, end):
        if box.kind == b"stbl" and is_sound and _one_tick_each(file, box):
            continue  # uncompressed sound: a sample is a number, and they are read by chunks
        if box.kind == b"mdia":
            is_sound = _handler(file, box) == b"soun"
        if box.kind in _INSIDE and depth < 8:
            total += _claimed(file, box.start, box.end, is_sound, depth + 1)
        elif box.kind == b"cmov":
            inside = _unpacked(file, box)
            total += _claimed(io.BytesIO(inside), 0, len(inside), is_sound, depth + 1)
        elif box.kind in _COUNT_AT:
            total += _number(file, box.start + _COUNT_AT[box.kind])
    return total


def _one_tick_each(file: BinaryIO, table: Box) -> bool:
    for box in boxes(file, table.start, table.end):
        if box.kind == b"stts":
            return _number(file, box.start + 4) == 1 == _number(file, box.start + 12)
    return False


def _handler(file: BinaryIO, media: Box) -> bytes:
    """The four letters that say what a track is."""
    for box in boxes(file, media.start, media.end):
        if box.kind == b"hdlr":
            file.seek(box.start + 8)
            return file.read(4)
    return b""


def _unpacked(file: BinaryIO, packed: Box) -> bytes:
    """The index of an old QuickTime file that is stored compressed."""
    for box in boxes(file, packed.start, packed.end):
        if box.kind == b"cmvd":
            file.seek(box.start + 4)
            with contextlib.suppress(zlib.error):
                return zlib.decompressobj().decompress(file.read(box.end - box.start), _INDEX_BYTES)
    return b""


def _number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(4), "big")
