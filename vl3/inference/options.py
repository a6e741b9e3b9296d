"""What a studio is asked for, as settings; what is wrong is said in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from vl3.arguments import did_you_mean, shown, switch, whole
from vl3.families.settings import ProcessorSettings
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
