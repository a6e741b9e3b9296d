"""Channels of a sound as one row of numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_CANCELLED = 0.01  # share of the channels' power below which their mean is not them


def as_floats(stored: np.ndarray) -> np.ndarray:
    """Samples of any type as float32, full scale from -1 to 1; whole numbers by their range."""
    if stored.dtype == np.uint8:
        return (stored.astype(np.float32) - 128) / 128
    if stored.dtype.kind == "i":
        return (stored / 2.0 ** (8 * stored.dtype.itemsize - 1)).astype(np.float32)
    return np.nan_to_num(stored.astype(np.float32), posinf=1.0, neginf=-1.0)


def mixed(rows_CS: np.ndarray, is_full_range_C: Iterable[bool] = ()) -> np.ndarray:
    """What is kept of the channels of a piece.

    is_full_range_C: False for channels of deep tones alone, which are left out; all by default
    Shapes: rows_CS - float32 [channels, samples]
            returns [1, samples] of one channel as it is; of more [3, samples]: their mean, the
            first of them, and the mean of their squares
    """
    mask_C = np.fromiter(is_full_range_C, bool) if len(rows_CS) > 1 else np.ones(0, bool)
    if mask_C.any():
        rows_CS = rows_CS[mask_C]
    if len(rows_CS) == 1:
        return rows_CS
    mean_S, power_S = rows_CS.mean(axis=0), np.square(rows_CS).mean(axis=0)
    return np.stack([mean_S, rows_CS[0], power_S])


def cancel(power: float, channel_power: float) -> bool:
    """Whether channels cancel: the power of their mean beside theirs, on average."""
    return power < _CANCELLED * channel_power
