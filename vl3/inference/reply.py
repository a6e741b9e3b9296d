"""One reply: its media opened, its prompt rendered, its text streamed, tokens and time counted."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

import numpy as np
import psutil
import torch

from vl3.families.settings import ProcessorSettings
from vl3.inference import generation
from vl3.inference.asking import (
    Asked,
    Request,
    end_tokens,
    notes_of,
    open_media,
    prepared,
    rendered,
)
from vl3.inference.encoded import EncodedCache
from vl3.inference.encoded_video import sound_of
from vl3.inference.engine import Stopped, give_back_memory
from vl3.inference.generation import PrefixCache, PreparedPrompt
from vl3.inference.heard import EncodedSound
from vl3.prompt import Prompt
from vl3.settings import Decoding
from vl3.values import Ledger, Progress, Reply, SoundContext, VisualContext


class OutOfMemory(RuntimeError):
    """The device ran out of memory even with a smaller plan."""


@dataclass(slots=True, eq=False)
class ReplyState(Asked):
    """What is known of a reply while it is being made."""

    started: float = field(default_factory=time.perf_counter)
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reused_tokens: int = 0
    prompt_s: float | None = None
    first_token_s: float | None = None
    stopped: bool = False
    truncated: bool = False


def generate(
    encoded: EncodedCache, prefix: PrefixCache, request: Request
) -> Generator[Progress | str | Reply]:
    """Stages, pieces of text and the Reply; short of memory, again without what was kept, and then
    with a smaller plan.

    Raises: ValueError, vl3.video.VideoError, TooLong, OutOfMemory in one sentence.
    """
    smaller = shrunk(request.settings)
    note = (
        f"Memory was short: answered with at most {smaller.max_frames} frames and "
        f"{smaller.budget_tokens} visual tokens."
    )
    attempts = [request, replace(request, settings=smaller, notes=(note,))]
    if encoded.nbytes or prefix.nbytes:
        attempts.insert(0, request)  # what earlier questions left may have been all that was amiss
    for attempt in attempts:
        written = False
        try:
            for event in _attempt(encoded, prefix, attempt):
                written = written or isinstance(event, str)
                yield event
            return
        except (RuntimeError, MemoryError) as error:
            if written or not is_out_of_memory(error):
                raise
            failure = error.with_traceback(None)  # it would hold the tensors of the attempt
        release(encoded, prefix)
        give_back_memory()
    where = "computer" if encoded.model.device.type == "cpu" else "GPU"
    raise OutOfMemory(
        f"The {where} ran out of memory while encoding. Your video is kept. "
        f"Try max frames {max(1, smaller.max_frames // 2)} or 4-bit."
    ) from failure


def shrunk(settings: ProcessorSettings) -> ProcessorSettings:
    """Settings that need about half the memory."""
    return replace(
        settings,
        max_frames=max(1, settings.max_frames // 2),
        budget_tokens=max(settings.min_tokens, settings.budget_tokens // 2),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is a device or the computer running out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def release(encoded: EncodedCache, prefix: PrefixCache) -> None:
    """Forgets encoded clips and the prompt's cache.

    No cycle holds their tensors, so that their memory is free at once, without a collection.
    """
    encoded.clear()
    prefix.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _attempt(encoded, prefix, request: Request) -> Iterator[Progress | str | Reply]:
    model, processor, state = encoded.model, encoded.processor, ReplyState()
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    try:
        state.now = encoded.now(request.stopped)
        if not request.reuse:
            prefix.clear()
        yield from open_media(encoded, request, state)
        state.prompt = rendered(processor, request, state)
        question = prepared(model, processor, state)
        decoding = _within_context(model, question, request.decoding)
        yield Progress("Answering", kind="answering")
        state.prompt_s = time.perf_counter() - state.started
        stream = generation.tokens(
            encoded.engine,
            question,
            decoding,
            prefix,
            end_tokens(model, processor),
            lambda ready: setattr(state, "reused_tokens", ready),
            request.stopped,
        )
        yield from _write(stream, processor, request, state)
        state.truncated = len(state.token_ids) >= decoding.max_new_tokens
    except Stopped:
        state.stopped = True
    yield _reply(model, request, state)


def _write(stream, processor, request: Request, state: ReplyState) -> Iterator[str]:
    for token, piece in generation.stream_text(stream, processor.decode):
        if state.first_token_s is None:
            state.first_token_s = time.perf_counter() - state.started
        if token is not None:
            state.token_ids.append(token)
        if piece:
            state.text += piece
            yield piece
        if request.stopped():
            stream.close()
            raise Stopped


def _within_context(model, question: PreparedPrompt, decoding: Decoding) -> Decoding:
    room = model.config.text_config.max_position_embeddings - len(question.ids)
    return replace(decoding, max_new_tokens=min(decoding.max_new_tokens, room))


def _reply(model, request: Request, state: ReplyState) -> Reply:
    total_s = time.perf_counter() - state.started
    fresh = [video for video, reused in state.videos if not reused]
    sounds = [sound for medium, _ in state.media if (sound := sound_of(medium))]
    if model.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(model.device)
    else:
        peak = psutil.Process().memory_info().rss
    first_token_s = total_s if state.first_token_s is None else state.first_token_s
    ledger = Ledger(
        frames=sum(video.grid.frames for video, _ in state.videos),
        visual_tokens=sum(video.tokens.num_tokens for video, _ in state.videos),
        kept_tokens=sum(video.ledger.kept_tokens for video, _ in state.videos),
        prompt_tokens=len(state.prompt.ids) if state.prompt else 0,
        reused_tokens=state.reused_tokens,
        new_tokens=len(state.token_ids),
        decode_s=sum(video.ledger.decode_s for video in fresh),
        encode_s=sum(video.ledger.encode_s for video in fresh),
        prune_s=sum(video.ledger.prune_s for video, _ in state.videos),
        prefill_s=0.0 if state.prompt_s is None else first_token_s - state.prompt_s,
        encoded_clips=sum(video.ledger.encoded_clips for video in fresh),
        reused_clips=len(state.videos) - len(fresh),
        sound_tokens=sum(sound.tokens.num_tokens for sound in sounds),
        hear_s=sum(sound.hear_s for sound in sounds),
        first_token_s=first_token_s,
        total_s=total_s,
        peak_memory_bytes=peak,
    )
    media = {key: value for key, value in asdict(request.settings).items() if key in MEDIA_SETTINGS}
    if request.settings.sound is not None:
        media["sound"] = request.settings.sound.hear
    if not request.sees:
        media["picture"] = False
    return Reply(
        text=state.text,
        token_ids=tuple(state.token_ids),
        prompt=state.prompt.text if state.prompt else "",
        settings=asdict(request.decoding) | media,
        ledger=ledger,
        stopped=state.stopped,
        truncated=state.truncated,
        notes=(*request.notes, *notes_of(state, request)),
        model=(state.now and state.now.model) or "",
        seen=_seen(state),
        prompt_ids=tuple(state.prompt.ids) if state.prompt else (),
    )


def _seen(state: ReplyState) -> tuple[VisualContext, ...]:
    prompt = state.prompt or Prompt(text="", ids=[], labels=[])
    first_slots, sounds = (first for first, _ in prompt.spans), iter(prompt.sounds)
    found = []
    for medium, _ in state.media:
        heard = sound_of(medium)
        sound = None
        if heard is not None:
            runs = tuple(islice(sounds, sum(map(bool, medium.slots.sounds))))
            sound = SoundContext(
                tokens=heard.tokens, runs=runs, key=heard.kept_as, track=heard.length.track
            )
        if isinstance(medium, EncodedSound):
            found.append(
                VisualContext(times_s=None, tokens_per_step=0, kept_per_step=(), sound=sound)
            )
            continue
        context = VisualContext(
            times_s=medium.clip.times_s,
            tokens_per_step=medium.tokens.tokens_per_step,
            kept_per_step=medium.slots.counts,
            frames=medium.tokens.frames,
            first_slots=tuple(islice(first_slots, len(medium.slots.counts))),
            key=medium.key,
            keep_bits=np.packbits(medium.keep.keep_M.numpy()).tobytes(),
            sound=sound,
        )
        found.append(context)
    return tuple(found)


MEDIA_SETTINGS = ("fps", "max_frames", "budget_tokens", "sampling", "prune")
