"""Fused kernels against their definitions: the checks of interpreted/, in a process of their own.

Triton reads TRITON_INTERPRET when it is imported, and transformers imports Triton. So the checks
get a process that has the variable from its start, and no other test sees it. On a machine with a
GPU they run on that, without it. One operation by hand:

    TRITON_INTERPRET=1 pytest tests/kernels/interpreted/check_rope2d.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
CHECKS = sorted((HERE / "interpreted").glob("check_*.py"))

pytest.importorskip("triton", reason="triton is not installed (Linux only)")


@pytest.mark.slow
def test_fused_kernels_agree_with_their_definitions():
    assert len(CHECKS) == 7
    environment = {name: text for name, text in os.environ.items() if name != "VL3_KERNELS"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, CHECKS)],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) >= 140, done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]
