"""docs/api.md names what is there, and notebooks use nothing else of vl3."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| `(vl3[\w.]*)` \| (.*) \|$", (ROOT / "docs/api.md").read_text(), re.M)


def found(name: str):
    """What a dotted name stands for: a module, or something in one."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        home, _, last = name.rpartition(".")
        return getattr(import_module(home), last)


@pytest.mark.parametrize(("name", "words"), ROWS, ids=[name for name, _ in ROWS])
def test_every_name_is_there(name, words):
    thing = found(name)
    for part in re.findall(r"`(\w+)`", words):
        assert hasattr(thing, part), f"{name}.{part}"


def used(notebook: Path) -> set[str]:
    """The dotted names of vl3 that a notebook imports."""
    cells = json.loads(notebook.read_text())["cells"]
    names = set()
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "vl3":
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_notebooks_import_public_names_only():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(notebooks) >= 6
    public = {name for name, _ in ROWS}
    public |= {f"{name}.{part}" for name, words in ROWS for part in re.findall(r"`(\w+)`", words)}
    for notebook in notebooks:
        assert used(notebook) <= public, (notebook.name, used(notebook) - public)
