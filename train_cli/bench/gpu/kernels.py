"""The fused kernels beside their definitions, and which of them `auto` is to take.

kernels/README.md holds a table of the operations, which is written from what they say of themselves
and from kernels/measured.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

from vl3.kernels.measured import Measured

from train_cli.bench import page
from train_cli.bench.gpu.record import DONE, Check, Kernel, Row, Skip, Step
from train_cli.bench.gpu.steps import Place

OPERATIONS = ("difffp", "resize_patchify", "rope2d", "merge_keep", "linear_cross_entropy")
STARTS, ENDS = "<!-- written by bench --gpu --decide -->", "<!-- end of it -->"
MOST_SAID = 300  # letters of a disagreement


def measured(place: Place, name: str) -> Iterator[Row]:
    """A kernel on odd shapes, and then beside the reference."""
    if place.device == "cpu" and not _interprets():
        yield Skip(work=name, why="set TRITON_INTERPRET=1 before Python starts")
        return
    for case in _bench(name).odd(place.device):
        yield _compared(case)
    yield from _timed(name, place, ("reference", "fused"))


def compiled(place: Place) -> Iterator[Row]:
    """What torch.compile makes of the references: a minute of compiling, loops last."""
    for name in reversed(OPERATIONS):
        yield from _timed(name, place, ("reference", "torch.compile"))


def _timed(name: str, place: Place, sides: tuple[str, str]) -> Iterator[Row]:
    import torch

    from train_cli.bench.gpu.timing import ceilings
    from vl3.kernels import timing

    ours = {"fused": timing.FUSED, "torch.compile": timing.COMPILED, "reference": timing.REFERENCE}
    tops = ceilings(place.device, place.tiny)
    for case in _bench(name).cases(place.device, tiny=place.tiny):
        is_bound_by_memory = bool(case.moved_bytes)
        least = case.moved_bytes if is_bound_by_memory else case.flops
        top = tops.bytes if is_bound_by_memory else tops.flops
        chosen = {side: case.sides[ours[side]] for side in sides if ours[side] in case.sides}
        if len(chosen) < len(sides):
            continue
        check = _compared(case, [ours[sides[1]]])
        yield check
        if not check.ok:
            continue
        times = {}
        for side, call in chosen.items():
            times[side] = ms = timing.times_ms(call, place.device)
            yield Kernel(
                operation=name,
                work=case.work,
                side=side,
                ms=ms,
                gain=times["reference"][1] / ms[1],
                share=least / (ms[1] * 1e-3) / top,
                peak_bytes=timing.peak_bytes(call, place.device),
                is_target=case.is_target,
            )
        if place.device == "cuda":
            torch.cuda.empty_cache()


def _compared(case, names: list[str] | None = None) -> Check:
    try:
        case.compare(names)
    except Exception as error:  # noqa: BLE001 - compilers raise errors of their own kinds
        said = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_SAID]
        return Check(work=case.work, ok=False, said=said)
    return Check(work=case.work, ok=True, said="agrees with its reference")


def _bench(name: str):
    return import_module(f"vl3.kernels.{name}.bench")


def _interprets() -> bool:
    import triton

    return triton.knobs.runtime.interpret


def decisions(steps: Mapping[str, Step]) -> dict[str, Measured]:
    """What runs on a GPU say of each operation whose kernel was timed in its step."""
    found = {}
    for name in OPERATIONS:
        step = steps.get(name)
        rows = step.rows if step else []
        timed = [row for row in rows if row["kind"] == "kernel" and row["side"] == "fused"]
        if step and timed:
            checks = [row["ok"] for row in rows if row["kind"] == "check"]
            found[name] = Measured(
                device=step.run["card"],
                gains={row["work"]: round(row["gain"], 3) for row in timed},
                targets=tuple(row["work"] for row in timed if row["is_target"]),
                agrees=all(checks) and step.ended == DONE,
            )
    return found


def described(known: Mapping[str, Measured]) -> str:
    """The table of the operations in kernels/README.md."""
    head = ["operation", "formula", "shapes", "called by", "agrees with its reference", "gain"]

    def row(name: str) -> list[str]:
        about, found = import_module(f"vl3.kernels.{name}").ABOUT, known.get(name)
        gain = f"{found}{'' if found.wins else ' (not taken)'}" if found else "not measured"
        words = [about.formula, about.shapes, about.called_by, about.agrees, gain]
        return [f"`{name}`", *(cell.replace("|", "\\|") for cell in words)]

    return page.table(lambda names: [head, *map(row, names)], OPERATIONS)


def write(known: Mapping[str, Measured], path: Path) -> None:
    """Puts the table of the operations between its two marks in a page.

    Raises: ValueError where the page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(STARTS)
    _, end, after = rest.partition(ENDS)
    if not end:
        raise ValueError(f"{path} has no {STARTS} and {ENDS} for the table to stand between")
    path.write_text(f"{before}{start}\n\n{described(known)}\n\n{end}{after}", encoding="utf-8")
