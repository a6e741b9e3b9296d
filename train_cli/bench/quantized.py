"""NF4 beside 16 bits: rounding, a linear layer at growing numbers of rows, bytes of a model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from train_cli.bench.files import same
from train_cli.bench.measure import Row, beside, say, within
from vl3.config import VL3Config, videollama3_2b
from vl3.model import VL3ForConditionalGeneration
from vl3.weights.quantize.bnb import LEFT_ALONE, use_cpu_kernels
from vl3.weights.quantize.int8_rows import rounded

WIDTH, MLP = 1536, 8960  # of the 2B model
ROWS = (1, 16, 64, 256, 1024)
NF4_ERROR = 0.15  # rounding to 16 values costs about 0.09 of the norm


@dataclass(frozen=True, kw_only=True, slots=True)
class Resident:
    """Bytes of the weights of a part of a model, in 16 bits and as quantized ones are held.

    bytes_small: of "nf4+int8", with 8 bits a weight where "nf4" leaves 16
    """

    part: str
    bytes_16bit: int
    bytes_nf4: int
    bytes_small: int


def nf4(
    rounds: int,
    width: int = WIDTH,
    mlp: int = MLP,
    whole: Callable[[], VL3Config] | None = videollama3_2b,
) -> list[Row | Resident]:
    """Empty where bitsandbytes is not installed.

    Ours is a layer as vl3.load leaves it: at a first prompt the weights lie as they were loaded,
    at later ones as the fused product of single rows wants them.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return []
    from vl3.weights.quantize import nf4_rounding
    from vl3.weights.quantize.nf4_cpu import FUSED_ROWS

    torch.manual_seed(0)
    plain = nn.Linear(width, mlp, bias=False, dtype=torch.bfloat16)
    ours, stock = _quantized(plain), _quantized(plain)
    use_cpu_kernels(ours)
    weight = plain.weight.data
    found = beside(
        f"{width} x {mlp} weights rounded to NF4",
        lambda: nf4_rounding.rounded(weight)[0],
        {"bitsandbytes": lambda: nf4_rounding.theirs(weight)[0]},
        rounds,
        same,
    )
    with torch.no_grad():
        many = [rows for rows in ROWS if rows > FUSED_ROWS]
        few = [rows for rows in ROWS if rows <= FUSED_ROWS]
        for rows, when in (
            *((rows, ", first prompt") for rows in many),
            *((rows, "") for rows in few),
            *((rows, ", later prompt") for rows in many),
        ):
            x = torch.randn(rows, width, dtype=torch.bfloat16)
            repeats = max(1, 64 // rows)  # a single row takes less than the clock can tell
            sides = {"bitsandbytes": stock, "bfloat16": plain}
            found += beside(
                f"NF4 linear {width} x {mlp}, {rows} rows{when}",
                lambda x=x, n=repeats: _many(ours, x, n),
                {
                    name: lambda layer=layer, x=x, n=repeats: _many(layer, x, n)
                    for name, layer in sides.items()
                },
                rounds,
                within(NF4_ERROR),
            )
    return found + (resident(whole()) if whole else [])


@torch.no_grad()
def resident(config: VL3Config) -> list[Resident]:
    """Bytes of a model's weights: its shapes, and one real layer of each shape quantized."""
    say("resident weights")
    with torch.device("meta"):
        model = VL3ForConditionalGeneration(config)
    parts: dict[str, list[int]] = {}
    for name, weight in model.named_parameters():  # a tied head counts once
        layer = model.get_submodule(name.rsplit(".", 1)[0])
        part, size = name.split(".", 1)[0], 2 * weight.numel()
        packed = small = size
        if type(layer) in (nn.Linear, nn.Embedding) and weight.dim() == 2:
            small = sum(tensor.nbytes for tensor in rounded(torch.empty_like(weight)))
        if part == "language":
            part = "language model: embedding, head, norms"
            if isinstance(layer, nn.Linear) and not any(kept in name for kept in LEFT_ALONE):
                part = "language model: linears of its layers"
                packed = _packed_bytes(tuple(weight.shape)) if weight.dim() == 2 else size
                small = packed
        counted = parts.setdefault(part, [0, 0, 0])
        parts[part] = [one + more for one, more in zip(counted, (size, packed, small))]
    parts["all"] = [sum(sizes) for sizes in zip(*parts.values())]
    return [
        Resident(part=part, bytes_16bit=whole, bytes_nf4=packed, bytes_small=small)
        for part, (whole, packed, small) in parts.items()
    ]


def _quantized(plain: nn.Linear) -> nn.Sequential:
    """A layer in NF4 as vl3.load asks for it, inside a model of its own."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(
        plain.in_features,
        plain.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
    )
    layer.weight = bnb.nn.Params4bit(
        plain.weight.data.clone(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    return nn.Sequential(layer.to("cpu")).eval()


@cache
def _packed_bytes(shape: tuple[int, int]) -> int:
    """Bytes that a layer of this shape holds after its first answer."""
    outputs, inputs = shape
    model = _quantized(nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16))
    use_cpu_kernels(model)
    model(torch.zeros(1, inputs, dtype=torch.bfloat16))
    weight = next(model.parameters())  # not model[0].weight, for which the bytes would move back
    state, scale = weight.quant_state, getattr(model[0], "scale_GN", None)
    held = [weight, scale, state.absmax, state.code]
    if state.nested:
        held += [state.state2.absmax, state.state2.code, state.offset]
    return sum(tensor.nbytes for tensor in held if tensor is not None)


def _many(layer: nn.Module, x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        y = layer(x)
    return y
