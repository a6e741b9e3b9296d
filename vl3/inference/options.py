"""What a studio is asked for, as settings; what is wrong is said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from vl3.arguments import did_you_mean, shown, switch, whole
from vl3.families.settings import ProcessorSettings
from vl3.messages.sources import is_sound, is_wave
from vl3.settings import PruneSettings

# Of an answer, besides its decoding.
OPTIONS = ("budget_tokens", "prune", "sound", "picture", "stop", "reuse")
SECONDS = {"low": 0, "unit": "seconds"}  # of a clip, before there is a question
READING: Any = {"fps": {"above": 0}, "max_frames": {"low": 1}, "start": SECONDS, "end": SECONDS}


def chosen(
    settings: ProcessorSettings, budget_tokens=None, prune="model", sound=None
) -> ProcessorSettings:
    """The settings with what a caller asks for; arguments as of vl3.studio.Studio.stream."""
    if sound is not None:
        hear = switch("sound", sound)
        if settings.sound is not None:
            settings = replace(settings, sound=replace(settings.sound, hear=hear))
        elif hear:
            raise ValueError("this model has no ear; leave sound out, or load one that hears")
    if budget_tokens is not None:
        budget_tokens = whole("budget_tokens", budget_tokens, low=1, unit="visual tokens")
        settings = replace(settings, budget_tokens=budget_tokens)
    if prune is None or isinstance(prune, PruneSettings):
        return replace(settings, prune=prune)
    if isinstance(prune, Mapping):
        check_names(prune, [each.name for each in fields(PruneSettings)], what="prune")
        own = settings.prune or PruneSettings()
        return replace(settings, prune=replace(own, **prune))
    if not is_models(prune):
        raise ValueError(
            "prune is 'model' for the checkpoint's setting, None for off, or a dict of mode, "
            f"threshold, min_tokens and keep - got {shown(prune)}"
        )
    return settings


def as_messages(messages, name: str) -> list[dict]:
    """The messages as a list; what is in them is read by vl3.messages.media and vl3.prompt."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence | Iterator):
        raise ValueError(
            f'{name}: wanted is a list of {{"role": ..., "content": ...}} - got {shown(messages)}'
        )
    return list(messages)


def is_models(prune: object) -> bool:
    """Whether pruning is left to the model."""
    return isinstance(prune, str) and prune == "model"


def check_names(given: Mapping, known: Sequence[str], also: Sequence[str] = (), what="") -> None:
    """Raises ValueError for the first name that is not known."""
    for name in given:
        if name not in known and name not in also:
            hint = did_you_mean(name, [*known, *also])
            if name in READING:
                hint = f"; {name} is studio.open's, or stands beside the path in a message"
            raise ValueError(
                f"{what or 'an answer'} has no setting {name!r}; there are "
                f"{', '.join([*known, *also])}{hint}"
            )


def conversation(video, question: str, system, history, hears: bool) -> list[dict]:
    """Messages that end with a question about one or several videos or sounds, opened or not."""
    if not isinstance(question, str):
        raise ValueError(f"the question is a text - got {shown(question)}")
    if not isinstance(system, str | None):
        raise ValueError(f"system is a text, or None for the model's - got {shown(system)}")
    is_one = not isinstance(video, list | tuple) or is_wave(video)
    parts = [part_of(medium, hears) for medium in ([video] if is_one else video)]
    history = [] if history is None else as_messages(history, "history")
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
    return [*([{"role": "system", "content": system}] if system else []), *history, asked]


def part_of(source, hears: bool) -> dict:
    """The part of a message that asks about this source.

    hears: whether the model does, for which a sound is one
    """
    kind = "audio" if hears and is_sound(source) else "video"
    return {"type": kind, kind: source}
