"""Who waits for the model: one works at a time, the others in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from vl3.webapp import text_format
from vl3.webapp.errors import UserError

MOST_WAITING = 100
CHECK_S = 1.0


class Line:
    """The people before the model. Everything that takes it whole stands in here: answers,
    comparisons, loading; nothing else waits."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self._most = most
        self._places: list[object] = []
        self._moved = Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end of the line, given back at the end of the block.

        Raises: UserError where the line is too long.
        """
        place = Place(self)
        with self._moved:
            self.check()
            self._places.append(place)
        try:
            yield place
        finally:
            with self._moved:
                self._places.remove(place)
                self._moved.notify_all()

    def check(self) -> None:
        """Raises: UserError where nobody else can come into the line."""
        waiting = len(self) - 1
        if waiting >= self._most:
            raise UserError("Too many people", text_format.too_many(waiting))

    def nudge(self) -> None:
        """Lets everybody in the line look whether they still want to wait."""
        with self._moved:
            self._moved.notify_all()

    def close(self) -> None:
        """Nobody's turn comes any more."""
        self._closed = True
        self.nudge()


class Place:
    """A place in a line."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def before(self) -> int:
        """How many are before this one, with the one that works."""
        return self._line._places.index(self)

    def wait(self, left: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """The number of those before this one, whenever it changes, until it is this one's turn.

        left: whether whoever waits has given up, which ends the waiting as well
        """
        told = None
        while not (left() or self._line._closed):
            with self._line._moved:
                if (before := self.before) == told:
                    self._line._moved.wait(CHECK_S)
                    continue
            if not before:
                return
            told = before
            yield before
