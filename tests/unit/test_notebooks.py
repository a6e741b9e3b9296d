"""Every notebook runs from top to bottom, and is committed small, without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(file, kind):
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_as_committed(file):
    assert file.stat().st_size < 200_000
    code = cells(file, "code")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert code[0]["metadata"]["tags"] == ["parameters"]
    first = "".join(cells(file, "markdown")[0]["source"])
    assert all(word in first for word in ("**Device**", "**Time**", "**Memory**"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_runs(file):
    command = ["-m", "pytest", "--nbmake", "--nbmake-timeout=900", "-p", "no:timeout", str(file)]
    # One thread: two that wait for each other on a busy machine take many times as long.
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "PLOTLY_RENDERER": "plotly_mimetype", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
