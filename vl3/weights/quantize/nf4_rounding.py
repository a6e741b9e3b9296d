"""Weights rounded to NF4 on a CPU: the bytes of bitsandbytes, in a fraction of its time.

bitsandbytes finds each weight's place among 15 bounds by bisection. Here the range is cut into bins
so narrow that none holds two bounds: one table says how many bounds lie before a bin, another which
bound lies in it, and a single comparison decides. Pieces that stay in a core's cache are rounded
side by side in numpy: torch would bring all threads together after each of these short steps.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import bitsandbytes as bnb
import numpy as np
import torch

OPERATION = "bitsandbytes::quantize_4bit"
ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
THEIRS = torch.library.get_kernel(OPERATION, "CPU")  # as it is before `register`
BINS = 256  # to each side of 0; the bounds are 0.08 apart and more
PIECE_WEIGHTS = 1 << 18


@cache
def register() -> None:
    """Makes bitsandbytes round so on a CPU, in this process."""
    torch.library.register_kernel(OPERATION, "cpu", _quantize)


def _quantize(weight, blocksize, quant_type, quant_storage):
    if quant_type == "nf4" and quant_storage == torch.uint8 and weight.numel() % blocksize == 0:
        return rounded(weight, blocksize)
    return theirs(weight, blocksize, quant_type, quant_storage)


def theirs(weight, blocksize=64, quant_type="nf4", quant_storage=torch.uint8):
    """bitsandbytes' own way, for every format."""
    return THEIRS.call_boxed(ON_CPU, weight, blocksize, quant_type, quant_storage)


def rounded(weight: torch.Tensor, blocksize: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight as nibbles and the largest magnitude of each block.

    Shapes: weight - any, N numbers in whole blocks; returns uint8 [N/2, 1], float32 [N/blocksize]
    """
    blocks = weight.detach().reshape(-1, blocksize)
    largest = torch.empty(len(blocks), dtype=torch.float32)
    nibbles = torch.empty(len(blocks), blocksize // 2, dtype=torch.uint8)
    step = PIECE_WEIGHTS // blocksize
    pieces = [tensor.split(step) for tensor in (blocks, largest, nibbles)]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in threads.map(_round, *pieces):
            pass
    return nibbles.view(-1, 1), largest


def _round(blocks: torch.Tensor, largest: torch.Tensor, nibbles: torch.Tensor) -> None:
    """Writes the last two for a piece of the first."""
    values, most = _float32(blocks), largest.numpy()
    np.abs(values).max(axis=1, out=most)
    before, inside = _tables()
    with np.errstate(invalid="ignore"):  # of weights that are no numbers
        values *= (1 / np.maximum(most, np.float32(1e-38)))[:, None]
        bins = _bins(values)
    places = before.take(bins, mode="clip")
    places += values > inside.take(bins, mode="clip")
    both = places.view(np.uint16)  # two places, the first one in the low half
    nibbles.numpy()[:] = both << 4 | both >> 8


def _float32(tensor: torch.Tensor) -> np.ndarray:
    """A copy; bfloat16, which numpy has not, is the upper half of float32."""
    if tensor.dtype == torch.bfloat16:
        return (tensor.view(torch.uint16).numpy().astype(np.uint32) << 16).view(np.float32)
    return tensor.numpy().astype(np.float32)


def _bins(values: np.ndarray) -> np.ndarray:
    """Rising with the value; what is no number is left to the clipping."""
    shifted = values + np.float32(1)
    shifted *= np.float32(BINS)
    return shifted.astype(np.intp)


@cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """Of each bin: the bounds before it (uint8), and the one inside it or infinity (float32)."""
    code = bnb.functional.get_4bit_type("nf4", device="cpu")
    bounds = ((code[:-1] + code[1:]) / 2).numpy()
    held = _bins(bounds)
    inside = np.full(2 * BINS + 1, np.inf, np.float32)
    inside[held] = bounds
    before = (held[None] < np.arange(2 * BINS + 1)[:, None]).sum(axis=1)
    return before.astype(np.uint8), inside
