"""Spoken digits: recordings of four synthetic voices (assets/voices), at any speed."""

from __future__ import annotations

from functools import cache

import numpy as np

from vl3 import sound
from vl3.bundled import VOICES

RATE_HZ = 8000  # of the recordings
SPEAKERS = ("awb", "kal", "slt", "rms")
HELD_OUT_SPEAKER = "rms"  # what was learned of digits is tried on a voice that training never hears
SEEN_SPEAKERS = tuple(speaker for speaker in SPEAKERS if speaker != HELD_OUT_SPEAKER)
_STEEPNESS = 255  # of the logarithmic scale of G.711 (mu-law)


def spoken(digit: int, speaker: str, speed: float) -> np.ndarray:
    """A digit as it is said, higher where it is faster. Shapes: returns [S], 16,000 a second

    speed: 1 is the recording's own
    """
    said_S = expanded(_recordings()[f"{speaker}_{digit}"])
    length = round(len(said_S) * sound.RATE_HZ / RATE_HZ / speed)
    return np.fft.irfft(np.fft.rfft(said_S), length) * (length / len(said_S))


def compressed(wave_S: np.ndarray) -> np.ndarray:
    """A wave from -1 to 1 as one byte a sample, finer where it is softer (mu-law)."""
    level_S = np.log1p(_STEEPNESS * np.abs(wave_S).clip(0, 1)) / np.log1p(_STEEPNESS)
    return np.round(127.5 * (1 + np.sign(wave_S) * level_S)).astype(np.uint8)


def expanded(bytes_S: np.ndarray) -> np.ndarray:
    """The wave of compressed bytes."""
    level_S = bytes_S / 127.5 - 1
    return np.sign(level_S) * np.expm1(np.abs(level_S) * np.log1p(_STEEPNESS)) / _STEEPNESS


@cache
def _recordings() -> dict[str, np.ndarray]:
    with np.load(VOICES / "digits.npz", allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files}
