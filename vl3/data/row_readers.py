"""Rows of a file, one at a time: JSON lines, a JSON list, WebDataset shards, tables.

Each store has a length, `row(index)` as an object, `place(index)` for messages and
`members(index)`: files of the row that lie in the same archive. Stores can be sent to other
processes: they hold positions, never open files.
"""

from __future__ import annotations

import bisect
import json
import re
import tarfile
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from vl3.data import rules
from vl3.data.formats import PICTURES, detect
from vl3.data.records import BadSample

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
SPACE = re.compile(r"\s*")
Members = dict[str, Callable[[], bytes]]


class Store(Protocol):
    """What rows come from."""

    def __len__(self) -> int: ...
    def row(self, index: int) -> dict: ...
    def place(self, index: int) -> str: ...
    def members(self, index: int) -> Members: ...


class Lines:
    """One JSON object per line, found by the position of its line; blank lines do not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = array("q")
        self.blanks = array("q")  # how many rows came before each blank line
        position = 0
        with path.open("rb") as file:
            for line in file:
                if line.isspace():
                    self.blanks.append(len(self.starts))
                else:
                    self.starts.append(position)
                position += len(line)
        self.end = position

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, index: int) -> str:
        return f"{self.path.name}:{index + 1 + bisect.bisect_right(self.blanks, index)}"

    def row(self, index: int) -> dict:
        start = self.starts[index]
        end = self.starts[index + 1] if index + 1 < len(self) else self.end
        return parse(_read(self.path, start, end - start))

    def members(self, index: int) -> Members:
        return {}


class Items:
    """A JSON list of objects, or objects one after the other over several lines, read at once.

    Raises: ValueError for a file that is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
            self.items = _values(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise ValueError(f"{path.name} is not valid JSON ({error.msg} at {where}).") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name} is not UTF-8 (at byte {error.start + 1}).") from None
        except (RecursionError, ValueError):
            raise ValueError(f"{path.name} is not JSON that can be read.") from None
        if len(self.items) == 1 and isinstance(self.items[0], list):
            (self.items,) = self.items
        elif len(self.items) == 1 and (key := _rows_under(self.items[0])) is not None:
            raise ValueError(
                f"{path.name} is one object with its rows under {rules.shown(key, 40)!r}; write "
                "that list alone, or one row per line."
            )

    def __len__(self) -> int:
        return len(self.items)

    def place(self, index: int) -> str:
        return f"{self.path.name}:{index + 1}"

    def row(self, index: int) -> dict:
        return _checked(self.items[index])

    def members(self, index: int) -> Members:
        return {}


class Shards:
    """WebDataset shards: plain tar files with key.json or key.txt and media of the same key.

    Raises: ValueError for a file that is no plain tar.
    Source: webdataset's naming: the key of a member is its path up to the first dot of its name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.samples: list[tuple[Path, str, dict[str, tuple[int, int]]]] = []
        for path in paths:
            found: dict[str, dict[str, tuple[int, int]]] = {}
            try:
                with tarfile.open(path, "r:") as tar:
                    for member in tar:
                        if member.isreg() and not member.issparse():
                            key, ending = _key(member.name)
                            place = (member.offset_data, member.size)
                            found.setdefault(key, {})[ending] = place
            except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"{path.name} is not a plain tar file ({str(error) or 'damaged'}); "
                    "unpack compressed shards first."
                ) from None
            self.samples += ((path, key, ends) for key, ends in found.items() if ends)

    def __len__(self) -> int:
        return len(self.samples)

    def place(self, index: int) -> str:
        path, key, _ = self.samples[index]
        return f"{path.name}:{rules.shown(key, 80)}"

    def row(self, index: int) -> dict:
        """The object in key.json, or one that asks nothing and answers the caption of key.txt."""
        path, key, ends = self.samples[index]
        row = parse(_read(path, *ends[".json"])) if ".json" in ends else {}
        if detect(row) is not None:
            return row
        caption = row.get("caption")
        if ".txt" in ends:
            caption = _read(path, *ends[".txt"]).decode("utf-8", errors="replace")
        if not isinstance(caption, str):
            if row:
                raise rules.unknown_format(row)
            raise BadSample("E102", "no .json and no .txt of this key; one of them says the text.")
        parts = [{"type": kind} for kind, _ in _media(key, ends)]
        turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": caption}]
        return {"messages": turns}

    def members(self, index: int) -> Members:
        path, key, ends = self.samples[index]
        known: dict[str, Callable[[], bytes]]
        known = {key + ending: partial(_read, path, *place) for ending, place in ends.items()}
        return known | {name.rpartition("/")[2]: read for name, read in known.items()}

    def media(self, index: int) -> list[dict]:
        """The media of the sample as a row lists them."""
        _, key, ends = self.samples[index]
        return [{"type": kind, kind: name} for kind, name in _media(key, ends)]


class Table:
    """A Hugging Face data set, its media as they are stored, never decoded here.

    path: a parquet file, a folder, or hf://owner/name, hf://owner/name/config, with :split
    Raises: ImportError without the package, ValueError for what it cannot load.
    """

    def __init__(self, path: str) -> None:
        self.name = path.removeprefix("hf://").rstrip("/").rpartition("/")[2]
        self.data = _load(path).with_format("arrow")

    def __len__(self) -> int:
        return len(self.data)

    def place(self, index: int) -> str:
        return f"{self.name}:{index + 1}"

    def row(self, index: int) -> dict:
        return self.data[index : index + 1].to_pylist()[0]

    def members(self, index: int) -> Members:
        return {}


def parse(raw: bytes) -> dict:
    """The object in some bytes. Raises: BadSample E101."""
    try:
        text = raw.decode("utf-8-sig")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise rules.not_json("not UTF-8", error.start + 1) from None
    except json.JSONDecodeError as error:
        raise rules.not_json(error.msg.removesuffix(" delimiter"), error.colno) from None
    except RecursionError:
        raise rules.not_json("nested too deeply", 1) from None
    except ValueError:
        raise rules.not_json("a number too long to read", 1) from None
    return _checked(value) if "\\ud" in text.lower() else _object(value)


def _values(text: str) -> list:
    """The JSON values of a text, one after the other. Raises: json.JSONDecodeError."""
    decoder, at = json.JSONDecoder(), 0
    found: list = []
    while (at := cast(re.Match, SPACE.match(text, at)).end()) < len(text) or not found:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def _rows_under(value: object) -> str | None:
    """The key of an object that is no row itself under which rows are listed."""
    if not isinstance(value, dict) or detect(value) is not None:
        return None
    return next(
        (
            key
            for key, rows in value.items()
            if isinstance(rows, list)
            and rows
            and isinstance(rows[0], dict)
            and detect(rows[0]) is not None
        ),
        None,
    )


def _object(value: object) -> dict:
    if not isinstance(value, dict):
        names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
        found = names.get(type(value), "a number")
        raise rules.not_json(f"{found} instead of an object", 1)
    return value


def _checked(value: object) -> dict:
    """The object, once all its texts can be encoded: JSON may hold half of a surrogate pair."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise rules.not_json("half of a surrogate pair", 1) from None
    except RecursionError:
        raise rules.not_json("nested too deeply", 1) from None
    return _object(value)


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _key(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, dot, ending = base.partition(".")
    return folder + slash + stem, (dot + ending).lower()


def _media(key: str, ends: dict) -> list[tuple[str, str]]:
    """(kind, name) of the pictures and videos of a sample, by name."""
    kinds = dict.fromkeys(PICTURES, "image") | dict.fromkeys(VIDEOS, "video")
    named = ((kinds.get("." + ending.rpartition(".")[2]), key + ending) for ending in sorted(ends))
    return [(kind, name) for kind, name in named if kind]


def _load(path: str):
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{path} is read by the package datasets; install it with pip install 'vl3[data]'"
        ) from None
    try:
        if not path.startswith("hf://"):
            folder = Path(path)
            if folder.is_dir() and (folder / "dataset_dict.json").is_file():
                return datasets.load_from_disk(path)["train"]
            if folder.is_dir() and (folder / "state.json").is_file():
                return datasets.load_from_disk(path)
            if folder.is_file():
                return datasets.load_dataset("parquet", data_files=path, split="train")
            return datasets.load_dataset(path, split="train")
        name, _, split = path.removeprefix("hf://").partition(":")
        owner, name, config = (*name.split("/", 2), "", "")[:3]
        if not owner or not name:
            raise ValueError("its name is not like hf://owner/name")
        return datasets.load_dataset(f"{owner}/{name}", config or None, split=split or "train")
    except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be loaded as a data set: {reason}") from None
