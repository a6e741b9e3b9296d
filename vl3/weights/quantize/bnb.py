"""4-bit and 8-bit weights: the linears of the language model, through bitsandbytes.

Vision encoder, connector, ear, embedding and output head stay in 16 or 32 bits, where 4 would cost
answers; "nf4+int8" holds them in 8 (vl3.weights.quantize.int8_rows), for small cards: they are a
third of the 2B model, and two thirds of what "nf4" leaves of it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from vl3.language.layers import decoder_layers, name_of

KINDS = ("nf4", "int8", "nf4+int8")
LEFT_ALONE = ("vision", "connector", "lm_head")
EARS = ("ear", "audio_connector")  # left alone too, in a model that has them


@dataclass(frozen=True, slots=True)
class Quantized:
    """What a load quantized: module names and the bytes they hold now and held in 16 bits.

    modules: of the language model's layers, through bitsandbytes; rounded: others, in 8 bits a row
    """

    kind: str
    modules: tuple[str, ...]
    rounded: tuple[str, ...]
    bytes_now: int
    bytes_16bit: int

    def __str__(self) -> str:
        kinds = dict.fromkeys(name.rsplit(".", 1)[1] for name in self.modules)
        others = f" and {len(self.rounded)} other layers" if self.rounded else ""
        untouched = "" if self.rounded else f"; {', '.join(LEFT_ALONE)} are untouched"
        return (
            f"{self.kind}: {len(self.modules)} linear layers of the language model "
            f"({', '.join(kinds)} of every layer){others}, {self.bytes_16bit / 2**20:.1f} MiB in "
            f"16 bits, {self.bytes_now / 2**20:.1f} MiB now{untouched}"
        )


def settings(kind: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """The bitsandbytes configuration for one of KINDS; from then on it rounds 4 bits our way.

    Raises: ValueError for another kind, ImportError when bitsandbytes is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"no quantization {kind!r}; choose {', '.join(KINDS)}, or none")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(
            f"quantize={kind!r} needs bitsandbytes; install it with pip install bitsandbytes, or "
            "load without quantization"
        )
    skip = [*LEFT_ALONE, *EARS]
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    from vl3.weights.quantize import nf4_rounding

    nf4_rounding.register()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=skip,
    )


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    """The bitsandbytes layers of a model by name."""
    import bitsandbytes as bnb

    kinds = bnb.nn.Linear4bit | bnb.nn.Linear8bitLt
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def use_cpu_kernels(model: nn.Module) -> None:
    """Lets 4-bit layers take the faster of two products on a CPU with AVX512-BF16.

    bitsandbytes 0.50 rearranges the weights for one of them at the first forward pass in
    evaluation mode, for good. It then refuses sides that are no multiples of 64 and 32, has no
    gradients, and what peft reads back is not the weight: that is switched off, on every layer.
    """
    import bitsandbytes as bnb

    from vl3.weights.quantize.nf4_cpu import Linear4bitCPU, fits

    has_kernel = bnb.functional.has_avx512bf16()
    for layer in quantized_layers(model).values():
        layer.support_avx512bf16_for_cpu = False
        if has_kernel and type(layer) is bnb.nn.Linear4bit and fits(layer):
            layer.__class__ = Linear4bitCPU  # the same weights and hooks, another forward


def inspect(model: Any, kind: str, rounded: tuple[str, ...] = ()) -> Quantized:
    """Which layers of a loaded model are quantized, after checking that they are the right ones.

    rounded: the layers that vl3.weights.quantize.int8_rows replaced
    Raises: RuntimeError when a layer that must stay whole was quantized, or none was.
    """
    layers = quantized_layers(model)
    body = name_of(model, decoder_layers(model.language))
    wrong = [name for name in layers if not name.startswith(f"{body}.")]
    if wrong or not layers:
        raise RuntimeError(
            f"quantization touched {len(layers)} layers, of which these must stay whole: "
            f"{', '.join(wrong) or 'none'}; bitsandbytes and transformers do not fit together"
        )
    tables: list[Any] = [model.get_submodule(name) for name in rounded]
    small = {id(table.weight): table.weight for table in tables}.values()
    return Quantized(
        kind=kind,
        modules=tuple(layers),
        rounded=rounded,
        bytes_now=sum(module.weight.nbytes for module in layers.values())
        + sum(weight.nbytes for weight in small),
        bytes_16bit=sum(2 * m.in_features * m.out_features for m in layers.values())
        + sum(2 * weight.numel() for weight in small),
    )


def dequantized(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of quantized layers as they act, in float; by the names without an adapter."""
    from peft.utils.integrations import dequantize_module_weight

    return {
        name.removesuffix(".base_layer"): dequantize_module_weight(layer)
        for name, layer in quantized_layers(model).items()
    }
