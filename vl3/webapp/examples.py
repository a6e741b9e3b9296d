"""The bundled clips that the page offers, each with a title and questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vl3.webapp.conversation import Attachment
from vl3.webapp.errors import UserError
from vl3.webapp.uploads import Uploads


def read(clips: Path, uploads: Uploads) -> list[dict]:
    """item, title and questions of each clip in the folder's examples.json; none without it."""
    index = clips / "examples.json"
    return [
        {
            "item": uploads.adopt(clips / entry["file"]),
            "title": entry["title"],
            "questions": entry["questions"],
        }
        for entry in (json.loads(index.read_text("utf-8")) if index.is_file() else [])
    ]


def chosen(items: list, index: object) -> Any:
    """The item of an index that came from a browser. Raises: UserError where there is none."""
    if not isinstance(index, int) or not 0 <= index < len(items):
        raise UserError("Nothing chosen", "Choose one of the examples.")
    return items[index]


def index_of(examples: list[dict], item: Attachment | None) -> int:
    """Which example the attachment is; -1 where it is none."""
    keys = [clip["item"].key for clip in examples]
    return keys.index(item.key) if item and item.key in keys else -1


def files(examples: list[dict]) -> set[str]:
    """The files of all examples."""
    return {path for clip in examples for path in clip["item"].files}
