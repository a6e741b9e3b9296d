"""The values of the page's fields, as the arguments of the studio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import get_args

from vl3.page import times
from vl3.page.conversation import Attachment
from vl3.page.refused import Refused
from vl3.vision.prune import Mode, Side

READING = ("start", "end", "fps", "max_frames", "budget_tokens")
ANSWER = (
    "temperature",
    "top_p",
    "max_new_tokens",
    "repetition_penalty",
    "seed",
    "prune",
    "threshold",
    "mode",
    "keep",
    "system",
)
PRUNER = ANSWER[5:9]
FIELDS = (*READING, *ANSWER)
# What a browser keeps for the next time; the range belongs to a video.
KEPT = (*READING[2:], *ANSWER)
LONGEST_TEXT = 20_000
MODES, SIDES = get_args(Mode), get_args(Side)
_CHOICES = {"mode": MODES, "keep": SIDES}
_DEFAULTS = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 512, "repetition_penalty": 1.0}


def reading(values: Sequence) -> dict:
    """How videos are read, from the fields READING in order."""
    return dict(zip(READING, values[: len(READING)], strict=True))


def answer(values: Sequence) -> tuple[dict, str]:
    """The settings of an answer and the system prompt, from the fields ANSWER in order.

    A field left empty has its default. Pruning is None (off), or mode, keep and, where one was
    typed, threshold; an empty threshold is the model's own.
    """
    fields = dict(zip(ANSWER, values, strict=True))
    settings = {
        name: type(default)(fields[name] if fields[name] is not None else default)
        for name, default in _DEFAULTS.items()
    }
    settings["seed"] = int(fields["seed"] or 0)
    settings["prune"] = pruning([fields[name] for name in PRUNER])
    return settings, fields["system"] or ""


def split(values: Sequence) -> tuple[dict, dict]:
    """Reading and answer settings from the fields READING and ANSWER, one after the other."""
    return reading(values), answer(values[len(READING) :])[0]


def defaults(card: Mapping, prune: Mapping | None) -> dict:
    """The fields KEPT as they are before anybody changes them. prune: the model's own."""
    known = {name: card["defaults"][name] for name in READING[2:]}
    answer = {**_DEFAULTS, "max_new_tokens": card["defaults"]["max_new_tokens"], "seed": 0}
    rule = prune or {}
    pruning = {
        "prune": bool(prune),
        "threshold": rule.get("threshold"),
        "mode": rule.get("mode", MODES[0]),
        "keep": rule.get("keep", SIDES[0]),
        "system": "",
    }
    return {**known, **{name: {**answer, **pruning}[name] for name in ANSWER}}


def restored(stored: object, defaults: Mapping) -> list:
    """The fields KEPT with what a browser had stored, where that is of the kind of the field."""
    stored = stored if isinstance(stored, dict) else {}
    return [
        stored[name] if name in stored and _is_known(name, stored[name], default) else default
        for name, default in defaults.items()
    ]


def _is_known(name: str, value: object, default: object) -> bool:
    return value in _CHOICES[name] if name in _CHOICES else _is_like(value, default)


def _is_like(value: object, default: object) -> bool:
    if isinstance(default, bool | str):
        return type(value) is type(default) and len(str(value)) <= LONGEST_TEXT
    return value is None or (type(value) in (int, float) and isfinite(value))


def read_as(item: Attachment | None, values: Sequence) -> tuple:
    """The fields READING for an attachment read before; where it does not say, as they are."""
    if item is None:
        return ("", "", *values[2:])
    fps, max_frames, *rest = values[2:]
    start, end = times.typed(item.start_s), times.typed(item.end_s)
    return (start, end, item.fps or fps, item.max_frames or max_frames, *rest)


def rule(detail: object) -> dict:
    """Threshold, mode and keep of a pruner as a browser names them.

    Raises: Refused where one of them is none.
    """
    detail = detail if isinstance(detail, dict) else {}
    threshold, mode, keep = (detail.get(name) for name in ("threshold", "mode", "keep"))
    is_number = type(threshold) in (int, float) and isfinite(threshold) and threshold >= 0
    if not is_number or mode not in MODES or keep not in SIDES:
        raise Refused("Not possible", "This is no setting of the pruner. Reload the page.")
    return {"threshold": float(threshold), "mode": mode, "keep": keep}


def pruning(values: Sequence) -> dict | None:
    """How the pruner decides, from the fields PRUNER in order; None for off."""
    is_on, threshold, mode, keep = values
    if not is_on:
        return None
    chosen = {"mode": mode, "keep": keep}
    return chosen if threshold is None else {**chosen, "threshold": float(threshold)}
