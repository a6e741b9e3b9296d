"""Files of samples as records: any known format, read one sample at a time.

path                    read as
x.jsonl                 one JSON object per line, found through the positions of the lines
x.json                  a JSON list; one object per line; or objects over several lines
x.tar, shards-*.tar,    WebDataset shards: key.json or key.txt with the media of the same key
a folder of them
x.parquet, a folder,    Hugging Face data sets (needs the extra "data")
hf://owner/name
"""

from __future__ import annotations

import glob
import json
from pathlib import Path

from vl3.data import rules
from vl3.data.files import Files
from vl3.data.formats import FORMATS, detect
from vl3.data.normalize import to_record
from vl3.data.records import BadSample, Record
from vl3.data.row_readers import Items, Lines, Shards, Store, Table
from vl3.data.rules import Note
from vl3.messages.spool import SCHEME, Spool

HEAD_BYTES = 1 << 16
TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".ods", ".yaml", ".yml", ".pkl", ".npy", ".npz")
TRIED = 100  # rows that are looked at to tell the format


class Records:
    """The samples of one data set; `records[i]` is a Record or raises BadSample.

    May be indexed in several processes at once. A sample is never replaced by another one. Media
    from archives, data: URLs and tables are put into temporary files that live as long as this.
    """

    def __init__(self, store: Store, name: str, format: str | None, root: Path) -> None:
        self.store, self.name, self.root = store, name, root
        self.spool = Spool()
        self.format = format or self._detected()
        self.is_given = format is not None

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> Record:
        """Raises: BadSample, with the place in front of its sentence; IndexError."""
        return self.read(index)[0]

    def place(self, index: int) -> str:
        """Where a sample stands: file:line, file:item or shard:key."""
        return self.store.place(index)

    def read(self, index: int) -> tuple[Record, list[Note]]:
        """A record and what was mended in it. Raises: as records[index]."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, there is no number {index}")
        place = self.place(index)
        try:
            record, notes = self._read(index, place)
        except BadSample as error:
            raise BadSample(error.code, f"{place}: {error}") from None
        return record, [Note(note.code, f"{place}: {note.message}") for note in notes]

    def _read(self, index: int, place: str) -> tuple[Record, list[Note]]:
        row = self.store.row(index)
        found = detect(row)
        if found is None and not self.is_given:
            raise rules.unknown_format(row)
        reads = FORMATS[self.format]
        if found is not None and FORMATS[found] is not reads and not self.is_given:
            raise rules.other_format(found, self.format)
        draft = reads(row)
        if (
            isinstance(self.store, Shards)
            and not draft.media
            and not _has_sources(draft.conversations)
        ):
            draft.media = self.store.media(index)
        files = Files(self.root, self.spool, self.store.members(index))
        return to_record(draft, id=place, dataset=self.name, files=files)

    def _detected(self) -> str:
        """The format of the first row that has one."""
        for index in range(min(len(self), TRIED)):
            try:
                found = detect(self.store.row(index))
            except BadSample:
                continue
            if found is not None:
                return found
        return "canonical"


def open_records(
    path: str | Path,
    *,
    name: str,
    format: str | None = None,
    media_root: str | Path | None = None,
) -> Records:
    """The samples of a file, of shards or of a Hugging Face data set.

    name: of the data set, for samples that do not name one themselves
    format: one of vl3.data.formats.FORMATS; None tells it from the first row that has one
    media_root: where relative paths of media begin; None takes the folder of the file

    Raises: FileNotFoundError, ValueError or ImportError (a package is missing), one sentence.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"there is no format {format!r}; format is one of {', '.join(FORMATS)}")
    if str(path).startswith("hf://"):
        store: Store = Table(str(path))
        folder = Path.cwd()
    elif SCHEME.match(str(path)):
        raise ValueError(
            f"{rules.shown(str(path))} is a web address; download it first and give the path."
        )
    else:
        store, folder = _open(Path(path).expanduser())
    if not len(store):
        raise ValueError(f"{rules.shown(str(path))} holds no samples.")
    root = Path(media_root).expanduser() if media_root is not None else folder
    if not root.is_dir():
        raise ValueError(f"media_root is a folder - got {rules.shown(str(root))}")
    return Records(store, name, format, root.absolute())


def _open(path: Path) -> tuple[Store, Path]:
    """The store of a local path, and the folder that its media are relative to."""
    if "*" in path.name:
        return Shards(_shards(path)), path.parent
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        return (Shards(shards) if shards else Table(str(path))), path
    if not path.exists():
        raise FileNotFoundError(f"there is no file {rules.shown(str(path))}")
    if not path.is_file():
        raise ValueError(f"{rules.shown(str(path))} is a device or pipe; write it to a file first.")
    if path.suffix == ".tar":
        return Shards([path]), path.parent
    if path.suffix == ".parquet":
        return Table(str(path)), path.parent
    if path.name.endswith((".gz", ".zst", ".zip", ".xz", ".bz2", ".tgz")):
        raise ValueError(f"{path.name} is compressed; unpack it first.")
    return (Items(path) if _is_whole(path) else Lines(path)), path.parent


def _is_whole(path: Path) -> bool:
    """Whether a file is JSON as a whole, a list or objects over several lines, and not by lines.

    Raises: ValueError for a file that is no text in UTF-8 or cannot be opened.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except PermissionError:
        raise ValueError(f"{path.name} cannot be opened: permission denied.") from None
    _check_text(path, head)
    lines = [line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines()]
    first, second = (*filter(None, lines), b"", b"")[:2]
    if first[:1] == b"[":
        return path.suffix != ".jsonl"
    return first[:1] == b"{" and not _is_json(first) and second[:1] not in (b"", b"{")


def _check_text(path: Path, head: bytes) -> None:
    """Raises: ValueError for tables, UTF-16 and binary files."""
    if path.suffix.lower() in TABLES:
        raise ValueError(
            f"{path.name} is no JSON; write its rows as JSON lines (.jsonl) or as parquet."
        )
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path.name} is UTF-16; save it as UTF-8.")
    if b"\0" in head.partition(b"\n")[0]:
        raise ValueError(f"{path.name} is a binary file and no JSON; give the file with the rows.")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _shards(pattern: Path) -> list[Path]:
    found = [Path(name) for name in sorted(glob.glob(str(pattern))) if name.endswith(".tar")]
    if not found:
        raise FileNotFoundError(f"no tar file matches {rules.shown(str(pattern))}")
    return found


def _has_sources(conversations: list[list[dict]]) -> bool:
    contents = (turn["content"] for turns in conversations for turn in turns)
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return any(part["type"] != "text" and part["type"] in part for part in parts)
