"""The fused kernels beside their definitions, on a GPU; see kernels/README.md."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from train_cli.bench import page

OPERATIONS = ("difffp", "resize_patchify", "rope2d", "merge_keep", "linear_cross_entropy")
STARTS, ENDS = "<!-- written by bench --kernels -->", "<!-- end of it -->"


def refusal() -> str | None:
    """Why kernels cannot be timed here, in a sentence."""
    import torch

    if not torch.cuda.is_available():
        return "No GPU: kernels are timed on a CUDA device only, and torch sees none here."
    if find_spec("triton") is None:
        return "Triton is not installed: pip install triton==3.7.1 (Linux)."
    import triton

    if triton.knobs.runtime.interpret:
        return "TRITON_INTERPRET is set: the interpreter's times say nothing; unset it."
    return None


def described(gains: dict[str, str]) -> str:
    """The table of the operations in kernels/README.md.

    gains: by operation; without one what its MEASURED says, and without that "not measured"
    """
    head = ["operation", "formula", "shapes", "called by", "agrees with its reference", "gain"]

    def row(name: str) -> list[str]:
        operation = import_module(f"vl3.kernels.{name}")
        gain = gains.get(name) or operation.MEASURED or "not measured"
        about = operation.ABOUT
        words = [about.formula, about.shapes, about.called_by, about.agrees, gain]
        return [f"`{name}`", *(cell.replace("|", "\\|") for cell in words)]

    return page.table(lambda names: [head, *map(row, names)], OPERATIONS)


def write(gains: dict[str, str], path: Path) -> None:
    """Puts the table of the operations between its two marks in a page.

    Raises: ValueError where the page has no such marks.
    """
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(STARTS)
    _, end, after = rest.partition(ENDS)
    if not end:
        raise ValueError(f"{path} has no {STARTS} and {ENDS} for the table to stand between")
    path.write_text(f"{before}{start}\n\n{described(gains)}\n\n{end}{after}", encoding="utf-8")


def measured() -> tuple[str, dict[str, str]]:
    """A table with a row for each side of every case, and the gains of all operations."""
    import torch

    from train_cli.bench.measure import say
    from vl3.kernels import timing

    copied, device, gains = timing.copy_bandwidth(), torch.cuda.get_device_name(), {}
    found = [f"{device}, a copy moves {copied / 1e9:.0f} GB/s", "", timing.HEADER]
    for name in OPERATIONS:
        parts = []
        for case in import_module(f"vl3.kernels.{name}.bench").cases():
            say(case.work)
            times = timing.times_ms(case)
            found += timing.lines(case, times, copied)
            parts.append(f"{case.work} {timing.gain(times):.2f} x")
            torch.cuda.empty_cache()
        gains[name] = f"{device}: {'; '.join(parts)}"
    return "\n".join(found), gains
