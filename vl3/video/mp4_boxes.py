"""The boxes of MP4, MOV, HEIC and AVIF files: found without libavformat, and before it is asked."""

from __future__ import annotations

import contextlib
import io
import mmap
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid")
_INDICES = {b"moov", b"moof"}  # at the top of a file
_LEAVES = {b"stsd", b"stts", b"ctts", b"stsc", b"stco", b"co64", b"stss", b"sdtp", b"mdat"}
_DEEPEST = 10
_HEADER_BYTES = 16
_TOP = {
    *_FIRST,
    *_INDICES,
    b"meta",
    b"udta",
    b"sidx",
    b"mfra",
    b"emsg",
    b"prft",
    b"ssix",
    b"pdin",
    b"PICT",
    b"beam",
    b"junk",
}
_TABLE = re.compile(rb"\0\0..(stsz|stz2|trun)", re.DOTALL)
_SEARCHED_BYTES = 1 << 28
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
    """How many samples (frames, stretches of sound) the tables of a file claim; 0 for no MP4.

    Uncompressed sound is read by chunks and claims nothing.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        top = list(boxes(file, 0, size))
        if not any(box.kind in _TOP for box in top[:3]):
            return 0
        is_whole = top[-1].end == size and all(box.kind in _TOP for box in top)
        return max(_claimed(file, 0, size), 0 if is_whole else _found(file, size))


def _claimed(file: BinaryIO, start: int, end: int, is_sound: bool = False, depth: int = 0) -> int:
    """As libavformat does, looks into what may hold boxes even where a size is wrong."""
    total, inside = 0, list(boxes(file, start, end))
    tracks = {_letters(file, box.start + 8) for box in inside if box.kind == b"hdlr"}
    if tracks & {b"vide", b"soun"}:
        is_sound = b"vide" not in tracks
    if is_sound and any(_one_tick_each(file, box) for box in inside):
        return 0  # a sample is a number
    for box in inside:
        if box.kind in _COUNT_AT:
            total += _number(file, box.start + _COUNT_AT[box.kind])
        elif box.kind == b"cmov" and depth < _DEEPEST:
            content = _unpacked(file, box)
            total += _claimed(io.BytesIO(content), 0, len(content), is_sound, depth + 1)
        elif box.kind in _INDICES or (depth and box.kind not in _LEAVES and depth < _DEEPEST):
            total += _claimed(file, box.start, box.end, is_sound, depth + 1)
    return total


def _found(file: BinaryIO, size: int) -> int:
    """The most that a table anywhere in a damaged file claims, as libavformat may find it."""
    with mmap.mmap(file.fileno(), min(size, _SEARCHED_BYTES), access=mmap.ACCESS_READ) as content:
        places = [(found.start(1), found[1]) for found in _TABLE.finditer(content)]
    return max((_number(file, at + 4 + _COUNT_AT[kind]) for at, kind in places), default=0)


def _one_tick_each(file: BinaryIO, box: Box) -> bool:
    is_one = box.kind == b"stts" and _number(file, box.start + 4) == 1
    return is_one and _number(file, box.start + 12) == 1


def _unpacked(file: BinaryIO, packed: Box) -> bytes:
    """The index of an old QuickTime file that is stored compressed."""
    for box in boxes(file, packed.start, packed.end):
        if box.kind == b"cmvd":
            file.seek(box.start + 4)
            with contextlib.suppress(zlib.error):
                return zlib.decompressobj().decompress(file.read(box.end - box.start), _INDEX_BYTES)
    return b""


def _letters(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(4)


def _number(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(4), "big")
