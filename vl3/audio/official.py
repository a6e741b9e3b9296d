"""What VideoLLaMA 2.1-AV hears of a file, to reproduce it: always 30 s, whatever there is.

Of a sound file the first channel, cut to a random 30 s (by a seed here, so that it is the same
again) or filled with zeros, and then resampled through a Fourier transform of the whole, whose
ringing is in the zeros too. Of a video eight pieces of 2 s joined, which overlap in a short one,
then zeros. Banks are rounded to bfloat16 before they are normalised.

Source: videollama2/mm_utils.py of the audio_visual branch (process_audio_file,
process_audio_from_video).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from vl3.audio import waveform
from vl3.audio.channels import as_floats
from vl3.audio.filter_bank import beats_bank
from vl3.audio.reader import probe, read_native
from vl3.sound import RATE_HZ, SoundTokens
from vl3.video.decoder import result

LENGTH_S = 30
SAMPLES = LENGTH_S * RATE_HZ
_STEP_S, _STEPS, _BANDS = 0.16, 187, 8
_PIECE_S, _PIECES = 2, 8


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OfficialSound:
    """The bank that BEATs takes (BEATs.tokens), and what its 1,496 tokens stand for.

    tokens: times of the file's sound; pieces may overlap, so they are not always ascending, and
          steps of filled-in silence have no length
    Shapes: bank_AZ - bfloat16 [2998, 128], before the normalisation
    """

    bank_AZ: torch.Tensor
    tokens: SoundTokens


def official_sound(
    path: str | os.PathLike, seed: int = 0, divisor: int = 8, timeout_s: float = 30.0
) -> OfficialSound:
    """Of a sound file or of a video; a video without sound is silent.

    seed: of the crop of a sound file longer than 30 s
    divisor: pieces of a video begin every (length - 2 s) / divisor. 8 is that of the last release
          of pytorchvideo, by which the official code cuts, and what recorded outputs show; 7 that
          of its repository since, whose last piece ends with the sound

    Raises: VideoError - as vl3.audio.read
    """
    head = probe(path, timeout_s)
    if not head.has_picture:
        samples_S, starts_s = _of_file(path, seed, timeout_s)
    elif not head.has_sound:
        samples_S, starts_s = np.zeros(0, np.float32), ()
    else:
        samples_S, starts_s = _of_video(path, divisor, timeout_s)
    filled_S = np.pad(samples_S, (0, SAMPLES - len(samples_S)))
    return OfficialSound(
        bank_AZ=beats_bank(filled_S).to(torch.bfloat16),
        tokens=SoundTokens(spans_s=_spans(starts_s), bands=_BANDS),
    )


def _of_file(
    path: str | os.PathLike, seed: int, timeout_s: float
) -> tuple[np.ndarray, tuple[tuple[float, float], ...]]:
    """30 s of samples, and the stretch of the file's sound that is in them."""
    wave_S, rate_hz = read_native(path, timeout_s)
    first, count = 0, LENGTH_S * rate_hz
    if len(wave_S) > count:
        first = random.Random(seed).randint(0, len(wave_S) - count)
    cut_S = wave_S[first : first + count]
    stretch = (first / rate_hz, (first + len(cut_S)) / rate_hz)
    return fourier_resampled(np.pad(cut_S, (0, count - len(cut_S)))), (stretch,)


def _of_video(
    path: str | os.PathLike, divisor: int, timeout_s: float
) -> tuple[np.ndarray, tuple[tuple[float, float], ...]]:
    """The pieces joined, and their stretches of the sound."""
    found = probe(path, timeout_s).path
    stored_S = result(found, timeout_s, partial(waveform.ffmpeg_mono, found), area_px=0)
    wave_S = as_floats(stored_S)
    step_s = max(len(wave_S) / RATE_HZ - _PIECE_S, 0) / divisor
    firsts = [int(n * step_s * RATE_HZ) for n in range(_PIECES)]
    ends = [min(int((n * step_s + _PIECE_S) * RATE_HZ), len(wave_S)) for n in range(_PIECES)]
    stretches = tuple((first / RATE_HZ, end / RATE_HZ) for first, end in zip(firsts, ends))
    pieces = [wave_S[first:end] for first, end in zip(firsts, ends)]
    return np.concatenate(pieces)[:SAMPLES], stretches


def fourier_resampled(wave_S: np.ndarray) -> np.ndarray:
    """30 s at any rate to 16 kHz: what is above 8 kHz is cut from the transform of the whole.

    Source: scipy.signal.resample, by which librosa resamples for res_type="fft".
    """
    if len(wave_S) == SAMPLES:
        return wave_S
    spectrum_F = np.fft.rfft(wave_S.astype(np.float64))
    kept = min(len(wave_S), SAMPLES) // 2 + 1
    found_F = np.zeros(SAMPLES // 2 + 1, complex)
    found_F[:kept] = spectrum_F[:kept]
    if min(len(wave_S), SAMPLES) % 2 == 0:
        # the frequency at the edge is there once of two: folded, or half of what it was
        found_F[kept - 1] *= 2 if len(wave_S) > SAMPLES else 0.5
    return (np.fft.irfft(found_F, SAMPLES) * (SAMPLES / len(wave_S))).astype(np.float32)


def _spans(stretches_s: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """The time of each step: stretches of the sound one behind the other, then silence."""
    offsets_s = np.cumsum([0.0, *(end_s - start_s for start_s, end_s in stretches_s)])
    last_s = stretches_s[-1][1] if stretches_s else 0.0
    found = []
    for step in range(_STEPS):
        at_s = step * _STEP_S
        stretch = int(np.searchsorted(offsets_s, at_s, "right")) - 1
        if stretch >= len(stretches_s):
            found.append((last_s, last_s))
            continue
        start_s, end_s = stretches_s[stretch]
        first_s = start_s + at_s - float(offsets_s[stretch])
        found.append((first_s, min(first_s + _STEP_S, end_s)))
    return tuple(found)
