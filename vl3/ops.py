"""The one door to kernels/: five operations, and which implementation of them runs.

    VL3_KERNELS=auto       a fused kernel where one was measured to be 10 % faster on a GPU, else
                           plain torch (the default; nothing was measured yet, so plain torch)
    VL3_KERNELS=reference  plain torch, never Triton
    VL3_KERNELS=triton     Triton or an error: on a GPU, or on a CPU under TRITON_INTERPRET=1

The definitions are in kernels/<operation>/reference.py. The setting never changes what is computed,
only how; kernels/README.md says how close both are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn
from torch.utils.data import get_worker_info

from vl3.kernels import difffp as _difffp
from vl3.kernels import linear_cross_entropy as _linear_cross_entropy
from vl3.kernels import merge_keep as _merge_keep
from vl3.kernels import resize_patchify as _resize_patchify
from vl3.kernels import rope2d as _rope2d

__all__ = [
    "CHUNK_TOKENS",
    "IMAGENET_STD",
    "LEVELS_PER_UNIT",
    "Mode",
    "change",
    "difffp",
    "linear_cross_entropy",
    "merge_keep",
    "resizer",
    "rotate",
    "turn",
]

IMAGENET_STD, LEVELS_PER_UNIT = _difffp.IMAGENET_STD, _difffp.LEVELS_PER_UNIT
CHUNK_TOKENS = _linear_cross_entropy.CHUNK_TOKENS
Mode = _difffp.Mode
Runs = _rope2d.Runs
change, turn = _difffp.change, _rope2d.turn

KNOB = "VL3_KERNELS"
CHOICES = ("auto", "triton", "reference")

Resize = Callable[[np.ndarray, tuple[int, int]], np.ndarray]  # picture_YX3, (height, width)


def difffp(
    cells_TMP: torch.Tensor, patch_values: int, threshold: float, mode: Mode
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Change of every token, whether it exceeds the threshold, how many of each frame do.

    See vl3.kernels.difffp.reference.difffp. The results are where the pixels are given.
    """
    home = cells_TMP.device
    cells_TMP, fused = _pixels(_difffp.MEASURED, cells_TMP)
    found = _difffp.difffp(cells_TMP, patch_values, threshold, mode, fused=fused)
    change_TM, changed_TM, count_T = found
    return change_TM.to(home), changed_TM.to(home), count_T.to(home)


def resizer(plain: Resize) -> Resize:
    """What resizes pictures from here on: plain, or the kernel, which gives the same bits.

    See vl3.kernels.resize_patchify.reference.resize. plain is PIL on NumPy arrays, because a tensor
    would be one more copy of the picture. The kernel takes a picture at a time, as they are
    decoded, so that few are ever held at their full size. And it gives a picture back, which the
    page, the views and the caches hold; patches are a copy of that in another order.
    """
    pixels, fused = _pixels(_resize_patchify.MEASURED, torch.empty(0, dtype=torch.uint8))
    if not fused:
        return plain

    def resize(picture_YX3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        if picture_YX3.shape[:2] == size:
            return plain(picture_YX3, size)
        writable_YX3 = np.require(picture_YX3, requirements=["C", "W"])  # or torch would complain
        given_YX3 = torch.from_numpy(writable_YX3).to(pixels.device)
        return _resize_patchify.resize(given_YX3[None], size, fused=True)[0].cpu().numpy()

    return resize


def rotate(
    q_NHC: torch.Tensor, k_NHC: torch.Tensor, runs: Runs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys turned by the angles of their patches; both may be overwritten.

    See vl3.kernels.rope2d.reference.rotate.
    """
    return _rope2d.rotate(q_NHC, k_NHC, runs, fused=use_fused(_rope2d.MEASURED, q_NHC))


def merge_keep(
    x_ND: torch.Tensor, clips: Sequence[tuple[int, int]], keep: torch.Tensor | None = None
) -> torch.Tensor:
    """Patch features merged into tokens, and of these the kept ones.

    See vl3.kernels.merge_keep.reference.merge_keep.
    """
    return _merge_keep.merge_keep(x_ND, clips, keep, fused=use_fused(_merge_keep.MEASURED, x_ND))


def linear_cross_entropy(
    hidden_KE: torch.Tensor, head: nn.Module, labels_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of every token behind the head, and whether its label was the likeliest one.

    See vl3.kernels.linear_cross_entropy.reference.linear_cross_entropy.
    Raises: RuntimeError for VL3_KERNELS=triton and a head that is more than a weight.
    """
    measured, plain = _linear_cross_entropy.MEASURED, type(head) is nn.Linear and head.bias is None
    fused = use_fused(measured if plain else None, hidden_KE)
    if fused and not plain:
        raise RuntimeError(
            f"{KNOB}=triton: there is a kernel for a plain linear head without a bias - got "
            f"{type(head).__name__}; set {KNOB}=auto"
        )
    return _linear_cross_entropy.linear_cross_entropy(hidden_KE, head, labels_K, fused=fused)


def _pixels(measured: str | None, x: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Pixels where they are computed on, and whether by the fused kernel.

    They are decoded on the CPU, and go to a GPU only where Triton is asked for. The workers of a
    loader cannot follow: a forked process has no access to the GPU of its parent.
    """
    if os.environ.get(KNOB) == "triton" and torch.cuda.is_available():
        if get_worker_info() is not None:
            return x, False
        x = x.cuda()
    return x, use_fused(measured, x)


def use_fused(measured: str | None, x: torch.Tensor) -> bool:
    """Whether the fused kernel runs for x.

    measured: where it was seen to be faster; None where it was not
    Raises: ValueError for an unknown VL3_KERNELS; RuntimeError where triton is set and cannot be.
    """
    choice = os.environ.get(KNOB, "auto")
    if choice == "reference" or (choice == "auto" and measured is None):
        return False
    if choice not in CHOICES:
        raise ValueError(f"{KNOB} is {', '.join(CHOICES[:-1])} or {CHOICES[-1]} - got {choice!r}")
    missing = _missing(x)
    if missing and choice == "triton":
        raise RuntimeError(f"{KNOB}=triton: {missing}, or set {KNOB}=auto")
    return missing is None and (choice == "triton" or x.is_cuda)


def _missing(x: torch.Tensor) -> str | None:
    """What Triton lacks to run on x, with the remedy."""
    if find_spec("triton") is None:
        return "triton is not installed; pip install triton==3.7.1 (Linux)"
    if x.is_cuda:
        return None
    import triton

    if triton.knobs.runtime.interpret:
        return None
    return f"the tensors are on {x.device} and no GPU; move them, set TRITON_INTERPRET=1 (slow)"
