"""What callers pass, numbers and names: taken as it is meant or refused in one sentence."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import SupportsFloat, SupportsIndex, cast


def number(
    name: str,
    value: object,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    unit: str = "",
) -> float:
    """The value as a finite float within low <= value <= high (above < value where given).

    Takes what Python and numpy take for a number: int, float, numpy scalars, tensors of one
    element, fractions. Not bool, not text.
    Raises: ValueError "NAME is RANGE - got VALUE".
    """
    wanted = _range("a number", low, above, high, unit)
    return _within(name, value, _as_float(value), wanted, low, above, high)


def whole(
    name: str,
    value: object,
    *,
    low: int | None = None,
    high: int | None = None,
    unit: str = "",
) -> int:
    """The value as an int within low <= value <= high; takes numpy integers and floats like 8.0.

    Raises: ValueError "NAME is RANGE - got VALUE".
    """
    wanted = _range("a whole number", low, None, high, unit)
    try:
        found = math.nan if isinstance(value, bool) else operator.index(cast(SupportsIndex, value))
    except TypeError:
        found = _as_float(value)
    if isinstance(found, float) and not found.is_integer():
        found = math.nan
    return int(_within(name, value, found, wanted, low, None, high))


def choice(name: str, value: object, choices: Collection[str]) -> str:
    """The value, which is one of the choices.

    Raises: ValueError that lists them, with the nearest one where it looks like a slip.
    """
    if isinstance(value, str) and value in choices:
        return value
    hint = did_you_mean(value, choices)
    raise ValueError(f"{name} is one of {', '.join(choices)} - got {shown(value)}{hint}")


def instance(name: str, value: object, kind: type | UnionType, wanted: str) -> None:
    """Raises ValueError "NAME is WANTED - got VALUE" where the value is not of that class."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {wanted} - got {shown(value)}")


def switch(name: str, value: object) -> bool:
    """The value as True or False; takes numpy's, and 0 and 1.

    Raises: ValueError for anything else: "no" would be true.
    """
    if not isinstance(value, bool) and _as_float(value) not in (0, 1):
        raise ValueError(f"{name} is True or False - got {shown(value)}")
    return bool(value)


def items(name: str, value: object, wanted: str, count: int | None = None) -> list:
    """What the value holds, in its order: a list, a tuple, a range, an array's rows.

    count: how many there have to be
    Raises: ValueError "NAME is WANTED - got VALUE", for text and sets too.
    """
    is_row = isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0
    if not is_row or isinstance(value, str | bytes):
        raise ValueError(f"{name} is {wanted} - got {shown(value)}")
    found = list(cast(Iterable, value))
    if count is not None and len(found) != count:
        raise ValueError(f"{name} is {wanted}, {count} of them - got {len(found)}")
    return found


def did_you_mean(name: object, known: Collection[str]) -> str:
    """ "; did you mean NAME?" where one of the known names is near, else nothing."""
    near = get_close_matches(name, known, n=1) if isinstance(name, str) else ()
    return f"; did you mean {near[0]}?" if near else ""


def shown(value: object) -> str:
    """A value as a sentence shows it: short, and without its inside where it is not plain."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        text = repr(value)
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _as_float(value: object) -> float:
    """The value as a float; NaN for what is no number, text and bool among it."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(cast(SupportsFloat, value).__float__())
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def _range(kind: str, low, above, high, unit: str) -> str:
    of = f" of {unit}" if unit else ""
    if above is not None:
        return f"{kind}{of} above {_bound(above)}" + (
            "" if high is None else f" and at most {_bound(high)}"
        )
    if low is not None and high is not None:
        return f"{kind}{of} from {_bound(low)} to {_bound(high)}"
    if low is not None:
        return f"{kind}{of}, {_bound(low)} or more"
    return f"{kind}{of}" + ("" if high is None else f", at most {_bound(high)}")


def _bound(value: float) -> str:
    """The end of a range; whole ones with all of their digits."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _within(name, value, found, wanted: str, low, above, high):
    inside = (
        (low is None or found >= low)
        and (above is None or found > above)
        and (high is None or found <= high)
    )
    if not inside or (isinstance(found, float) and not math.isfinite(found)):
        raise ValueError(f"{name} is {wanted} - got {shown(value)}")
    return found
