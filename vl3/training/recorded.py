"""The recipe that a run keeps, read back."""

from __future__ import annotations

from dataclasses import is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from vl3.training.recipe import Recipe


def read(values: dict) -> Recipe:
    """The recipe whose dataclasses.asdict gave these values.

    Runs that began before nano's settings had a part of their own can go on: it gets them; and
    before a model could get another connector: it keeps its own.
    """
    if "lessons" in values:
        before = {name: value for name, value in values.items() if name not in ("lessons", "story")}
        start = dict(values["start"])
        nano = {
            "encoder_steps": start.pop("lessons"),
            "spatial_images": values["lessons"],
            "temporal_loss": values["story"],
        }
        values = {**before, "start": start, "nano": nano}
    if values["start"]["model"] and "ear_steps" not in values["nano"]:
        values = {**values, "start": {**values["start"], "connector": None}}
    return _read(Recipe, values)


def _read(kind: Any, value):
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hints[name], entry) for name, entry in value.items()})
    if origin is list:
        return [_read(inner[0], entry) for entry in value]
    if origin is tuple:
        return tuple(value)
    if value is not None and origin is UnionType:
        return _read(inner[0], value)
    return value
