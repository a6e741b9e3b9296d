"""The file of a run on a GPU: lines as they come, cut off anywhere, several runs in one."""

import json

import pytest

from train_cli.bench.gpu import page
from train_cli.bench.gpu.record import (
    Check,
    Kernel,
    Memory,
    Rate,
    Record,
    Skip,
    Speed,
    as_values,
    read,
    steps,
)

ROWS = [
    Check(work="a | b", ok=False, said="it <differs>"),
    Skip(work="nf4", why="bitsandbytes is not installed"),
    Rate(work="copy", per_s=3000.0, unit="GB/s"),
    Speed(work="encode", side="ours", s=(0.1, 0.2, 0.3), ratio=1.0, share=0.4),
    Speed(work="push", side="ours", s=(0.1, 0.2, 0.3), ratio=1.0, said="often"),
    Memory(work="2B", estimate_bytes=5e9, peak_bytes=4.5e9, cap_gb=8, said="180 frames"),
    Memory(work="2B", estimate_bytes=5e9, peak_bytes=None),
    Kernel(
        operation="rope2d",
        work="forward",
        side="fused",
        ms=(0.1, 0.2, 0.3),
        gain=2.0,
        share=0.8,
        peak_bytes=None,
        is_target=True,
    ),
]
CARD = {"card": "H100", "torch": "2.11.0", "commit": "abc", "date": "2027-01-01", "tiny": False}


def ended(how: str, why: str = "") -> dict:
    return {"ended": how, "why": why, "s": 2.0}


def written(path, *steps_of_runs: dict) -> list[dict]:
    """The lines of a file that runs were added to, each a dict of rows and ends by step."""
    for run in steps_of_runs:
        kept = Record(path)
        kept.add(run=CARD | run.pop("run", {}))
        for name, found in run.items():
            for values in found:
                kept.add(step=name, **values)
    return read(path)


def test_rows_are_lines_on_a_page_and_on_the_screen(tmp_path):
    rows = [{"row": as_values(row)} for row in ROWS]
    lines = written(tmp_path / "f", {"encoder": [*rows, ended("done")]})
    text = page.written(lines)
    assert "card: H100" in text
    assert "| a \\| b | **no** | it &lt;differs> |" in text
    assert "| 2B | 8 | 5.00 | 4.50 | 0.90 | 180 frames |" in text
    assert "| 2B | - | 5.00 | - | - |  |" in text
    assert "| encode | ours | 200 | 100 - 300 | 1.00 | 40% |  |" in text
    assert "| forward | fused | 200 | 100 - 300 | 2.00 | 80% | - |" in text
    assert "| `encoder` | done | 2 | 0 of 1 | 2027-01-01, abc |" in text
    assert "| `7b` | not begun | - | - | - |" in text
    words = [page.in_words(as_values(row)) for row in ROWS]
    assert words[0] == "  DOES NOT HOLD  a | b: it <differs>"
    assert all("\n" not in line for line in words)
    assert len(set(words)) == len(ROWS)


def test_the_last_word_on_each_step_counts(tmp_path):
    row = [{"row": as_values(ROWS[2])}]
    lines = written(
        tmp_path / "f",
        {
            "answers": [ended("failed", "why")],
            "encoder": [*row, ended("done")],
            "7b": [ended("done")],
        },
        {"run": {"commit": "def"}, "answers": [*row, ended("done")], "encoder": [ended("skipped")]},
        {"7b": [*row, ended("late", "not done after 9 s")]},
    )
    found = steps(lines)
    assert {name: step.ended for name, step in found.items()} == {
        "answers": "done",
        "encoder": "done",
        "7b": "late",
    }
    assert found["answers"].run["commit"] == "def"
    assert found["encoder"].run["commit"] == "abc"
    assert [len(step.rows) for step in found.values()] == [1, 1, 1]
    assert "Late: not done after 9 s." in page.tables(found)


def test_a_run_that_is_cut_off_leaves_what_it_has(tmp_path):
    path = tmp_path / "f"
    row = {"row": as_values(ROWS[2])}
    lines = written(path, {"encoder": [row, row]})
    path.write_bytes(path.read_bytes()[:-9])  # within the last line
    assert read(path) == lines[:-1]
    (step,) = steps(read(path)).values()
    assert (step.ended, len(step.rows)) == ("cut off", 1)
    assert "Cut off: no end is known." in page.tables({"encoder": step})
    again = written(path, {"encoder": [ended("done")]})
    assert len(again) == len(lines) + 1, "the half line is gone, and the next run begins a line"
    assert path.read_text().endswith("\n")


@pytest.mark.parametrize(
    "text",
    ['{"machine": {}, "groups": {}}', "# A page\n", '{"run": {}}\n[1]\n', '{"run": {}}\nhalf\n{}'],
)
def test_another_file_is_refused_and_stays(text, tmp_path):
    path = tmp_path / "f"
    path.write_text(text)
    for use in (Record, read):
        with pytest.raises(ValueError, match=r"bench --gpu --json wrote|holds something else"):
            use(path)
    assert path.read_text() == text


def test_an_empty_file_is_begun_and_holds_no_run(tmp_path):
    path = tmp_path / "f"
    path.touch()
    with pytest.raises(ValueError, match="holds no run"):
        read(path)
    assert len(written(path, {"encoder": [ended("done")]})) == 2


@pytest.mark.parametrize("name", ["card", "torch", "tiny"])
def test_runs_of_two_machines_are_not_mixed(name, tmp_path):
    lines = written(tmp_path / "f", {}, {"run": {name: "another"}})
    with pytest.raises(ValueError, match=f"differ in {name}"):
        steps(lines)


def test_a_full_disk_does_not_end_a_run(tmp_path, capsys):
    kept = Record(tmp_path / "f")
    kept.path = tmp_path / "none" / "f"
    kept.add(run=CARD)
    assert kept.lines == [{"run": CARD}]
    assert "was not written: No such file" in capsys.readouterr().err


def test_figures_are_json_that_others_read(tmp_path):
    path = tmp_path / "f"
    written(path, {"encoder": [{"row": as_values(row)} for row in ROWS]})
    kinds = [json.loads(line)["row"]["kind"] for line in path.read_text().splitlines()[1:]]
    assert set(kinds) == {"check", "skip", "rate", "speed", "memory", "kernel"}
    assert set(kinds) == set(page.TABLES)
