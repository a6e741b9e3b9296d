"""Ears: sound to features, by the kind of their configuration.

An ear states how it cuts a sound and which tokens it makes of it (`form`), turns a piece into a
filter bank (`bank`), and banks into features (`forward`). A class of one's own is registered before
a model that names it is built or loaded:

    @vl3.audio.ear.register("mine")     # the model_type of its configuration
    class Mine(vl3.audio.ear.Ear): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from vl3.arguments import shown
from vl3.audio.pieces import EarForm

_CLASSES: dict[str, type[Ear]] = {}
Class = TypeVar("Class", bound="type[Ear]")


@dataclass(frozen=True, kw_only=True, slots=True)
class EarSizes:
    """What an ear computes with, to count its memory and its work.

    layers: alike ones, each a GradientCheckpointingLayer; positions: of a whole piece, which attend
    to each other; width, heads: of such a layer; inner: width inside its MLP
    biased: whether attention has a bias that learns, for which its weights are stored openly
    """

    layers: int
    positions: int
    width: int
    heads: int
    inner: int
    biased: bool = False


class Ear(PreTrainedModel):
    """Filter banks of the pieces of a sound to its features; built as cls(config)."""

    base_model_prefix = ""
    main_input_name = "bank_BAZ"
    input_modalities: Any = ("audio",)
    supports_gradient_checkpointing = True

    @property
    def layers(self) -> Iterable[nn.Module]:
        """Its layers in their order, between which a stop is noticed; none that are known."""
        return getattr(getattr(self, "encoder", None), "layers", ())

    @classmethod
    def form(cls, config: PreTrainedConfig) -> EarForm:
        """How it cuts a sound, and the tokens that it makes."""
        raise NotImplementedError(f"{cls.__name__} does not say which tokens it makes")

    @classmethod
    def bank(cls, config: PreTrainedConfig, piece_S: np.ndarray) -> torch.Tensor:
        """The filter bank of one piece, as form cuts it. Shapes: returns float32 [A, Z]"""
        raise NotImplementedError(f"{cls.__name__} has no filter bank")

    @classmethod
    def working_bytes(cls, config: PreTrainedConfig, itemsize: int, device: str) -> float:
        """Bytes that one piece needs at its fullest, without gradients: in the MLP of a layer.

        itemsize: bytes of a number in the arithmetic; device: "cpu", "cuda" or "mps"
        """
        sizes = cls.sizes(config)
        return sizes.positions * (2 * sizes.inner + 3 * sizes.width) * itemsize

    @classmethod
    def sizes(cls, config: PreTrainedConfig) -> EarSizes:
        """The sizes of its layers; of none, four times as wide inside, where it does not say so."""
        form, width = cls.form(config), config.width
        return EarSizes(
            layers=0,
            positions=form.steps * form.bands,
            width=width,
            heads=1,
            inner=4 * width,
        )

    def forward(self, bank_BAZ: torch.Tensor, num_samples_B: torch.Tensor) -> torch.Tensor:
        """The features of all tokens, piece by piece, steps in their order, bands from below.

        Shapes: bank_BAZ - a bank for each piece, with anything behind the shorter ones
                num_samples_B - samples of each piece, overhang included
                returns [K, width], in the dtype of the weights; K as form says of each piece
        """
        raise NotImplementedError

    @torch.no_grad()
    def hear(self, blocks: Iterable[np.ndarray]) -> torch.Tensor:
        """The features of a whole sound that comes in blocks, one piece after the other.

        Memory does not grow with the sound but for the features. Shapes: returns [K, width]
        """
        weight = next(self.parameters())
        found = [torch.zeros(0, self.config.width, dtype=weight.dtype, device=weight.device)]
        for piece_S in self.form(self.config).pieces(blocks):
            bank_AZ = self.bank(self.config, piece_S).to(weight.device)
            found.append(self(bank_AZ[None], torch.tensor([len(piece_S)])))
        return torch.cat(found)


def banks(
    config: PreTrainedConfig, blocks: Iterable[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What an ear's forward takes of a whole sound: bank_BAZ and num_samples_B.

    The bank is float32 with zeros behind shorter pieces; no pieces where there is no sound.
    """
    kind = ear_class(config)
    pieces = [*kind.form(config).pieces(blocks)]
    lengths = torch.tensor([len(piece_S) for piece_S in pieces], dtype=torch.long)
    if not pieces:
        return torch.zeros(0, 0, kind.bank(config, np.zeros(0, np.float32)).shape[1]), lengths
    found = [kind.bank(config, piece_S) for piece_S in pieces]
    return torch.nn.utils.rnn.pad_sequence(found, batch_first=True), lengths


def register(model_type: str) -> Callable[[Class], Class]:
    """Makes a class the ear of configurations of that model_type.

    A second class of the same takes the place of the first.
    """

    def known(ear: Class) -> Class:
        _CLASSES[model_type] = ear
        return ear

    return known


def ear_class(config: PreTrainedConfig) -> type[Ear]:
    """The ear of a configuration. Raises: ValueError for one that nobody registered."""
    # they register themselves, and are needed where a model has an ear alone
    from vl3.audio import beats, whisper  # noqa: F401

    kind = getattr(config, "model_type", "")
    if kind not in _CLASSES:
        raise ValueError(
            f"an ear is one of {', '.join(sorted(_CLASSES))}, or one that you register with "
            f"vl3.audio.ear.register - got {shown(kind or config)}"
        )
    return _CLASSES[kind]
