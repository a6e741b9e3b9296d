"""One reply: its media opened, its prompt rendered, its text streamed, tokens and time counted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch

from vl3.families.settings import ProcessorSettings
from vl3.inference import generation
from vl3.inference.encoded import EncodedCache
from vl3.inference.encoded_video import HANDED_OVER, EncodedVideo, slot_embeds, sound_of
from vl3.inference.engine import Stopped, give_back_memory
from vl3.inference.generation import PrefixCache, PreparedPrompt
from vl3.inference.heard import EncodedSound
from vl3.inference.opening import ModelFingerprint, Opening
from vl3.messages.media import find_media
from vl3.messages.sounds import SoundPart
from vl3.prompt import Prompt
from vl3.settings import Decoding
from vl3.values import Clip, Ledger, Progress, Reply, SoundContext, VisualContext

Handed = dict[int, tuple[Clip | SoundPart, EncodedVideo | EncodedSound]]


class TooLong(ValueError):
    """A prompt that does not fit the model's context."""


class OutOfMemory(RuntimeError):
    """The device ran out of memory even with a smaller plan."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A conversation to answer, and how. stopped() is asked between the layers of the model.

    is_prune_asked: whether settings.prune is meant for videos that were opened before, too
    reuse: whether what earlier questions left may be used
    sees: False for grey in place of what every image and video shows
    """

    messages: Sequence[dict]
    settings: ProcessorSettings
    decoding: Decoding
    stopped: Callable[[], bool]
    is_prune_asked: bool = False
    reuse: bool = True
    sees: bool = True
    notes: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class ReplyState:
    """What is known of a reply while it is being made."""

    started: float = field(default_factory=time.perf_counter)
    media: list[tuple[EncodedVideo | EncodedSound, bool]] = field(default_factory=list)
    now: ModelFingerprint | None = None
    prompt: Prompt | None = None
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    reused_tokens: int = 0
    prompt_s: float | None = None
    first_token_s: float | None = None
    stopped: bool = False
    truncated: bool = False

    @property
    def videos(self) -> list[tuple[EncodedVideo, bool]]:
        """The clips and images among the media."""
        return [(one, known) for one, known in self.media if isinstance(one, EncodedVideo)]


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
        yield from _open_media(encoded, request, state)
        question = _question(model, processor, request, state)
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


def _open_media(encoded: EncodedCache, request: Request, state: ReplyState) -> Iterator[Progress]:
    """Opens every medium of the messages in order, telling the stages as they come."""
    handed: Handed = {}
    messages = [_with_clips(message, handed) for message in request.messages]
    prune_anew = request.settings if request.is_prune_asked else None
    for medium in find_media(messages):
        is_sound = isinstance(medium, SoundPart)
        _, video = handed.get(id(medium if is_sound else medium.source), (None, None))

        def opened(on_stage, stopped, medium=medium, video=video):
            opening = Opening(cast(ModelFingerprint, state.now), request.reuse, on_stage, stopped)
            if isinstance(medium, SoundPart):
                return encoded.open_sound(medium, request.settings, opening, video)
            if video is None:
                found, is_known = encoded.open(medium, request.settings, opening)
            else:
                found, is_known = encoded.take(video, request.settings, prune_anew, opening)
            return found if request.sees else encoded.blinded(found, opening), is_known

        state.media.append((yield from _staged(opened, request.stopped)))
    state.prompt = encoded.processor.render(
        messages,
        [medium.slots for medium, _ in state.media],
        add_system_prompt=request.settings.system_prompt,
        add_generation_prompt=True,
    )


def _with_clips(message: dict, handed: Handed) -> dict:
    """The message with a clip for each opened video, and for each opened sound one with a part of
    its own; handed tells them by the ids of these, since two videos may share a clip."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list | tuple):
        return message  # text, or what find_media refuses

    def clip_of(part):
        sound = part.get("audio") if isinstance(part, dict) else None
        if isinstance(sound, EncodedSound):
            own = replace(sound.part)
            handed[id(own)] = (own, sound)
            return part | {"audio": replace(sound, planned=replace(sound.planned, part=own))}
        held = _opened_in(part)
        if not held:
            return part
        kind = part.get("type")
        given = {key: value for key, value in part.items() if value is not None and value != ""}
        if (
            kind not in ("image", "video")
            or held != [kind]
            or not isinstance(part[kind], EncodedVideo)
            or (kind == "video" and len(given) > 2)
        ):
            raise ValueError(
                'an opened video is a part of its own, {"type": "video", "video": video}, without '
                f"options; those are studio.open's - got {sorted(part)}"
            )
        clip = replace(part[kind].clip)
        handed[id(clip)] = (clip, part[kind])
        return given | {kind: clip}

    return message | {"content": [clip_of(part) for part in content]}


def _opened_in(part) -> list[str]:
    """Under which keys of a part an opened video stands, directly or within a dict."""
    if not isinstance(part, dict):
        return []
    return [
        key
        for key, value in part.items()
        if isinstance(value, EncodedVideo)
        or (
            isinstance(value, dict)
            and any(isinstance(each, EncodedVideo) for each in value.values())
        )
    ]


def _staged(work: Callable, stopped: Callable[[], bool]) -> Generator[Progress, None, Any]:
    """Runs work(on_stage, stopped) beside us, yields its stages, returns its value or raises its
    error."""
    events: queue.SimpleQueue = queue.SimpleQueue()
    closed = threading.Event()

    def is_over() -> bool:
        return closed.is_set() or stopped()

    def on_stage(stage: Progress) -> None:
        if is_over():
            raise Stopped
        events.put(stage)

    def run() -> None:
        try:
            events.put(("done", work(on_stage, is_over)))
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            events.put(("failed", error))

    worker = threading.Thread(target=run, name="vl3-open", daemon=True)
    worker.start()
    try:
        while isinstance(event := events.get(), Progress):
            yield event
    finally:
        closed.set()
        worker.join()
    kind, value = event
    if kind == "failed":
        raise value
    return value


def _question(model, processor, request: Request, state: ReplyState) -> PreparedPrompt:
    """The prompt with its media as the prefill wants them."""
    prompt, now = cast(Prompt, state.prompt), cast(ModelFingerprint, state.now)
    filled = [medium for medium, _ in state.media if medium.slots.in_order]
    spans = sorted(prompt.spans + prompt.sounds)
    runs = accumulate(len(medium.slots.in_order) for medium in filled)
    ends = tuple(sum(spans[count - 1]) for count in runs)
    limit = model.config.text_config.max_position_embeddings
    if len(prompt.ids) >= limit:
        moving = any(video.clip.kind == "video" for video, _ in state.videos)
        unpruned = processor.settings.unpruned
        raise TooLong(
            f"{len(prompt.ids)} tokens exceed the limit {limit}. "
            + (
                "Lower frames per second, or shorten the clip."
                if moving and unpruned
                else "Lower frames per second, shorten the clip, or raise the pruning threshold."
                if moving
                else "Lower the token budget, or show fewer pictures."
                if state.videos
                else "Shorten the sound, or let it have fewer tokens."
                if state.media
                else "Shorten the text, or leave earlier turns out."
            )
        )

    keys = tuple(medium.answer_key for medium in filled)
    embeds = [partial(slot_embeds, model, medium) for medium in filled]
    return PreparedPrompt(prompt.ids, ends, keys, lambda index: embeds[index](), now.model)


def _within_context(model, question: PreparedPrompt, decoding: Decoding) -> Decoding:
    room = model.config.text_config.max_position_embeddings - len(question.ids)
    return replace(decoding, max_new_tokens=min(decoding.max_new_tokens, room))


def end_tokens(model, processor) -> frozenset[int]:
    """Token ids that end an answer."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, processor.tokenizer.eos_token_id]
    ids.append(processor.tokenizer.convert_tokens_to_ids(processor.template.end))
    return frozenset(token for token in ids if token is not None)


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
        notes=(*request.notes, *_notes([medium for medium, _ in state.media], request.sees)),
        model=(state.now and state.now.model) or "",
        seen=_seen(state),
        prompt_ids=tuple(state.prompt.ids) if state.prompt else (),
    )


def _notes(media: Sequence[EncodedVideo | EncodedSound], sees: bool) -> list[str]:
    """What is to be known of how media were seen and heard: once for each, named where several."""
    told: dict[tuple, int] = {}
    for medium in media:
        own = list(medium.notes)
        if isinstance(medium, EncodedSound):
            told.setdefault((medium.source, tuple(own)), len(told) + 1)
            continue
        if medium.made.encoder == HANDED_OVER and sees:
            own.append("The features are those that were handed over, not the encoder's.")
        if medium.has_own_keep:
            own.append("The mask is the one that was handed over, not the pruner's.")
        told.setdefault((medium.clip.source, tuple(own)), len(told) + 1)
    names = [Path(source).name for source, _ in told]
    if len(told) == 1:
        return [note for _, own in told for note in own]
    return [
        f"{name}{f' ({number})' if names.count(name) > 1 else ''}: {note}"
        for name, ((_, own), number) in zip(names, told.items())
        for note in own
    ]


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
