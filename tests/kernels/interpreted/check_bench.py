"""The cases that are timed on a GPU, at their smallest, and odd shapes: both sides agree."""

from importlib import import_module

import pytest
import torch
from vl3.kernels.timing import COMPILED, FUSED, REFERENCE, Case, three_sides

from train_cli.bench.gpu.kernels import OPERATIONS, compiled, decisions, measured
from train_cli.bench.gpu.record import Check, Kernel, Step, as_values
from train_cli.bench.gpu.steps import Place

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUMBERS = {"difffp": (4, 9), "rope2d": (2, 4), "merge_keep": (2, 6)}  # of timed and of odd cases
NUMBERS |= {"resize_patchify": (2, 5), "linear_cross_entropy": (2, 2)}


def bench(operation):
    return import_module(f"vl3.kernels.{operation}.bench")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_both_sides_of_every_case_agree(operation):
    timed, odd = bench(operation).cases(DEVICE, tiny=True), bench(operation).odd(DEVICE)
    assert (len(timed), len(odd)) == NUMBERS[operation]
    for case in (*timed, *odd):
        case.compare()
    assert all(bool(case.moved_bytes) != bool(case.flops) for case in timed)
    assert any(case.is_target for case in timed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_side_that_differs_is_not_timed(operation):
    for case in (*bench(operation).cases(DEVICE, tiny=True), *bench(operation).odd(DEVICE)):
        expected = case.sides[REFERENCE]()
        wrong = tuple(part.flip(0) for part in expected)
        if all(torch.equal(*pair) for pair in zip(expected, wrong)):
            continue  # resized to a single row
        sides = {REFERENCE: lambda kept=expected: kept, FUSED: lambda kept=wrong: kept}
        broken = Case(work="", sides=sides, check=case.check)
        with pytest.raises(AssertionError):
            broken.compare()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_gives_checks_and_a_row_for_each_side(operation, tmp_path):
    rows = list(measured(Place(DEVICE, True, tmp_path), operation))
    checks = [row for row in rows if isinstance(row, Check)]
    timed = [row for row in rows if isinstance(row, Kernel)]
    assert all(row.ok for row in checks), checks
    assert len(checks) == sum(NUMBERS[operation])
    assert [row.side for row in timed] == ["reference", "fused"] * NUMBERS[operation][0]
    for reference, fused in zip(timed[::2], timed[1::2]):
        assert reference.gain == 1
        assert fused.gain == reference.ms[1] / fused.ms[1]
        assert 0 < fused.share < 1
    run = {"card": "H100"}
    step = Step(rows=[as_values(row) for row in rows], ended="done", run=run)
    found = decisions({operation: step})
    assert list(found) == [operation]
    assert found[operation].agrees
    assert set(found[operation].gains) == {row.work for row in timed}


def test_a_kernel_that_cannot_run_is_a_check_that_does_not_hold(monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ValueError("no such instruction")

    monkeypatch.setattr("vl3.kernels.rope2d.fused.rotate", broken)
    rows = list(measured(Place(DEVICE, True, tmp_path), "rope2d"))
    assert all(isinstance(row, Check) and not row.ok for row in rows)
    assert rows[0].said == "ValueError: no such instruction"


def test_what_torch_compile_makes_is_beside_the_reference(tmp_path):
    rows = list(compiled(Place(DEVICE, True, tmp_path)))
    timed = [row for row in rows if isinstance(row, Kernel)]
    assert {row.side for row in timed} == {"reference", "torch.compile"}
    assert {row.operation for row in timed} == {"difffp", "rope2d", "merge_keep"}


def test_a_side_is_made_when_it_is_called_first():
    made = []

    def way(operation, fused=False):
        made.append((operation, fused))
        return lambda: operation

    sides = three_sides(way, "plain", "compiled")
    assert not made
    assert [sides[FUSED](), sides[FUSED]()] == ["plain", "plain"]
    assert made == [("plain", True)]
    assert sides[COMPILED]() == "compiled"
