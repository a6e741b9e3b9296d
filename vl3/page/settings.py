"""The values of the page's fields, as the arguments of the studio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

READING = ("start", "end", "fps", "max_frames", "budget_tokens")
ANSWER = (
    "temperature",
    "top_p",
    "max_new_tokens",
    "repetition_penalty",
    "seed",
    "prune",
    "threshold",
    "system",
)
_DEFAULTS = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 512, "repetition_penalty": 1.0}


def reading(values: Sequence) -> dict:
    """How videos are read, from the fields READING in order."""
    return dict(zip(READING, values[: len(READING)], strict=True))


def answer(values: Sequence) -> tuple[dict, str]:
    """The settings of an answer and the system prompt, from the fields ANSWER in order.

    A field left empty has its default. Pruning is None (off), or a threshold; an empty threshold
    is the model's own way ("model").
    """
    fields = dict(zip(ANSWER, values, strict=True))
    settings = {
        name: type(default)(fields[name] if fields[name] is not None else default)
        for name, default in _DEFAULTS.items()
    }
    settings["seed"] = int(fields["seed"] or 0)
    settings["prune"] = _prune(fields)
    return settings, fields["system"] or ""


def split(values: Sequence) -> tuple[dict, dict]:
    """Reading and answer settings from the fields READING and ANSWER, one after the other."""
    return reading(values), answer(values[len(READING) :])[0]


def _prune(fields: Mapping) -> str | dict | None:
    if not fields["prune"]:
        return None
    if fields["threshold"] is None:
        return "model"
    return {"threshold": float(fields["threshold"])}
