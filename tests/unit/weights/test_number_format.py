"""What "auto" takes for the arithmetic: what this processor computes fast, and what fits."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vl3.weights import number_format
from vl3.weights.number_format import LARGE, bfloat16_time, pick_dtype, suited

CPU, GPU = torch.device("cpu"), torch.device("cuda")
is_linux_x86 = platform.machine() == "x86_64" and Path("/proc/cpuinfo").is_file()


@pytest.mark.skipif(not is_linux_x86, reason="reads the flags of an x86 processor under Linux")
def test_the_probe_agrees_with_the_flags_of_the_processor():
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].split("\n")[0].split())
    has = bool(flags & {"avx512_bf16", "amx_bf16"})
    assert (bfloat16_time() <= 1) == has, f"{bfloat16_time():.2f}"


@pytest.mark.skipif(not is_linux_x86, reason="imitates an x86 processor without AVX512")
def test_a_processor_without_bfloat16_products_gets_float32():
    code = (
        "import torch; from vl3.weights.number_format import suited\n"
        f"print(suited(torch.device('cpu'), {LARGE}))"
    )
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith("float32: bfloat16 takes "), said


def test_what_is_slower_is_taken_where_nothing_else_fits(monkeypatch):
    def machine(ratio: float, free: float) -> None:
        monkeypatch.setattr(number_format, "bfloat16_time", lambda: ratio)
        memory = SimpleNamespace(available=free)
        monkeypatch.setattr(number_format.psutil, "virtual_memory", lambda: memory)

    machine(ratio=8.0, free=5 * LARGE)
    assert pick_dtype("auto", CPU, LARGE) == torch.float32
    machine(ratio=8.0, free=3 * LARGE)
    assert pick_dtype("auto", CPU, LARGE) == torch.bfloat16
    assert "nf4" in suited(CPU, LARGE).why
    assert pick_dtype("auto", CPU, LARGE, "nf4") == torch.float32
    machine(ratio=0.3, free=5 * LARGE)
    assert str(suited(CPU, LARGE)).startswith("bfloat16: this processor multiplies it 3.3 times")
    machine(ratio=0.3, free=0)
    assert pick_dtype("auto", CPU, LARGE - 1) == torch.float32
    assert pick_dtype("auto", GPU, 1) == torch.bfloat16


def test_a_named_format_is_taken_as_named():
    assert pick_dtype("float16", CPU, LARGE) == torch.float16
    assert pick_dtype(torch.float64, CPU, LARGE) == torch.float64
    with pytest.raises(ValueError, match=r"dtype is one of auto, .* did you mean bfloat16"):
        pick_dtype("bfloat", CPU, LARGE)
