"""Weights are rounded to the bytes of bitsandbytes, whatever they are, when a model is loaded."""

import pytest
import torch

bnb = pytest.importorskip("bitsandbytes")

import vl3  # noqa: E402
from vl3.weights.quantize import nf4_rounding  # noqa: E402
from vl3.weights.quantize.nf4_rounding import PIECE_WEIGHTS, register, rounded, theirs  # noqa: E402


def same(weight: torch.Tensor, blocksize: int = 64) -> bool:
    ours, right = rounded(weight, blocksize), theirs(weight, blocksize)
    assert [tensor.shape for tensor in ours] == [tensor.shape for tensor in right]
    return all(map(torch.equal, ours, right))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 64), (96, 128), (3, PIECE_WEIGHTS + 64)])
def test_the_bytes_are_those_of_bitsandbytes(dtype, shape):
    torch.manual_seed(0)
    assert same((torch.randn(shape) * 0.02).to(dtype))
    assert same((torch.rand(shape) * 2 - 1).to(dtype), blocksize=32)


def test_also_of_a_weight_that_does_not_lie_in_one_piece():
    assert same(torch.randn(128, 192).t())


def test_bounds_and_their_neighbours_fall_to_the_same_side():
    code = bnb.functional.get_4bit_type("nf4", device="cpu")
    bounds = (code[:-1] + code[1:]) / 2
    up, down = torch.tensor(2.0), torch.tensor(-2.0)
    near = torch.cat([bounds, bounds.nextafter(up), bounds.nextafter(down), code, -code])
    weight = torch.zeros(2, 64)
    weight.view(-1)[: len(near)] = near
    weight[:, -1] = 1  # the largest of each block, so that nothing is scaled
    assert same(weight)


@pytest.mark.filterwarnings("error")
def test_nothing_but_zeros_and_what_is_no_number():
    assert same(torch.zeros(2, 64))
    weight = torch.randn(2, 64)
    weight[0, 3], weight[1, 5] = torch.nan, torch.inf
    nibbles, largest = rounded(weight)
    assert nibbles.shape == (64, 1)
    assert not largest.isfinite().any()


def test_a_table_that_is_wrong_is_seen(monkeypatch):
    before, inside = nf4_rounding._tables()
    monkeypatch.setattr(nf4_rounding, "_tables", lambda: (before, inside + 0.001))
    assert not same(torch.randn(64, 64))


def test_other_formats_stay_theirs():
    register()
    weight = torch.randn(16, 64)
    op = torch.ops.bitsandbytes.quantize_4bit
    for kind, stored in (("fp4", torch.uint8), ("nf4", torch.bfloat16)):
        found, right = op(weight, 64, kind, stored), theirs(weight, 64, kind, stored)
        assert found[0].dtype == stored
        assert all(map(torch.equal, found, right))
    odd = torch.randn(3, 50)
    assert all(map(torch.equal, op(odd, 64, "nf4", torch.uint8), theirs(odd)))


def test_a_model_is_loaded_so(monkeypatch):
    seen = []
    monkeypatch.setattr(nf4_rounding, "rounded", lambda *given: seen.append(1) or rounded(*given))
    studio = vl3.load(quantize="nf4", device="cpu")
    assert len(seen) == studio.model.config.text_config.num_hidden_layers * 7
