"""The knob VL3_KERNELS: what it takes, what it refuses and in which words."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn
from transformers.utils.import_utils import is_kernels_available

from vl3 import ops
from vl3.kernels import difffp, linear_cross_entropy, merge_keep, resize_patchify, rope2d
from vl3.video.images import resized

ON_A_GPU = "H100, 2 times"  # what MEASURED could say one day


@pytest.fixture
def choose(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return lambda choice: monkeypatch.setenv("VL3_KERNELS", choice)


def rotated():
    q_NHC = torch.ones(3, 2, 4)
    return ops.rotate(q_NHC, q_NHC.clone(), ((1, 3, torch.ones(3, 2)),))[0]


def test_without_the_knob_or_with_auto_plain_torch_runs(choose, monkeypatch, capfd):
    monkeypatch.delenv("VL3_KERNELS", raising=False)
    expected = rotated()
    for choice in ("auto", "reference"):
        choose(choice)
        assert torch.equal(rotated(), expected)
    assert not any(capfd.readouterr()), "nothing is printed"


def test_nothing_was_measured_yet():
    """Whoever measures a kernel on a GPU changes this line, MEASURED and kernels/README.md."""
    every = difffp, linear_cross_entropy, merge_keep, resize_patchify, rope2d
    assert [op.MEASURED for op in every] == [None] * 5


def test_auto_takes_what_was_measured_on_a_gpu_only(choose):
    choose("auto")
    assert not ops.use_fused(ON_A_GPU, torch.ones(1))
    choose("reference")
    assert not ops.use_fused(ON_A_GPU, torch.ones(1))


def test_another_word_is_refused(choose):
    choose("fast")
    with pytest.raises(ValueError, match="VL3_KERNELS is auto, triton or reference - got 'fast'"):
        rotated()


def test_triton_without_triton_says_so(choose, monkeypatch):
    monkeypatch.setattr(ops, "find_spec", lambda name: None)
    choose("triton")
    with pytest.raises(RuntimeError, match="VL3_KERNELS=triton: triton is not installed"):
        rotated()


def test_triton_without_a_gpu_says_so(choose):
    pytest.importorskip("triton", reason="triton is not installed (Linux only)")
    choose("triton")
    with pytest.raises(RuntimeError, match=r"VL3_KERNELS=triton: the tensors are on cpu.*auto"):
        rotated()


def test_heads_that_are_more_than_a_weight_have_no_kernel(choose, monkeypatch):
    monkeypatch.setattr(ops, "_missing", lambda x: None)
    given = torch.ones(2, 4), nn.Linear(4, 8), torch.zeros(2).long()
    choose("triton")
    with pytest.raises(RuntimeError, match=r"plain linear head without a bias - got Linear.*auto"):
        ops.linear_cross_entropy(*given)
    choose("auto")
    losses_K, right_K = ops.linear_cross_entropy(*given)
    assert losses_K.shape == right_K.shape == (2,)


def test_pil_resizes_unless_triton_is_asked_for(choose, monkeypatch):
    monkeypatch.delenv("VL3_KERNELS", raising=False)
    assert ops.resizer(resized) is resized
    monkeypatch.setattr(resize_patchify, "MEASURED", ON_A_GPU)
    for choice in ("auto", "reference"):
        choose(choice)
        assert ops.resizer(resized) is resized
    choose("triton")
    monkeypatch.setattr(ops, "_missing", lambda x: None)
    chosen = ops.resizer(resized)
    assert chosen is not resized
    picture = np.zeros((4, 5, 3), np.uint8)
    assert chosen(picture, (4, 5)) is picture, "nothing to resize, nothing to launch"


def test_workers_of_a_loader_take_the_definitions(choose, monkeypatch):
    """A forked process that touches the GPU of its parent is told by torch that it cannot."""
    choose("triton")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(ops, "get_worker_info", object)
    assert ops.resizer(resized) is resized
    cells_TMP = torch.randint(0, 256, (3, 2, 12), dtype=torch.uint8)
    _, found, _ = ops.difffp(cells_TMP, 12, 0.1, "official")
    assert torch.equal(found, difffp.difffp(cells_TMP, 12, 0.1, "official")[1])


def test_kernels_are_imported_without_triton():
    """Also where it is installed: the definitions and the door to them never ask for it."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from kernels import difffp, linear_cross_entropy, merge_keep, resize_patchify, rope2d\n"
        "from vl3 import ops\n"
        "assert not any(n.startswith('kernels') and n.endswith('fused') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_transformers_does_not_take_our_kernels_for_the_package_of_that_name():
    assert find_spec("kernels") is not None
    assert not is_kernels_available()
