"""The table of kernels/README.md is written by the bench command, from what the folders say."""

from pathlib import Path

import pytest

from train_cli.__main__ import main
from train_cli.bench import gpu

README = Path(__file__).parents[2] / "kernels/README.md"


def test_the_table_is_the_one_that_is_generated(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    gpu.write({}, page)
    assert page.read_text(encoding="utf-8") == README.read_text(encoding="utf-8")


def test_every_folder_has_a_row():
    folders = {file.parent.name for file in README.parent.glob("*/fused.py")}
    assert folders == set(gpu.OPERATIONS)
    head, _, *rows = gpu.described({}).splitlines()
    assert [row.split("`")[1] for row in rows] == list(gpu.OPERATIONS)
    assert {row.replace("\\|", "").count("|") for row in rows} == {head.count("|")}


def test_a_measured_gain_takes_the_place_of_not_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu.STARTS}\nstale words\n{gpu.ENDS}\nafter\n", encoding="utf-8")
    gpu.write({"rope2d": "H100: forward 2.00 x"}, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert sum("not measured" in line for line in lines) == len(lines) - 1
    assert any("`rope2d`" in line and line.endswith("| H100: forward 2.00 x |") for line in lines)


def test_without_a_gpu_the_words_are_written_and_nothing_is_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    page = tmp_path / "page.md"
    page.write_text(f"{gpu.STARTS}{gpu.ENDS}", encoding="utf-8")
    assert main(["bench", "--kernels", "--markdown", str(page)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("No GPU: ")
    assert gpu.described({}) in page.read_text(encoding="utf-8")


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words\n", encoding="utf-8")
    with pytest.raises(ValueError, match="for the table to stand between"):
        gpu.write({}, page)
    assert page.read_text() == "words\n"
