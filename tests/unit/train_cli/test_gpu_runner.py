"""What runs the steps: a process for each, ended when it is late, with all that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu_steps import step

from train_cli.bench.gpu.record import Record, read, steps
from train_cli.bench.gpu.runner import Ended, run

REPOSITORY = Path(__file__).parents[3]
START_S = 60  # at most, of a process that imports torch on a busy core
LATE_S = 60  # with the end of that start, of which the step before it leaves some


def is_alive(number: int) -> bool:
    """Whether a process computes or waits; one that nobody has asked after is dead as well."""
    try:
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(numbers: list[int]) -> bool:
    """Whether these processes end within a few seconds."""
    ends = time.monotonic() + 10
    while any(map(is_alive, numbers)) and time.monotonic() < ends:
        time.sleep(0.05)
    return not any(map(is_alive, numbers))


@pytest.mark.slow
@pytest.mark.timeout(600)  # seven processes that import torch, and one that is waited for
def test_a_step_that_fails_dies_or_hangs_ends_itself_alone(tmp_path, capsys):
    path = tmp_path / "f"
    kept = Record(path)
    kept.add(run={"card": "none"})
    chosen = [
        step("quick"),
        step("failing"),
        step("dying"),
        step("missing"),
        step("hanging", limit_s=LATE_S),
        step("quick again"),
        step("wrong"),
        step("quick", needs=("no_such_package",)),
    ]
    ended = run(chosen[:-1], 60, kept, "cpu", True, spawn=True)
    assert {name: end.how for name, end in ended.items()} == {
        "quick": "done",
        "failing": "failed",
        "dying": "failed",
        "missing": "failed",
        "hanging": "late",
        "quick again": "done",
        "wrong": "done",
    }
    assert ended["wrong"] == Ended("done", 1)
    found = steps(read(path))
    assert [row["work"] for row in found["quick"].rows] == ["quick on cpu"]
    assert [row["work"] for row in found["quick again"].rows] == ["again on cpu"]
    assert found["failing"].rows[0]["work"] == "before it fails"
    assert (
        found["failing"].why == "RuntimeError: CUDA error: an illegal memory access was encountered"
    )
    assert "in failing" in found["failing"].trace
    assert found["dying"].rows[0]["work"] == "before it dies"
    assert found["dying"].why == "its process was ended by SIGSEGV"
    assert "no attribute 'missing'" in found["missing"].why
    assert found["hanging"].why == f"not done after {LATE_S} s"
    assert gone(list(map(int, found["hanging"].rows[0]["work"].split())))
    out = capsys.readouterr().out
    assert "failing: failed after" in out
    assert "libraries print" not in out


def test_what_has_no_time_or_no_package_is_skipped(tmp_path):
    kept = Record(tmp_path / "f")
    chosen = [
        step("quick", about_s=30),
        step("failing", needs=("no_such_package", "json")),
        step("dying", gpu_only="it says nothing"),
    ]
    ended = run(chosen, 0.1, kept, "cpu", True, spawn=True)
    assert {end.how for end in ended.values()} == {"skipped"}
    whys = [line["why"] for line in kept.lines]
    assert whys[0].endswith("s were left, and it takes about 30")
    assert whys[1] == "it needs no_such_package, which is not installed"
    assert whys[2] == "on a CPU it says nothing"


def test_in_one_process_nothing_is_skipped_for_time(tmp_path, capsys):
    ended = run([step("quick", about_s=30)], 0.01, Record(None), "cpu", True, spawn=False)
    assert ended == {"quick": Ended("done", 0)}


CODE = """
import sys
from pathlib import Path
from gpu_steps import step
from train_cli.bench.gpu.record import Record
from train_cli.bench.gpu.runner import run
kept = Record(Path(sys.argv[1]))
kept.add(run={})
run([step("hanging"), step("quick")], 60, kept, "cpu", True, spawn=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_run_that_is_stopped_leaves_no_process_behind(sent, code, tmp_path):
    path = tmp_path / "f"
    paths = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    environment = os.environ | {"PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    # A shell's background job ignores Ctrl-C, and a Python started there as well.
    start = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{CODE}"
    main = subprocess.Popen(
        [sys.executable, "-c", start, str(path)], env=environment, stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + START_S
    while (not path.exists() or "row" not in path.read_text()) and time.monotonic() < ends:
        time.sleep(0.1)
    at_work = list(map(int, steps(read(path))["hanging"].rows[0]["work"].split()))
    assert all(map(is_alive, at_work))
    main.send_signal(sent)
    assert main.wait(20) == code
    (hanging,) = steps(read(path)).values()
    if sent == signal.SIGKILL:  # nobody is left to end what the step itself has started
        assert gone(at_work[:1])
        os.kill(at_work[1], signal.SIGKILL)
        assert hanging.ended == "cut off"
    else:
        assert gone(at_work)
        assert (hanging.ended, hanging.why) == ("late", "stopped from outside")
