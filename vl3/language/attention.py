"""Attention of the language model on a CPU: the heads that share keys, as rows of one product.

torch reads keys and values anew for every head, though in a group they are the same: with 6 heads
a group it does six times the work that a question after a long clip needs, or copies the keys six
times. As rows of one product they are read once, and the result is the same.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "vl3_grouped"
MOST_TOKENS = 512  # of a prompt: above it there is enough work in each head


def attend(module, query, key, value, attention_mask=None, *, scaling=None, **options):
    """As transformers' sdpa_attention_forward, which it is but for few tokens on a CPU.

    Shapes: query - [B, H, L, C]; key, value - [B, groups, S, C]; attention_mask - [B, 1, L, S]
            returns [B, L, H, C], None
    """
    batch, heads, length, channels = query.shape
    groups = key.shape[1]
    is_causal = attention_mask is None and length > 1  # the mask is implied
    has_gradient = torch.is_grad_enabled() and query.requires_grad
    has_more = any(options.get(name) for name in ("dropout", "softcap")) or any(
        options.get(name) is not None for name in ("cache", "position_bias")
    )
    if (
        query.device.type != "cpu"
        or groups == heads
        or length > MOST_TOKENS
        or is_causal
        or has_gradient
        or has_more
    ):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
    shared = heads // groups
    if attention_mask is not None:
        attention_mask = attention_mask.repeat(1, 1, shared, 1)
    rows = query.reshape(batch, groups, shared * length, channels)
    out = F.scaled_dot_product_attention(rows, key, value, attention_mask, scale=scaling)
    return out.view(batch, heads, length, channels).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)

_PASSES: Counter[int] = Counter()  # by configuration: passes that run, of all threads
_LOCK = threading.Lock()


@contextmanager
def use_grouped_attention(config: PreTrainedConfig, device: torch.device) -> Iterator[None]:
    """For one pass, a language model of this configuration that attends with SDPA attends so.

    The configuration names it no longer than that: code that reads it between passes (a saved
    config.json, continuous batching, set_attn_implementation) finds what transformers knows.
    """
    if device.type != "cpu" or torch.compiler.is_compiling():
        yield
        return
    with _LOCK:
        is_ours = config._attn_implementation in ("sdpa", NAME)
        if is_ours:
            _PASSES[id(config)] += 1
            config._attn_implementation = NAME
    try:
        yield
    finally:
        if is_ours:
            with _LOCK:
                _PASSES[id(config)] -= 1
                if not _PASSES[id(config)]:
                    del _PASSES[id(config)]
                    if config._attn_implementation == NAME:
                        config._attn_implementation = "sdpa"
