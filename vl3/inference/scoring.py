"""How likely given answers are: the log-probability of each of their tokens after a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from vl3.inference.asking import Asked, Request, TooLong, notes_of, open_media, prepared, rendered
from vl3.inference.encoded import EncodedCache
from vl3.inference.engine import give_back_memory
from vl3.inference.generation import PrefixCache, answer_logprobs, stream_text
from vl3.inference.reply import OutOfMemory, is_out_of_memory, release
from vl3.prompt import IGNORE, Prompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How likely a model is to give an answer, in natural logarithms.

    token_ids: of the answer, without the one that ends it; pieces: the text that each adds, ""
    where a character is not complete yet
    logprobs: of each token after those before it; end_logprob: of ending there
    prompt_tokens, reused_tokens: of the prompt, and of those what an earlier question left
    """

    answer: str
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    end_logprob: float
    prompt_tokens: int
    reused_tokens: int
    notes: tuple[str, ...] = field(default=())

    @property
    def total(self) -> float:
        """Of the whole answer and no more."""
        return sum(self.logprobs) + self.end_logprob

    @property
    def mean(self) -> float:
        """A token's, the end among them: fairer between answers of different lengths."""
        return self.total / (len(self.logprobs) + 1)


def score(
    encoded: EncodedCache, prefix: PrefixCache, request: Request, answers: Sequence[str]
) -> tuple[Score, ...]:
    """A Score for each answer, in their order.

    Short of memory it is tried once more without what earlier questions left, never with less of
    the media: that would be another question.
    Raises: ValueError, vl3.video.VideoError, TooLong, OutOfMemory in one sentence;
    vl3.inference.engine.Stopped.
    """
    try:
        return _score(encoded, prefix, request, answers)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release(encoded, prefix)
    give_back_memory()
    try:
        return _score(encoded, prefix, request, answers)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "There is too little memory to score this. Lower max_frames or budget_tokens, or load "
            "the model in 4 bits."
        ) from error.with_traceback(None)


def _score(
    encoded: EncodedCache, prefix: PrefixCache, request: Request, answers: Sequence[str]
) -> tuple[Score, ...]:
    processor, state, ready = encoded.processor, Asked(), [0]
    state.now = encoded.now(request.stopped)
    if not request.reuse:
        prefix.clear()
    for _ in open_media(encoded, request, state):
        pass  # its stages
    found: list[Score] = []
    # As in training an answer is tokenized with its conversation. They share a prompt, but for
    # oddities of a tokenizer where an answer begins.
    prompts = [(rendered(processor, request, state, answer), answer) for answer in answers]
    for ids, group in groupby(prompts, key=lambda pair: pair[0].ids[: _begins(pair[0])]):
        same = list(group)
        state.prompt = replace(same[0][0], text="", ids=ids, labels=[])
        given = [prompt.labels[len(ids) : _ends(prompt)] for prompt, _ in same]
        question = prepared(encoded.model, processor, state)
        _check_room(encoded.model, len(ids) + max(map(len, given)))
        logprobs = answer_logprobs(
            encoded.engine, question, given, prefix, ready.append, request.stopped
        )
        for (_, answer), tokens, found_T in zip(same, given, logprobs, strict=True):
            *values, end = found_T.tolist()
            pieces = stream_text(iter(tokens[:-1]), processor.decode)
            score = Score(
                answer=answer,
                token_ids=tuple(tokens[:-1]),
                pieces=tuple(piece for token, piece in pieces if token is not None),
                logprobs=tuple(values),
                end_logprob=end,
                prompt_tokens=len(ids),
                reused_tokens=ready[-1],
                notes=(*request.notes, *notes_of(state, request)),
            )
            found.append(score)
    return tuple(found)


def _check_room(model, tokens: int) -> None:
    limit = model.config.text_config.max_position_embeddings
    if tokens > limit:
        raise TooLong(f"{tokens} tokens with the answer exceed the limit {limit}. Shorten it.")


def _ends(prompt: Prompt) -> int:
    """The position after the token that ends the answer."""
    return max(place for place, label in enumerate(prompt.labels) if label != IGNORE) + 1


def _begins(prompt: Prompt) -> int:
    """The position of the answer's first token; before it stands the header of its turn."""
    end = _ends(prompt)
    return max(place for place in range(end) if prompt.labels[place] == IGNORE) + 1
