"""How the toy world sounds: judged by spectra and onsets, not by what made them."""

import io
import random
from dataclasses import replace
from functools import cache

import av
import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from vl3.sound import RATE_HZ
from vl3.toyworld import voices
from vl3.toyworld.sounds import KINDS, VOICE, Heard, Track
from vl3.toyworld.synthesis import listen, mixed
from vl3.toyworld.world import Level, Scene, sample_scene

SOUNDING = Level(seconds=(3, 8), sprites=(0, 3), sound=1.0, hum=0.5, voices=0.1)


def heard(kind="beep", pitch="low", loud=True, start_s=0.1, tune=0.5, digit=None, length_s=0.4):
    level_db = -12.0 if loud else -32.0
    speaker = None if digit is None else "slt"
    return Heard(kind, pitch, loud, start_s, length_s, level_db, tune, digit, speaker)


def alone(sound, seconds=1, hum_db=None):
    return mixed(Track((sound,), hum_db, 7), seconds)


def power_at(wave_S, low_hz, high_hz):
    """The share of a wave's power between two frequencies."""
    power_F = np.abs(np.fft.rfft(wave_S)) ** 2
    hertz_F = np.fft.rfftfreq(len(wave_S), 1 / RATE_HZ)
    return power_F[(hertz_F >= low_hz) & (hertz_F < high_hz)].sum() / power_F.sum()


def onset_s(wave_S, above=4.0):
    """When a wave rises over its first 40 ms, by the power of every 5 ms."""
    power_A = (wave_S[: len(wave_S) // 80 * 80].reshape(-1, 80).astype(float) ** 2).mean(axis=1)
    return np.argmax(power_A > above * power_A[:8].max() + 1e-8) * 0.005


def through_aac(wave_S, rate=48_000):
    """The samples that a player gets of the wave as AAC, from its first one on."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=rate)
        frame = av.AudioFrame.from_ndarray(wave_S[None], format="fltp", layout="mono")
        frame.rate, frame.pts = RATE_HZ, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        got_S = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return np.pad(got_S, (0, max(0, len(wave_S) - len(got_S))))[: len(wave_S)]


def test_the_scene_decides_every_sample():
    def samples(seed):
        rng = random.Random(seed)
        return listen(sample_scene(rng, replace(SOUNDING, seconds=(4, 4), hum=1.0))).samples_S

    assert np.array_equal(samples(3), samples(3))
    assert not np.array_equal(samples(3), samples(4))


def test_a_sound_is_as_long_as_its_scene_and_starts_with_its_first_frame():
    rng = random.Random(0)
    for _ in range(20):
        scene = sample_scene(rng, SOUNDING)
        sound = listen(scene)
        assert (sound.kind, sound.start_s, len(sound)) == ("audio", 0.0, RATE_HZ * scene.seconds)
        assert sound.samples_S.dtype == np.float32
        assert np.abs(sound.samples_S).max() <= 1
    silent = Scene(112, 112, 3, (60,) * 3, 0, 1, ())
    assert not listen(silent).samples_S.any()


@pytest.mark.parametrize("hum_db", [None, -54.0])
@pytest.mark.parametrize("loud", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, VOICE])
def test_a_sound_begins_when_it_says(kind, loud, hum_db):
    digit = 8 if kind == VOICE else None
    for start_s in (0.06, 0.24):
        sound = heard(kind, "low", loud, 2 + start_s, digit=digit)
        wave_S = alone(sound, 4, hum_db)
        for got_S in (wave_S, through_aac(wave_S)):
            found_s = 1.5 + onset_s(got_S[round(1.5 * RATE_HZ) :])
            # a voice rises slowly; a block of AAC (64 ms) smears over what is before it
            assert found_s == pytest.approx(sound.start_s, abs=0.07 if kind == VOICE else 0.045)
            assert int(found_s + 0.02) == 2


def test_low_is_below_high_and_each_kind_is_made_of_what_its_name_says():
    for tune in (0.0, 1.0):
        assert power_at(alone(heard("beep", "low", tune=tune)), 270, 430) > 0.98
        assert power_at(alone(heard("beep", "high", tune=tune)), 1380, 2120) > 0.98
        assert power_at(alone(heard("chirp", "low", tune=tune)), 340, 1010) > 0.98
        assert power_at(alone(heard("chirp", "high", tune=tune)), 1680, 4820) > 0.98
        assert power_at(alone(heard("buzz", "low", tune=tune)), 65, 108) > 0.3
        assert power_at(alone(heard("buzz", "low", tune=tune)), 500, 8000) > 0.15
        assert power_at(alone(heard("buzz", "high", tune=tune)), 215, 335) > 0.3
        assert power_at(alone(heard("buzz", "high", tune=tune)), 1000, 8000) > 0.15
    assert power_at(alone(heard("hiss", None)), 2900, 8000) > 0.98
    rising = alone(heard("chirp", "low", start_s=0.0))
    first, last = rising[800:2400], rising[4000:5600]
    assert power_at(first, 300, 620) > 0.9 > 0.1 > power_at(last, 300, 620)
    fading = alone(heard("bell", "high", start_s=0.0))
    assert np.square(fading[800:1600]).sum() > 10 * np.square(fading[4800:5600]).sum()


def test_a_loud_sound_has_a_hundred_times_the_power_of_a_soft_one():
    for kind in (*KINDS, VOICE):
        digit = 3 if kind == VOICE else None
        loud, soft = (alone(heard(kind, "high", loud, digit=digit)) for loud in (True, False))
        assert np.square(loud).sum() / np.square(soft).sum() == pytest.approx(100, rel=0.01)
        assert np.abs(loud).max() < 1, "nothing is cut off"


def test_a_hum_is_far_below_soft_sounds():
    hum_S = mixed(Track((), -52.0, 1), 2)
    soft_S = alone(heard("hiss", None, loud=False))
    assert power_at(hum_S, 40, 260) > 0.9
    soft = np.square(soft_S[2400:7200]).mean()
    assert soft > 40 * np.square(hum_S).mean() > 0


# Whether an ear can tell the kinds apart: nearest centroids of Whisper's log-mel spectrogram.


@cache
def extractor():
    return WhisperFeatureExtractor(feature_size=80)


def spectrum(wave_S):
    """The shape of a sound from its onset on: seven means of 80 ms over 80 mels, flat of level."""
    options = {"max_length": RATE_HZ, "return_tensors": "np"}
    bank_ZA = extractor()(wave_S, sampling_rate=RATE_HZ, **options)["input_features"][0]
    power_ZA = 10 ** (4 * bank_ZA.astype(float) - 4)
    total_A = power_ZA.sum(axis=0)
    onset = int(np.argmax(total_A > 0.05 * total_A.max()))
    from_onset_ZA = np.pad(power_ZA[:, onset : onset + 56], ((0, 0), (0, 56)))[:, :56]
    means_ZP = from_onset_ZA.reshape(80, 7, 8).mean(axis=2)
    curved = np.maximum((means_ZP / means_ZP.max()) ** 0.2 - 0.52, 0)  # 14 dB below: nothing
    return (curved / np.linalg.norm(curved)).ravel()


@cache
def examples(count, seed, spoken, coded=False):
    """Sounds with hums of all levels as spectra, what each is, and in which part of its range."""
    rng = random.Random(seed)
    level = Level(
        seconds=(1, 1), sprites=(0, 0), sound=1.0, sounds=(1, 1), hum=0.5, voices=float(spoken)
    )
    spectra, made = [], []
    for _ in range(count):
        track = sample_scene(rng, level).track
        wave_S = mixed(track, 1)
        spectra.append(spectrum(through_aac(wave_S) if coded else wave_S))
        made.append(track.sounds[0])
    return np.array(spectra), made


def told_apart(name, fine, spoken, coded):
    """The share of fresh sounds whose nearest centroid has their name."""
    known, made = examples(600, 1, spoken)
    labels = [(name(each), fine(each)) for each in made]
    names = sorted(set(labels), key=str)
    centroids = np.array([known[[label == one for label in labels]].mean(axis=0) for one in names])
    fresh, truth = examples(200, 2, spoken, coded)
    nearest = np.linalg.norm(fresh[:, None] - centroids, axis=2).argmin(axis=1)
    return np.mean([names[i][0] == name(each) for i, each in zip(nearest, truth, strict=True)])


@pytest.mark.parametrize("coded", [False, True])
def test_kinds_and_pitches_are_told_apart_after_log_mel(coded):
    share = told_apart(lambda s: (s.kind, s.pitch), lambda s: int(3 * s.tune), 0, coded)
    assert share > 0.98


def test_spoken_digits_are_told_apart_after_log_mel():
    share = told_apart(lambda s: s.digit, lambda s: (s.speaker, int(3 * s.tune)), 1, coded=False)
    assert share > 0.98


def test_a_classifier_that_hears_silence_is_at_chance(monkeypatch):
    """The canary: the same classifier on the hums alone."""
    examples.cache_clear()
    monkeypatch.setattr("vl3.toyworld.synthesis._wave", lambda heard, noise: np.full(400, 1e-9))
    monkeypatch.setattr("vl3.toyworld.synthesis._levelled", lambda wave_S, level_db: wave_S)
    assert told_apart(lambda s: (s.kind, s.pitch), lambda s: 0, 0, coded=False) < 0.35
    examples.cache_clear()


# Voices


def test_every_digit_is_there_in_every_voice_and_at_any_speed():
    lengths = {
        (speaker, digit): len(voices.spoken(digit, speaker, 1.0)) / RATE_HZ
        for speaker in voices.SPEAKERS
        for digit in range(10)
    }
    assert len(lengths) == 40
    assert min(lengths.values()) > 0.2
    assert max(lengths.values()) < 0.65
    slow, fast = (len(voices.spoken(7, "slt", speed)) for speed in (0.5, 2.0))
    assert slow == pytest.approx(4 * fast, rel=0.01)
    assert power_at(voices.spoken(6, "kal", 1.0), 0, 4000) > 0.999


def test_compressed_samples_come_back_nearly():
    wave_S = np.sin(np.linspace(0, 60, 4000)) * np.linspace(0, 1, 4000)
    again_S = voices.expanded(voices.compressed(wave_S))
    assert np.abs(again_S - wave_S).max() < 0.03
    assert np.square(again_S - wave_S).mean() < 2e-4 * np.square(wave_S).mean()


def test_the_held_out_voice_is_not_heard_in_training():
    rng = random.Random(0)
    level = replace(SOUNDING, voices=1.0)
    spoken = [s.speaker for _ in range(200) for s in sample_scene(rng, level).track.sounds]
    assert set(spoken) == set(voices.SEEN_SPEAKERS)
    assert voices.HELD_OUT_SPEAKER not in spoken
