"""An ear for a model that has none: its weights, a fresh connector, a token for its slots."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import PreTrainedConfig

from vl3.audio import released
from vl3.audio.ear import Ear, ear_class
from vl3.config import NANO_STD, BEATsConfig, WhisperEarConfig
from vl3.families.layouts import LayoutError
from vl3.families.settings import SoundSettings
from vl3.families.template import AUDIO_TOKEN
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.sound_inputs import build_ear
from vl3.weights.assemble import ROWS_OF, grow
from vl3.weights.hub import resolve
from vl3.weights.places import local_ear

NANO = {
    "nano-whisper": WhisperEarConfig(
        d_model=96,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=288,
        num_mel_bins=80,
        max_source_positions=500,  # 10 s at a time
        init_std=NANO_STD,
        decoder_layers=0,
    ),
    "nano-beats": BEATsConfig(
        embed_dim=64,
        encoder_layers=2,
        encoder_embed_dim=96,
        encoder_ffn_embed_dim=288,
        encoder_attention_heads=4,
        conv_pos=32,
        conv_pos_groups=4,
        initializer_range=NANO_STD,
        piece_steps=62,
        pool_bands=4,
    ),
}


def load_ear(source: str, seed: int = 0, *, offline: bool = False) -> Ear:
    """The ear of BEATs' .pt file or of a folder or hub id of Whisper; or an untrained small one.

    Raises: ValueError or LayoutError in one sentence.
    """
    if source in NANO:
        torch.manual_seed(seed)
        config = deepcopy(NANO[source])
        return ear_class(config)(config).eval()
    try:
        found = local_ear(source)
    except ValueError as error:
        raise LayoutError(str(error)) from None
    return released.load_ear(found or resolve(source, offline=offline))


def read_ear(source: str) -> PreTrainedConfig:
    """The configuration of what load_ear loads, without its weights and without asking a hub.

    Raises: ValueError or LayoutError in one sentence where it is not known here.
    """
    if source in NANO:
        return deepcopy(NANO[source])
    if Path(source).name == released.BEATS_RELEASE and not Path(source).exists():
        return BEATsConfig(finetuned_model=True)
    found = local_ear(source)
    if found is None and source in released.WHISPER:
        sizes: dict[str, Any] = {**released.WHISPER[source]}
        return WhisperEarConfig(**sizes)
    return released.read_config(found or resolve(source, offline=True))


def add_ear(
    model: VL3ForConditionalGeneration,
    processor: VL3Processor,
    ear: Ear,
    *,
    connector: str = "mlp2x_gelu",
    order: str = "interleave",
    seed: int = 0,
) -> VL3Processor:
    """Gives the model this ear and a fresh connector to it; the processor that knows of it.

    ear: as load_ear gives it, or a fresh one; it takes the model's number format
    order: where the sound of a video stands in a prompt (vl3.families.settings.SoundSettings)
    The tokenizer gets the token <audio>, and the tables of the language model a row for it where
    they lack one. All other weights stay as they are.
    Raises: ValueError for a model that has an ear, and for another connector than linear and
    mlpNx_gelu.
    """
    if model.ear is not None:
        raise ValueError("this model has an ear already; start from one without")
    trial = deepcopy(model.config)
    trial.audio_config, trial.audio_connector = ear.config, connector
    with torch.device("meta"):
        build_ear(trial)  # refuses a connector before anything is changed
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(
        [AddedToken(AUDIO_TOKEN, normalized=False, special=True)], special_tokens=True
    )
    audio_token_id = tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
    if audio_token_id >= model.config.text_config.vocab_size:
        grow(model.language, ROWS_OF * -(-(audio_token_id + 1) // ROWS_OF), seed)
        model.config.text_config = model.language.config
        model.tie_weights()
    config = model.config
    config.audio_config, config.audio_connector = ear.config, connector
    config.audio_token_id = audio_token_id
    torch.manual_seed(seed)
    model.ear, (_, model.audio_connector) = ear, build_ear(config)
    for part in (model.ear, model.audio_connector):
        cast(nn.Module, part).to(model.device, model.dtype)
    return with_ear(processor, ear.config, order)


def with_ear(
    processor: VL3Processor, ear: PreTrainedConfig, order: str = "interleave"
) -> VL3Processor:
    """The processor of a model that got an ear of this configuration; its tokenizer has <audio>."""
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(
        [AddedToken(AUDIO_TOKEN, normalized=False, special=True)], special_tokens=True
    )
    tokenizer.chat_template = None  # made anew, with words for sound
    return VL3Processor(
        tokenizer,
        replace(processor.settings, sound=SoundSettings(ear=ear, order=order)),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO_TOKEN),
        template=processor.template,
    )
