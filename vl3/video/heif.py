"""HEIC pictures of phones: a grid of HEVC tiles, put together, cut and turned as the file says.

libavformat gives each coded item of such a file as a stream whose id is the item's. Which of them
are the picture, and how, stands in the `meta` box (ISO/IEC 23008-12), which is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from vl3.video import limits
from vl3.video.container import open_video, shown_name
from vl3.video.errors import VideoError
from vl3.video.mp4_boxes import Box, boxes
from vl3.video.pixels import stored_rgb

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"MiHB"}
_CODED = {b"hvc1", b"hev1"}
_META_BYTES = 1 << 24


@dataclass(slots=True)
class _Items:
    """The items of a file: the main one, what each is, is made of, and its properties in order."""

    main: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    parts: dict[int, list[int]] = field(default_factory=dict)
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Picture:
    """Where a picture's tiles go, its size in pixels before it is turned, and how it is turned."""

    tiles: tuple[int, ...]
    cols: int
    height_px: int
    width_px: int
    turns: tuple[tuple[bytes, bytes], ...]


def is_heif(path: Path) -> bool:
    """True for a still picture in HEIC; AVIF and sequences are read elsewhere."""
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] != b"ftyp" or head[8:12] not in _BRANDS:
        return False
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return b"avif" not in {head[at : at + 4] for at in range(16, size, 4)}


def heif_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels as shown, from the header.

    Raises: VideoError - damaged, too large, or of a kind that is not read
    """
    picture = _picture(path)
    height, width = picture.height_px, picture.width_px
    for kind, content in picture.turns:
        if kind == b"clap":
            top, bottom, left, right = _cut(content, height, width)
            height, width = bottom - top, right - left
        elif kind == b"irot" and content[0] % 2:
            height, width = width, height
    return height, width


def heif_rgb(path: Path) -> np.ndarray:
    """The whole picture, upright uint8 RGB.

    Raises: VideoError - as heif_size; a tile is missing or damaged
    """
    picture, name = _picture(path), shown_name(path)
    canvas_YX3, place = None, {item: at for at, item in enumerate(picture.tiles)}
    for item, tile_YX3 in _decoded(path, set(picture.tiles)):
        height, width = tile_YX3.shape[:2]
        if canvas_YX3 is None:
            rows = -(-len(picture.tiles) // picture.cols)
            if rows * height < picture.height_px or picture.cols * width < picture.width_px:
                raise _damaged(name, "its tiles do not fill it")
            canvas_YX3 = np.empty((picture.height_px, picture.width_px, 3), np.uint8)
            size = (height, width)
        if size != (height, width):
            raise _damaged(name, "its tiles differ in size")
        row, col = divmod(place.pop(item), picture.cols)
        part_YX3 = canvas_YX3[row * height :, col * width :][:height, :width]
        part_YX3[:] = tile_YX3[: part_YX3.shape[0], : part_YX3.shape[1]]
    if place or canvas_YX3 is None:
        raise _damaged(name, f"{len(place)} of its {len(picture.tiles)} tiles cannot be decoded")
    return np.ascontiguousarray(_turned(canvas_YX3, picture.turns))


def _damaged(name: str, why: str) -> VideoError:
    return VideoError(f"{name} is damaged or incomplete: {why}.")


def _decoded(path: Path, wanted: set[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Item and uint8 RGB of each wanted item that can be decoded."""
    with open_video(path) as container:
        streams = [s for s in container.streams.video if s.id in wanted and s.codec_context]
        for packet in container.demux(streams):
            if packet.stream.id not in wanted:
                continue
            decoder: Any = packet.stream.codec_context
            try:
                frames = [*decoder.decode(packet), *decoder.decode(None)]
            except av.error.FFmpegError:
                continue
            wanted.discard(packet.stream.id)
            for frame in frames[:1]:
                yield packet.stream.id, stored_rgb(frame)


def _turned(picture_YX3: np.ndarray, turns: tuple[tuple[bytes, bytes], ...]) -> np.ndarray:
    """The picture cut, turned and mirrored, in the order in which the file names these."""
    for kind, content in turns:
        if kind == b"clap":
            top, bottom, left, right = _cut(content, *picture_YX3.shape[:2])
            picture_YX3 = picture_YX3[top:bottom, left:right]
        elif kind == b"irot":
            picture_YX3 = np.rot90(picture_YX3, content[0] & 3)
        else:  # imir: 0 exchanges top and bottom, 1 left and right
            picture_YX3 = picture_YX3[:, ::-1] if content[0] & 1 else picture_YX3[::-1]
    return picture_YX3


def _cut(clap: bytes, height_px: int, width_px: int) -> tuple[int, int, int, int]:
    """top, bottom, left, right of a clean aperture: width, height and offsets of its centre."""
    numbers = [int.from_bytes(clap[at : at + 4], "big", signed=True) for at in range(0, 32, 4)]
    width, height, right, down = (
        over / below if below else 0.0 for over, below in zip(numbers[::2], numbers[1::2])
    )
    left = round((width_px - width) / 2 + right)
    top = round((height_px - height) / 2 + down)
    found = top, top + round(height), left, left + round(width)
    inside = 0 <= found[0] < found[1] <= height_px and 0 <= found[2] < found[3] <= width_px
    return found if inside else (0, height_px, 0, width_px)


def _picture(path: Path) -> _Picture:
    name = shown_name(path)
    try:
        items = _items(path)
        item = items.main
        turns: tuple[tuple[bytes, bytes], ...] = ()
        while items.kinds.get(item) == b"iden" and len(turns) < 16:  # another one, turned
            turns = (*_turns(items, item), *turns)
            (item,) = items.parts[item]
        turns = (*_turns(items, item), *turns)
        size = dict(items.properties.get(item, ())).get(b"ispe", b"")
        width, height = _whole(size[4:8]), _whole(size[8:12])
        tiles: tuple[int, ...] = (item,)
        cols = 1
        if items.kinds.get(item) == b"grid":
            tiles = tuple(items.parts[item])
            cols, height, width = _grid(items.contents[item], len(tiles))
    except (LookupError, ValueError):
        raise _damaged(name, "its table of items cannot be read") from None
    if not all(items.kinds.get(tile) in _CODED for tile in tiles) or min(height, width) < 1:
        raise VideoError(f"{name} is a HEIC picture of a kind that is not read; save it as JPEG.")
    limits.check_picture(name, height, width)
    return _Picture(tiles, cols, height, width, turns)


def _turns(items: _Items, item: int) -> tuple[tuple[bytes, bytes], ...]:
    kinds = (b"clap", b"irot", b"imir")
    return tuple(each for each in items.properties.get(item, ()) if each[0] in kinds and each[1])


def _grid(content: bytes, num_tiles: int) -> tuple[int, int, int]:
    """Columns, height and width that a grid item names.

    Raises: ValueError - it does not name as many tiles as there are
    """
    long = 4 if content[1] & 1 else 2
    rows, cols = content[2] + 1, content[3] + 1
    if rows * cols != num_tiles:
        raise ValueError(rows, cols, num_tiles)
    return cols, _whole(content[4 + long : 4 + 2 * long]), _whole(content[4 : 4 + long])


def _whole(content: bytes) -> int:
    return int.from_bytes(content, "big")


class _Numbers:
    """Numbers read one after the other from bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    def __call__(self, num_bytes: int) -> int:
        """Raises: ValueError - no bytes are left"""
        return _whole(self.bytes(num_bytes))

    def bytes(self, num_bytes: int) -> bytes:
        found = self._content[self._at : self._at + num_bytes]
        self._at += num_bytes
        if len(found) < num_bytes:
            raise ValueError(num_bytes)
        return found


def _items(path: Path) -> _Items:
    """What the `meta` box of a file says. Raises: LookupError, ValueError - it is damaged"""
    found, size = _Items(), path.stat().st_size
    with open(path, "rb") as file:

        def content(box: Box) -> bytes:
            file.seek(box.start)
            return file.read(min(box.end - box.start, _META_BYTES))

        meta = next((box for box in boxes(file, 0, size) if box.kind == b"meta"), None)
        if meta is None:
            raise LookupError("meta")
        inside = {box.kind: box for box in boxes(file, meta.start + 4, meta.end)}
        head = _Numbers(content(inside[b"pitm"]))
        found.main = head(2 if head(4) >> 24 == 0 else 4)
        listed = inside[b"iinf"]
        skip = 6 if content(listed)[0] == 0 else 8
        for box in boxes(file, listed.start + skip, listed.end):
            entry = _Numbers(content(box))
            wide = entry(4) >> 24 >= 3
            item, _ = entry(4 if wide else 2), entry(2)
            found.kinds[item] = entry.bytes(4)
        if b"iref" in inside:
            wide = content(inside[b"iref"])[0] > 0
            for box in boxes(file, inside[b"iref"].start + 4, inside[b"iref"].end):
                if box.kind == b"dimg":
                    entry, long = _Numbers(content(box)), 4 if wide else 2
                    item = entry(long)
                    found.parts[item] = [entry(long) for _ in range(entry(2))]
        shared, tables = [], []
        for box in boxes(file, inside[b"iprp"].start, inside[b"iprp"].end):
            if box.kind == b"ipco":
                shared = [
                    (each.kind, content(each)[:64]) for each in boxes(file, box.start, box.end)
                ]
            elif box.kind == b"ipma":
                tables.append(content(box))
        for table in tables:
            _assign(found, shared, _Numbers(table))
        idat = content(inside[b"idat"]) if b"idat" in inside else b""
        _locate(found, _Numbers(content(inside[b"iloc"])), idat, file)
    return found


def _assign(found: _Items, shared: list[tuple[bytes, bytes]], table: _Numbers) -> None:
    flags = table(4)
    wide_item, wide_index = flags >> 24 > 0, flags & 1
    for _ in range(table(4)):
        item, listed = table(4 if wide_item else 2), found.properties
        for _ in range(table(1)):
            index = table(2) & 0x7FFF if wide_index else table(1) & 0x7F
            if 0 < index <= len(shared):
                listed.setdefault(item, []).append(shared[index - 1])


def _locate(found: _Items, table: _Numbers, idat: bytes, file) -> None:
    """Reads what the grid items hold, a few bytes each."""
    version, sizes = table(4) >> 24, table(2)
    of_offset, of_length, of_base = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    of_index = sizes & 15 if version else 0
    for _ in range(table(2 if version < 2 else 4)):
        item = table(2 if version < 2 else 4)
        is_inside = bool(version) and table(2) & 15 == 1
        _, base = table(2), table(of_base)
        for _ in range(table(2)):
            table(of_index)
            start, length = base + table(of_offset), table(of_length)
            if found.kinds.get(item) == b"grid" and length < 64:
                if is_inside:
                    part = idat[start : start + length]
                else:
                    file.seek(start)
                    part = file.read(length)
                found.contents[item] = found.contents.get(item, b"") + part
