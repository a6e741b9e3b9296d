"""An ear that hears speech: transformers' Whisper encoder, pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from vl3.audio.ear import Ear, EarSizes, register
from vl3.audio.filter_bank import HOP, whisper_bank
from vl3.audio.pieces import EarForm
from vl3.config import WhisperEarConfig

_STRIDE = 2  # frames of the bank to a position


@register("vl3_whisper")
class WhisperEar(Ear):
    """The mean of `pool` neighbouring positions is a token; 4 of 0.02 s are 12.5 a second.

    A piece is 30 s, as Whisper was trained, a shorter one with silence behind it; only positions in
    the sound count. Without decoder.
    Source: transformers' WhisperEncoder, whose released weights load into `encoder`.
    """

    config: WhisperEarConfig
    config_class = WhisperEarConfig
    _no_split_modules: Any = ("WhisperEncoderLayer",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: WhisperEarConfig) -> None:
        super().__init__(config)
        self.encoder = WhisperEncoder(config)
        self.post_init()

    @classmethod
    def form(cls, config: WhisperEarConfig) -> EarForm:  # type: ignore[override]
        step_samples = HOP * _STRIDE * config.pool
        return EarForm(step_samples=step_samples, steps=config.max_source_positions // config.pool)

    @classmethod
    def bank(cls, config: WhisperEarConfig, piece_S: np.ndarray) -> torch.Tensor:  # type: ignore[override]
        return whisper_bank(piece_S, config.num_mel_bins, _STRIDE * config.max_source_positions)

    @classmethod
    def working_bytes(cls, config: WhisperEarConfig, itemsize: int, device: str) -> float:  # type: ignore[override]
        frames = _STRIDE * config.max_source_positions
        bank = frames * config.num_mel_bins * (4 + itemsize)
        convolved = 2 * frames * config.d_model * itemsize  # before and after the activation
        return bank + max(convolved, super().working_bytes(config, itemsize, device))

    @classmethod
    def sizes(cls, config: WhisperEarConfig) -> EarSizes:  # type: ignore[override]
        return EarSizes(
            layers=config.encoder_layers,
            positions=config.max_source_positions,
            width=config.d_model,
            heads=config.encoder_attention_heads,
            inner=config.encoder_ffn_dim,
        )

    def forward(self, bank_BAZ: torch.Tensor, num_samples_B: torch.Tensor) -> torch.Tensor:
        if not len(bank_BAZ):
            return self.encoder.layer_norm.weight.new_zeros(0, self.config.width)
        weight = self.encoder.conv1.weight
        x_BPD = self.encoder(bank_BAZ.transpose(1, 2).to(weight.dtype)).last_hidden_state
        found, pool = [], self.config.pool
        for x_PD, num_samples in zip(x_BPD, num_samples_B.tolist()):
            heard = -(-num_samples // (HOP * _STRIDE))
            # the last window has what is left of its positions
            pooled_DT = functional.avg_pool1d(x_PD[:heard].T[None], pool, ceil_mode=True)
            found.append(pooled_DT[0].T)
        return torch.cat(found)
