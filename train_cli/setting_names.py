"""Names and descriptions of all settings of a recipe, and which one was meant."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from jsonargparse import ArgumentError

from vl3.training.recipe import Recipe, Source


def parts(kind: type) -> dict[str, type | None]:
    """Fields of a dataclass; with each the dataclass that it holds, if any."""
    hints = typing.get_type_hints(kind)
    return {field.name: _inner(hints[field.name]) for field in dataclasses.fields(kind)}


def _inner(hint: Any) -> type | None:
    if dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (list, typing.Union, types.UnionType):
        return next(filter(None, map(_inner, typing.get_args(hint))), None)
    return None


def setting_names(kind: type = Recipe, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings; those of a data set are written data.NAME.setting."""
    for name, inner in parts(kind).items():
        yield prefix + name
        if inner is Source and not prefix:
            yield from setting_names(inner, f"{prefix}{name}.NAME.")
        elif inner is not None:
            yield from setting_names(inner, f"{prefix}{name}.")


def unknown_names(raw: Any, kind: type, prefix: str = "") -> Iterator[str]:
    """Dotted names in a parsed YAML file that no dataclass has."""
    if isinstance(raw, list):
        for item in raw:
            yield from unknown_names(item, kind, prefix)
        return
    if not isinstance(raw, dict):
        return
    known = parts(kind)
    for name, value in raw.items():
        if name not in known:
            yield f"{prefix}{name}"
        elif known[name] is not None:
            yield from unknown_names(value, known[name], f"{prefix}{name}.")


def no_setting(name: str, others: Iterable[str] = ()) -> str:
    """One sentence: that setting does not exist, and what may have been meant."""
    names = [known.replace(".NAME.", ".") for known in setting_names()]
    return f"there is no setting {name}{nearest(name, [*names, *others])}"


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean X?", or nothing when nothing is near.

    A whole name that is near counts first; then a last part that is spelt the same or nearly so.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if not near:
        last = {other.rpartition(".")[2]: other for other in known}
        hits = difflib.get_close_matches(name.rpartition(".")[2], last, n=1, cutoff=0.7)
        near = [last[hit] for hit in hits]
    return f"; did you mean {near[0]}?" if near else ""


def descriptions(kind: type, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted name and description of every setting, from the lines of the docstrings."""
    text = re.sub(r"\n {8,}", " ", kind.__doc__)
    found = dict(re.findall(r"^ +(\w+): (.*)$", text, re.MULTILINE))
    for name, inner in parts(kind).items():
        yield prefix + name, found[name]
        if inner is not None and inner is not Source:
            yield from descriptions(inner, f"{prefix}{name}.")


def one_sentence(error: ArgumentError, options: Iterable[str] = ()) -> str:
    """What the parser says, on one line and with the nearest name."""
    text = " ".join(str(error).split())
    if unknown := re.search(r"unrecognized arguments: (-*)([^\s=]+)", text):
        if not unknown[1]:
            return f"{unknown[2]} follows no option; a recipe is named by --config {unknown[2]}"
        return no_setting(unknown[2], options)
    text = re.sub(r"^Parser key \"([\w.]+)\":", r"\1:", text)
    text = re.sub(r"Problem with given class_path '[^']+': ", "", text)
    text = re.sub(r"^(\w+): Parser key \"(\w+)\":", r"\1.\2:", text)
    if unknown := re.match(r"(\w+): .*?Option '(\w+)' is not accepted", text):
        return no_setting(f"{unknown[1]}.{unknown[2]}")
    text = re.sub(r"Expected an? <class '(\w+)'>\.? Got value:", r"expected \1, got", text)
    text = re.sub(
        r"Expected an? typing\.Literal\[([^\]]*)\]\. Got value:", r"expected one of \1, got", text
    )
    text = re.sub(
        r"Does not validate .*? Errors: (.*?) Given value type: .* Given value:", _either, text
    )
    return re.sub(r"^(\w+): (.*) NestedArg\(key='(\w+)', val='?(.*?)'?\)$", r"\1.\3: \2 \4", text)


def _either(matched: re.Match) -> str:
    """ "expected int or null, got", from the list of what a value is not."""
    kinds = re.findall(r"[Ee]xpected (?:an? )?(?:<class ')?([\w.]+(?:\[[^\]]*\])?)", matched[1])
    names = ["null" if kind == "NoneType" else kind.removeprefix("typing.") for kind in kinds]
    return f"expected {' or '.join(names)}, got"
