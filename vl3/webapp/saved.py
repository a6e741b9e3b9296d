"""Conversations kept for a limited time, found again by a name that cannot be guessed.

The name is all that is needed to read a conversation, and without it there is no sign of one. Files
are not kept by this: the folder of uploads has its own bound, and a conversation whose files are
gone is gone with them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from time import monotonic

from vl3.webapp.conversation import Attachment, Turn

MOST = 200
MOST_CHARACTERS = 50_000_000
KEEP_S = 24 * 3600.0


def new_name() -> str:
    """A name that cannot be guessed."""
    return secrets.token_urlsafe(18)


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedConversation:
    """A conversation as it was, with the video that was shown beside it, and whose it is."""

    turns: tuple[Turn, ...]
    current: Attachment | None
    since_s: float
    owner: str = ""

    @property
    def characters(self) -> int:
        """About what it takes to hold it."""
        prompts = [turn.reply.prompt for turn in self.turns if turn.reply]
        answers = [turn.question + turn.answer for turn in self.turns]
        tokens = [turn.reply.prompt_ids for turn in self.turns if turn.reply]
        return sum(map(len, (*prompts, *answers))) + 8 * sum(map(len, tokens))

    @property
    def is_whole(self) -> bool:
        """Whether every file is still there."""
        return all(Path(path).is_file() for path in paths(self.turns, self.current))


def paths(turns: Sequence[Turn], current: Attachment | None) -> set[str]:
    """The files of a conversation."""
    items = [item for turn in turns for item in turn.attachments]
    return {path for item in (*items, *([current] if current else [])) for path in item.files}


def settled(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """The turns, with an answer that was being made as stopped where it is."""
    return tuple(
        replace(turn, status="stopped", stage="") if turn.status == "working" else turn
        for turn in turns
    )


class ConversationStore:
    """The kept conversations, oldest first: bounded in number, in size and in age."""

    def __init__(self, most: int = MOST, characters: int = MOST_CHARACTERS) -> None:
        self._most, self._characters = most, characters
        self._kept: dict[str, SavedConversation] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(
        self, name: str, turns: Sequence[Turn], current: Attachment | None, owner: str = ""
    ) -> None:
        """Keeps the conversation under the name, unless there is nothing to keep."""
        with self._lock:
            self._kept.pop(name, None)
            if turns or current:
                kept = SavedConversation(
                    turns=settled(turns), current=current, since_s=monotonic(), owner=owner
                )
                self._kept[name] = kept
        self.trim()

    def get(self, name: object) -> SavedConversation | None:
        """The conversation of the name; None where there is none or its files are gone."""
        self.trim()
        with self._lock:
            kept = self._kept.get(name) if isinstance(name, str) else None
        return kept if kept and kept.is_whole else None

    def drop(self, name: str) -> None:
        with self._lock:
            self._kept.pop(name, None)

    def drop_of(self, owner: str) -> bool:
        """Drops all of the owner's; whether there was any."""
        with self._lock:
            names = [name for name, kept in self._kept.items() if kept.owner == owner]
            for name in names:
                del self._kept[name]
        return bool(names)

    def trim(self, keep_s: float = KEEP_S) -> None:
        """Drops what is too old, and the oldest until the rest is within the limits."""
        with self._lock:
            size = sum(kept.characters for kept in self._kept.values())
            for name, kept in list(self._kept.items()):
                too_much = len(self._kept) > self._most or size > self._characters
                if not too_much and monotonic() - kept.since_s <= keep_s:
                    break
                size -= kept.characters
                del self._kept[name]
