"""Samples of a track: every sound from its own numbers, by numpy alone.

The same scene always sounds the same. Beeps are a tone, buzzes a harsh sawtooth, chirps a tone that
rises by an octave, bells three tones that die away, hisses noise above 3 kHz, and a click is over
in a hundredth of a second. Voices are recordings (vl3.toyworld.voices).
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from vl3.sound import RATE_HZ, Sound
from vl3.toyworld import voices
from vl3.toyworld.sounds import VOICE, Heard, Track
from vl3.toyworld.world import Scene

# Lowest and highest frequency of each kind and pitch; low and high do not meet.
TUNES_HZ = {
    ("beep", "low"): (280.0, 420.0),
    ("beep", "high"): (1400.0, 2100.0),
    ("buzz", "low"): (70.0, 105.0),
    ("buzz", "high"): (220.0, 330.0),
    ("chirp", "low"): (350.0, 500.0),
    ("chirp", "high"): (1700.0, 2400.0),
    ("bell", "low"): (300.0, 420.0),
    ("bell", "high"): (1000.0, 1400.0),
}
RAMP_S = 0.01  # of fading in and out; a tone that begins at once clicks
SLOWEST, FASTEST = 0.88, 1.12  # of voices
HISS_HZ = 3000.0
BELL = ((1.0, 1.0, 0.13), (2.76, 0.8, 0.1), (5.4, 0.5, 0.06))  # ratio, share, seconds to 1/e
CLICK_HZ, CLICK_S = 2600.0, 0.015
HUM_HZ = ((50.0, 1.0), (100.0, 0.6), (150.0, 0.3), (250.0, 0.2))
HUM_NOISE = 0.2  # beside the tones of a hum


def listen(scene: Scene) -> Sound:
    """The sound of a scene, as long as the scene, from its first frame on; silence without track.

    Shapes: samples_S float32, mono at 16 kHz, within -1 and 1
    """
    samples_S = np.zeros(RATE_HZ * scene.seconds, np.float32)
    if scene.track is not None:
        samples_S = mixed(scene.track, scene.seconds)
    return Sound(samples_S=samples_S, source=f"scene {scene.seed}")


def mixed(track: Track, seconds: int) -> np.ndarray:
    """All sounds of a track and its hum. Shapes: returns float32 [S], 16,000 a second"""
    noise = np.random.default_rng(track.seed)
    mixed_S = np.zeros(RATE_HZ * seconds)
    if track.hum_db is not None:
        mixed_S += _hum(len(mixed_S), track.hum_db, noise)
    for heard in track.sounds:
        wave_S = _levelled(_wave(heard, noise), heard.level_db)
        start = round(heard.start_s * RATE_HZ)
        end = min(start + len(wave_S), len(mixed_S))
        mixed_S[start:end] += wave_S[: end - start]
    return mixed_S.clip(-1, 1).astype(np.float32)


def lasts_s(heard: Heard) -> float:
    """How long a sound is heard."""
    if heard.kind == VOICE:
        return len(_spoken(heard)) / RATE_HZ
    return CLICK_S if heard.kind == "click" else heard.length_s


def _spoken(heard: Heard) -> np.ndarray:
    speed = SLOWEST + (FASTEST - SLOWEST) * heard.tune
    return voices.spoken(cast(int, heard.digit), cast(str, heard.speaker), speed)


def _wave(heard: Heard, noise: np.random.Generator) -> np.ndarray:
    """A sound at any level."""
    if heard.kind == VOICE:
        return _faded(_spoken(heard))
    if heard.kind == "click":
        time_S = np.arange(round(CLICK_S * RATE_HZ)) / RATE_HZ
        return np.sin(2 * math.pi * CLICK_HZ * time_S) * np.exp(-5 * time_S / CLICK_S)
    length = round(heard.length_s * RATE_HZ)
    time_S = np.arange(length) / RATE_HZ
    if heard.kind == "hiss":
        return _faded(_above(noise.standard_normal(length), HISS_HZ))
    low_hz, high_hz = TUNES_HZ[heard.kind, heard.pitch or ""]
    tune_hz = low_hz * (high_hz / low_hz) ** heard.tune
    if heard.kind == "beep":
        return _faded(np.sin(2 * math.pi * tune_hz * time_S))
    if heard.kind == "chirp":
        turns_S = heard.length_s / math.log(2) * (2 ** (time_S / heard.length_s) - 1)
        return _faded(np.sin(2 * math.pi * tune_hz * turns_S))
    wave_S = np.zeros(length)
    if heard.kind == "buzz":
        for number in range(1, int(RATE_HZ / 2 / tune_hz)):  # below what the rate can hold
            wave_S += np.sin(2 * math.pi * number * tune_hz * time_S) / number**0.7
    else:
        for ratio, share, fall_s in BELL:
            fall_S = np.exp(-time_S / fall_s)
            wave_S += share * fall_S * np.sin(2 * math.pi * ratio * tune_hz * time_S)
    return _faded(wave_S)


def _faded(wave_S: np.ndarray) -> np.ndarray:
    ramp = round(RAMP_S * RATE_HZ)
    rise = np.linspace(0, 1, ramp)
    wave_S[:ramp] *= rise
    wave_S[-ramp:] *= rise[::-1]
    return wave_S


def _above(wave_S: np.ndarray, least_hz: float) -> np.ndarray:
    """The wave without what is below a frequency."""
    spectrum = np.fft.rfft(wave_S)
    spectrum[np.fft.rfftfreq(len(wave_S), 1 / RATE_HZ) < least_hz] = 0
    return np.fft.irfft(spectrum, len(wave_S))


def _levelled(wave_S: np.ndarray, level_db: float) -> np.ndarray:
    """The wave with its loudest 25 ms at a level, 0 dB being the power of a full square wave."""
    window = min(len(wave_S), RATE_HZ // 40)
    power_S = np.convolve(wave_S**2, np.ones(window) / window, mode="valid")
    return wave_S * (10 ** (level_db / 20) / math.sqrt(power_S.max()))


def _hum(length: int, level_db: float, noise: np.random.Generator) -> np.ndarray:
    time_S = np.arange(length) / RATE_HZ
    hum_S = HUM_NOISE * noise.standard_normal(length)
    for hertz, share in HUM_HZ:
        hum_S += share * np.sin(2 * math.pi * hertz * time_S + noise.uniform(0, 2 * math.pi))
    return hum_S * (10 ** (level_db / 20) / np.sqrt(np.mean(hum_S**2)))
