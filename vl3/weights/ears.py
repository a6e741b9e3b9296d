"""An ear for a model that has none: its weights, a fresh connector, a token for its slots."""

from __future__ import annotations

from dataclasses import replace

import torch
from tokenizers import AddedToken

from vl3.audio.ear import Ear
from vl3.families.settings import SoundSettings
from vl3.families.template import AUDIO_TOKEN
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.sound_inputs import build_ear
from vl3.weights.assemble import ROWS_OF, grow


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

    ear: as vl3.audio.load_ear gives it, or a fresh one; it takes the model's number format
    order: where the sound of a video stands in a prompt (vl3.families.settings.SoundSettings)
    The tokenizer gets the token <audio>, and the tables of the language model a row for it where
    they lack one. All other weights stay as they are.
    Raises: ValueError for a model that has an ear, or whose layout has no place for one.
    """
    if model.ear is not None:
        raise ValueError("this model has an ear already; start from one without")
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
    _, fresh = build_ear(config)
    model.ear, model.audio_connector = ear, fresh
    model.ear.to(model.device, model.dtype)
    model.audio_connector.to(model.device, model.dtype)
    tokenizer.chat_template = None  # made anew, with words for sound
    return VL3Processor(
        tokenizer,
        replace(processor.settings, sound=SoundSettings(ear=ear.config, order=order)),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        audio_token_id=audio_token_id,
        template=processor.template,
    )
