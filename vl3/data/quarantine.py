"""The file that names bad samples, the same from training and from validation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Bad:
    """A sample that cannot be learned from: one line of the file.

    dataset, index: its data set, and its number there from 0
    id: where it stands: file:line, file:item or shard:key
    code: the rule it breaks (vl3.data.rules); message: the sentence that says so
    """

    dataset: str
    index: int
    id: str
    code: str
    message: str


def quarantine(file: Path, found: Iterable[Bad]) -> None:
    """Adds one line of JSON for each of the samples."""
    lines = [json.dumps(asdict(bad), ensure_ascii=False) + "\n" for bad in found]
    if lines:
        with file.open("a", encoding="utf-8") as out:
            out.writelines(lines)
