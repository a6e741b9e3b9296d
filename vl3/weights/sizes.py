"""How large a model is: its modules, exact to the parameter, from its configuration alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vl3.config import VL3Config, videollama3_2b, videollama3_7b
from vl3.families import read_config
from vl3.weights.adapters import is_adapter, read_base
from vl3.weights.hub import resolve

# Bytes of a 4-bit weight: blocks of 64 share an 8-bit scale, 256 of those a float32 one.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
RELEASED = {"2B": videollama3_2b, "7B": videollama3_7b}


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """`times` linear layers of one kind."""

    ins: int
    outs: int
    bias: bool
    times: int = 1

    @property
    def weights(self) -> int:
        return self.times * self.ins * self.outs

    @property
    def parameters(self) -> int:
        return self.weights + self.times * self.outs * self.bias


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A module: its linear layers, tables (embeddings, output head) and everything else."""

    linears: tuple[Linear, ...]
    tables: int = 0
    others: int = 0

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.linears) + self.tables + self.others


def sizes_of(name: str | Path | None) -> VL3Config:
    """The sizes of a model, never asking a hub.

    name: a folder, a run, an adapter (its base counts), a hub id that was downloaded or is that of
    a released model; None for nano
    Raises: LayoutError where the sizes are not known here.
    """
    released = re.fullmatch(r"DAMO-NLP-SG/VideoLLaMA3-(2B|7B)(-Image)?", str(name))
    if released and not Path(name).is_dir():
        return RELEASED[released[1]]()
    folder = resolve(name, offline=True)
    if is_adapter(folder) and (base := read_base(folder).name):
        return sizes_of(base)
    return read_config(folder)


def parts(config: VL3Config) -> dict[str, Part]:
    """The modules of a model of these sizes, exact to the parameter."""
    vision, text = config.vision_config, config.text_config
    D, layers = vision.hidden_size, vision.num_hidden_layers
    encoder = Part(
        linears=(
            Linear(ins=D, outs=D, bias=True, times=4 * layers),
            Linear(ins=D, outs=vision.intermediate_size, bias=True, times=layers),
            Linear(ins=vision.intermediate_size, outs=D, bias=True, times=layers),
        ),
        others=D * (vision.patch_values + 1) + 2 * D * (2 * layers + 1),
    )
    E, layers = text.hidden_size, text.num_hidden_layers
    depth = 1 if config.connector == "linear" else int(config.connector[3:].split("x")[0])
    connector = Part(
        linears=(
            Linear(ins=D, outs=E, bias=True),
            Linear(ins=E, outs=E, bias=True, times=depth - 1),
        )
    )
    inner, outer = attention_widths(text)
    language = Part(
        linears=(
            Linear(ins=E, outs=inner, bias=True, times=layers),
            Linear(ins=E, outs=outer, bias=True, times=2 * layers),
            Linear(ins=inner, outs=E, bias=False, times=layers),
            Linear(ins=E, outs=text.intermediate_size, bias=False, times=2 * layers),
            Linear(ins=text.intermediate_size, outs=E, bias=False, times=layers),
        ),
        tables=text.vocab_size * E * (1 if config.tie_word_embeddings else 2),
        others=E * (2 * layers + 1),
    )
    return {"vision": encoder, "connector": connector, "language": language}


def attention_widths(text) -> tuple[int, int]:
    """Width of all query heads, and of all key heads."""
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return channels * text.num_attention_heads, channels * text.num_key_value_heads
