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
    answer = FixedAnswer(model, embeds_BLE, count + WARM_UPS, device)
    replay = _captured(answer.step) if device == "cuda" else answer.step
    answer.rewind()
    ids = [int(answer.token)]

    def rest() -> None:
        for _ in range(count - 1):
            replay()
            ids.append(int(answer.token))  # waits, as whoever shows each word must

    return ids, once_s(rest, device) / max(1, count - 1)


class FixedAnswer:
    """A prompt that was read, and the tensors of an answer to it.

    token, position - [1, 1], the last token and the place where it belongs; seen - bool
    [1, 1, 1, room], which places hold a token
    """

    def __init__(self, model, embeds_BLE: torch.Tensor, most_tokens: int, device: str) -> None:
        self.language, self.length = model.language, embeds_BLE.shape[1]
        room = self.length + most_tokens
        self.cache = StaticCache(config=model.config.text_config, max_cache_len=room)
        for part in embeds_BLE.split(PREFILL_TOKENS[device], dim=1):
            logits = self.language(
                inputs_embeds=part, past_key_values=self.cache, use_cache=True, logits_to_keep=1
            ).logits
        self.first = logits[:, -1].argmax(-1, keepdim=True)
        self.token = self.first.clone()
        self.position = torch.full((1, 1), self.length, device=device)
        self.seen = torch.zeros(1, 1, 1, room, dtype=torch.bool, device=device)
        self.rewind()

    def rewind(self) -> None:
        """To the end of the prompt and the first token after it."""
        self.token.copy_(self.first)
        self.position.fill_(self.length)
        self.seen.fill_(False)
        self.seen[..., : self.length] = True
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.length)

    def step(self) -> None:
        """The next token. Nothing here asks the device for a number, or a graph could not be."""
        self.seen.index_fill_(3, self.position[0], True)
        logits = self.language(
            inputs_embeds=self.language.get_input_embeddings()(self.token),
            attention_mask=self.seen,
            position_ids=self.position,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.token.copy_(logits[:, -1].argmax(-1, keepdim=True))
        self.position.add_(1)


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
