"""The fused kernels beside their definitions, on a GPU; see kernels/README.md."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

OPERATIONS = ("difffp", "rope2d", "merge_keep", "linear_cross_entropy")


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


def table() -> str:
    """A row for each side of every case of all operations."""
    import torch

    from kernels import timing
    from train_cli.bench.measure import say

    copied = timing.copy_bandwidth()
    found = [f"{torch.cuda.get_device_name()}, a copy moves {copied / 1e9:.0f} GB/s", "",
             timing.HEADER]  # fmt: skip
    for name in OPERATIONS:
        for case in import_module(f"kernels.{name}.bench").cases():
            say(case.work)
            found += timing.lines(case, copied)
            torch.cuda.empty_cache()
    return "\n".join(found)
