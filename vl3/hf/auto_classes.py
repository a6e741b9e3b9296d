"""Tells transformers' Auto classes about vl3 once both are imported, in whichever order.

`import vl3` imports neither torch nor transformers, so there is nothing to register with yet. What
registers is the import of vl3.config, vl3.model or vl3.processor; here these follow the import of
the module of transformers that holds the Auto class in question.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

FOLLOWS = {
    "transformers.models.auto.configuration_auto": "vl3.config",
    "transformers.models.auto.modeling_auto": "vl3.model",
    "transformers.models.auto.processing_auto": "vl3.processor",
}


class _Follow(MetaPathFinder):
    """Finds nothing itself: has what the usual finders find followed by ours.

    In the middle of an import of vl3 ours waits for its end, or modules that are half there would
    be asked for what they do not have yet.
    """

    def find_spec(self, name, path=None, target=None):
        if name in _LOOKING or not (name in FOLLOWS or name.startswith("vl3.")):
            return None
        _LOOKING.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            _LOOKING.discard(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module
            loader.exec_module = lambda module: _then_ours(name, execute, module)
        return spec


_LOOKING: set[str] = set()
_DUE: set[str] = set()  # modules of ours that have to follow
_INSIDE: list[str] = []  # modules of ours that are being imported


def _then_ours(name: str, execute: Callable, module: ModuleType) -> None:
    """Runs the import that was asked for, and after it what is due, unless inside one of ours."""
    is_ours = name not in FOLLOWS
    if is_ours:
        _INSIDE.append(name)
    try:
        execute(module)
    finally:
        if is_ours:
            _INSIDE.remove(name)
    if not is_ours:
        _DUE.add(FOLLOWS[name])
    while _DUE and not _INSIDE:
        importlib.import_module(_DUE.pop())


def follow_transformers() -> None:
    """From now on, and for what is imported already, the Auto classes know vl3."""
    sys.meta_path.insert(0, _Follow())
    for name, ours in FOLLOWS.items():
        if name in sys.modules:
            importlib.import_module(ours)
