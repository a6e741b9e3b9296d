"""Browser sessions: one entry each, found by its key, freed when it ends.

Each visitor has a session of the studio, so that videos, text and caches of one are never seen by
another. A visitor who leaves is freed at once; its conversation is kept, since a browser that
lost its connection or reloaded the page comes back.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from threading import Event, Lock, RLock
from time import monotonic
from typing import Any

from vl3.values import VisualContext
from vl3.webapp import saved, uploads
from vl3.webapp.conversation import Attachment, Turn, context

LEFT_S = 120.0  # a lost connection may come back within
IDLE_S = 3600.0  # then the caches go; the conversation stays
FORGET_S = 24 * 3600.0  # a browser does not always say that it leaves
END_S = 5.0


@dataclass(frozen=True, slots=True)
class TabFile:
    """A file made for a tab of Inspect.

    made_of: what decides of its content; as long as that is equal, it need not be made again
    facts: what the page has to know of it
    """

    path: str
    made_of: tuple
    facts: dict = field(default_factory=dict)


@dataclass(eq=False)
class Session:
    """What one browser session holds. name: under which its conversation is found again.

    owner: the browser it belongs to, as vl3.webapp.access names it
    choice: how often another file was chosen as the current one
    tab, tab_files: the open tab of Inspect, and for each tab the file it was drawn from
    comparing: ends the comparison that runs, if one does
    news: what happened to the page that its open tab has not shown yet
    before: the default fields of the model that its open tab shows, where there is another by now
    foreseen: the current video, the pruner's settings, and what these would leave of it
    fields: of the last plan, as the browser said them; None where the page set them itself
    """

    studio: Any
    model_number: int = 0
    owner: str = ""
    turns: list[Turn] = field(default_factory=list)
    current: Attachment | None = None
    choice: int = 0
    run: int = 0
    waiting: bool = False
    stop: Event = field(default_factory=Event)
    working: Lock = field(default_factory=Lock)
    used_s: float = field(default_factory=monotonic)
    left_s: float | None = None
    is_resting: bool = False
    name: str = field(default_factory=saved.new_name)
    tab: str = ""
    tab_files: dict[str, TabFile] = field(default_factory=dict)
    comparing: Event = field(default_factory=Event)
    news: str = ""
    before: Mapping = field(default_factory=dict)
    foreseen: tuple[Attachment, dict | None, VisualContext] | None = None
    fields: tuple | None = None

    @property
    def has_left(self) -> bool:
        return self.left_s is not None

    def begin(self, turns: list[Turn]) -> None:
        """A new question, last of the turns: whatever ran before ends, the next run is this one."""
        self.stop.set()
        self.stop = Event()
        self.turns = [*saved.settled(turns[:-1]), turns[-1]]
        self.run += 1
        self.waiting = True

    @property
    def is_busy(self) -> bool:
        return bool(self.turns) and self.turns[-1].status == "working"

    def has_reused(self, item: Attachment) -> bool:
        """Whether the last answer took the item from the cache instead of encoding it."""
        seen = [old for turn in context(self.turns) for old in turn.attachments]
        last = self.turns[-1] if self.turns else None
        return last is not None and last.reused and last.was_answered and item in seen

    def end(self) -> None:
        """Nothing runs and nothing waits to run."""
        self.stop.set()
        self.waiting = False
        self.run += 1

    def tell(self, sentence: str) -> None:
        """Notes in the conversation what happened to it."""
        if self.turns:
            last = self.turns[-1]
            self.turns = [*self.turns[:-1], replace(last, told=(*last.told, sentence))]

    def paths(self) -> set[str]:
        """The files this visitor can still see or ask about."""
        tab_files = {file.path for file in list(self.tab_files.values())}
        return saved.paths(self.turns, self.current) | tab_files

    def keep_tab_file(self, name: str, file: TabFile) -> None:
        """The file of a tab, in place of the one before; none for a visitor who has left."""
        before, self.tab_files[name] = self.tab_files.get(name), file
        if before:
            uploads.drop(before.path)
        if self.left_s is not None:
            self.drop_tab_files()

    def drop_tab_files(self, names: Iterable[str] | None = None) -> None:
        """Removes files of tabs; without names all of them."""
        for name in list(self.tab_files if names is None else names):
            if file := self.tab_files.pop(name, None):
                uploads.drop(file.path)

    def free(self) -> None:
        """Stops the work and drops the caches, once the work has ended."""
        self.end()
        self.comparing.set()
        self.drop_tab_files()
        ended = self.working.acquire(timeout=END_S)
        try:
            if self.studio is not None:
                self.studio.release()
        finally:
            if ended:
                self.working.release()


class SessionStore:
    """The visitors by session key. Owns their studio sessions."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self.studio = load()
        self.model_number = self.models_loaded = 0
        self.shelf = saved.ConversationStore()
        self._visitors: dict[str, Session] = {}
        self._lock = RLock()

    def __len__(self) -> int:
        return sum(visitor.left_s is None for visitor in self._visitors.values())

    def __contains__(self, key: object) -> bool:
        return key in self._visitors

    def get(self, key: str | None, owner: str = "") -> Session:
        """The visitor of the key, made at the first call; one from before a new model is renewed.

        Raises: ValueError without a key, so that no two people can share a nameless visitor, and
        for the key of another browser's visitor.
        """
        if not key:
            raise ValueError("This request belongs to no browser session. Reload the page.")
        with self._lock:
            if not self.is_of(key, owner):
                raise ValueError("This page was opened in another browser. Reload it.")
            visitor = self._visitors.get(key)
            if visitor is None:
                visitor = Session(self.studio.new_session(), self.model_number, owner)
                self._visitors[key] = visitor
            elif visitor.model_number != self.model_number:
                visitor.studio, visitor.model_number = self.studio.new_session(), self.model_number
                visitor.foreseen = None
            visitor.used_s, visitor.left_s, visitor.is_resting = monotonic(), None, False
            return visitor

    def leave(self, key: str | None) -> None:
        """The page of the visitor was closed: work and caches end now."""
        with self._lock:
            visitor = self._visitors.get(key or "")
        if visitor is not None:
            visitor.left_s = monotonic()
            visitor.free()

    def sweep(
        self, left_s: float = LEFT_S, idle_s: float = IDLE_S, forget_s: float = FORGET_S
    ) -> int:
        """Shelves what those held who left, and frees the caches of the idle; how many left."""
        now_s = monotonic()
        with self._lock:
            gone = [
                key
                for key, visitor in self._visitors.items()
                if now_s - visitor.used_s > forget_s
                or (visitor.left_s is not None and now_s - visitor.left_s > left_s)
            ]
            ended = [self._visitors.pop(key) for key in gone]
            idle = [
                visitor
                for visitor in self._visitors.values()
                if now_s - visitor.used_s > idle_s and not (visitor.is_resting or visitor.is_busy)
            ]
        for visitor in ended:
            self.shelf.put(visitor.name, visitor.turns, visitor.current)
        for visitor in (*ended, *idle):
            visitor.free()
            visitor.is_resting = True
        return len(ended)

    def resume(self, visitor: Session, name: object) -> bool:
        """Gives the visitor the conversation of that name; False where there is none.

        The name goes with it, unless a page has the conversation open: then this is a copy.
        """
        with self._lock:
            for key, other in self._visitors.items():
                if other.name == name and other is not visitor:
                    visitor.turns, visitor.current = list(saved.settled(other.turns)), other.current
                    if other.left_s is not None:
                        visitor.name = other.name
                        del self._visitors[key]
                    return True
        found = self.shelf.get(name)
        if found is None:
            return False
        visitor.turns, visitor.current, visitor.name = list(found.turns), found.current, str(name)
        return True

    def of_tab_file(self, name: str, address: object, address_of: Callable) -> Session | None:
        """The visitor whose tab of that name shows what lies at the address."""
        for visitor in list(self._visitors.values()):
            file = visitor.tab_files.get(name)
            if file is not None and address_of(file.path) == address:
                return visitor
        return None

    def announce(self, sentence: str, before: Mapping, by: Session | None = None) -> None:
        """Tells visitors (by: not this one) of another model. before: default fields until then"""
        with self._lock:
            for visitor in self._visitors.values():
                if visitor is not by:
                    visitor.tell(sentence)
                    visitor.news, visitor.before = sentence, visitor.before or before

    @property
    def is_busy(self) -> bool:
        """Whether any answer is being written."""
        return any(visitor.is_busy for visitor in list(self._visitors.values()))

    def is_of(self, key: str, owner: str) -> bool:
        """Whether the visitor of the key, if there is one, belongs to that browser."""
        visitor = self._visitors.get(key)
        return visitor is None or visitor.owner == owner

    def paths(self, owner: str | None = None) -> set[str]:
        """Every file that some visitor still uses, or those of one browser."""
        visitors = list(self._visitors.values())
        mine = [visitor for visitor in visitors if owner is None or visitor.owner == owner]
        return {path for visitor in mine for path in visitor.paths()}

    def stop(self) -> None:
        """Ends every answer and every comparison."""
        for visitor in list(self._visitors.values()):
            visitor.end()
            visitor.comparing.set()

    def replace_studio(self, load: Callable[[], Any]) -> None:
        """Another model for all; the old one goes first, so that both need not fit at once.

        Where the new one cannot be loaded the old one is loaded again, and the error is raised.
        """
        with self._lock:
            for visitor in self._visitors.values():
                visitor.free()
                visitor.turns = list(saved.settled(visitor.turns))
                visitor.studio = None
            self.model_number += 1
            self.studio = None
            gc.unfreeze()  # the old model among it, which goes before another comes
            gc.collect()
            try:
                self.studio = load()
                self._load = load
            finally:
                if self.studio is None:
                    self.studio = self._load()
                self.models_loaded = self.model_number
                settle()


def settle() -> None:
    """Takes what is there now, a model and some packages, out of all later collections.

    They look at every object under the lock of the interpreter, and these half a million stay.
    """
    gc.collect()
    gc.freeze()
