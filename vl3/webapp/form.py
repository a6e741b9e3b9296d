"""The values of the page's fields, as the arguments of the studio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from typing import Any, get_args

from vl3.arguments import number, whole
from vl3.settings import Decoding, PruneMode, PruneSettings, PruneSide
from vl3.webapp import timestamps
from vl3.webapp.conversation import Attachment
from vl3.webapp.errors import UserError

READING = ("start", "end", "fps", "max_frames", "budget_tokens")
DECODING = ("temperature", "top_p", "max_new_tokens", "repetition_penalty", "seed")
PRUNER = ("prune", "threshold", "mode", "keep")
ANSWER = (*DECODING, *PRUNER, "system", "sound")
FIELDS = (*READING, *ANSWER)
LONGEST_TEXT = 20_000
MODES, SIDES = get_args(PruneMode), get_args(PruneSide)
DEFAULTS = {name: getattr(Decoding(), name) for name in DECODING}  # of fields left empty
_CHOICES = {"mode": MODES, "keep": SIDES}
# What a field of numbers may hold; beyond it a slip is likelier than a wish.
_NUMBERS: dict[str, tuple[str, Callable]] = {
    "fps": ("Frames per s", partial(number, above=0, high=1000)),
    "max_frames": ("Max frames", partial(whole, low=1, high=100_000)),
    "budget_tokens": ("Token budget", partial(whole, low=1, high=1_000_000)),
    "temperature": ("Temperature", partial(number, low=0, high=100)),
    "top_p": ("Top-p", partial(number, above=0, high=1)),
    "max_new_tokens": ("Max new tokens", partial(whole, low=1, high=1_000_000)),
    "repetition_penalty": ("Repetition penalty", partial(number, above=0, high=100)),
    "seed": ("Seed", partial(whole, low=0, high=2**32 - 1)),
    "threshold": ("Threshold", partial(number, low=0, high=1000)),
}


def value(name: str, given: object) -> Any:
    """What a field of numbers holds; None where it is empty.

    Raises: UserError with its label, its range and what it holds where that is out of range.
    """
    if given is None or given == "":
        return None
    label, read = _NUMBERS[name]
    try:
        return read(label, given)
    except ValueError as error:
        raise UserError("Setting out of range", f"{error}.") from None


def faults(values: Sequence, context_tokens: int) -> dict[str, str]:
    """What is wrong with the fields FIELDS, by their names, each in one sentence.

    context_tokens: what prompt and answer of the model can have together
    """
    fields = dict(zip(FIELDS, values, strict=True))
    found = {}
    checks: dict[str, Callable[[], object]]
    checks = {name: partial(value, name, fields[name]) for name in _NUMBERS}
    checks["start"] = partial(moments, fields["start"], fields["end"])
    for name, check in checks.items():
        try:
            check()
        except ValueError as error:
            found[name] = str(error)
    longest = fields["max_new_tokens"] or 0
    if "max_new_tokens" not in found and longest >= context_tokens:
        found["max_new_tokens"] = (
            f"Max new tokens leaves no room for a question: this model reads and writes "
            f"{context_tokens} tokens in all - got {longest:g}."
        )
    return found


def moments(start: Any, end: Any) -> tuple[float | None, float | None]:
    """The seconds of the fields From and To; None for an empty one.

    Raises: ValueError where one is no time, or To is not after From.
    """
    start_s, end_s = timestamps.parse(start, "From"), timestamps.parse(end, "To")
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise UserError(
            "Nothing between these times",
            f"From {timestamps.typed(start_s)} is not before To {timestamps.typed(end_s)}. "
            "Move From earlier or To later.",
        )
    return start_s, end_s


def reading(values: Sequence) -> dict:
    """How videos are read, from the fields READING in order."""
    return dict(zip(READING, values[: len(READING)], strict=True))


def answer(values: Sequence) -> tuple[dict, str]:
    """The settings of an answer and the system prompt, from the fields ANSWER in order.

    A field left empty has its default. Pruning is None (off), or mode, keep and, where one was
    typed, threshold; an empty threshold is the model's own.
    Raises: UserError for the first number out of its range.
    """
    fields = dict(zip(ANSWER, values, strict=True))
    given = {name: value(name, fields[name]) for name in DECODING}
    settings = {name: DEFAULTS[name] if given[name] is None else given[name] for name in DECODING}
    settings["prune"] = pruning([fields[name] for name in PRUNER])
    settings["sound"] = fields["sound"] is not False  # as it is where there is no such field
    return settings, fields["system"] or ""


def split(values: Sequence) -> tuple[dict, dict]:
    """Reading and answer settings from the fields READING and ANSWER, one after the other."""
    return reading(values), answer(values[len(READING) :])[0]


def defaults(card: Mapping, prune: Mapping | None) -> dict:
    """The fields that a browser keeps, all but the range, before a person changes them.

    prune: how the model prunes by itself
    """
    rule = prune or {"mode": PruneSettings().mode, "keep": PruneSettings().keep}
    pruning = {"prune": bool(prune), **{name: rule.get(name) for name in PRUNER[1:]}}
    known = {**DEFAULTS, **pruning, "system": "", "sound": True, **card["defaults"]}
    return {name: known[name] for name in FIELDS[2:]}


def restored(stored: object, defaults: Mapping) -> list:
    """The fields of `defaults` with what a browser had stored, where that fits the field."""
    stored = stored if isinstance(stored, dict) else {}
    return [
        stored[name] if name in stored and _is_known(name, stored[name], default) else default
        for name, default in defaults.items()
    ]


def _is_known(name: str, value: object, default: object) -> bool:
    return value in _CHOICES[name] if name in _CHOICES else _is_like(value, default)


def _is_like(value: Any, default: object) -> bool:
    if isinstance(default, bool | str):
        return type(value) is type(default) and len(str(value)) <= LONGEST_TEXT
    return value is None or (type(value) in (int, float) and isfinite(value))


def read_as(item: Attachment | None, values: Sequence) -> tuple:
    """The fields READING for an attachment read before; where it does not say, as they are."""
    if item is None:
        return ("", "", *values[2:])
    fps, max_frames, *rest = values[2:]
    start, end = timestamps.typed(item.start_s), timestamps.typed(item.end_s)
    return (start, end, item.fps or fps, item.max_frames or max_frames, *rest)


def rule(detail: object) -> dict:
    """Threshold, mode and keep of a pruner as a browser names them.

    Raises: UserError where one of them is none.
    """
    detail = detail if isinstance(detail, dict) else {}
    threshold: Any
    threshold, mode, keep = (detail.get(name) for name in ("threshold", "mode", "keep"))
    is_number = type(threshold) in (int, float) and isfinite(threshold) and threshold >= 0
    if not is_number or mode not in MODES or keep not in SIDES:
        raise UserError("Not possible", "This is no setting of the pruner. Reload the page.")
    return {"threshold": float(threshold), "mode": mode, "keep": keep}


def pruning(values: Sequence) -> dict | None:
    """How the pruner decides, from the fields PRUNER in order; None for off."""
    is_on, threshold, mode, keep = values
    if not is_on:
        return None
    chosen, threshold = {"mode": mode, "keep": keep}, value("threshold", threshold)
    return chosen if threshold is None else {**chosen, "threshold": threshold}
