"""The models in memory, each loaded once; the one used longest ago goes where room is needed."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any


class Registry:
    """Models by what was asked for, each with one engine that its sessions share.

    load(**chosen): a studio of the model that these arguments of vl3.load name, not held here
    fits(**chosen): whether that model and an answer fit beside what is in memory now
    give_back(): frees what nobody refers to any more (engine.give_back_memory)
    """

    def __init__(
        self, load: Callable[..., Any], fits: Callable[..., bool], give_back: Callable[[], Any]
    ) -> None:
        self.load, self._fits, self._give_back = load, fits, give_back
        self._studios: dict[frozenset, Any] = {}  # the one used longest ago first
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._studios)

    def has_room(self, **chosen: Any) -> bool:
        """Whether the model is in memory, or fits beside those that are."""
        with self._lock:
            return frozenset(chosen.items()) in self._studios or self._fits(**chosen)

    def session(self, **chosen: Any) -> Any:
        """A session of the model; it is loaded unless it is in memory.

        Where it does not fit beside the others, these go one after the other. A model is freed
        once nobody has a session of it any more.
        Raises: what load raises.
        """
        key = frozenset(chosen.items())
        with self._lock:
            studio = self._studios.pop(key, None)
            if studio is None:
                while self._studios and not self._fits(**chosen):
                    del self._studios[next(iter(self._studios))]
                    self._give_back()
                studio = self.load(**chosen)
            self._studios[key] = studio
            return studio.new_session()
