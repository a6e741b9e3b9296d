"""The table of kernels/README.md is written by the bench command, from what the folders say."""

import json
from pathlib import Path

import pytest

from train_cli.__main__ import main
from train_cli.bench.gpu import kernels
from train_cli.bench.gpu.record import Check, Kernel, Step, as_values
from vl3 import bundled
from vl3.kernels import measured

README = Path(__file__).parents[2] / "kernels/README.md"


def found(gains: dict, targets=("forward",), agrees: bool = True) -> measured.Measured:
    return measured.Measured(device="H100", gains=gains, targets=tuple(targets), agrees=agrees)


def rows(operation: str, gains: dict[str, float]) -> list[dict]:
    """Of a step in which an operation was timed on these workloads, the first of which counts."""
    made = [as_values(Check(work="odd shapes", ok=True, said="agrees"))]
    for work, gain in gains.items():
        for side, ms in (("reference", 1.0), ("fused", 1 / gain)):
            row = Kernel(
                operation=operation,
                work=work,
                side=side,
                ms=(ms, ms, ms),
                gain=1 / ms,
                share=0.5,
                peak_bytes=0,
                is_target=work == next(iter(gains)),
            )
            made.append(as_values(row))
    return made


def test_the_table_is_the_one_that_is_generated(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    kernels.write(measured.table(), page)
    assert page.read_text(encoding="utf-8") == README.read_text(encoding="utf-8")


def test_every_folder_has_a_row():
    folders = {file.parent.name for file in README.parent.glob("*/fused.py")}
    assert folders == set(kernels.OPERATIONS)
    head, _, *lines = kernels.described({}).splitlines()
    assert [line.split("`")[1] for line in lines] == list(kernels.OPERATIONS)
    assert {line.replace("\\|", "").count("|") for line in lines} == {head.count("|")}


def test_a_measured_gain_takes_the_place_of_not_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{kernels.STARTS}\nstale words\n{kernels.ENDS}\nafter\n", "utf-8")
    known = {"rope2d": found({"forward": 2.0}), "difffp": found({"forward": 1.05})}
    kernels.write(known, page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert sum("not measured" in line for line in lines) == len(lines) - 2
    assert any("`rope2d`" in line and line.endswith("| H100: forward 2.00 x |") for line in lines)
    assert any(line.endswith("| H100: forward 1.05 x (not taken) |") for line in lines)


def test_a_page_without_a_place_for_the_table_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words\n", encoding="utf-8")
    with pytest.raises(ValueError, match="for the table to stand between"):
        kernels.write({}, page)
    assert page.read_text() == "words\n"


def test_a_kernel_wins_by_ten_percent_on_all_that_vl3_does():
    both = {"forward": 1.5, "backward": 1.09}
    assert found(both).wins, "only the first is a target"
    assert not found(both, both).wins
    assert not found(both, agrees=False).wins
    assert not found(both, targets=()).wins


def test_the_operations_take_what_the_table_says(tmp_path, monkeypatch):
    table = tmp_path / "measured.json"
    table.write_text("{}\n")
    known = {"rope2d": found({"forward": 2.0}), "difffp": found({"forward": 0.5})}
    measured.write(known, table)
    measured.write({"merge_keep": found({"forward": 1.2})}, table)
    monkeypatch.setattr(measured, "TABLE", table)
    measured.table.cache_clear()
    try:
        assert measured.winner("rope2d") == "H100: forward 2.00 x"
        assert measured.winner("merge_keep") == "H100: forward 1.20 x"
        assert measured.winner("difffp") is None, "it was measured and did not win"
        assert measured.winner("resize_patchify") is None
    finally:
        measured.table.cache_clear()


def test_a_run_decides(tmp_path, monkeypatch, capsys):
    """From the file of a run to the two files in kernels/ that it writes."""
    figures, folder = tmp_path / "gpu.jsonl", tmp_path / "kernels"
    folder.mkdir()
    (folder / "README.md").write_text(f"{kernels.STARTS}{kernels.ENDS}")
    (folder / "measured.json").write_text("{}\n")
    gains = {"rope2d": {"forward": 1.4, "beside": 0.3}, "merge_keep": {"forward": 1.0}}
    lines = [{"run": {"card": "H100", "tiny": False}}]
    for name, each in gains.items():
        lines += [{"step": name, "row": row} for row in rows(name, each)]
        lines.append({"step": name, "ended": "done", "why": "", "s": 3.0})
    figures.write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(bundled, "KERNELS", folder)
    monkeypatch.setattr(measured, "TABLE", folder / "measured.json")
    try:
        assert main(["bench", "--gpu", "--from", str(figures), "--decide"]) == 0
    finally:
        measured.table.cache_clear()
    out = capsys.readouterr().out
    assert "rope2d: the kernel (H100: forward 1.40 x; beside 0.30 x)" in out
    assert "merge_keep: plain torch" in out
    assert set(json.loads((folder / "measured.json").read_text())) == set(gains)
    text = (folder / "README.md").read_text()
    assert "H100: forward 1.40 x; beside 0.30 x |" in text
    assert "H100: forward 1.00 x (not taken) |" in text


def test_a_step_that_did_not_end_decides_against_its_kernel():
    step = Step(rows=rows("rope2d", {"forward": 2.0}), run={"card": "H100"})
    assert not kernels.decisions({"rope2d": step})["rope2d"].wins
    step.ended = "done"
    assert kernels.decisions({"rope2d": step})["rope2d"].wins
    step.rows[0]["ok"] = False
    assert not kernels.decisions({"rope2d": step})["rope2d"].wins
