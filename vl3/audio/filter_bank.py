"""Filter banks: what ears hear instead of samples, a row every 10 ms.

`beats_bank` is Kaldi's definition as BEATs takes it, in numpy. Kaldi's own library
(kaldi-native-fbank) refuses 128 bins, of which some are empty, from release 1.23 on, and lies
further from what was recorded of torchaudio (2.2e-3 since 1.21.5, where float64 gives 1.1e-3).
`whisper_bank` is transformers' extractor.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from vl3.sound import RATE_HZ

HOP = RATE_HZ // 100  # 10 ms
WINDOW = RATE_HZ // 40  # 25 ms
BEATS_MELS = 128
_FFT = 512
_FLOOR = float(np.finfo(np.float32).eps)


def beats_bank(samples_S: np.ndarray) -> torch.Tensor:
    """Kaldi's log-mel filter bank of 128 bins from 20 Hz to 8 kHz; a window is inside the sound.

    Each window has its mean taken away, is pre-emphasised (0.97) and weighted (Povey's window); its
    power spectrum of 512 points is summed by triangles on the mel scale.

    Shapes: samples_S - full scale -1 to 1, multiplied by 2^15 here
            returns float32 [A, 128] before BEATs' normalisation, A = 1 + (S - 400) // 160
    """
    if len(samples_S) < WINDOW:
        return torch.zeros(0, BEATS_MELS)
    scaled = samples_S.astype(np.float64) * 2**15
    windows_AW = np.lib.stride_tricks.sliding_window_view(scaled, WINDOW)[::HOP]
    centred_AW = windows_AW - windows_AW.mean(axis=1, keepdims=True)
    before_AW = np.concatenate([centred_AW[:, :1], centred_AW[:, :-1]], axis=1)
    shaped_AW = (centred_AW - 0.97 * before_AW) * np.hanning(WINDOW) ** 0.85
    power_AF = np.abs(np.fft.rfft(shaped_AW, _FFT)[:, : _FFT // 2]) ** 2
    return torch.from_numpy(np.log(np.maximum(power_AF @ _triangles_FZ(), _FLOOR))).float()


def whisper_bank(samples_S: np.ndarray, mels: int, frames: int) -> torch.Tensor:
    """Whisper's log-mel spectrogram of so many frames, with silence behind what there is.

    Shapes: returns float32 [frames, mels]
    """
    found = _whisper(mels)(
        samples_S, sampling_rate=RATE_HZ, max_length=frames * HOP, return_tensors="pt"
    )
    return found["input_features"][0].T


@functools.cache
def _whisper(mels: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels)


@functools.cache
def _triangles_FZ() -> np.ndarray:
    """How much each mel bin takes of each frequency."""
    low, high = _mel(np.array([20.0, RATE_HZ / 2]))
    step = (high - low) / (BEATS_MELS + 1)
    peaks_Z = low + step * np.arange(1, BEATS_MELS + 1)
    mels_F = _mel(np.arange(_FFT // 2) * RATE_HZ / _FFT)
    return np.maximum(0, 1 - np.abs(mels_F[:, None] - peaks_Z) / step)


def _mel(frequency_hz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(frequency_hz / 700)
