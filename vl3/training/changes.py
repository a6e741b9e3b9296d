"""What of a recipe may change while its run goes on, told without loading anything."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from fnmatch import fnmatch
from pathlib import Path

from vl3.arguments import shown
from vl3.training.recipe import Recipe
from vl3.weights.runs import RUN_FILE, checkpoints

# Dotted names; those of data sets are data.NAME.setting. Everything else decides what the weights
# and the optimizer's state of the checkpoint are, or which samples come when.
MAY_CHANGE = (
    "rates.*",
    "optim.clip",
    "optim.weight_decay",
    "optim.muon_factor",
    "optim.schedule",
    "optim.warmup",
    "optim.floor",
    "steps",
    "epochs",
    "least_steps",
    "workers",
    "checkpointing",
    "data.*.path",
    "data.*.media_root",
    "media.cache_gb",
    "batch.tokens",
    "batch.patches",
    "batch.pieces",
    "evaluate.*",
    "save_every",
    "keep",
    "log_every",
    "max_bad",
    "report_to",
)


def last_run(out: Path) -> tuple[Path, dict]:
    """The last whole checkpoint in the folder of a run, and what it says of the run.

    Raises: FileNotFoundError when there is none.
    """
    whole = checkpoints(out)
    if not whole:
        raise FileNotFoundError(f"{out} holds no checkpoint to resume from")
    return whole[-1], json.loads((whole[-1] / RUN_FILE).read_text(encoding="utf-8"))


def check_changes(before: Recipe, after: Recipe, out: Path) -> None:
    """Raises: ValueError, naming the setting, where one changed that may not on the way."""
    for name, was, becomes in differences(before, after):
        starts_or_ends = name.startswith("rates.") and bool(was) != bool(becomes)
        if starts_or_ends or not any(fnmatch(name, may) for may in MAY_CHANGE):
            raise ValueError(
                f"{name} cannot change while a run goes on (it was {_said(was)}, you gave "
                f"{_said(becomes)}); begin a new run with --start.model {out}"
            )


def differences(before, after, prefix: str = "") -> list[tuple[str, object, object]]:
    """(dotted name, before, after) of every setting that differs."""
    found = []
    for name in (field.name for field in fields(before)):
        was, becomes = getattr(before, name), getattr(after, name)
        if is_dataclass(was) and is_dataclass(becomes):
            found += differences(was, becomes, f"{prefix}{name}.")
        elif name == "data" and [one.name for one in was] == [one.name for one in becomes]:
            for one, other in zip(was, becomes):
                found += differences(one, other, f"data.{one.name}.")
        elif was != becomes:
            found.append((f"{prefix}{name}", was, becomes))
    return found


def steps_left(before: Recipe, after: Recipe, written: dict) -> int | None:
    """Steps from a checkpoint to the end; None where the data have to be counted first.

    written: what the checkpoint says of its run
    """
    if after.steps is not None:
        return max(0, after.steps - written["step"])
    if all(getattr(before, of) == getattr(after, of) for of in ("steps", "epochs", "least_steps")):
        return max(0, written["steps"] - written["step"])
    return None


def _said(value: object) -> str:
    return str(value) if isinstance(value, list) and len(str(value)) < 60 else shown(value)
