"""Merging and keeping in one pass: what is not kept is not read, and no merged map is written.

Has run under Triton's interpreter only, never on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

WIDEST = 2048  # channels of one program


def merge_keep(
    x_ND: torch.Tensor, clips: Sequence[tuple[int, int]], keep: torch.Tensor | None = None
) -> torch.Tensor:
    """See reference.merge_keep; the mean is added up in float32 and rounded once."""
    patches = sum(tokens * m * m for tokens, m in clips)
    if x_ND.shape[0] != patches:
        raise ValueError(f"clips of {patches} patches but features of {x_ND.shape[0]}")
    if keep is None and all(m == 1 for _, m in clips):
        return x_ND
    first_M, down_M = _places(clips, x_ND.device)
    if keep is None:
        token_K = torch.arange(len(first_M), device=x_ND.device)
    elif keep.dtype == torch.bool:
        if keep.shape != first_M.shape:
            raise ValueError(f"keep is a mask over {len(keep)} tokens, there are {len(first_M)}")
        token_K = keep.nonzero()[:, 0]
    else:
        token_K = keep
    return _MergeKeep.apply(x_ND, first_M, down_M, token_K, all(m <= 2 for _, m in clips))


def _places(clips, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in N the patches of every token lie: the first of them, and how far down the next row.

    An odd m has one central patch and 0 below; an even one has four: first, first + 1, and both
    down_M further.
    """
    firsts, downs, start = [], [], 0
    for tokens, m in clips:
        offset = (m - 1) // 2 * (m + 1)
        firsts.append(torch.arange(tokens, device=device) * (m * m) + (start + offset))
        downs.append(torch.full((tokens,), 0 if m % 2 else m, device=device))
        start += tokens * m * m
    return torch.cat(firsts), torch.cat(downs)


class _MergeKeep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_ND, first_M, down_M, token_K, filled):
        x_ND = x_ND.contiguous()
        width = x_ND.shape[1]
        out_KD = x_ND.new_empty(len(token_K), width)
        if out_KD.numel():
            block, columns = _columns(width)
            with torch.cuda.device_of(x_ND):  # a launch goes to the current device otherwise
                _gather[len(token_K), columns](
                    x_ND, first_M[token_K], down_M[token_K], out_KD, width, BLOCK=block
                )
        ctx.save_for_backward(first_M, down_M, token_K)
        ctx.shape, ctx.filled = x_ND.shape, filled
        return out_KD

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_KD):
        first_M, down_M, token_K = ctx.saved_tensors
        # Patches beside the centre of blocks of 3 x 3 and more are read by no token.
        make = torch.empty if ctx.filled else torch.zeros
        grad_ND = make(ctx.shape, dtype=grad_KD.dtype, device=grad_KD.device)
        if grad_ND.numel():
            # A token may fill several slots. Each token adds up its own in their order: the same
            # bits every time, which atomic additions would not give.
            slot_K = token_K.argsort(stable=True)
            end_M = torch.bincount(token_K, minlength=len(first_M)).cumsum(0)
            block, columns = _columns(ctx.shape[1])
            with torch.cuda.device_of(grad_ND):
                _scatter[len(first_M), columns](
                    grad_KD.contiguous(),
                    slot_K,
                    end_M,
                    first_M,
                    down_M,
                    grad_ND,
                    ctx.shape[1],
                    BLOCK=block,
                )
        return grad_ND, None, None, None, None


def _columns(width: int) -> tuple[int, int]:
    """Channels of a program, and programs that fill the width."""
    block = min(WIDEST, triton.next_power_of_2(width))
    return block, triton.cdiv(width, block)


@triton.jit
def _gather(x_ND, first_K, down_K, out_KD, width, BLOCK: tl.constexpr):
    """One kept token."""
    k = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < width
    down = tl.load(down_K + k)
    source = x_ND + tl.load(first_K + k) * width + d
    x = tl.load(source, inside, 0.0).to(tl.float32)
    if down > 0:
        x += tl.load(source + width, inside, 0.0).to(tl.float32)
        x += tl.load(source + down * width, inside, 0.0).to(tl.float32)
        x += tl.load(source + (down + 1) * width, inside, 0.0).to(tl.float32)
        x *= 0.25
    tl.store(out_KD + k * width + d, x.to(out_KD.dtype.element_ty), inside)


@triton.jit
def _scatter(grad_KD, slot_K, end_M, first_M, down_M, grad_ND, width, BLOCK: tl.constexpr):
    """Gradients of the patches of one token: the sum over its slots, which may be none."""
    m = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < width
    stop = tl.load(end_M + m)
    start = tl.load(end_M + m - 1, m > 0, 0)
    grad = tl.zeros([BLOCK], tl.float32)
    for place in range(start, stop):
        slot = tl.load(slot_K + place)
        grad += tl.load(grad_KD + slot * width + d, inside, 0.0).to(tl.float32)
    down = tl.load(down_M + m)
    target = grad_ND + tl.load(first_M + m) * width + d
    kind = grad_ND.dtype.element_ty
    if down > 0:
        grad *= 0.25
        tl.store(target + width, grad.to(kind), inside)
        tl.store(target + down * width, grad.to(kind), inside)
        tl.store(target + (down + 1) * width, grad.to(kind), inside)
    tl.store(target, grad.to(kind), inside)
