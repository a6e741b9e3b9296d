"""What VideoLLaMA 2.1-AV hears of a file, from its description alone."""

import numpy as np
import pytest
import torch
from sounds import tone, write_film, write_sound

from vl3.audio.filter_bank import beats_bank
from vl3.audio.official import fourier_resampled, official_sound
from vl3.connectors import MLPConnector
from vl3.video import VideoError

NOISE = np.random.default_rng(0).standard_normal((2, 40 * 16_000)).astype(np.float32) / 16


def bank_of(samples_S: np.ndarray) -> torch.Tensor:
    return beats_bank(np.pad(samples_S, (0, 480_000 - len(samples_S)))).bfloat16()


def test_a_sound_file_is_its_first_channel_and_zeros(tmp_path):
    path = write_sound(tmp_path / "a.wav", NOISE[:, :80_000], 16_000, "pcm_f32le")
    found = official_sound(path)
    assert found.bank_AZ.shape == (2998, 128)
    assert torch.equal(found.bank_AZ, bank_of(NOISE[0, :80_000]))
    assert found.tokens.num_tokens == 187 * 8
    assert found.tokens.spans_s[30] == pytest.approx((4.8, 4.96))
    assert found.tokens.spans_s[31][1] == found.tokens.spans_s[40][0] == 5.0


def test_a_long_one_is_cropped_by_the_seed(tmp_path):
    path = write_sound(tmp_path / "a.wav", NOISE[:1], 16_000, "pcm_f32le")
    found = [official_sound(path, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(found[0].bank_AZ, found[1].bank_AZ)
    assert not torch.equal(found[0].bank_AZ, found[2].bank_AZ)
    for sound in found:
        first = round(sound.tokens.spans_s[0][0] * 16_000)
        assert 0 <= first <= 160_000
        assert torch.equal(sound.bank_AZ, bank_of(NOISE[0, first : first + 480_000]))


@pytest.mark.parametrize(("seconds", "divisor"), [(6.0, 8), (6.0, 7), (1.5, 8), (20.0, 8)])
def test_a_video_is_eight_pieces_of_2_s(tmp_path, seconds, divisor):
    stored = np.round(NOISE[:1, : round(seconds * 16_000)] * 2**15) / np.float32(2**15)
    path = write_film(tmp_path / "a.mkv", [(0.0, stored)], 16_000, "pcm_s16le")
    found = official_sound(path, divisor=divisor)
    firsts = [int(n * max(seconds - 2, 0) / divisor * 16_000) for n in range(8)]
    pieces = [stored[0, first : first + 32_000] for first in firsts]
    assert torch.equal(found.bank_AZ, bank_of(np.concatenate(pieces)))
    assert found.tokens.spans_s[0][0] == 0.0
    assert len(found.tokens.spans_s) == 187


def test_a_video_without_sound_is_silent_and_a_file_without_is_refused(tmp_path):
    found = official_sound(write_film(tmp_path / "a.mp4", []))
    assert torch.equal(found.bank_AZ, bank_of(np.zeros(0, np.float32)))
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(VideoError, match="is empty"):
        official_sound(tmp_path / "b.wav")


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_resampling_through_the_transform_of_the_whole(rate_hz):
    """A tone that fits the whole a whole number of times comes out as it would be made."""
    wave = tone(30, rate_hz, 440)[0]
    assert np.abs(fourier_resampled(wave) - tone(30, 16_000, 440)[0]).max() < 1e-5
    high = tone(30, rate_hz, rate_hz * 0.45)[0]
    left = np.abs(fourier_resampled(high)).max()
    assert left < 1e-5 if rate_hz * 0.45 > 8_000 else left > 0.4


def test_the_projector_takes_features_one_by_one():
    torch.manual_seed(0)
    projector = MLPConnector("mlp2x_gelu", 32, 48)
    assert [*projector.state_dict()] == [
        f"readout.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    ]
    x_KD = torch.randn(9, 32)
    assert torch.allclose(projector(x_KD)[4:5], projector(x_KD[4:5]), atol=1e-6)
