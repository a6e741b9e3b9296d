"""The training path against the production processor and model."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from vl3.prompt import IGNORE
from vl3.training.batch import Remembered, build_sample, collate
from vl3.training.nano import Recipe, answer_logits, answers_right, build, draw_batch
from vl3.training.questions import FAMILIES, ask_many
from vl3.training.world import Level, film, sample_scene
from vl3.values import Clip

RECIPE = Recipe(tokenizer_scenes=200)
TOLERANCE = 2e-5  # float32, sums in another order


@pytest.fixture(scope="module")
def nano():
    model, processor = build(RECIPE)
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim > 1:
                param.mul_(1.5)  # attention far from uniform, so that a wrong mask shows
    return model.eval(), processor, Remembered(processor.tokenizer)


def clip_and_talks(seconds, shaky=0.0):
    rng = random.Random(11 + seconds)
    level = Level(seconds=(seconds, seconds), sprites=(2, 3), noisy=shaky, sizes_px=((112, 140),))
    scene = sample_scene(rng, level)
    families = ("colour", "count", "exist", "caption") if scene.is_image else tuple(FAMILIES)
    qas = ask_many(scene, rng, dict.fromkeys(families, 1.0), 5)
    return film(scene, rng, level), [[qas[0]], [qas[1], qas[2]], [qas[3]], [qas[4]]]


def messages(clip, talk):
    kind = "image" if clip.is_image else "video"
    turns = []
    for qa in talk:
        turns.append({"role": "user", "content": [{"type": "text", "text": qa.question}]})
        turns.append({"role": "assistant", "content": qa.answer})
    turns[0]["content"].insert(0, {"type": kind, kind: clip})
    return turns


@pytest.mark.parametrize(("seconds", "shaky"), [(0, 0.0), (7, 0.0), (7, 1.0)])
def test_a_sample_holds_what_the_processor_makes(nano, seconds, shaky):
    _, processor, tokens = nano
    clip, talks = clip_and_talks(seconds, shaky)
    sample = build_sample(clip, talks, tokens)
    for talk, (ids, labels, _) in zip(talks, sample.branches, strict=True):
        inputs = processor(messages=messages(clip, talk), return_labels=True)
        assert sample.prefix + ids == inputs["input_ids"][0].tolist()
        assert [IGNORE] * len(sample.prefix) + labels == inputs["labels"][0].tolist()
        assert len(sample.source_K) == inputs["keep_mask"].sum()
        side = 2 * 2 * sample.pixels_NP.shape[1]
        cells = sample.pixels_NP.view(-1, side)[sample.source_K]
        expected = inputs["pixel_values"].view(-1, side)[inputs["keep_mask"]]
        assert torch.equal(cells, expected)


@pytest.mark.parametrize("seconds", [0, 7])
def test_branches_compute_what_separate_prompts_do(nano, seconds):
    model, processor, tokens = nano
    clip, talks = clip_and_talks(seconds)
    other, other_talks = clip_and_talks(max(0, seconds - 2))
    samples = [build_sample(clip, talks, tokens), build_sample(other, other_talks, tokens)]
    batch = collate(samples, tokens.pad_token_id)
    with torch.no_grad():
        shared = answer_logits(model, batch)
        separate = []
        for one, talk in [(clip, t) for t in talks] + [(other, t) for t in other_talks]:
            inputs = processor(messages=messages(one, talk), return_labels=True)
            labels = inputs.pop("labels")
            logits = model(**inputs).logits
            separate.append(logits[0, :-1][labels[0, 1:] != IGNORE])
        separate = torch.cat(separate)
        leaky = replace(batch, positions_BL=batch.positions_BL.clamp(min=0).cumsum(1).clamp(max=99))
        perturbed = answer_logits(model, leaky)
    assert (shared - separate).abs().max() < TOLERANCE
    assert (perturbed - separate).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("size", [(336, 336), (720, 1280), (480, 640), (90, 60)])
@pytest.mark.parametrize("frames", [1, 9])
def test_pictures_of_any_size_are_shown_at_the_size_of_the_scenes(nano, size, frames):
    _, processor, _ = nano
    pixels = np.zeros((frames, *size, 3), np.uint8)
    times_s = None if frames == 1 else tuple(float(t) for t in range(frames))
    clip = Clip(frames_TYX3=pixels, times_s=times_s, source="black")
    kind = "image" if clip.is_image else "video"
    content = [{"type": kind, kind: clip}, {"type": "text", "text": "What is it?"}]
    inputs = processor(messages=[{"role": "user", "content": content}])
    _, rows, cols = inputs["grid_thw"][0].tolist()
    assert 16 <= rows * cols // 4 <= 24


def test_answers_are_judged_one_by_one(nano):
    _, _, tokens = nano
    clip, talks = clip_and_talks(7)
    batch = collate([build_sample(clip, talks, tokens)] * 2, tokens.pad_token_id)
    learned = batch.labels_BL[batch.labels_BL != IGNORE]
    logits = torch.nn.functional.one_hot(learned, 1000).float()
    assert [right for _, right in answers_right(logits, batch)] == [True] * 10
    logits[-1] = 0  # the end token of the last answer
    judged = answers_right(logits, batch)
    assert [right for _, right in judged] == [True] * 9 + [False]
    assert [family for family, _ in judged] == [qa.family for talk in talks for qa in talk] * 2


def test_batches_follow_from_seed_and_step(nano):
    _, _, tokens = nano
    small = replace(RECIPE, frames_per_batch=12, images_per_batch=3)
    first, again = (draw_batch(small, tokens, 5, 0.5) for _ in range(2))
    other = draw_batch(small, tokens, 6, 0.5)
    assert torch.equal(first.ids_BL, again.ids_BL)
    assert torch.equal(first.pixels_NP, again.pixels_NP)
    assert first.ids_BL.shape != other.ids_BL.shape or not torch.equal(first.ids_BL, other.ids_BL)
