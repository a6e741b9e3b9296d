"""What the header of a file says is read once, as long as the file does not change."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def once_per_file(most: int) -> Callable[[Callable], Callable]:
    """A decorator for functions of a path (and more): remembers results for the last `most` files.

    A file is told by its path, size and time of change. Errors are not remembered; the function's
    attribute `forget` empties the memory.
    """

    def decorate(function: Callable) -> Callable:
        @functools.lru_cache(maxsize=most)
        def known(path: Path, size_bytes: int, mtime_ns: int, *others: Any) -> Any:
            return function(path, *others)

        form = inspect.signature(function)

        @functools.wraps(function)
        def read(*given: Any, **named: Any) -> Any:
            bound = form.bind(*given, **named)
            bound.apply_defaults()
            path, *others = bound.arguments.values()
            state = path.stat()
            return known(path, state.st_size, state.st_mtime_ns, *others)

        vars(read)["forget"] = known.cache_clear
        return read

    return decorate
