"""Ears against transformers: Whisper's encoder and extractor, WavLM's attention, Kaldi's bank."""

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from vl3.audio.beats import RelativeAttention, distance_buckets
from vl3.audio.filter_bank import beats_bank, whisper_bank
from vl3.audio.released import load_ear
from vl3.config import BEATsConfig


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) / 8


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A tiny random Whisper as transformers writes it, and its folder."""
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4}
    sizes |= {"encoder_ffn_dim": 48, "decoder_layers": 1, "decoder_attention_heads": 4}
    torch.manual_seed(0)
    model = WhisperModel(WhisperConfig(**sizes, decoder_ffn_dim=16, init_std=0.2)).eval()
    folder = tmp_path_factory.mktemp("whisper")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("pool", [1, 4, 5])
def test_whisper_is_transformers_encoder_and_the_mean_of_neighbours(released, pool):
    model, folder = released
    ear = load_ear(folder, pool=pool)
    samples = noise(601_600)
    extract = WhisperFeatureExtractor()
    wanted = []
    for piece, positions in ((samples[:480_000], 1500), (samples[480_000:], 380)):
        given = extract(piece, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            states = model.encoder(given).last_hidden_state[0, :positions]
        wanted.append(states.unflatten(0, (-1, pool)).mean(1))
    found = ear.hear([samples])
    assert (found - torch.cat(wanted)).abs().max() < 1e-5
    # a canary: without the positions that Whisper adds it must be seen
    with torch.no_grad():
        ear.encoder.embed_positions.weight.zero_()
    assert (ear.hear([samples]) - torch.cat(wanted)).abs().max() > 1e-2


def test_the_rest_of_a_pool_is_the_mean_of_what_is_there(released):
    model, folder = released
    given = WhisperFeatureExtractor()(noise(2_000), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = model.encoder(given.input_features).last_hidden_state[0, :7]  # of 0.02 s
    found = load_ear(folder).hear([noise(2_000)])
    wanted = torch.stack([states[:4].mean(0), states[4:].mean(0)])
    assert (found - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper_bank_is_transformers_own(mels):
    wanted = WhisperFeatureExtractor(feature_size=mels)(noise(99_000), sampling_rate=16_000)
    found = whisper_bank(noise(99_000), mels, 3000)
    assert np.array_equal(found.T.numpy(), wanted["input_features"][0])


@pytest.mark.parametrize("count", [400, 559, 560, 4_800, 32_000])
def test_beats_bank_is_kaldis_as_transformers_computes_it(count):
    mels = mel_filter_bank(
        257, 128, 20, 8000, 16_000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    samples = noise(count)
    wanted = spectrogram(
        samples * 2**15,
        window_function(400, "povey", periodic=False),
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=mels,
        mel_floor=1.1920929e-07,
        log_mel="log",
        remove_dc_offset=True,
    ).T
    found = beats_bank(samples).numpy()
    assert found.shape == (1 + (count - 400) // 160, 128) == wanted.shape
    assert np.abs(found - wanted).max() < 1e-3  # of numbers from -16 to 20; transformers' float32
    louder = beats_bank(samples * 1.01).numpy()
    assert np.abs(louder - wanted).max() > 1e-2  # a canary


def test_beats_attention_is_wavlms_where_queries_are_the_input():
    """WavLM computes the gate from the input of the layer, BEATs from the query."""
    torch.manual_seed(0)
    theirs = WavLMAttention(32, 4, num_buckets=32, max_distance=80).eval()
    config = BEATsConfig(encoder_embed_dim=32, encoder_attention_heads=4)
    ours = RelativeAttention(config, is_first=False).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
        theirs.q_proj.weight.copy_(torch.eye(32))
        theirs.q_proj.bias.zero_()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
        ours.grep_linear.load_state_dict(theirs.gru_rel_pos_linear.state_dict())
        ours.grep_a.copy_(theirs.gru_rel_pos_const)
        x_BLD = torch.randn(2, 150, 32)
        heard_BL = torch.ones(2, 150)
        heard_BL[1, 100:] = 0
        wanted = theirs(x_BLD, attention_mask=heard_BL)[0]
        bias_HR = theirs.rel_attn_embed(distance_buckets(150, 32, 80)).T
        found = ours(x_BLD, bias_HR, heard_BL == 0)
        assert (found - wanted).abs().max() < 1e-4
        turned = ours(x_BLD, bias_HR.flip(1), heard_BL == 0)
        assert (turned - wanted).abs().max() > 1e-2  # a canary: distances the other way round


def test_heads_in_parts_and_together_attend_alike(monkeypatch):
    import vl3.audio.beats as module

    torch.manual_seed(0)
    config = BEATsConfig(encoder_embed_dim=32, encoder_attention_heads=4)
    attention = RelativeAttention(config, is_first=False).eval()
    x_BLD, bias_HR = torch.randn(2, 40, 32), torch.randn(4, 79)
    together = attention(x_BLD, bias_HR, None)
    for at_once in (1, 3):
        monkeypatch.setitem(module._BIAS_BYTES, "cpu", at_once * 2 * 40 * 40 * 4)
        assert (attention(x_BLD, bias_HR, None) - together).abs().max() < 1e-5
