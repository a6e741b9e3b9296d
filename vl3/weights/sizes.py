"""How large a model is, exact to the parameter: its modules, walked where nothing has memory.

The model is built on torch's meta device from its configuration alone, so that every language model
of transformers is counted as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicLayer

from vl3.config import VL3Config, videollama3_2b, videollama3_7b
from vl3.families import read_config, videollama2
from vl3.language.layers import LINEAR, decoder_layers, name_of
from vl3.model import VL3ForConditionalGeneration
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
    """A module: its linear layers, tables (embeddings, output head) and everything else.

    linears: of a language model those inside its layers; tables: of an ear those of positions
    experts: weights of experts kept as one tensor, which are among the others, and how many of them
    a token meets
    """

    linears: tuple[Linear, ...]
    tables: int = 0
    others: int = 0
    experts: int = 0
    active: int = 0

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.linears) + self.tables + self.others


@dataclass(frozen=True, kw_only=True, slots=True)
class Widths:
    """Numbers per token in the language model.

    hidden: between layers; inner: in the widest MLP, of all experts that a token meets; gates: how
    many tensors of that width meet in it, 2 where one gates the other; queries: of all heads of a
    layer; keys: of all heads that are kept, and keys_values: of all layers together
    """

    hidden: int
    inner: int
    gates: int
    queries: int
    keys: int
    keys_values: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The modules of a model and the widths of its language model."""

    parts: dict[str, Part]
    widths: Widths


def sizes_of(name: str | Path | None) -> VL3Config:
    """The sizes of a model, never asking a hub.

    name: a folder, a run, an adapter (its base counts), a hub id that was downloaded or is that of
    a released model; None for nano
    Raises: LayoutError where the sizes are not known here.
    """
    released = re.fullmatch(r"DAMO-NLP-SG/VideoLLaMA3-(2B|7B)(-Image)?", str(name))
    if released and not Path(str(name)).is_dir():
        return RELEASED[released[1]]()
    if not Path(str(name)).is_dir() and (found := videollama2.released(str(name))) is not None:
        return found
    folder = resolve(name, offline=True)
    if is_adapter(folder) and (base := read_base(folder).name):
        return sizes_of(base)
    return read_config(folder)


def parts(config: VL3Config) -> dict[str, Part]:
    """The modules of a model of these sizes, exact to the parameter."""
    return _walk(config.to_json_string(use_diff=False)).parts


def widths(config: VL3Config) -> Widths:
    """The widths of a language model of these sizes."""
    return _walk(config.to_json_string(use_diff=False)).widths


@lru_cache(maxsize=16)
def _walk(config_json: str) -> Sizes:
    """Sizes of a model of this configuration; a 2B is built in half a second."""
    config = VL3Config.from_dict(json.loads(config_json))
    with torch.device("meta"):
        model = VL3ForConditionalGeneration(config)
    language, layers = model.language, decoder_layers(model.language)
    experts_met = getattr(config.text_config, "num_experts_per_tok", None) or 1
    experts = [weight for weight in layers.parameters() if weight.ndim > 2]
    tables = [part.weight for part in language.modules() if isinstance(part, nn.Embedding)]
    tables.append(language.get_output_embeddings().weight)
    found = {
        "vision": _part(model.vision, model.vision),
        "connector": _part(model.connector, model.connector),
        "language": _part(
            language,
            layers,
            tables=_count(tables),
            experts=_count(experts),
            active=sum(weight.numel() // len(weight) * experts_met for weight in experts),
        ),
    }
    if model.ear is not None and model.audio_connector is not None:
        positions = [part.weight for part in model.ear.modules() if isinstance(part, nn.Embedding)]
        found["ear"] = _part(model.ear, model.ear, tables=_count(positions))
        found["audio_connector"] = _part(model.audio_connector, model.audio_connector)
    return Sizes(parts=found, widths=_widths(language, layers, experts, experts_met))


def _count(weights) -> int:
    """Numbers in weights; what is shared counts once."""
    return sum(weight.numel() for weight in {id(weight): weight for weight in weights}.values())


def _part(module: nn.Module, inside: nn.Module, *, tables: int = 0, **more: int) -> Part:
    """A module whose linear layers stand in `inside`."""
    kinds = Counter(
        (*_ins_outs(layer), layer.bias is not None)
        for layer in inside.modules()
        if isinstance(layer, LINEAR)
    )
    linears = tuple(
        Linear(ins=ins, outs=outs, bias=bias, times=times)
        for (ins, outs, bias), times in kinds.items()
    )
    others = _count(module.parameters()) - sum(x.parameters for x in linears) - tables
    return Part(linears=linears, tables=tables, others=others, **more)


def _ins_outs(layer: Any) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.nx, layer.nf


def _widths(language, layers: nn.ModuleList, experts, experts_met: int) -> Widths:
    hidden, heads = language.config.hidden_size, language.config.num_attention_heads
    shapes = [_ins_outs(part) for part in layers.modules() if isinstance(part, LINEAR)]
    # The last layer of an MLP reads what is inside it; so does the last side of experts' tensors.
    dense = max(ins for ins, _ in shapes)
    # Two layers open it where one gates the other, or one that is twice as wide.
    opening = shapes.count((hidden, dense))
    is_gated = bool(experts) or opening != len(layers)
    name, kept = name_of(language, layers), []
    for layer, times in _kinds(layers):
        language.set_submodule(name, nn.ModuleList([layer]))
        kept.append((times, *_kept(language, hidden)))
    return Widths(
        hidden=hidden,
        inner=max([dense, *(experts_met * weight.shape[-1] for weight in experts)]),
        gates=2 if is_gated else 1,
        queries=heads * max(channels for _, _, channels, _ in kept),
        keys=max(groups * channels for _, groups, channels, _ in kept),
        keys_values=sum(
            times * groups * (channels + others) for times, groups, channels, others in kept
        ),
    )


def _kinds(layers: nn.ModuleList) -> list[tuple[nn.Module, int]]:
    """A layer of each shape, and how many there are of it."""
    found: dict[tuple, list[nn.Module]] = {}
    for layer in layers:
        shapes = tuple((name, weight.shape) for name, weight in layer.named_parameters())
        found.setdefault(shapes, []).append(layer)
    return [(same[0], len(same)) for same in found.values()]


class _Kept(Exception):
    """Keys and values have reached the cache: their groups, and the channels of each."""


class _Noting(DynamicLayer):
    """The layer of a cache that tells what it is given, and that nothing more is wanted."""

    def update(self, key_states, value_states, *args, **kwargs):
        groups, _, channels = key_states.shape[1:]
        raise _Kept(groups, channels, value_states.shape[-1])


@torch.no_grad()
def _kept(language: Any, hidden: int) -> tuple[int, int, int]:
    """Groups of keys, channels of a key and of a value, asked of a model's (first) layer."""
    try:
        language.base_model(
            inputs_embeds=torch.empty(1, 2, hidden, device="meta"),
            past_key_values=Cache(layer_class_to_replicate=_Noting),
            use_cache=True,
        )
    except _Kept as told:
        return told.args
    raise ValueError(f"{type(language).__name__} keeps no keys and values")
