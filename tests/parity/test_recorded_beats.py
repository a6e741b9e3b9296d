"""BEATs against what was recorded of the official code, beyond the cases of the checking script."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vl3 import audio
from vl3.audio import released
from vl3.audio.beats import SHARED_BIAS, BEATs, own_tensors, repeated
from vl3.audio.filter_bank import beats_bank
from vl3.audio.official import official_sound


@pytest.fixture(scope="module")
def recorded(shared):
    """The ear, the inputs and the outputs."""
    folder = shared / "fixtures/vl2_av_beats_tiny"
    config = released.beats_config(json.loads((folder / "finetuned/beats_config.json").read_text()))
    tower = "model.audio_tower."
    tensors = load_file(folder / "finetuned/model.safetensors")
    named = {n.removeprefix(tower): t for n, t in tensors.items() if n.startswith(tower)}
    for copy in repeated(config.encoder_layers):
        assert torch.equal(named[copy], named[SHARED_BIAS])
    ear = BEATs(config).eval()
    ear.load_state_dict(own_tensors(named, config.encoder_layers))
    return ear, np.load(folder / "inputs.npz"), np.load(folder / "finetuned/expected.npz")


def test_filter_bank_within_2e_3(recorded):
    _, inputs, _ = recorded
    wave = inputs["syn2s_wave"]
    found = beats_bank(wave).numpy()
    assert np.abs(found - inputs["fbank_syn2s"]).max() < 2e-3
    assert np.abs(beats_bank(wave[8000:12800]).numpy() - inputs["fbank_short_0p3s"]).max() < 2e-3
    assert np.abs(beats_bank(wave[1:]).numpy() - inputs["fbank_syn2s"]).max() > 0.1


@torch.no_grad()
def test_features_of_a_padded_batch_and_of_a_bfloat16_bank(recorded):
    ear, inputs, expected = recorded
    bank = torch.from_numpy(inputs["fbank_syn2s"])
    batch = torch.stack([bank, bank])
    batch[1, 128:] = 0
    found = ear.tokens(batch, torch.tensor([12, 8])).numpy()
    assert np.abs(found - expected["features_padded_batch"]).max() < 2e-5
    unmasked = ear.tokens(batch).numpy()
    assert np.abs(unmasked - expected["features_padded_batch"]).max() > 1e-2
    rounded = ear.tokens(bank[None].bfloat16().float()).numpy()
    assert np.abs(rounded - expected["features_syn2s_bf16_rounded"]).max() < 2e-5
    classes = ear.class_probabilities(ear.tokens(bank[None])[0]).numpy()
    assert np.abs(classes - expected["class_probs_syn2s"]).max() < 1e-6


@torch.no_grad()
def test_a_sound_goes_the_same_way(recorded):
    ear, inputs, expected = recorded
    found = ear.hear([inputs["syn2s_wave"]]).numpy()
    assert np.abs(found - expected["features_syn2s"][0]).max() < 5e-3  # the bank's 2e-3


def test_official_pieces_of_a_video(recorded, shared):
    """Means of the bank; of bfloat16, whose steps near 16 are 0.06, and of 128 or 2,998 of them."""
    _, inputs, _ = recorded
    clip = shared / "media/sample_demo_3.mp4"
    found = official_sound(clip).bank_AZ.float().numpy()
    assert np.abs(found.mean(1) - inputs["demo3_audio_fbank_mean_per_frame"]).max() < 0.01
    assert np.abs(found.mean(0) - inputs["demo3_audio_fbank_mean_per_bin"]).max() < 0.001
    later = official_sound(clip, divisor=7).bank_AZ.float().numpy()
    assert np.abs(later.mean(1) - inputs["demo3_audio_fbank_mean_per_frame"]).max() > 1


def test_samples_of_a_video(recorded, shared):
    _, inputs, _ = recorded
    sound = audio.read(shared / "media/sample_demo_3.mp4")
    wanted = inputs["demo3_wave16k_first_1s"]
    assert np.abs(sound.samples_S[: len(wanted)] - wanted).max() < 2 / 2**15  # 16 bits there
