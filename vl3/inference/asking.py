"""A conversation made into a prompt whose media are encoded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

from vl3.arguments import shown, switch
from vl3.families.settings import ProcessorSettings
from vl3.inference.encoded import EncodedCache
from vl3.inference.encoded_video import HANDED_OVER, EncodedVideo, slot_embeds
from vl3.inference.engine import Stopped
from vl3.inference.generation import PreparedPrompt
from vl3.inference.heard import EncodedSound
from vl3.inference.opening import ModelFingerprint, Opening
from vl3.inference.options import as_messages, chosen, is_models
from vl3.messages.media import find_media
from vl3.messages.sounds import SoundPart
from vl3.prompt import Prompt
from vl3.settings import Decoding
from vl3.values import Clip, Progress

Handed = dict[int, tuple[Clip | SoundPart, EncodedVideo | EncodedSound]]


class TooLong(ValueError):
    """A prompt that does not fit the model's context."""


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


def request_of(
    settings: ProcessorSettings,
    messages,
    decoding: Decoding,
    *,
    budget_tokens=None,
    prune="model",
    sound=None,
    picture=True,
    stop=None,
    reuse=True,
) -> Request:
    """What a caller of vl3.studio.Studio.stream or of its score asks for.

    Raises: ValueError in one sentence.
    """
    messages = as_messages(messages, "messages")
    if not messages:
        raise ValueError("there is no message to answer; pass at least one user message")
    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise ValueError(f"stop is a threading.Event - got {shown(stop)}")
    return Request(
        messages,
        chosen(settings, budget_tokens, prune, sound),
        decoding,
        (stop or threading.Event()).is_set,
        is_prune_asked=not is_models(prune),
        reuse=switch("reuse", reuse),
        sees=switch("picture", picture),
        notes=() if picture else ("Every frame was grey, so nothing of it was seen.",),
    )


@dataclass(slots=True, eq=False)
class Asked:
    """What is known of a conversation while it is made into a prompt.

    messages: with a clip for each video that was opened before
    media: each opened one, and whether it was encoded before; now: the model that will answer
    """

    messages: list[dict] = field(default_factory=list)
    media: list[tuple[EncodedVideo | EncodedSound, bool]] = field(default_factory=list)
    now: ModelFingerprint | None = None
    prompt: Prompt | None = None

    @property
    def videos(self) -> list[tuple[EncodedVideo, bool]]:
        """The clips and images among the media."""
        return [(one, known) for one, known in self.media if isinstance(one, EncodedVideo)]


def open_media(encoded: EncodedCache, request: Request, state: Asked) -> Iterator[Progress]:
    """Opens every medium of the messages in order, telling the stages as they come."""
    handed: Handed = {}
    state.messages = [_with_clips(message, handed) for message in request.messages]
    prune_anew = request.settings if request.is_prune_asked else None
    for medium in find_media(state.messages):
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

        state.media.append((yield from staged(opened, request.stopped)))


def rendered(processor, request: Request, state: Asked, answer: str | None = None) -> Prompt:
    """The prompt of the messages and their opened media, up to where an answer begins.

    answer: with it as well, its tokens and the one that ends it labelled
    """
    turn = [] if answer is None else [{"role": "assistant", "content": answer}]
    return processor.render(
        [*state.messages, *turn],
        [medium.slots for medium, _ in state.media],
        add_system_prompt=request.settings.system_prompt,
        add_generation_prompt=answer is None,
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


def staged(work: Callable, stopped: Callable[[], bool]) -> Generator[Progress, None, Any]:
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


def prepared(model, processor, state: Asked) -> PreparedPrompt:
    """The prompt with its media as the prefill wants them. Raises: TooLong."""
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


def notes_of(state: Asked, request: Request) -> list[str]:
    """What is to be known of how media were seen and heard: once for each, named where several."""
    told: dict[tuple, int] = {}
    for medium, _ in state.media:
        own = list(medium.notes)
        if isinstance(medium, EncodedSound):
            told.setdefault((medium.source, tuple(own)), len(told) + 1)
            continue
        if medium.made.encoder == HANDED_OVER and request.sees:
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


def end_tokens(model, processor) -> frozenset[int]:
    """Token ids that end an answer."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ids = [*ids, processor.tokenizer.eos_token_id]
    ids.append(processor.tokenizer.convert_tokens_to_ids(processor.template.end))
    return frozenset(token for token in ids if token is not None)
