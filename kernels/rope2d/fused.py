"""2D-RoPE in one launch for queries and keys, each value read and written once.

Has run under Triton's interpreter only, never on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .reference import Runs

PATCHES = 16  # of one program


def rotate(
    q_NHC: torch.Tensor, k_NHC: torch.Tensor, runs: Runs
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.rotate. Without gradients q and k are changed in place and returned.

    With gradients the result is written to new memory: q and k are usually views of what a linear
    layer returned, and of a view that is changed in place autograd has to copy the gradient.
    The backward pass is the same kernel with the angles negated; nothing is kept for it but those.
    """
    if torch.is_grad_enabled() and (q_NHC.requires_grad or k_NHC.requires_grad):
        return _Rotate.apply(q_NHC, k_NHC, runs)
    q_NHC, k_NHC = _packed(q_NHC), _packed(k_NHC)
    _launch((q_NHC, k_NHC), (q_NHC, k_NHC), runs, 1.0)
    return q_NHC, k_NHC


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q_NHC, k_NHC, runs):
        ctx.runs = runs
        return _turned(q_NHC, k_NHC, runs, 1.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_q_NHC, grad_k_NHC):
        return *_turned(grad_q_NHC, grad_k_NHC, ctx.runs, -1.0), None


def _turned(q_NHC, k_NHC, runs: Runs, sign: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in new memory."""
    given = _packed(q_NHC), _packed(k_NHC)
    turned = torch.empty_like(given[0]), torch.empty_like(given[1])
    _launch(given, turned, runs, sign)
    return turned


def _packed(x_NHC: torch.Tensor) -> torch.Tensor:
    """x with heads and channels side by side; rows may be apart."""
    return x_NHC if x_NHC.stride()[1:] == (x_NHC.shape[2], 1) else x_NHC.contiguous()


def _launch(given, turned, runs: Runs, sign: float) -> None:
    num_patches, heads, channels = given[0].shape
    filled = sum(frames * length for frames, length, _ in runs)
    if given[1].shape != given[0].shape or filled != num_patches:
        raise ValueError(
            f"runs of {filled} patches need q and k of one shape and that many patches - got "
            f"{tuple(given[0].shape)} and {tuple(given[1].shape)}"
        )
    start = 0
    for frames, length, angle_NR in runs:
        count = frames * length
        part = slice(start, start + count)
        start += count
        if not count * heads * channels:
            continue
        (q, k), (out_q, out_k) = ([x_NHC[part] for x_NHC in pair] for pair in (given, turned))
        with torch.cuda.device_of(q):  # a launch goes to the current device otherwise
            _turn[triton.cdiv(count, PATCHES), 2](
                q,
                k,
                out_q,
                out_k,
                angle_NR.float().contiguous(),
                count,
                length,
                heads,
                q.stride(0),
                k.stride(0),
                out_q.stride(0),
                out_k.stride(0),
                sign,
                HALF=channels // 2,
                BLOCK=triton.next_power_of_2(channels // 2),
                PATCHES=PATCHES,
            )


@triton.jit
def _turn(
    q_NHC,
    k_NHC,
    out_q_NHC,
    out_k_NHC,
    angle_NR,
    count,
    length,
    heads,
    q_stride,
    k_stride,
    out_q_stride,
    out_k_stride,
    sign,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    PATCHES: tl.constexpr,
):
    """PATCHES patches of q (program axis 1 is 0) or of k (1), one head after the other."""
    n = tl.program_id(0) * PATCHES + tl.arange(0, PATCHES)
    r = tl.arange(0, BLOCK)
    inside = (n < count)[:, None] & (r < HALF)[None, :]
    angle = tl.load(angle_NR + (n % length)[:, None] * HALF + r[None, :], inside, 0.0)
    cos, sin = tl.cos(angle), tl.sin(angle) * sign
    if tl.program_id(1) == 0:
        source = q_NHC + n.to(tl.int64)[:, None] * q_stride + r[None, :]
        target = out_q_NHC + n.to(tl.int64)[:, None] * out_q_stride + r[None, :]
    else:
        source = k_NHC + n.to(tl.int64)[:, None] * k_stride + r[None, :]
        target = out_k_NHC + n.to(tl.int64)[:, None] * out_k_stride + r[None, :]
    for _head in range(heads):
        first = tl.load(source, inside, 0.0).to(tl.float32)
        second = tl.load(source + HALF, inside, 0.0).to(tl.float32)
        tl.store(target, (first * cos - second * sin).to(target.dtype.element_ty), inside)
        tl.store(target + HALF, (second * cos + first * sin).to(target.dtype.element_ty), inside)
        source += 2 * HALF
        target += 2 * HALF
