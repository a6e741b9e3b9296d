"""Every notebook runs from top to bottom, and is committed small, to be read without a kernel."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vl3.weights.export import export

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WITHOUT_OUTPUTS = ("train_nano",)  # minutes long, and every figure is a run of its own
EXECUTED = [file for file in NOTEBOOKS if file.stem not in WITHOUT_OUTPUTS]
PICTURES = {"image/png", "image/jpeg"}
PLOTLY = "application/vnd.plotly.v1+json"
LONGEST_CELL = 32  # lines


def by_name(files):
    return pytest.mark.parametrize("file", files, ids=lambda file: file.stem)


def cells(file, kind):
    return [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == kind]


def outputs(file):
    return [output for cell in cells(file, "code") for output in cell["outputs"]]


@by_name(NOTEBOOKS)
def test_as_committed(file):
    assert file.stat().st_size < 200_000
    code = cells(file, "code")
    assert code[0]["metadata"]["tags"] == ["parameters"]
    first = "".join(cells(file, "markdown")[0]["source"])
    assert all(word in first for word in ("**Device**", "**Time**", "**Memory**"))
    assert max(len(cell["source"]) for cell in code) <= LONGEST_CELL
    assert "widgets" not in json.loads(file.read_text())["metadata"]


@by_name([file for file in NOTEBOOKS if file.stem in WITHOUT_OUTPUTS])
def test_a_long_one_has_no_outputs(file):
    code = cells(file, "code")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@by_name(EXECUTED)
def test_executed_in_order_and_readable_without_a_kernel(file):
    code = cells(file, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    shown = [set(output.get("data", {})) for output in outputs(file)]
    assert any(kinds & PICTURES for kinds in shown)
    for kinds in shown:
        assert PLOTLY not in kinds or kinds & PICTURES  # GitHub shows no plotly
        assert "application/vnd.jupyter.widget-view+json" not in kinds
    assert all(output["output_type"] != "error" for output in outputs(file))
    assert all(output.get("name") != "stderr" for output in outputs(file))
    said = json.dumps(outputs(file))
    assert not any(word in said for word in ("https://", "<script", str(Path.home())))


@by_name(EXECUTED)
def test_a_clip_from_a_file_and_one_that_is_drawn_or_bundled(file):
    source = "".join("".join(cell["source"]) for cell in cells(file, "code"))
    assert "CLIP = " in source
    assert any(made in source for made in ("clips.lanes(", "draw(", "CLIPS /"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@by_name(NOTEBOOKS)
def test_runs(file):
    run(file)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@by_name([file for file in EXECUTED if file.stem in ("attention", "rope")])
def test_runs_on_a_released_layout_in_4_bits(file, tiny_model, tiny_processor, tmp_path):
    export(tiny_model, tiny_processor, tmp_path / "official", "official")
    run(file, VL3_MODEL=str(tmp_path / "official"), VL3_QUANTIZE="nf4")


def run(file: Path, **environment: str) -> None:
    """Executes a notebook beside us; fails with what it said."""
    command = ["-m", "pytest", "--nbmake", "--nbmake-timeout=240", "-p", "no:timeout", str(file)]
    # One thread: two that wait for each other on a busy machine take many times as long.
    environment = (
        os.environ
        | environment
        | {
            "HF_HUB_OFFLINE": "1",
            "PLOTLY_RENDERER": "plotly_mimetype",
            "OMP_NUM_THREADS": "1",
        }
    )
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
