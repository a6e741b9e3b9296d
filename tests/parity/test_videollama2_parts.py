"""Whole models of VideoLLaMA 2 against transformers' own CLIP, SigLIP, Mistral, Mixtral and Qwen2.

The other side is put together here as the official code does it: the processor of the tower, its
hidden states without the class token, the connector (tests/unit/connectors holds it against its
definition), and the embeddings between those of the words.
"""

import numpy as np
import pytest
import torch
from clips import noise_clip
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from videollama2_folders import RELEASES, SIDE, write_release

import vl3
from vl3.values import Grid

# float32 in other orders of summing: pictures one by one there and in a batch here
CLOSE = {"atol": 2e-4, "rtol": 1e-4}
QUESTION = "What happens in the video?"


@pytest.fixture(scope="module", params=sorted(RELEASES))
def pair(request, tmp_path_factory):
    """A release's parts, and the studio that loads it."""
    tmp = tmp_path_factory.mktemp("release")
    release = write_release(tmp / "checkpoint", request.param, tmp)
    return release, vl3.load(release.folder)


@pytest.fixture(scope="module")
def film():
    return noise_clip(frames=16, size=(60, 100), still=False)


def tower_pixels(release, pictures) -> torch.Tensor:
    """By the processor that the tower's makers give it."""
    config = release.tower.config
    if config.model_type == "clip_vision_model":
        own = CLIPImageProcessorPil(
            size={"shortest_edge": config.image_size},
            crop_size={"height": config.image_size, "width": config.image_size},
        )
    else:
        own = SiglipImageProcessorPil(
            size={"height": config.image_size, "width": config.image_size},
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            resample=Image.Resampling.BICUBIC,
        )
    return own.preprocess([Image.fromarray(p) for p in pictures], return_tensors="pt")[
        "pixel_values"
    ]


@torch.no_grad()
def expected_logits(release, studio, pictures, text: str) -> torch.Tensor:
    """text: the prompt with one <video> or <image> where the visual tokens go."""
    pixels = tower_pixels(release, pictures)
    states = release.tower(pixels, output_hidden_states=True).hidden_states[-2]
    states = states[:, -(SIDE**2) :]  # without the class token, where there is one
    grid = Grid(frames=len(pictures), rows=SIDE, cols=SIDE, merge=1)
    visual = release.connector(states.flatten(0, 1), (grid,))
    tokenizer = studio.processor.tokenizer
    words = release.language.get_input_embeddings()
    chunks = [
        tokenizer(chunk, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
        for chunk in text.split("<video>" if "<video>" in text else "<image>")
    ]
    embeds = torch.cat([words(chunks[0])[0], visual, words(chunks[1])[0]])
    return release.language(inputs_embeds=embeds[None]).logits[0]


def asked(kind: str, medium, question=QUESTION):
    parts = [{"type": kind, kind: medium}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def found_logits(studio, messages) -> tuple[torch.Tensor, str]:
    said = {"add_generation_prompt": True, "add_system_prompt": True}
    inputs = studio.processor(messages, **said)
    with torch.no_grad():
        logits = studio.model(**inputs).logits[0]
    return logits, studio.processor.apply_chat_template(messages, **said)


def test_logits_about_a_film_are_those_of_the_parts(pair, film):
    release, studio = pair
    few = film_of(film, release.num_frames)
    logits, text = found_logits(studio, asked("video", few))
    by_parts = expected_logits(release, studio, few.frames_TYX3, text)
    assert torch.allclose(logits, by_parts, **CLOSE)
    assert logits.argmax(-1).tolist() == by_parts.argmax(-1).tolist()
    # the canary: another frame in one place
    other = few.frames_TYX3.copy()
    other[3] = other[4]
    assert not torch.allclose(logits, expected_logits(release, studio, other, text), **CLOSE)


def film_of(film, count: int):
    from dataclasses import replace

    return replace(film, frames_TYX3=film.frames_TYX3[:count], times_s=film.times_s[:count])


def test_logits_about_a_picture_are_those_of_its_copies(pair, film):
    release, studio = pair
    picture = film.frames_TYX3[2]
    logits, text = found_logits(studio, asked("image", Image.fromarray(picture)))
    copies = np.repeat(picture[None], release.num_frames, axis=0)
    by_parts = expected_logits(release, studio, copies, text)
    assert torch.allclose(logits, by_parts, **CLOSE)
    once = np.repeat(picture[None], release.num_frames - 2, axis=0)
    assert logits.shape != expected_logits(release, studio, once, text).shape


def test_answers_are_those_of_the_parts(pair, film):
    release, studio = pair
    few = film_of(film, release.num_frames)
    reply = studio.reply(asked("video", few), max_new_tokens=5)
    text, ids = reply.prompt, []
    logits = expected_logits(release, studio, few.frames_TYX3, text)
    for _ in range(5):
        ids.append(int(logits[-1].argmax()))
        if ids[-1] == studio.processor.tokenizer.eos_token_id:
            break
        logits = continued(release, studio, few.frames_TYX3, text, ids)
    assert list(reply.token_ids) == ids


@torch.no_grad()
def continued(release, studio, pictures, text, ids):
    """As expected_logits, after the words that were written."""
    tokenizer = studio.processor.tokenizer
    states = release.tower(
        tower_pixels(release, pictures), output_hidden_states=True
    ).hidden_states[-2][:, -(SIDE**2) :]
    grid = Grid(frames=len(pictures), rows=SIDE, cols=SIDE, merge=1)
    visual = release.connector(states.flatten(0, 1), (grid,))
    words = release.language.get_input_embeddings()
    first, last = (
        tokenizer(chunk, add_special_tokens=False, return_tensors="pt")["input_ids"][0].long()
        for chunk in text.split("<video>")
    )
    embeds = torch.cat([words(first), visual, words(last), words(torch.tensor(ids))])
    return release.language(inputs_embeds=embeds[None]).logits[0]
