"""Files and functions stay short enough to be read at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION = 450, 60
FILES = sorted(
    [
        ROOT / "app.py",
        *(path for top in ("vl3", "train_cli", "kernels") for path in (ROOT / top).rglob("*.py")),
    ]
)
# Its 16 parameters are those of transformers' models, each with its shape in the docstring.
LONGER = {
    "vl3/model.py: forward",
}


def too_long(path: Path) -> set[str]:
    """The file, where it is too long, and each of its functions that is."""
    name, source = path.relative_to(ROOT).as_posix(), path.read_text("utf-8")
    found = {name} if len(source.splitlines()) > MOST_LINES_OF_FILE else set()
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_FUNCTION
        ):
            found.add(f"{name}: {node.name}")
    return found


@pytest.fixture(scope="module")
def found() -> set[str]:
    return set().union(*map(too_long, FILES))


def test_the_whole_source_is_looked_at():
    assert len(FILES) > 150


def test_files_and_functions_are_short(found):
    assert sorted(found - LONGER) == []


def test_the_exceptions_are_still_needed(found):
    assert sorted(LONGER - found) == []
