"""Lessons in time: which digit each visual token is to point to, and what learns from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vl3
from vl3.prompt import IGNORE
from vl3.training.toy import clock
from vl3.values import Clip
from vl3.weights.hub import BUNDLED


@pytest.fixture(scope="module")
def studio():
    return vl3.load(BUNDLED, device="cpu", dtype="float32")


def prompt(processor, media, text):
    content = [*media, {"type": "text", "text": text}]
    asked = [{"role": "user", "content": content}]
    return processor(asked, add_generation_prompt=True)


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, 112, 112, 3), dtype=np.uint8)


def row(studio):
    """A clip of 12 s with a question that looks like a stamp, then a picture, in one row."""
    times_s = tuple(float(second) for second in range(12))
    clip = Clip(frames_TYX3=noise(12), times_s=times_s, source="noise")
    video = prompt(
        studio.processor, [{"type": "video", "video": clip}], "What at 3.0 s? Time 5.0s:"
    )
    image = prompt(studio.processor, [{"type": "image", "image": noise(1)[0]}], "What is it?")
    parts = [each["input_ids"][0] for each in (video, image)]
    samples = [torch.full_like(part, number) for number, part in enumerate(parts)]
    return torch.cat(parts)[None], torch.cat(samples)[None], video


def test_slots_point_to_the_seconds_of_their_stamp(studio):
    ids_BL, sample_BL, _ = row(studio)
    slot_id = studio.model.config.image_token_id
    digit_BL = clock.digits_of(ids_BL, sample_BL, slot_id, studio.processor.tokenizer)
    each = 16  # tokens of a frame of noise, nothing pruned
    stamped = [second % 10 for second in range(12) for _ in range(each)]
    is_slot_BL = ids_BL == slot_id
    assert digit_BL[is_slot_BL].tolist() == stamped + [IGNORE] * each
    assert (digit_BL[~is_slot_BL] == IGNORE).all()
    together = torch.zeros_like(sample_BL)  # the canary: the picture takes a stamp of the question
    digit_BL = clock.digits_of(ids_BL, together, slot_id, studio.processor.tokenizer)
    assert digit_BL[is_slot_BL].tolist() == stamped + [5] * each


def test_a_lesson_teaches_the_lower_layers_alone(studio):
    model, tokenizer = studio.model, studio.processor.tokenizer
    video = row(studio)[2]
    ids_BL = video["input_ids"]
    digit_BL = clock.digits_of(
        ids_BL, torch.zeros_like(ids_BL), model.config.image_token_id, tokenizer
    )
    try:
        with clock.overheard(model) as states:
            model(**video)
        clock.lesson_loss(model, states[-1], digit_BL, tokenizer).backward()
        layers = model.language.model.layers
        learns = [layer.mlp.up_proj.weight.grad is not None for layer in layers]
        assert learns == [number < clock.LAYERS for number in range(len(layers))]
        nothing = clock.lesson_loss(model, states[-1], torch.full_like(digit_BL, IGNORE), tokenizer)
        assert nothing.item() == 0
    finally:
        model.zero_grad()
