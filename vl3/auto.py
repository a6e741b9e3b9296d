"""Tells transformers' Auto classes about vl3 once both are imported, in whichever order.

`import vl3` imports neither torch nor transformers, so there is nothing to register with yet. What
registers is the import of vl3.config, vl3.model or vl3.processor; here these follow the import of
the module of transformers that holds the Auto class in question.
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
        if name not in FOLLOWS or name in _LOOKING:
            return None
        _LOOKING.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            _LOOKING.discard(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def then_ours(module) -> None:
                execute(module)
                _follow(name)

            spec.loader.exec_module = then_ours
        return spec


_LOOKING: set[str] = set()


def _follow(name: str) -> None:
    if FOLLOWS[name] not in sys.modules:  # or it is being imported, and registers at its end
        importlib.import_module(FOLLOWS[name])


def follow_transformers() -> None:
    """From now on, and for what is imported already, the Auto classes know vl3."""
    sys.meta_path.insert(0, _Follow())
    for name in FOLLOWS:
        if name in sys.modules:
            _follow(name)
