"""The layers of a language model, whatever its class calls them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

LINEAR = (nn.Linear, Conv1D)  # GPT-2 keeps the weight of a linear layer the other way round


def decoder_layers(language: Any) -> nn.ModuleList:
    """The list of a causal language model's layers, first to last.

    Raises: ValueError for a model that has no list of as many modules as its configuration says.
    """
    count = language.config.num_hidden_layers
    for module in language.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(f"{type(language).__name__} has no list of its {count} layers")


def name_of(model: nn.Module, wanted: nn.Module) -> str:
    """The name of a module of the model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def linear_names(layers: Iterable[nn.Module]) -> list[str]:
    """Names, within a layer, of the linear layers that any of the layers has, in order."""
    found: dict[str, None] = {}
    for layer in layers:
        found |= {name: None for name, part in layer.named_modules() if isinstance(part, LINEAR)}
    return list(found)
