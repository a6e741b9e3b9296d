"""Who waits for an answer: some are answered together, the others wait in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from vl3.webapp import text_format
from vl3.webapp.errors import UserError

MOST_WAITING = 100
CHECK_S = 1.0


class Line:
    """The people before the model: those who want answers, and those who want it for themselves,
    to load another one or to compare two. Nothing else waits.

    at_once: how many are answered together, asked at every step forward
    most: how many may wait
    """

    def __init__(self, at_once: Callable[[], int] = lambda: 1, most: int = MOST_WAITING) -> None:
        self._at_once, self._most = at_once, most
        self._places: list[Place] = []
        self._moved = Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self, alone: bool = False) -> Iterator[Place]:
        """A place at the end of the line, given back at the end of the block.

        alone: no other turn is at the same time
        Raises: UserError where the line is too long.
        """
        place = Place(self, alone)
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
        """Raises: UserError where the line is full."""
        waiting = len(self) - self._at_once()
        if waiting >= self._most:
            raise UserError("Too many people", text_format.too_many(waiting))

    def nudge(self) -> None:
        """Lets everybody in the line look whether they still want to wait."""
        with self._moved:
            self._moved.notify_all()

    def close(self) -> None:
        """Closes the line: no further turn begins."""
        self._closed = True
        self.nudge()


class Place:
    """A place in a line."""

    def __init__(self, line: Line, alone: bool) -> None:
        self._line, self._alone = line, alone

    @property
    def before(self) -> int:
        """How many are before this one, those included whose turn it is."""
        return self._line._places.index(self)

    @property
    def has_turn(self) -> bool:
        """Whether those before leave room for this one."""
        before = self._line._places[: self.before]
        if self._alone or any(place._alone for place in before):
            return not before
        return len(before) < self._line._at_once()

    def wait(self, left: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """The number of those before this one, whenever it changes, until it is this one's turn.

        left: whether the visitor has left, which ends the waiting as well
        """
        told = None
        while not (left() or self._line._closed):
            with self._line._moved:
                if self.has_turn:
                    return
                if (before := self.before) == told:
                    self._line._moved.wait(CHECK_S)
                    continue
            told = before
            yield before
