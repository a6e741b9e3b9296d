"""Every Python snippet of README and docs runs as printed, on nano and a clip beside it."""

import re
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.name} {number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_runs_as_printed(code, tmp_path, monkeypatch, capsys):
    (tmp_path / "assets").symlink_to(REPOSITORY / "assets")
    shutil.copy(REPOSITORY / "assets/clips/three_shapes.mp4", tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet", "exec"), {})
    assert "triangle" in capsys.readouterr().out


def test_there_are_snippets():
    assert len(SNIPPETS) >= 2
