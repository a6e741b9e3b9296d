"""Tells transformers' Auto classes about vl3 once both are imported, in whichever order.

`import vl3` imports neither torch nor transformers, so there is nothing to register with yet. What
registers is the import of vl3.config, vl3.model or vl3.processor; here these follow the import of
the module of transformers that holds the Auto class in question. Where a module of ours imports
that one, they follow when ours is there: vl3.model needs vl3.vision, which needs transformers.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder

FOLLOWS = {
    "transformers.models.auto.configuration_auto": "vl3.config",
    "transformers.models.auto.modeling_auto": "vl3.model",
    "transformers.models.auto.processing_auto": "vl3.processor",
}


class _Follow(MetaPathFinder):
    """Finds nothing itself: has the usual finders' module followed by ours."""

    def find_spec(self, name, path=None, target=None):
        is_ours = name.startswith("vl3.")
        if not (is_ours or name in FOLLOWS) or name in _LOOKING:
            return None
        _LOOKING.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            _LOOKING.discard(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_ours(module) -> None:
                if is_ours:
                    _UNDER_WAY.append(name)
                try:
                    execute(module)
                finally:
                    if is_ours:
                        _UNDER_WAY.remove(name)
                _follow(*({name} & FOLLOWS.keys()))

            spec.loader.exec_module = then_ours
        return spec


_LOOKING: set[str] = set()
_UNDER_WAY: list[str] = []  # modules of ours that are being imported
_AWAITED: set[str] = set()  # modules of transformers that none of ours has followed yet


def _follow(*names: str) -> None:
    _AWAITED.update(names)
    while _AWAITED and not _UNDER_WAY:
        importlib.import_module(FOLLOWS[_AWAITED.pop()])


def follow_transformers() -> None:
    """From now on, and for what is imported already, the Auto classes know vl3."""
    sys.meta_path.insert(0, _Follow())
    for name in FOLLOWS:
        if name in sys.modules:
            _follow(name)
