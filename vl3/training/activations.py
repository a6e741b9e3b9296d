"""What autograd keeps of a pass, counted on the model itself where nothing has memory.

The model is built with two layers of each kind, since all are alike, and run once on fake tensors,
which have a shape and a format and no numbers. Every tensor that is saved for the backward pass
counts once, weights and the mask not: so each language model of transformers, adapter and kind of
attention is counted as it is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.integrations import moe
from transformers.modeling_layers import GradientCheckpointingLayer

from vl3.audio.ear import ear_class
from vl3.config import VL3Config
from vl3.connectors import connector_class
from vl3.language.layers import decoder_layers
from vl3.model import VL3ForConditionalGeneration
from vl3.training.ranges import MODULES
from vl3.training.recipe import Recipe
from vl3.training.setup import add_adapter
from vl3.values import Grid
from vl3.vision import downsample
from vl3.vision.towers import is_tower, side

if TYPE_CHECKING:
    from vl3.training.memory import Machine, Shape

LAYERS = 2  # of each kind: the first may share what it keeps with what comes before it


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Bytes that a module keeps of a pass.

    first: the first layer, which may have nothing before it that learns; layer: each other one
    behind: of that, what is saved after its attention
    stream: what enters a layer, kept where the layer is computed again
    around: everything outside of the layers
    """

    first: float = 0.0
    layer: float = 0.0
    behind: float = 0.0
    stream: float = 0.0
    around: float = 0.0


def kept_of_pass(
    recipe: Recipe, config: VL3Config, shape: Shape, machine: Machine
) -> dict[str, Kept]:
    """By module: vision, connector, language; ear and audio_connector where the model has them."""
    model = _model(recipe, config, machine)
    one, banks = (_banks(config, count) for count in (min(1, shape.pieces), shape.pieces))
    with FakeTensorMode():
        _without_numbers(model)
        counter = _Counter(model)
        in_bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=machine.compute_bytes == 2)
        # Of the product over experts only what replaces it in a compiler runs on fake tensors.
        with in_bfloat16, patch.object(moe, "_can_use_grouped_mm", lambda *_given: False):
            # What a small pass saves again in the next one are weights in another format.
            merge = recipe.media.video_merge or 2
            _run(model, counter, _grids(4, 4, config, merge), visual=1, rows=1, row=1)
            if one:
                _hear(model, counter, one, sound=1)
            counter.ignore_what_was_saved()
            grids = _grids(shape.patches, shape.frame, config, merge)
            rows = -(-shape.tokens // shape.row)
            found = _run(model, counter, grids, visual=shape.visual, rows=rows, row=shape.row)
            return found | (_hear(model, counter, banks, sound=shape.sound) if banks else {})


class _Banks(NamedTuple):
    """The filter banks of whole pieces, by their size, and how long these are."""

    frames: int
    channels: int
    lengths_P: torch.Tensor


def _banks(config: VL3Config, pieces: int) -> _Banks | None:
    """Those of so many pieces; None for a model without an ear, or of no sound."""
    if config.audio_config is None or not pieces:
        return None
    kind = ear_class(config.audio_config)
    form = kind.form(config.audio_config)
    samples = form.piece_samples + form.overhang
    bank_AZ = kind.bank(config.audio_config, np.zeros(samples, np.float32))
    frames, channels = bank_AZ.shape
    return _Banks(frames, channels, torch.full((pieces,), samples))


def _grids(patches: int, frame: int, config: VL3Config, merge: int) -> tuple[Grid, ...]:
    """So many patches in frames of a size, and what is left in a smaller one; in whole tokens. In
    whole squares of a tower of fixed size, or where a connector joins rows, columns and frames."""
    is_square = is_tower(config.vision_config)
    if is_square or connector_class(config.connector).mixes:
        merge = 1 if is_square else merge
        tokens = max(2, round(math.sqrt(frame) / merge))
        places = side(config.vision_config) if is_square else merge * tokens
        frames = max(2, -(-patches // places**2))
        return (Grid(frames=frames, rows=places, cols=places, merge=merge),)
    patches, frame = max(4, patches), max(4, frame)  # without any picture an empty one goes in
    count, left = divmod(patches, frame)
    sizes = [(count, frame), (1, left)]
    return tuple(
        Grid(frames=frames, rows=2, cols=2 * max(1, size // 4), merge=2)
        for frames, size in sizes
        if frames and size
    )


def _model(recipe: Recipe, config: VL3Config, machine: Machine) -> VL3ForConditionalGeneration:
    """As vl3.training.setup.prepare makes it, with few layers and on no device."""
    config = deepcopy(config)
    if (ear := config.audio_config) is not None and hasattr(ear, "encoder_layers"):
        ear.encoder_layers = min(LAYERS, ear.encoder_layers)
        ear.encoder_layerdrop = 0.0  # all of them stay, as at the fullest moment
    for part in (config.vision_config, config.text_config):
        part.num_hidden_layers = min(LAYERS, part.num_hidden_layers)
        if kinds := vars(part).get("layer_types"):
            part.layer_types = kinds[: part.num_hidden_layers]
    with torch.device("meta"):
        model = VL3ForConditionalGeneration._from_config(config)
        if machine.eager:
            model.set_attn_implementation("eager")
        model.to(torch.bfloat16 if machine.compute_bytes == 2 else torch.float32)
        model.requires_grad_(False)
        if recipe.adapter:
            add_adapter(model, recipe.adapter)
    for name in MODULES:
        if getattr(recipe.rates, name) and (part := getattr(model, name)) is not None:
            part.requires_grad_(True).float()
    for module in model.modules() if machine.device == "cuda" else ():
        if isinstance(module, nn.Dropout):
            vars(module)["forward"] = _dropout_of_a_gpu(module.p)
        elif isinstance(module, nn.LayerNorm):  # autocast does it in float32 there
            module.register_forward_pre_hook(lambda _module, given: (given[0].float(),))
    return model.train()


def _dropout_of_a_gpu(share: float):
    """Keeps a byte of each number; that of a CPU keeps a float."""
    return lambda x: torch.native_dropout(x, share, True)[0]


def _without_numbers(model: nn.Module) -> None:
    """Puts fake tensors for weights and buffers; those that are one stay one."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for named in (module._parameters, module._buffers):
            for name, old in named.items():
                if old is not None and id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    is_weight = isinstance(old, nn.Parameter)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if is_weight else new
                if old is not None:
                    named[name] = made[id(old)]


class _Counter:
    """Bytes saved for the backward pass, by the place where it happens."""

    def __init__(self, model: nn.Module) -> None:
        self.ignored = {_storage(tensor) for tensor in model.state_dict(keep_vars=True).values()}
        self.sizes: defaultdict[str, list[int]] = defaultdict(list)
        self.streams: dict[str, float] = {}
        self.behind: dict[str, int] = {}  # how many sizes of a layer come before its MLP
        self.saved: dict[int, torch.Tensor] = {}  # held, or another storage could have the number
        self.place = ""

    def ignore_what_was_saved(self) -> None:
        self.ignored |= set(self.saved)
        self.sizes.clear()

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        number = _storage(tensor)
        if number not in self.ignored and number not in self.saved:
            self.saved[number] = tensor
            self.sizes[self.place].append(tensor.untyped_storage().nbytes())
        return tensor

    def of(self, name: str, layers: nn.ModuleList | None, run) -> tuple[Kept, Any]:
        """What the module keeps while it runs, and what it gives."""
        handles = []
        for number, layer in enumerate(layers or ()):

            def enter(_layer, given, named, place=f"{name} {number}"):
                self.place = place
                (x,) = given[:1] or (named["hidden_states"],)
                self.streams[name] = x.numel() * x.element_size()

            def leave(*_given):
                self.place = name

            def pass_attention(*_given, place=f"{name} {number}"):
                self.behind[name] = len(self.sizes[place])

            handles += [
                layer.register_forward_pre_hook(enter, with_kwargs=True),
                layer.register_forward_hook(leave),
            ]
            for part, module in layer.named_children():
                if ("attn" in part or "attention" in part) and any(module.children()):
                    handles.append(module.register_forward_hook(pass_attention))
        self.place = name
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
            out = run()
        for handle in handles:
            handle.remove()
        each = self.sizes[f"{name} {len(layers) - 1}"] if layers else []
        kept = Kept(
            first=sum(self.sizes[f"{name} 0"]),
            layer=sum(each),
            behind=sum(each[self.behind.get(name, len(each)) :]),
            stream=self.streams.get(name, 0),
            around=sum(self.sizes[name]),
        )
        return kept, out


def _hear(model, counter: _Counter, banks: _Banks, *, sound: int) -> dict[str, Kept]:
    bank_PAZ = torch.empty(len(banks.lengths_P), banks.frames, banks.channels)
    layers = nn.ModuleList(
        part for part in model.ear.modules() if isinstance(part, GradientCheckpointingLayer)
    )
    found = {}
    found["ear"], features = counter.of(
        "ear", layers or None, lambda: model.ear(bank_PAZ, banks.lengths_P)
    )
    features = torch.empty(sound, features.shape[1], dtype=features.dtype).requires_grad_(
        features.requires_grad
    )
    found["audio_connector"], _ = counter.of(
        "audio_connector", None, lambda: model.project_sound(features)
    )
    return found


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(model, counter: _Counter, grids, *, visual: int, rows: int, row: int) -> dict[str, Kept]:
    found = {}
    patches = sum(grid.num_patches for grid in grids)
    pixels = torch.empty(patches, 3 * model.config.vision_config.patch_size**2)
    seen, features = counter.of(
        "vision", model.vision.blocks, lambda: downsample(model.vision(pixels, grids), grids)
    )
    found["vision"] = seen
    joined = grids if connector_class(model.config.connector).mixes else None
    cells = len(features) if joined else visual
    features = torch.empty(cells, features.shape[1], dtype=features.dtype).requires_grad_(
        features.requires_grad
    )
    found["connector"], embeds = counter.of(
        "connector", None, lambda: model.project(features, joined)
    )
    table = model.get_input_embeddings().weight
    x = torch.empty(rows, row, embeds.shape[1], dtype=table.dtype)
    x.requires_grad_(embeds.requires_grad or table.requires_grad)
    mask = torch.empty(rows, 1, row, row, dtype=embeds.dtype)
    counter.saved[_storage(mask)] = mask  # held and not counted
    positions = torch.arange(row)[None].expand(rows, -1)
    inputs = {"inputs_embeds": x, "attention_mask": mask, "position_ids": positions}
    found["language"], _ = counter.of(
        "language",
        decoder_layers(model.language),
        lambda: model.language.base_model(**inputs, use_cache=False),
    )
    return found
