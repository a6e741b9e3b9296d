"""HEIC pictures as phones write them: HEVC tiles, a grid, and how the whole is turned."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_heic(
    path: Path,
    picture_YX3: np.ndarray,
    tile_px: int = 64,
    turns: Sequence[tuple[bytes, int]] = (),
) -> Path:
    """The picture in tiles of tile_px, or in one where it is no larger (then without a grid).

    turns: (b"irot", quarter turns against the clock) or (b"imir", axis), as players apply them
    """
    height, width = picture_YX3.shape[:2]
    rows, cols = -(-height // tile_px), -(-width // tile_px)
    padded = np.pad(
        picture_YX3,
        ((0, rows * tile_px - height), (0, cols * tile_px - width), (0, 0)),
        mode="edge",
    )
    coded = [
        _hevc(padded[y : y + tile_px, x : x + tile_px])
        for y in range(0, rows * tile_px, tile_px)
        for x in range(0, cols * tile_px, tile_px)
    ]
    grid = b"" if len(coded) == 1 else bytes([0, 0, rows - 1, cols - 1]) + _u16(width, height)
    path.write_bytes(_file(coded, grid, (height, width), tile_px, turns))
    return path


def _hevc(picture_YX3: np.ndarray) -> tuple[bytes, bytes]:
    """The hvcC box and the one sample of a picture."""
    encoder = av.CodecContext.create("libx265", "w")
    encoder.height, encoder.width = picture_YX3.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1)
    encoder.options = {"crf": "4", "x265-params": "log-level=none"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_YX3), format="rgb24")
    frame = frame.reformat(format="yuv420p")
    frame.pts = 0
    stream = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")[1:]]
    kinds = [unit[0] >> 1 & 63 for unit in units]
    lists = [  # of the units that say how to decode: VPS, SPS, PPS
        bytes([kind]) + _u16(1, len(unit)) + unit
        for kind, unit in zip(kinds, units)
        if kind in (32, 33, 34)
    ]
    record = bytes([1]) + bytes(20) + bytes([3, len(lists)]) + b"".join(lists)
    coded = [unit for kind, unit in zip(kinds, units) if kind < 32]
    return _box(b"hvcC", record), b"".join(_u32(len(unit)) + unit for unit in coded)


def _file(coded, grid: bytes, size, tile_px: int, turns) -> bytes:
    main = len(coded) + 1 if grid else 1
    kinds = [b"hvc1"] * len(coded) + ([b"grid"] if grid else [])
    entries = [_u16(k + 1, 0) + kind + b"\0" for k, kind in enumerate(kinds)]
    infos = b"".join(_full(b"infe", 2, entry) for entry in entries)
    tile_size = size if not grid else (tile_px, tile_px)
    shared = [coded[0][0], _ispe(*tile_size), _ispe(*size)]
    shared += [_box(kind, bytes([value])) for kind, value in turns]
    turned = list(range(4, 4 + len(turns)))
    owned = [[1, 2] for _ in coded] + ([[3]] if grid else [])
    owned[-1] += turned
    table = b"".join(
        _u16(k + 1) + bytes([len(own), *(index | 128 for index in own)])
        for k, own in enumerate(owned)
    )
    parts = [
        _full(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)),
        _full(b"pitm", 0, _u16(main)),
        _full(b"iinf", 0, _u16(len(kinds)) + infos),
        _box(
            b"iprp",
            _box(b"ipco", b"".join(shared))
            + _full(b"ipma", 0, len(owned).to_bytes(4, "big") + table),
        ),
    ]
    if grid:
        tiles = _u16(*range(1, len(coded) + 1))
        parts.append(_full(b"iref", 0, _box(b"dimg", _u16(main, len(coded)) + tiles)))
        parts.append(_box(b"idat", grid))
    head = _box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def located(start: int) -> bytes:
        rows = b""
        for k, (_, sample) in enumerate(coded):
            rows += _u16(k + 1, 0, 0, 1) + _u32(start, len(sample))
            start += len(sample)
        if grid:
            rows += _u16(main, 1, 0, 1) + _u32(0, len(grid))
        return _full(b"iloc", 1, b"\x44\x00" + _u16(len(kinds)) + rows)

    length = len(head) + len(_full(b"meta", 0, b"".join([*parts, located(0)]))) + 8
    meta = _full(b"meta", 0, b"".join([*parts, located(length)]))
    return head + meta + _box(b"mdat", b"".join(sample for _, sample in coded))


def _ispe(height: int, width: int) -> bytes:
    return _full(b"ispe", 0, _u32(width, height))


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def _full(kind: bytes, version: int, content: bytes) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]) + content)


def _u16(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def _u32(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)
