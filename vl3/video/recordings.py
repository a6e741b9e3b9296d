"""How many recordings a file holds one after the other, of which libavformat may read the first."""

from __future__ import annotations

import mmap
import re
from pathlib import Path
from typing import BinaryIO

from vl3.video.mp4_boxes import boxes, is_boxed

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_FLV, _FLV_HEAD = b"FLV\x01", re.compile(rb"FLV\x01[\0-\x05]\0\0\0\x09\0\0\0\0")
_MOST = 1000


def num_recordings(path: Path) -> int:
    """Of MP4 and MOV by their indices, of Matroska and WebM by their segments, of FLV by its heads.

    1 for other kinds.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if is_boxed(head):
            kinds = [box.kind for box in boxes(file, 0, size)]
            return max(1, kinds.count(b"moov"))
        if head.startswith(_FLV):
            return _heads(file, size)
        return max(1, _segments(file, size)) if head.startswith(_EBML) else 1


def _heads(file: BinaryIO, size: int) -> int:
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
        return len(_FLV_HEAD.findall(content))


def _segments(file: BinaryIO, size: int) -> int:
    found, place = 0, 0
    while place + 12 < size and found < _MOST:
        file.seek(place)
        head = file.read(12)
        if head[:4] not in (_EBML, _SEGMENT) or not head[4]:
            break
        found += head[:4] == _SEGMENT
        long = 9 - head[4].bit_length()  # bytes of the number that says the length
        length = int.from_bytes(head[4 : 4 + long], "big") & ((1 << 7 * long) - 1)
        if length == (1 << 7 * long) - 1:
            break  # a live recording does not say where it ends
        place += 4 + long + length
    return found
