"""Sizes of memory as people write and read them."""

from __future__ import annotations

import re

from vl3.arguments import shown

UNITS = {"MB": 1e6, "GB": 1e9, "MIB": 2**20, "GIB": 2**30}


def format_bytes(size_bytes: float) -> str:
    """3.2 GB, 412 MB (powers of ten, as disks and cards are sold)."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{max(size_bytes / 1e6, 0):.0f} MB"


def parse_memory(text: str) -> float:
    """Bytes of a size like 24GB, 80 GiB or 512MB. Raises: ValueError for anything else."""
    written = text.strip() if isinstance(text, str) else ""
    matched = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+)", written, re.IGNORECASE)
    if not matched or matched[2].upper() not in UNITS:
        raise ValueError(f"{shown(text)} is no size; give one like 24GB, 80GiB or 512MB")
    return float(matched[1]) * UNITS[matched[2].upper()]
