"""python tests/robustness/table.py docs/reliability.md [WORDS ...]: odd files, expected and got.

Makes every file of odd_files.ROWS (or those whose kind has one of the words), gives it to the
library, to the terminal and to a running page, and rewrites the table in the document. Exit code 1
where something is not as expected; the table then says what it was.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests"), str(REPO / "tests" / "app")]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from odd_files import ROWS, Read, Row  # noqa: E402

import vl3  # noqa: E402
import vl3.video  # noqa: E402
from train_cli.__main__ import main as train_cli  # noqa: E402

START, END = "<!-- made by tests/robustness/table.py -->", "<!-- end of what was made -->"
MOST_S = 20.0
QUESTION = "What is shown?"


def library(row: Row, path: Path) -> str:
    """What is wrong with how vl3.video.read takes a file; empty where all is as expected."""
    try:
        clip = vl3.video.read(path)
    except vl3.video.VideoError as error:
        return _refused(row, str(error))
    return row.expected.fault(clip) if isinstance(row.expected, Read) else "read"


def terminal(row: Row, path: Path) -> str:
    """The same of the chat command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    words = ["chat", "--video", str(path), "--max-new-tokens", "2", "--details", QUESTION]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = train_cli(words)
    said = err.getvalue().strip()
    if code:
        return _refused(row, said.splitlines()[-1].removeprefix("error: ")) or (
            "" if code == 2 else f"exit code {code}"
        )
    if not isinstance(row.expected, Read):
        return f"answered: {out.getvalue().strip()}"
    frames = int(re.search(r"(\d+) frames?,", said)[1])
    wanted = 1 if row.expected.times_s is None else len(row.expected.times_s)
    if frames != wanted:
        return f"{frames} frames"
    return "" if row.expected.note in said else "answered without the note"


def page(ask: Callable[[Path], str]) -> Callable[[Row, Path], str]:
    """The same of a page whose /ask is given; that entrance gives the answer and no notes."""

    def check(row: Row, path: Path) -> str:
        from gradio_client.exceptions import AppError

        try:
            said = ask(path)
        except AppError as error:
            return _refused(row, str(error))
        return "" if isinstance(row.expected, Read) else f"answered: {said}"

    return check


def _refused(row: Row, sentence: str) -> str:
    if isinstance(row.expected, Read):
        return f"refused: {sentence}"
    return row.expected.fault(sentence)


@contextmanager
def served(folder: Path) -> Iterator[Callable[[Path], str]]:
    """Asks a page on the bundled model, served from this process, about a file."""
    from gradio_client import Client, handle_file
    from serving import serving

    from vl3.webapp import launch
    from vl3.webapp.controller import Controller
    from vl3.webapp.uploads import Uploads

    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    media = Uploads(folder, vl3.video, 10**9)
    controller = Controller(lambda **chosen: bundled(), media, launch.refusals())
    try:
        with serving(controller) as running:
            client = Client(running.url, verbose=False)
            yield lambda path: client.predict(
                handle_file(str(path)), QUESTION, max_new_tokens=2, api_name="/ask"
            )
    finally:
        if before is None:
            del os.environ["GRADIO_TEMP_DIR"]
        else:
            os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def entrances() -> Iterator[dict[str, Callable[[Row, Path], str]]]:
    """Library, terminal and page, each as a function that says what is wrong with a file."""
    vl3.load = bundled  # the terminal's command loads a model each time
    try:
        with tempfile.TemporaryDirectory() as uploads, served(Path(uploads)) as ask:
            yield {"library": library, "terminal": terminal, "page": page(ask)}
    finally:
        vl3.load = _load


@functools.cache
def bundled(*_: object, **__: object):
    """The bundled model, loaded once."""
    return _load(REPO / "assets" / "nano", device="cpu", offline=True)


_load = vl3.load


def checked(rows: list[Row], folder: Path, entrances: dict[str, Callable]) -> Iterator[tuple]:
    """Each row, and for each entrance what is wrong; the files are made in the folder."""
    for row in rows:
        path = folder / row.file
        row.make(path)
        found = {}
        for name, entrance in entrances.items():
            started = time.monotonic()
            found[name] = entrance(row, path)
            took_s = time.monotonic() - started
            if not found[name] and took_s > MOST_S:
                found[name] = f"took {took_s:.0f} s"
        yield row, found
        path.unlink()


def written(results: list[tuple]) -> str:
    """The table in Markdown."""
    lines = ["| file | expected | library | terminal | page |", "|---|---|---|---|---|"]
    for row, found in results:
        cells = [row.kind, str(row.expected), *(fault or "as expected" for fault in found.values())]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    faults = sum(any(found.values()) for _, found in results)
    lines += ["", f"{len(results)} files, {len(results) - faults} of them as expected everywhere."]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    target, words = Path(arguments[0]), arguments[1:]
    rows = [row for row in ROWS if not words or any(word in row.kind for word in words)]
    with entrances() as asked, tempfile.TemporaryDirectory() as made:
        results = list(checked(rows, Path(made), asked))
    table = written(results)
    text = target.read_text()
    before, after = text.split(START)[0], text.split(END)[1]
    target.write_text(f"{before}{START}\n{table}\n{END}{after}")
    faults = [(row.kind, found) for row, found in results if any(found.values())]
    for kind, found in faults:
        print(kind, {name: fault for name, fault in found.items() if fault})
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
