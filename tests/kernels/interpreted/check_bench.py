"""The cases that are timed on a GPU, at their smallest and untimed: both sides of each agree."""

from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest
import torch
from vl3.kernels.timing import FUSED, REFERENCE, Case

from train_cli.bench import gpu
from train_cli.bench.gpu import OPERATIONS
from vl3.kernels import timing

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_both_sides_of_every_case_agree(operation):
    cases = import_module(f"vl3.kernels.{operation}.bench").cases(DEVICE, tiny=True)
    assert len(cases) == (3 if operation == "difffp" else 2)
    for case in cases:
        case.compare()
        assert bool(case.moved_bytes) != bool(case.flops)


def test_a_side_that_differs_is_not_timed():
    for operation in OPERATIONS:
        for case in import_module(f"vl3.kernels.{operation}.bench").cases(DEVICE, tiny=True):
            expected = case.sides[REFERENCE]()
            wrong = tuple(part.flip(0) for part in expected)
            sides = {REFERENCE: lambda kept=expected: kept, FUSED: lambda kept=wrong: kept}
            broken = Case(work="", sides=sides, check=case.check)
            with pytest.raises(AssertionError):
                broken.compare()


def test_a_row_for_each_side(monkeypatch):
    """What is printed, with times that are made up."""
    monkeypatch.setattr("triton.testing.do_bench", lambda side, quantiles: (0.5, 0.4, 0.8))
    monkeypatch.setattr(timing, "peak_bytes", lambda side: 3_000_000)
    cases = import_module("vl3.kernels.rope2d.bench").cases(DEVICE, tiny=True)
    times = timing.times_ms(cases[0])
    assert timing.gain(times) == 1.0
    assert timing.gain(times | {FUSED: (0.25, 0.2, 0.3)}) == 2.0
    rows = timing.lines(replace(cases[0], moved_bytes=10**9), times, 4e12)
    assert len(rows) == len(cases[0].sides) == 3
    assert rows[2].endswith(
        "| fused | 500.0 (400.0 - 800.0) | 1.00 | 2000 GB/s, 50% of a copy | 3.0 |"
    )
    rows = timing.lines(replace(cases[0], moved_bytes=0, flops=10**12), times, 4e12)
    assert "| 2000.0 TFLOP/s |" in rows[0]
    assert all(row.count("|") == timing.HEADER.splitlines()[0].count("|") for row in rows)


def test_what_is_measured_goes_into_the_table_of_the_readme(monkeypatch):
    bench = import_module("vl3.kernels.rope2d.bench")
    monkeypatch.setattr(bench, "cases", partial(bench.cases, DEVICE, tiny=True))
    monkeypatch.setattr(gpu, "OPERATIONS", ("rope2d",))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "H100")
    monkeypatch.setattr(timing, "copy_bandwidth", lambda: 4e12)
    monkeypatch.setattr("triton.testing.do_bench", lambda side, quantiles: (0.5, 0.4, 0.8))
    monkeypatch.setattr(timing, "peak_bytes", lambda side: 0)
    rows, gains = gpu.measured()
    assert rows.startswith("H100, a copy moves 4000 GB/s\n")
    assert rows.count("\n") == 3 + 6
    work = "rope2d of 2 x 6 patches"
    assert gains == {"rope2d": f"H100: {work}, forward 1.00 x; {work}, backward 1.00 x"}
    assert gpu.described(gains).endswith(f"| {gains['rope2d']} |")
