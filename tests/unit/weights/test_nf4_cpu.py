"""NF4 linears on a CPU: both products give what the weights say, and the weights come back."""

import pytest
import torch
from torch import nn

bnb = pytest.importorskip("bitsandbytes")

from vl3.weights.quantize.bnb import use_cpu_kernels  # noqa: E402
from vl3.weights.quantize.nf4_cpu import FUSED_ROWS, Linear4bitCPU, fits, packed, unpacked  # noqa: E402

INPUTS, OUTPUTS = 128, 96
ROUNDING = 0.01  # bfloat16 products and scales

needs_kernel = pytest.mark.skipif(
    not bnb.functional.has_avx512bf16(), reason="this CPU has no AVX512-BF16"
)


def quantized(inputs=INPUTS, outputs=OUTPUTS, dtype=torch.bfloat16) -> nn.Module:
    torch.manual_seed(0)
    layer = bnb.nn.Linear4bit(inputs, outputs, bias=True, compute_dtype=dtype, quant_type="nf4")
    layer.bias.data = torch.randn(outputs, dtype=dtype)
    return nn.Sequential(layer.to("cpu")).eval()


def said(layer) -> torch.Tensor:
    """The weight as its bytes say, by bitsandbytes."""
    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()


def test_the_order_of_the_kernel_and_back():
    loaded = torch.randint(0, 256, (64, 32), dtype=torch.uint8)
    moved = packed(loaded)
    assert torch.equal(unpacked(moved), loaded)
    for output, column in ((0, 0), (5, 7), (16, 0), (31, 62), (40, 33), (63, 63)):
        byte = int(loaded[output, column // 2])
        nibble = byte >> 4 if column % 2 == 0 else byte & 15
        block, row = divmod(output, 32)
        there = int(moved.view(2, 32, 16, 2)[block, column // 2, row % 16, column % 2])
        assert (there >> 4 if row >= 16 else there & 15) == nibble


@needs_kernel
@pytest.mark.parametrize("rows", [1, FUSED_ROWS, FUSED_ROWS + 1])
def test_both_products_are_those_of_the_weights(rows):
    model = quantized()
    weight, bias = said(model[0]), model[0].bias.float()
    use_cpu_kernels(model)
    assert type(model[0]) is Linear4bitCPU
    x = torch.randn(2, rows, INPUTS, dtype=torch.bfloat16)[:1]
    right = x.float() @ weight.T + bias
    for _ in range(2):
        y = model(x)
        assert y.shape == right.shape
        assert y.dtype == x.dtype
        assert (y.float() - right).norm() / right.norm() < ROUNDING
        model(x[:, :1])  # from here on the bytes are packed
        assert model[0].scale_GN is not None
    assert (model(x).float() - right.roll(1, -1)).norm() / right.norm() > 10 * ROUNDING


@needs_kernel
def test_whoever_asks_for_the_weight_gets_the_loaded_bytes():
    model = quantized()
    loaded = model[0].weight.data.clone()
    use_cpu_kernels(model)
    x = torch.randn(1, INPUTS, dtype=torch.bfloat16)
    ways = {
        "attribute": lambda: model[0].weight.data,
        "state": lambda: model.state_dict()["0.weight"],
        "moved": lambda: next(model.to("cpu").parameters()).data,
    }
    for name, way in ways.items():
        model(x)
        assert not torch.equal(dict(model.named_parameters())["0.weight"].data.view(-1, 1), loaded)
        assert torch.equal(way(), loaded), name


@needs_kernel
def test_training_has_gradients_after_an_answer():
    model = quantized()
    weight = said(model[0])
    use_cpu_kernels(model)
    x = torch.randn(4, INPUTS, dtype=torch.bfloat16)
    model(x)
    x.requires_grad_()
    model(x).sum().backward()
    right = weight.sum(0).expand(4, -1)
    assert (x.grad.float() - right).norm() / right.norm() < ROUNDING


@needs_kernel
@pytest.mark.parametrize(
    "layer", [quantized(outputs=80), quantized(inputs=96), quantized(dtype=torch.float32)]
)
def test_what_does_not_fit_stays_as_it_was(layer):
    assert not fits(layer[0])
    use_cpu_kernels(layer)
    assert type(layer[0]) is bnb.nn.Linear4bit
    x = torch.randn(1, layer[0].in_features, dtype=layer[0].compute_dtype)
    right = x.float() @ said(layer[0]).T + layer[0].bias.float()
    assert (layer(x).float() - right).norm() / right.norm() < ROUNDING
