"""Which weights a folder holds, told from a few megabytes of a checkpoint of any size."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vl3.families import detect
from vl3.families.layouts import Family, tensor_names

BLOCK_BYTES = 4096  # read from the middle of each tensor


def weights_digest(folder: Path) -> str | None:
    """Digest of every tensor's name, format, shape and middle; None for a .bin checkpoint.

    Taken by tensor rather than by place in the file: training one small module changes it, another
    cut into shards does not, and neither does another layout, for names count as ours.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    family = detect(folder, tensor_names(folder))
    parts = sorted(part for file in files for part in _parts(file, family))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _parts(file: Path, family: Family) -> list[tuple]:
    """(name here, format, shape, digest of the middle) of the tensors of a safetensors file."""
    found = []
    with file.open("rb") as tensors:
        length = int.from_bytes(tensors.read(8), "little")
        header = json.loads(tensors.read(length))
        for name, entry in header.items():
            if name == "__metadata__" or (here := family.here(name)) is None:
                continue
            start, end = entry["data_offsets"]
            tensors.seek(8 + length + max(start, (start + end - BLOCK_BYTES) // 2))
            block = tensors.read(min(end - start, BLOCK_BYTES))
            found.append((here, entry["dtype"], tuple(entry["shape"]), _short(block)))
    return found


def _short(block: bytes) -> str:
    return hashlib.sha256(block).hexdigest()[:16]
