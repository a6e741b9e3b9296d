"""Whether the weights in a folder are all there, told from the files' heads: nothing is loaded."""

from __future__ import annotations

import json
from pathlib import Path

POINTER = b"version https://git-lfs"
MOST_HEADER = 100_000_000  # bytes that safetensors allows for the table of a file


def check_weights(folder: Path) -> None:
    """Raises: ValueError, one sentence, for a safetensors file that is a pointer or not whole."""
    for file in sorted(folder.glob("*.safetensors")):
        if (what := damage(file)) is not None:
            raise ValueError(f"{file} {what}")


def damage(file: Path) -> str | None:
    """What is wrong with a safetensors file, as the rest of a sentence; None for a whole one."""
    have = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(len(POINTER))
        if head == POINTER:
            return "is a pointer of Git LFS and not the weights; fetch them with git lfs pull"
        length = int.from_bytes(head[:8], "little")
        if length > MOST_HEADER:
            return "is no safetensors file; fetch it again"
        opened.seek(8)
        table = opened.read(length)
    try:
        tensors = json.loads(table) if len(table) == length > 0 else None
    except ValueError:
        return "is no safetensors file; fetch it again"
    if tensors is None or have < 8:
        return f"is not whole: it ends after {have:,} bytes, inside its table; fetch it again"
    ends = (part["data_offsets"][1] for name, part in tensors.items() if name != "__metadata__")
    wanted = 8 + length + max(ends, default=0)
    if have < wanted:
        return f"is not whole: it has {have:,} of {wanted:,} bytes; fetch it again"
    return None
