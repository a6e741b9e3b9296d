"""An untrained nano, and the training of its encoder and its ear that stands in for SigLIP's.

The real model starts from SigLIP, Qwen2.5 and Whisper. Nano starts from nothing: a tokenizer is
made from the toy world's own text, and before the first stage the encoder and the connector learn
to say what each visual token shows (vl3.training.nano.spatial_loss), the ear and its connector what
each token of sound holds (vl3.training.nano.sound_loss). Without that shapes stay at chance for
hours.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch

from vl3.audio.ear import Ear
from vl3.config import nano
from vl3.families.settings import ProcessorSettings
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IMAGE_TOKEN
from vl3.toyworld.tokenizer import (
    CONTEXT_TOKENS,
    SOUND_WORDS,
    add_sound_words,
    train_tokenizer,
    world_text,
)
from vl3.training import optim
from vl3.training.nano import sound_loss, spatial_loss
from vl3.training.recipe import Optim, Rates
from vl3.weights.ears import add_ear

log = logging.getLogger("vl3.training.nano.init")

FRAME_TOKENS = 16  # 112 x 112 pixels: every picture is shown at the size of the training scenes
MERGE = 2
TEXT_SCENES = 6000
IMAGES = 24  # of one step
SOUNDS = 24  # of one step
RATES = Rates(vision=2.5e-3, connector=2.5e-3, language=2.5e-3)
EAR_RATES = Rates(ear=2.5e-3, audio_connector=2.5e-3)
MUON = Optim(kind="muon", betas=(0.9, 0.98), weight_decay=0.02, muon_factor=4.8)
WARMUP_STEPS = 30
# Until these shares of the steps shapes lie on the lattice, then loosen; after that they are
# free, while the rate falls to a tenth.
LATTICE, LOOSE = 0.09, 0.55
FREE_PX = 7.0
EAR_FALLS = 0.5  # the share of the steps after which the rate of the ear falls, to a tenth as well


def untrained(seed: int) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """A nano with random weights and its processor, with a tokenizer of the toy world's text."""
    tokenizer = train_tokenizer(world_text(seed, TEXT_SCENES))
    image_token_id: Any = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    settings = ProcessorSettings(
        image_merge=MERGE,
        video_merge=MERGE,
        min_tokens=FRAME_TOKENS,
        frame_tokens=FRAME_TOKENS,
        budget_tokens=CONTEXT_TOKENS // 2,
        system_prompt=False,
    )
    processor = VL3Processor(tokenizer, settings, image_token_id=image_token_id)
    torch.manual_seed(seed)
    config = nano(vocab_size=64 * -(-len(tokenizer) // 64), image_token_id=image_token_id)
    model = VL3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def add_nano_ear(
    model: VL3ForConditionalGeneration, processor: VL3Processor, ear: Ear
) -> VL3Processor:
    """As vl3.weights.ears.add_ear, with a token for each word about sound.

    Its row is the mean of those of the pieces that stood for the word before.
    """
    tokenizer: Any = processor.tokenizer
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in SOUND_WORDS]
    add_sound_words(tokenizer)
    processor = add_ear(model, processor, ear)
    rows = tokenizer.convert_tokens_to_ids(list(SOUND_WORDS))
    table_VE = cast(torch.Tensor, model.get_input_embeddings().weight)
    with torch.no_grad():
        for row, ids in zip(rows, pieces, strict=True):
            table_VE[row] = table_VE[ids].mean(dim=0)
    return processor


def train_encoder(
    model: VL3ForConditionalGeneration,
    processor: VL3Processor,
    steps: int,
    seed: int,
    after: Callable[[], object] | None = None,
) -> None:
    """Teaches encoder and connector; the language model's own layers are not touched.

    after: called after each step
    """
    words = spatial_loss.word_ids(processor.tokenizer)
    layer = spatial_loss.readout(model.config.text_config.hidden_size)
    other = torch.optim.AdamW(layer.parameters(), lr=cast(float, RATES.connector), weight_decay=0.0)

    def loss_of(number: int):
        rng = random.Random(f"{seed} sight {number}")
        level = replace(spatial_loss.FREE, jitter_px=_jitter(number / steps))
        examples = spatial_loss.draw_examples(rng, level, IMAGES)
        return spatial_loss.example_loss(model, layer, examples, words)

    def step_readout() -> None:
        other.step()
        other.zero_grad()
        if after is not None:
            after()

    _train_alone("encoder", model, RATES, steps, LOOSE, loss_of, step_readout)


def train_ear(
    model: VL3ForConditionalGeneration, processor: VL3Processor, steps: int, seed: int
) -> None:
    """Teaches the ear and its connector; nothing else is touched, the word table included."""
    settings, words = sound_loss.heard_words(processor, "nano.ear_steps")
    learned = {name: param.requires_grad for name, param in model.named_parameters()}

    def loss_of(number: int):
        rng = random.Random(f"{seed} hearing {number}")
        recordings = sound_loss.draw_recordings(rng, settings, SOUNDS)
        return sound_loss.recording_loss(model, recordings, words)

    for name, param in model.named_parameters():
        param.requires_grad_(optim.owner(name) in ("ear", "audio_connector"))
    _train_alone("ear", model, EAR_RATES, steps, EAR_FALLS, loss_of)
    for name, param in model.named_parameters():
        param.requires_grad_(learned[name])


def _train_alone(
    what: str,
    model: VL3ForConditionalGeneration,
    rates: Rates,
    steps: int,
    falls: float,
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, list[float]]]],
    after: Callable[[], object] | None = None,
) -> None:
    """Steps on the losses of their numbers, at a rate that falls to a tenth at the end.

    falls: the share of the steps after which it does
    loss_of: the loss of a step, and by what was asked for whether each answer was right
    after: called after each step
    """
    optimizer = optim.optimizer(model, rates, MUON)
    full = [group["lr"] for group in optimizer.param_groups]
    for number in range(steps):
        loss, right = loss_of(number)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        fallen = max(0.0, number / steps - falls) / (1 - falls)
        factor = min(1.0, (number + 1) / WARMUP_STEPS) * (1 - 0.9 * fallen)
        for group, rate in zip(optimizer.param_groups, full):
            group["lr"] = rate * factor
        optimizer.step()
        optimizer.zero_grad()
        if after is not None:
            after()
        if number % 100 == 99 or number == steps - 1:
            shares = ", ".join(f"{k} {sum(v) / len(v):.2f}" for k, v in right.items())
            log.info(
                "%s step %d of %d: loss %.2f, %s", what, number + 1, steps, loss.item(), shares
            )


def _jitter(progress: float) -> float | None:
    if progress < LATTICE:
        return 0.0
    return FREE_PX * (progress - LATTICE) / (LOOSE - LATTICE) if progress < LOOSE else None
