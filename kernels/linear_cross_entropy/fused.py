"""Head and cross-entropy in one kernel: logits live in registers, a tile at a time.

Forward: every program walks through a share of the vocabulary for a few tokens and keeps the
largest logit, its id, and the sum of exponentials; the shares are put together afterwards.
Backward: gradients of logits, for a slice of the vocabulary at a time, computed anew and multiplied
by torch's own matrix product.

Has run under Triton's interpreter only, never on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Tokens, vocabulary and width of a tile.
TILE_K, TILE_V, TILE_E = 64, 128, 64
PROGRAMS = 512  # of a forward pass, about; a few for every processor of a large GPU
SLICE_VALUES = 1 << 25  # gradients of logits that exist at a time: 64 MB in half precision


def linear_cross_entropy(
    hidden_KE: torch.Tensor, weight_VE: torch.Tensor, labels_K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """See reference.linear_cross_entropy, with the head as its weight, [V, E], without a bias.

    In half precision the reference rounds logits to it before the softmax; here they stay float32.
    A label that is no id of the vocabulary gets the loss NaN.
    Raises: ValueError where types or widths do not fit.
    """
    device = hidden_KE.device.type
    if torch.is_autocast_enabled(device):  # as it does for a linear layer
        kind = torch.get_autocast_dtype(device)
        hidden_KE, weight_VE = hidden_KE.to(kind), weight_VE.to(kind)
    if hidden_KE.dtype != weight_VE.dtype or hidden_KE.shape[1] != weight_VE.shape[1]:
        raise ValueError(
            f"hidden states {tuple(hidden_KE.shape)} of {hidden_KE.dtype} do not fit a head of "
            f"{tuple(weight_VE.shape)} of {weight_VE.dtype}"
        )
    return _Losses.apply(hidden_KE, weight_VE, labels_K)


class _Losses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_KE, weight_VE, labels_K):
        hidden_KE, weight_VE = hidden_KE.contiguous(), weight_VE.contiguous()
        tokens, vocabulary = len(hidden_KE), len(weight_VE)
        rows, tiles = triton.cdiv(tokens, TILE_K), triton.cdiv(vocabulary, TILE_V)
        tiles_each = triton.cdiv(tiles, max(1, PROGRAMS // max(1, rows)))
        shares = triton.cdiv(tiles, tiles_each)
        new = {"device": hidden_KE.device, "dtype": torch.float32}
        best_KS, total_KS, label_KS = torch.empty(3, tokens, shares, **new)
        id_KS = torch.empty(tokens, shares, device=hidden_KE.device, dtype=torch.int64)
        if tokens:
            with torch.cuda.device_of(hidden_KE):  # a launch goes to the current device otherwise
                _stats[rows, shares](
                    hidden_KE,
                    weight_VE,
                    labels_K,
                    best_KS,
                    total_KS,
                    label_KS,
                    id_KS,
                    tokens,
                    vocabulary,
                    hidden_KE.shape[1],
                    shares,
                    tiles_each,
                    **_tiles(hidden_KE),
                )
        sum_K = (best_KS + total_KS.log()).logsumexp(dim=1)
        likeliest_K = id_KS.gather(1, best_KS.argmax(dim=1, keepdim=True))[:, 0]
        right_K = likeliest_K == labels_K
        outside_K = (labels_K < 0) | (labels_K >= vocabulary)
        losses_K = (sum_K - label_KS.sum(dim=1)).masked_fill(outside_K, torch.nan)
        ctx.save_for_backward(hidden_KE, weight_VE, labels_K, sum_K)
        ctx.mark_non_differentiable(right_K)
        return losses_K, right_K

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_K, _):
        hidden_KE, weight_VE, labels_K, sum_K = ctx.saved_tensors
        (tokens, width), vocabulary = hidden_KE.shape, len(weight_VE)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        grad_hidden = hidden_KE.new_zeros(tokens, width, dtype=torch.float32)
        grad_weight = torch.zeros_like(weight_VE) if wants_weight else None
        grad_K = grad_K.contiguous()
        step = max(1, SLICE_VALUES // max(1, tokens) // TILE_V) * TILE_V
        for first in range(0, vocabulary if tokens else 0, step):
            part_VE = weight_VE[first : first + step]
            grad_KV = hidden_KE.new_empty(tokens, len(part_VE))
            with torch.cuda.device_of(hidden_KE):
                _logit_grads[triton.cdiv(tokens, TILE_K), triton.cdiv(len(part_VE), TILE_V)](
                    hidden_KE,
                    part_VE,
                    labels_K,
                    sum_K,
                    grad_K,
                    grad_KV,
                    tokens,
                    len(part_VE),
                    width,
                    first,
                    **_tiles(hidden_KE),
                )
            if wants_hidden:
                grad_hidden += grad_KV @ part_VE
            if grad_weight is not None:
                torch.mm(grad_KV.T, hidden_KE, out=grad_weight[first : first + step])
        return grad_hidden.to(hidden_KE.dtype) if wants_hidden else None, grad_weight, None


def _tiles(hidden_KE: torch.Tensor) -> dict:
    # The interpreter multiplies bfloat16 wrongly and says nothing; a GPU must not be slowed by it.
    upcast = hidden_KE.dtype == torch.bfloat16 and triton.knobs.runtime.interpret
    return {"TILE_K": TILE_K, "TILE_V": TILE_V, "TILE_E": TILE_E, "UPCAST": upcast}


@triton.jit
def _logits(
    hidden_KE,
    weight_VE,
    k,
    v,
    tokens,
    vocabulary,
    width,
    TILE_K: tl.constexpr,
    TILE_V: tl.constexpr,
    TILE_E: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One tile of logits, float32; minus infinity beyond the vocabulary."""
    logits = tl.zeros([TILE_K, TILE_V], tl.float32)
    for start in range(0, width, TILE_E):
        e = start + tl.arange(0, TILE_E)
        hidden = tl.load(
            hidden_KE + k.to(tl.int64)[:, None] * width + e[None, :],
            (k < tokens)[:, None] & (e < width)[None, :],
            0.0,
        )
        weight = tl.load(
            weight_VE + v.to(tl.int64)[None, :] * width + e[:, None],
            (v < vocabulary)[None, :] & (e < width)[:, None],
            0.0,
        )
        if UPCAST:
            hidden, weight = hidden.to(tl.float32), weight.to(tl.float32)
        # "ieee": float32 stays float32 instead of being rounded to TF32.
        logits = tl.dot(hidden, weight, logits, input_precision="ieee")
    return tl.where((v < vocabulary)[None, :], logits, float("-inf"))


@triton.jit
def _stats(
    hidden_KE,
    weight_VE,
    labels_K,
    best_KS,
    total_KS,
    label_KS,
    id_KS,
    tokens,
    vocabulary,
    width,
    shares,
    tiles,
    TILE_K: tl.constexpr,
    TILE_V: tl.constexpr,
    TILE_E: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """What the softmax of TILE_K tokens is put together from, of one share of the vocabulary."""
    k = tl.program_id(0) * TILE_K + tl.arange(0, TILE_K)
    share = tl.program_id(1)
    label = tl.load(labels_K + k, k < tokens, -1)
    best = tl.full([TILE_K], float("-inf"), tl.float32)
    total = tl.zeros([TILE_K], tl.float32)
    label_logit = tl.zeros([TILE_K], tl.float32)
    best_id = tl.zeros([TILE_K], tl.int64)
    last = tl.minimum((share + 1) * tiles, tl.cdiv(vocabulary, TILE_V))
    for tile in range(share * tiles, last):
        v = tile * TILE_V + tl.arange(0, TILE_V)
        logits = _logits(
            hidden_KE, weight_VE, k, v, tokens, vocabulary, width, TILE_K, TILE_V, TILE_E, UPCAST
        )
        here, at = tl.max(logits, 1, return_indices=True)
        best_id = tl.where(here > best, tile * TILE_V + at.to(tl.int64), best_id)
        top = tl.maximum(here, best)
        total = total * tl.exp(best - top) + tl.sum(tl.exp(logits - top[:, None]), 1)
        best = top
        label_logit += tl.sum(tl.where(v[None, :] == label[:, None], logits, 0.0), 1)
    place = k.to(tl.int64) * shares + share
    tl.store(best_KS + place, best, k < tokens)
    tl.store(total_KS + place, total, k < tokens)
    tl.store(label_KS + place, label_logit, k < tokens)
    tl.store(id_KS + place, best_id, k < tokens)


@triton.jit
def _logit_grads(
    hidden_KE,
    weight_VE,
    labels_K,
    sum_K,
    grad_K,
    grad_KV,
    tokens,
    vocabulary,
    width,
    first,
    TILE_K: tl.constexpr,
    TILE_V: tl.constexpr,
    TILE_E: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """(softmax - one-hot) x gradient of the loss, for one tile; first: id of the slice's first."""
    k = tl.program_id(0) * TILE_K + tl.arange(0, TILE_K)
    v = tl.program_id(1) * TILE_V + tl.arange(0, TILE_V)
    logits = _logits(
        hidden_KE, weight_VE, k, v, tokens, vocabulary, width, TILE_K, TILE_V, TILE_E, UPCAST
    )
    log_sum = tl.load(sum_K + k, k < tokens, 0.0)
    label = tl.load(labels_K + k, k < tokens, -1)
    grad = tl.load(grad_K + k, k < tokens, 0.0).to(tl.float32)
    softmax = tl.exp(logits - log_sum[:, None])
    target = tl.where((v + first)[None, :] == label[:, None], 1.0, 0.0)
    inside = (k < tokens)[:, None] & (v < vocabulary)[None, :]
    place = grad_KV + k.to(tl.int64)[:, None] * vocabulary + v[None, :]
    value = (softmax - target) * grad[:, None]
    tl.store(place, value.to(grad_KV.dtype.element_ty), inside)
