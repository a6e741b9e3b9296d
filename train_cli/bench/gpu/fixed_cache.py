"""Answers from keys and values in a room of fixed size, so that a CUDA graph can be replayed.

An experiment that is measured beside the engine's own decoding, which grows its room and asks the
card for each layer anew. Every tensor that a step reads or writes stays where it is: token,
position, the mask of what may be seen, the room and its fill.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import StaticCache

from train_cli.bench.gpu.timing import once_s
from vl3.inference.generation import PREFILL_TOKENS

WARM_UPS = 3  # steps before a graph is captured: they choose algorithms and allocate


@torch.no_grad()
def fixed_decode(
    model, embeds_BLE: torch.Tensor, count: int, device: str
) -> tuple[list[int], float]:
    """So many ids after a prompt, and the seconds of each but the first.

    Raises: RuntimeError where something in a step cannot be captured.
    """
    language, length = model.language, embeds_BLE.shape[1]
    room = length + count + WARM_UPS
    cache = StaticCache(config=model.config.text_config, max_cache_len=room)
    for part in embeds_BLE.split(PREFILL_TOKENS[device], dim=1):
        logits = language(
            inputs_embeds=part, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
    first = logits[:, -1].argmax(-1, keepdim=True)
    token = first.clone()
    position = torch.full((1, 1), length, device=device)
    seen = torch.zeros(1, 1, 1, room, dtype=torch.bool, device=device)

    def rewind() -> None:
        token.copy_(first)
        position.fill_(length)
        seen.fill_(False)
        seen[..., :length] = True
        for layer in cache.layers:
            layer.cumulative_length.fill_(length)

    def step() -> None:
        seen.index_fill_(3, position[0], True)
        found = language(
            inputs_embeds=language.get_input_embeddings()(token),
            attention_mask=seen,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits
        token.copy_(found[:, -1].argmax(-1, keepdim=True))
        position.add_(1)

    rewind()
    replay = _captured(step) if device == "cuda" else step
    rewind()
    ids = [int(first)]

    def rest() -> None:
        for _ in range(count - 1):
            replay()
            ids.append(int(token))  # waits, as whoever shows each word must

    return ids, once_s(rest, device) / max(1, count - 1)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a graph that is replayed, on the same tensors."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UPS):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
