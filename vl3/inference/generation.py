"""From a prompt to tokens: prefill with a reusable prefix, then one token at a time.

The key/value cache is filled in fixed steps: up to the end of each medium, then the text that
follows. A later question about the same media finds its prefix already there, and because a cold
run takes exactly the same steps, both give the same numbers and the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import uuid4

import torch
from transformers import Cache, LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from vl3.inference.engine import Engine, Turn, never
from vl3.language.kv_cache import GrowingCache
from vl3.settings import Decoding

LOGITS = 256  # tokens of a given answer at a time, each of which has logits for all words
# Tokens per step, which bounds what a step needs. On a CPU 4-bit weights are unpacked once a step.
PREFILL_TOKENS = {"cpu": 1024, "cuda": 2048, "mps": 512}


def logits_processors(decoding: Decoding, prompt_tokens: int) -> LogitsProcessorList:
    """What is done to the logits before a token is chosen.

    The repetition penalty counts new tokens only, as in the official code.
    """
    steps = LogitsProcessorList()
    if decoding.repetition_penalty != 1.0:
        steps.append(
            RepetitionPenaltyLogitsProcessor(
                decoding.repetition_penalty, prompt_ignore_length=prompt_tokens
            )
        )
    if decoding.temperature > 0:
        steps.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_p < 1.0:
            steps.append(TopPLogitsWarper(decoding.top_p))
    return steps


@dataclass(slots=True, eq=False)
class PrefixCache:
    """A key/value cache filled up to the end of the last medium of some prompt.

    keys: digest of everything the cache depends on, at the end of each medium
    ends: the positions of those ends
    """

    cache: GrowingCache = field(default_factory=GrowingCache)
    keys: tuple[str, ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.cache.layers)

    def clear(self) -> None:
        self.cache, self.keys, self.ends = GrowingCache(), (), ()

    def crop_to(self, keys: Sequence[str]) -> int:
        """Keeps the part that a prompt with these keys shares; its number of tokens."""
        common = 0
        while common < min(len(keys), len(self.keys)) and keys[common] == self.keys[common]:
            common += 1
        self.keys, self.ends = self.keys[:common], self.ends[:common]
        return self.drop_rest()

    def drop_rest(self) -> int:
        """Drops what was computed after the last medium; the number of tokens left."""
        length = self.ends[-1] if self.ends else 0
        if length == 0:
            self.cache = GrowingCache()
        else:
            self.cache.crop_to(length)
        return length


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPrompt:
    """A rendered prompt whose media are encoded.

    ids: prompt token ids; ends: position after the last slot of each medium; media_keys: what each
    medium's tokens depend on; embeds: gives the visual tokens [K, E] of medium number i
    model: fingerprint of what answers; None for one whose keys and values are good for once only
    """

    ids: list[int]
    ends: tuple[int, ...]
    media_keys: tuple[str, ...]
    embeds: Callable[[int], torch.Tensor]
    model: str | None = ""

    def keys(self) -> tuple[str, ...]:
        """Digest of the model and the prompt up to the end of each medium."""
        model = uuid4().hex if self.model is None else self.model
        digest, keys, start = hashlib.sha256(model.encode()), [], 0
        for end, media_key in zip(self.ends, self.media_keys):
            digest.update(repr((self.ids[start:end], media_key)).encode())
            keys.append(digest.hexdigest())
            start = end
        return tuple(keys)


def tokens(
    engine: Engine,
    question: PreparedPrompt,
    decoding: Decoding,
    prefix: PrefixCache,
    eos_token_ids: Collection[int],
    on_prefilled: Callable[[int], None] | None = None,
    stopped: Callable[[], bool] = never,
) -> Iterator[int]:
    """New token ids, one at a time, without the end token; a turn of the engine for each.

    prefix is extended for the next question; on_prefilled gets the number of tokens it had ready.
    Raises: vl3.inference.engine.Stopped.
    """
    model = engine.model
    prompt_ids = torch.tensor([question.ids], device=model.device)
    logits = _prefill(engine, question, prompt_ids, prefix, on_prefilled, stopped)
    chooser = torch.Generator(device=model.device).manual_seed(decoding.seed)
    processors = logits_processors(decoding, len(question.ids))
    sequence = prompt_ids
    try:
        for step in range(decoding.max_new_tokens):
            scores = processors(cast(torch.LongTensor, sequence), cast(Any, logits.float()))
            if decoding.temperature > 0:
                token = torch.multinomial(scores.softmax(-1), 1, generator=chooser)
            else:
                token = scores.argmax(-1, keepdim=True)
            if token.item() in eos_token_ids:
                return
            yield int(token.item())
            if step + 1 < decoding.max_new_tokens:
                sequence = torch.cat([sequence, token], dim=1)
                with engine.turn(stopped):
                    logits = _step(model, prefix.cache, model.get_input_embeddings()(token))
    finally:
        prefix.drop_rest()


def answer_logprobs(
    engine: Engine,
    question: PreparedPrompt,
    answers: Sequence[Sequence[int]],
    prefix: PrefixCache,
    on_prefilled: Callable[[int], None] | None = None,
    stopped: Callable[[], bool] = never,
) -> list[torch.Tensor]:
    """The log-probability of each token of each answer, were it the one to follow the prompt.

    The prompt is read once for all answers; prefix and on_prefilled as of tokens.
    Shapes: returns [T] float32 for each answer of T tokens, on the CPU
    Raises: vl3.inference.engine.Stopped.
    """
    model = engine.model
    prompt_ids = torch.tensor([question.ids], device=model.device)
    first = _prefill(engine, question, prompt_ids, prefix, on_prefilled, stopped)
    try:
        asked, found = prefix.cache.get_seq_length(), []
        for answer in answers:
            ids_T = torch.tensor(answer, device=model.device)
            parts = [_chosen(first, ids_T[:1])]
            for start in range(0, len(answer) - 1, LOGITS):
                next_ids = ids_T[start + 1 : start + 1 + LOGITS]
                read = ids_T[start : start + len(next_ids)]
                parts.append(_chosen(_logits(engine, prefix.cache, read, stopped), next_ids))
            found.append(torch.cat(parts))
            prefix.cache.crop_to(asked)
        return found
    finally:
        prefix.drop_rest()


def _chosen(logits_TV: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
    """The log-probability of one token in each row."""
    return logits_TV.float().log_softmax(-1).gather(-1, ids_T[:, None])[:, 0].cpu()


@torch.no_grad()
def _logits(engine: Engine, cache: Cache, ids_T: torch.Tensor, stopped) -> torch.Tensor:
    """Logits after each of these tokens, behind what is in the cache. Shapes: returns [T, V]"""
    with engine.turn(stopped):
        embeds = engine.model.get_input_embeddings()(ids_T[None])
        return engine.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).logits[0]


@torch.no_grad()
def _prefill(
    engine: Engine, question: PreparedPrompt, ids_BL, prefix: PrefixCache, on_prefilled, stopped
) -> torch.Tensor:
    """Logits after the whole prompt; prefix then holds all media of this prompt."""
    model, keys = engine.model, question.keys()
    ready = prefix.crop_to(keys)
    if on_prefilled is not None:
        on_prefilled(ready)
    start = ready
    for index in range(len(prefix.keys), len(question.ends)):
        end = question.ends[index]
        part = ids_BL[:, start:end]
        with engine.turn(stopped) as turn:
            embeds = model.splice(part, model.get_input_embeddings()(part), question.embeds(index))
            _fill(turn, model, prefix.cache, embeds)
        prefix.keys, prefix.ends = keys[: index + 1], question.ends[: index + 1]
        start = end
    with engine.turn(stopped) as turn:
        rest = model.get_input_embeddings()(ids_BL[:, start:])
        return cast(torch.Tensor, _fill(turn, model, prefix.cache, rest))


def _fill(turn: Turn, model, cache: Cache, embeds_BLE: torch.Tensor) -> torch.Tensor | None:
    """Runs a piece of the prompt through the language model in bounded steps, between which others
    have their turn; last logits."""
    logits = None
    for part in embeds_BLE.split(PREFILL_TOKENS[model.device.type], dim=1):
        if logits is not None:
            with turn.paused():
                pass
        logits = _step(model, cache, part)
    return logits


@torch.no_grad()
def _step(model, cache: Cache, embeds_BLE: torch.Tensor) -> torch.Tensor:
    output = model(
        inputs_embeds=embeds_BLE, past_key_values=cache, use_cache=True, logits_to_keep=1
    )
    return output.logits[:, -1]


def stream_text(token_ids: Iterator[int], decode: Callable[[list[int]], str]) -> Iterator[tuple]:
    """(token id, new text) of a stream; text waits until its last character is complete."""
    seen: list[int] = []
    written = ""
    for token in token_ids:
        seen.append(token)
        text = decode(seen)
        if text.endswith("\ufffd"):
            yield token, ""
            continue
        yield token, text[len(written) :]
        written = text
    if seen and (text := decode(seen)) != written:
        yield None, text[len(written) :]
