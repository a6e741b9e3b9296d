"""From sound to a prompt's embeddings: the ear of a model, its connector, and what they are fed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import torch
from torch.nn import functional

from vl3.arguments import shown
from vl3.audio.ear import Ear, ear_class
from vl3.config import VL3Config
from vl3.connectors import MLPConnector
from vl3.connectors.mlp import EACH_BY_ITSELF

PIECES_AT_ONCE = 4  # of an ear that does not learn


def build_ear(config: VL3Config) -> tuple[Ear | None, MLPConnector | None]:
    """A fresh ear of that configuration and its connector; neither where it has no ear.

    Raises: ValueError for a connector that does not take each token by itself.
    """
    sound = config.audio_config
    if sound is None:
        return None, None
    if not re.fullmatch(EACH_BY_ITSELF, str(config.audio_connector)):
        raise ValueError(
            "audio_connector is linear or mlpNx_gelu, e.g. mlp2x_gelu - got "
            f"{shown(config.audio_connector)}"
        )
    width = config.text_config.hidden_size
    return ear_class(sound)(sound), MLPConnector(config.audio_connector, sound.width, width)


class SoundInputs:
    """For a model with ear, audio_connector and config; both are None in one that hears nothing."""

    if TYPE_CHECKING:  # of the model that it is mixed into
        config: VL3Config
        ear: Ear | None
        audio_connector: MLPConnector | None

    def embed_sound(
        self, input_features, feature_lengths, sound_pieces=None, sound_pools=None
    ) -> torch.Tensor:
        """Tokens of sound at the language model's width, [K, E]; arguments as of forward."""
        if self.ear is None:
            raise ValueError(
                "this model has no ear, so it takes no input_features; train_cli assemble --ear "
                "gives it one"
            )
        lengths_P = torch.as_tensor(feature_lengths)
        device = next(self.ear.parameters()).device
        # Without gradients some at a time, so that memory does not grow with the sound.
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.ear.parameters())
        at_once = max(1, len(lengths_P)) if learns else PIECES_AT_ONCE
        parts = zip(input_features.split(at_once), lengths_P.split(at_once))
        x_KD = torch.cat([self.ear(bank_BAZ.to(device), own_B) for bank_BAZ, own_B in parts])
        if sound_pools is None:
            return self.project_sound(x_KD)
        form = self.ear.form(self.ear.config)
        tokens_P = torch.tensor([form.bands * form.steps_of(n) for n in lengths_P.tolist()])
        pieces = torch.as_tensor(sound_pieces).tolist()
        counts = [int(part.sum()) for part in tokens_P.split(pieces)]
        pools = torch.as_tensor(sound_pools).tolist()
        sounds = zip(x_KD.split(counts), pools)
        pooled = [pool_steps(part_KD, pool, form.bands) for part_KD, pool in sounds]
        return self.project_sound(torch.cat(pooled))

    def project_sound(self, features: torch.Tensor) -> torch.Tensor:
        """Features of the ear [K, its width] through its connector, [K, E]."""
        connector = cast(MLPConnector, self.audio_connector)
        return connector(features.to(next(connector.parameters()).dtype))


def pool_steps(x_KD: torch.Tensor, pool: int, bands: int = 1) -> torch.Tensor:
    """The mean of so many neighbouring steps, of each band by itself; the last has what is left.

    pool: 0 for none of them, of a piece that the ear hears for its gradients alone
    Shapes: x_KD - steps x bands; returns [ceil(steps / pool) x bands, D]
    """
    if pool == 1 or not len(x_KD):
        return x_KD
    if pool == 0:
        return x_KD[:0]
    x_TF = x_KD.reshape(len(x_KD) // bands, -1)
    pooled_FT = functional.avg_pool1d(x_TF.T[None], pool, ceil_mode=True)[0]
    return pooled_FT.T.reshape(-1, x_KD.shape[1])
