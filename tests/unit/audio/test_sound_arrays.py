"""Samples that a program has become a Sound."""

import numpy as np
import pytest
import torch
from sounds import tone

from vl3 import audio
from vl3.sound import Sound, SoundTokens


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000, 192_000])
def test_any_rate(rate_hz):
    sound = audio.from_array(tone(1.0, rate_hz)[0], rate_hz)
    assert abs(len(sound) - 16_000) <= 32
    part = slice(500, 15_500)
    assert (
        np.abs(sound.samples_S[: len(sound)] - tone(2, 16_000)[0, : len(sound)])[part].max() < 2e-3
    )


def test_kinds_and_shapes_of_samples_agree():
    rows = np.concatenate([tone(0.5, 16_000, 300), tone(0.5, 16_000, 800)])
    wanted = rows.mean(0)
    for given in (rows, rows.T, torch.from_numpy(rows), rows.astype(np.float64), rows.tolist()):
        assert np.abs(audio.from_array(given, 16_000).samples_S - wanted).max() < 1e-6
    short = np.round(rows * 2**15).astype(np.int16)
    assert np.abs(audio.from_array(short, 16_000).samples_S - wanted).max() < 1e-4
    small = np.round(rows * 128 + 128).astype(np.uint8)
    assert np.abs(audio.from_array(small, 16_000).samples_S - wanted).max() < 5e-3


def test_channels_that_cancel():
    left = tone(0.5, 16_000)
    sound = audio.from_array(np.concatenate([left, -left]), 16_000)
    assert np.array_equal(sound.samples_S, left[0])
    assert sound.notes[0].startswith("The 2 channels of the sound cancel")


@pytest.mark.parametrize(
    ("given", "rate_hz", "said"),
    [
        (np.zeros(0, np.float32), 16_000, "a sound is an array of samples"),
        (np.zeros((2, 2, 2), np.float32), 16_000, "a sound is an array of samples"),
        (["a"], 16_000, "a sound is an array of samples"),
        (np.array([np.nan, 1.0]), 16_000, "samples are finite numbers"),
        (np.zeros(10, np.float32), 0, "the rate of a sound is a number of hertz"),
        (np.zeros(10, np.uint16), 16_000, "samples are signed, or uint8"),
    ],
)
def test_what_is_no_sound_is_refused(given, rate_hz, said):
    with pytest.raises(ValueError, match=said):
        audio.from_array(given, rate_hz)


def test_a_sound_is_mono_float32():
    with pytest.raises(ValueError, match=r"float32 samples of shape \(samples,\)"):
        Sound(samples_S=np.zeros((2, 10), np.float32), source="a")
    sound = Sound(samples_S=np.zeros(16_000, np.float32), source="a", start_s=-0.25)
    assert (sound.kind, len(sound), sound.end_s) == ("audio", 16_000, 0.75)


def test_a_token_belongs_to_the_frame_interval_that_holds_its_start():
    spans = tuple((n / 4 - 0.5, n / 4 - 0.25) for n in range(8))  # from -0.5 s on
    tokens = SoundTokens(spans_s=spans, bands=2)
    assert tokens.num_tokens == 16
    assert tokens.before([0.0, 1.0]) == (4, 8, 4)
    assert tokens.before([0.1, 0.2, 0.3]) == (6, 0, 2, 8)
    assert tokens.before([]) == (16,)
    assert sum(tokens.before([-9.0, 9.0])) == 16
