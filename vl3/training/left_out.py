"""What a run left out, each sample once: counted, named in a file, and said at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from vl3.data.quarantine import Bad, quarantine
from vl3.data.rules import RULES

QUARANTINE = "quarantine.jsonl"
TOO_LONG = "E130"  # left out because the recipe says so, not because it cannot be read


class TooManyBad(RuntimeError):
    """More samples of a data set could not be read than the recipe allows."""


class LeftOut:
    """The samples that a run could not learn from, over all processes.

    cut: how often a sample was learned without its end
    """

    def __init__(self, file: Path) -> None:
        self.file, self.cut = file, 0
        self.known: dict[tuple[str, int], Bad] = {}

    @property
    def count(self) -> int:
        """How many samples were left out."""
        return len(self.known)

    def remember(self) -> None:
        """Takes what the file names already, for a run that goes on."""
        if self.file.is_file():
            lines = self.file.read_text(encoding="utf-8").splitlines()
            entries = [Bad(**json.loads(line)) for line in lines]
            self.known |= {(entry.dataset, entry.index): entry for entry in entries}

    def add(self, found: Iterable[Bad], *, write: bool) -> None:
        """Counts samples that are not known yet; write: adds them to the file."""
        fresh = {(bad.dataset, bad.index): bad for bad in found}
        fresh = {place: bad for place, bad in fresh.items() if place not in self.known}
        self.known |= fresh
        if write:
            quarantine(self.file, fresh.values())

    def unreadable(self, dataset: str) -> int:
        """Samples of a data set that are bad for another reason than their length."""
        of = (bad for bad in self.known.values() if bad.dataset == dataset)
        return sum(bad.code != TOO_LONG for bad in of)

    def sentences(self) -> list[str]:
        """What was left out and where, a sentence for each data set; nothing for a clean run."""
        found = []
        for dataset in sorted({bad.dataset for bad in self.known.values()}):
            entries = [bad for bad in self.known.values() if bad.dataset == dataset]
            codes = Counter(bad.code for bad in entries)
            why = ", ".join(f"{n} {code} {RULES[code]}" for code, n in sorted(codes.items()))
            found.append(
                f"{len(entries)} of the samples of {dataset!r} {_were(len(entries))} left out "
                f"({why}), first {entries[0].id}; {self.file} names them"
            )
        if self.cut:
            found.append(f"{self.cut} times a sample was learned without its end (batch.overlong)")
        return found


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
