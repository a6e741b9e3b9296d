"""Replays a finished answer and captures the queries and keys of its attention.

The language model calls whatever attention its configuration names; for the time of a replay that
is a name of ours, registered with transformers, behind which stands the function given. The vision
encoder has a module that q and k enter, and towers of transformers layers that give them: hooks are
enough there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from vl3.interpret.attention_rows import QK
from vl3.interpret.replay_input import ReplayInput
from vl3.values import Grid
from vl3.vision.encoder import VisionEncoder
from vl3.vision.towers import VisionTower

NAME = "vl3_trace"
STANDS_FOR = {"sdpa", "eager", "vl3_grouped", "flash_attention_2", "flash_attention_3"}
_ATTEND: ContextVar[Callable] = ContextVar("attend", default=sdpa_attention_forward)

AttentionInterface.register(NAME, lambda *args, **options: _ATTEND.get()(*args, **options))
AttentionMaskInterface.register(NAME, sdpa_mask)


class _StopForward(Exception):
    """The deepest layer asked for was seen."""


@contextmanager
def patched_attention(model, attend: Callable) -> Iterator[None]:
    """Within it the language model's attention is attend, called as transformers calls one.

    Raises: ValueError where the model attends by a function that attend does not stand for.
    """
    config = model.language.config
    if config._attn_implementation not in STANDS_FOR:
        raise ValueError(
            f"the language model attends by {config._attn_implementation!r}, which a replay does "
            "not follow; set model.language.config._attn_implementation to 'sdpa' to look"
        )
    before, config._attn_implementation = config._attn_implementation, NAME
    token = _ATTEND.set(attend)
    try:
        yield
    finally:
        _ATTEND.reset(token)
        config._attn_implementation = before


@torch.no_grad()
def language(model, scene: ReplayInput, layers: Sequence[int], first: int) -> dict[int, QK]:
    """Queries (from position first on) and keys of some layers of the language model.

    Cost: one prefill of prompt and answer up to the deepest of the layers.
    """
    kept: dict[int, QK] = {}

    def attend(module, query, key, value, mask, **options):
        if module.layer_idx in layers:
            kept[module.layer_idx] = QK(
                q_HLC=query[0, :, first:].clone(),  # a slice would hold the whole
                k_HLC=key[0].clone(),
                scale=options["scaling"],
                first=first,
                window=options.get("sliding_window"),
            )
            if len(kept) == len(set(layers)):
                raise _StopForward
        return sdpa_attention_forward(module, query, key, value, mask, **options)

    with patched_attention(model, attend), suppress(_StopForward):
        model(inputs_embeds=embedded(model, scene, scene.ids()), use_cache=False, logits_to_keep=1)
    return kept


def embedded(model, scene: ReplayInput, ids: Sequence[int]) -> torch.Tensor:
    """Token and visual embeddings of the replay, [1, L, E].

    Slots are the prompt's alone: the token of one that an answer writes is read as it is written.
    """
    ids_BL = torch.tensor([ids], device=model.device)
    text_BLE = model.get_input_embeddings()(ids_BL)
    if not len(scene.slot_K) and not len(scene.sound_K):
        return text_BLE
    end = len(scene.prompt_ids)
    seen_BLE = model.splice(ids_BL[:, :end], text_BLE[:, :end], scene.embeds())
    return torch.cat([seen_BLE, text_BLE[:, end:]], dim=1)


@torch.no_grad()
def vision(model, pixels_NP: torch.Tensor, grid: Grid, layers: Sequence[int]) -> dict[int, QK]:
    """Queries and keys of some layers of the vision encoder for one frame.

    Frames never see each other, so one frame is all that has to be encoded again.
    """
    kept: dict[int, QK] = {}
    watch = _watch_tower if isinstance(model.vision, VisionTower) else _watch_encoder
    hooks = [hook for layer in layers for hook in watch(model.vision, layer, kept)]
    try:
        model.vision(pixels_NP.to(model.device), (grid,))
    finally:
        for hook in hooks:
            hook.remove()
    return kept


def _watch_encoder(encoder: VisionEncoder, layer: int, kept: dict[int, QK]) -> list:
    """Hooks that keep what enters the attention of a layer of the any-resolution encoder."""

    def hook(_module, inputs) -> None:
        q_HLC, k_HLC = (x_NHC.transpose(0, 1).contiguous() for x_NHC in inputs[:2])
        scale = q_HLC.shape[-1] ** -0.5
        kept[layer] = QK(q_HLC=q_HLC, k_HLC=k_HLC, scale=scale, causal=False)

    block: Any = encoder.blocks[layer]
    return [block.attention.attend.register_forward_pre_hook(hook)]


def _watch_tower(tower: VisionTower, layer: int, kept: dict[int, QK]) -> list:
    """Hooks that keep queries and keys of a layer of a tower of transformers."""
    attention: Any = tower.blocks[layer].self_attn
    found: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable:
        def keep(_module, _inputs, x_TLD) -> None:
            (x_LD,) = x_TLD  # of the one frame
            found[name] = x_LD.unflatten(-1, (-1, attention.head_dim)).transpose(0, 1).contiguous()
            if len(found) == 2:
                scale, leading = attention.scale, tower.kind.leading
                q_HLC, k_HLC = found["q"], found["k"]
                kept[layer] = QK(
                    q_HLC=q_HLC, k_HLC=k_HLC, scale=scale, causal=False, leading=leading
                )

        return keep

    return [
        attention.q_proj.register_forward_hook(hook("q")),
        attention.k_proj.register_forward_hook(hook("k")),
    ]
