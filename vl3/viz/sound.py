"""The data of the sound view: a waveform and a log-mel picture of a whole track, however long."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from itertools import chain

import numpy as np
from PIL import Image

from vl3.sound import RATE_HZ
from vl3.viz.pack import packed

COLUMNS = 800  # at most, of the picture; a browser makes of them what its screen has
COLUMN_SAMPLES = RATE_HZ // 100  # at least: 10 ms
WINDOW = 512  # 32 ms
WINDOWS = 4  # at most, of a column: of a long sound the picture has samples, the waveform has all
MELS, LOWEST_HZ = 64, 50.0
RANGE_DB, QUIET_DB = 70.0, 0.0  # down from the loudest, or from this where nothing is that loud


def data(
    blocks: Iterable[np.ndarray],
    num_samples: int,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    source: str = "",
) -> dict:
    """What mount() of assets/web/views takes to show a sound under its player.

    Shapes: blocks - float32 [S] at 16 kHz, one after the other, num_samples in all
    start_s: of the first sample on the player's clock; end_s: where the player ends, None where the
    sound does
    Raises: ValueError where there are no samples.
    """
    if num_samples < 1:
        raise ValueError("there is no sound to show; it has no samples")
    columns = max(1, min(COLUMNS, num_samples // COLUMN_SAMPLES))
    peaks_C2, bank_ZC = summary(blocks, num_samples, columns)
    last_s = start_s + num_samples / RATE_HZ
    return {
        "view": "sound",
        "source": source,
        "start_s": start_s,
        "end_s": last_s,
        "axis_s": [min(0.0, start_s), max(last_s, end_s or 0.0)],
        "columns": columns,
        "peaks": packed(np.round(127 * peaks_C2.clip(-1, 1)).astype(np.int8)),
        "bank": {"url": _png(levels(bank_ZC)), "rows": MELS},
    }


def summary(
    blocks: Iterable[np.ndarray], num_samples: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest sample of each column, and the power in each of its mel bands.

    Shapes: returns float32 [C, 2] and float64 [Z, C], bands from low to high
    No more than a block is held.
    """
    edges_C = np.arange(columns + 1) * num_samples // columns
    peaks_C2 = np.zeros((columns, 2), np.float32)
    per_column = min(WINDOWS, max(1, num_samples // (columns * WINDOW)))
    starts_W = np.arange(columns * per_column) * num_samples // (columns * per_column)
    bank_ZC, done = np.zeros((MELS, columns)), 0
    held_S, held_from, mel_FZ = np.zeros(0, np.float32), 0, triangles_FZ()
    ending = [np.zeros(WINDOW, np.float32)]  # the last window reaches into silence
    for block_S in chain(blocks, ending):
        at = held_from + len(held_S)
        _widen(peaks_C2, edges_C, block_S[: num_samples - at], at)
        held_S = np.concatenate([held_S, block_S])
        ready = int(np.searchsorted(starts_W, at + len(block_S) - WINDOW, side="right"))
        offsets_W = starts_W[done:ready] - held_from
        windows_WS = held_S[offsets_W[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW)
        power_WZ = np.abs(np.fft.rfft(windows_WS)) ** 2 @ mel_FZ
        np.add.at(bank_ZC.T, np.arange(done, ready) // per_column, power_WZ / per_column)
        done, keep = ready, max(0, len(held_S) - WINDOW)
        held_S, held_from = held_S[keep:], held_from + keep
    return peaks_C2, bank_ZC


def _widen(peaks_C2: np.ndarray, edges_C: np.ndarray, block_S: np.ndarray, at: int) -> None:
    """Has the columns from sample `at` on know of the block."""
    if not len(block_S):
        return
    first = int(np.searchsorted(edges_C, at, side="right")) - 1
    end = int(np.searchsorted(edges_C, at + len(block_S), side="left"))
    starts = np.maximum(edges_C[first:end] - at, 0)
    for side, reduce in enumerate((np.minimum, np.maximum)):
        part = peaks_C2[first:end, side]
        reduce(part, reduce.reduceat(block_S, starts), out=part)


def triangles_FZ() -> np.ndarray:
    """How much each mel band takes of each frequency; every band has its nearest one at least."""
    frequency_F = np.arange(WINDOW // 2 + 1) * RATE_HZ / WINDOW
    low, high = _mel(np.array([LOWEST_HZ, RATE_HZ / 2]))
    step = (high - low) / (MELS + 1)
    middle_Z = low + step * np.arange(1, MELS + 1)
    share_FZ = np.maximum(0, 1 - np.abs(_mel(frequency_F)[:, None] - middle_Z) / step)
    nearest_Z = np.abs(_mel(frequency_F)[:, None] - middle_Z).argmin(axis=0)
    share_FZ[nearest_Z, np.arange(MELS)] = np.maximum(share_FZ[nearest_Z, np.arange(MELS)], 0.5)
    return share_FZ


def _mel(frequency_hz: np.ndarray) -> np.ndarray:
    return 1127 * np.log1p(frequency_hz / 700)


def levels(bank_ZC: np.ndarray) -> np.ndarray:
    """Powers in decibels as bytes, 255 for the loudest; uint8 [Z, C], high bands first."""
    level_ZC = 10 * np.log10(bank_ZC + 1e-12)
    top = max(float(level_ZC.max()), QUIET_DB)
    return np.round(255 * ((level_ZC - top) / RANGE_DB + 1).clip(0, 1)).astype(np.uint8)[::-1]


def _png(levels_ZC: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(levels_ZC).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
