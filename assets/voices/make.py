"""Speaks the digits with flite and writes digits.npz beside this file: python assets/voices/make.py

Needs the command flite 2.2 (Debian: apt-get install flite); nothing else of vl3 does.
"""

import subprocess
import wave
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vl3.toyworld.voices import RATE_HZ, SPEAKERS, compressed

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUIET = 0.008  # of the loudest sample; what is softer at either end is left out
FLITE = {"kal": "kal16", "awb": "awb", "rms": "rms", "slt": "slt"}


def spoken(speaker: str, word: str) -> np.ndarray:
    """What flite says, at RATE_HZ, from -1 to 1."""
    with TemporaryDirectory() as folder:
        file = f"{folder}/word.wav"
        subprocess.run(["flite", "-voice", FLITE[speaker], "-t", word, "-o", file], check=True)
        with wave.open(file) as recording:
            rate_hz, count = recording.getframerate(), recording.getnframes()
            said_S = np.frombuffer(recording.readframes(count), "<i2").astype(float)
    loud = np.flatnonzero(np.abs(said_S) > QUIET * np.abs(said_S).max())
    said_S = said_S[loud[0] : loud[-1] + 1]
    length = round(len(said_S) * RATE_HZ / rate_hz)
    slower_S = np.fft.irfft(np.fft.rfft(said_S)[: length // 2 + 1], length)
    return slower_S / np.abs(slower_S).max()


if __name__ == "__main__":
    recordings = {
        f"{speaker}_{digit}": compressed(spoken(speaker, word))
        for speaker in SPEAKERS
        for digit, word in enumerate(WORDS)
    }
    np.savez_compressed(Path(__file__).parent / "digits.npz", allow_pickle=False, **recordings)
