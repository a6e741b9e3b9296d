"""What was found in data sets, counted: by rule and data set, tokens, the longest samples."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from vl3.data.checks import MAX_TOKENS, VISUAL_TOKENS, Outcome, Size, walk
from vl3.data.readers import Records
from vl3.data.rules import Note
from vl3.processor import VL3Processor

LONGEST, FIRST = 20, 5
UNREADABLE = ("E120", "E121")


@dataclass
class Report:
    """Counts over samples. Tokens are counted over the good ones, visual before pruning.

    codes: samples by data set and code; first: the first messages of each code
    text, visual: samples by the number of binary digits of their token count
    longest: (tokens, visual, place), longest first
    """

    strict: bool = False
    samples: Counter = field(default_factory=Counter)
    bad: Counter = field(default_factory=Counter)
    unreadable: int = 0
    codes: Counter = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)
    text: Counter = field(default_factory=Counter)
    visual: Counter = field(default_factory=Counter)
    text_tokens: int = 0
    visual_tokens: int = 0
    images: int = 0
    videos: int = 0
    seconds: float = 0.0
    longest: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.samples.total()

    @property
    def total_bad(self) -> int:
        return self.bad.total()

    def is_bad(self, outcome: Outcome) -> bool:
        """Whether the sample counts as bad; strict takes warnings for errors."""
        return outcome.error is not None or (self.strict and bool(outcome.notes))

    def add(self, outcome: Outcome) -> None:
        self.samples[outcome.dataset] += 1
        self.bad[outcome.dataset] += self.is_bad(outcome)
        found = list(outcome.notes)
        if outcome.error is not None:
            found.append(Note(outcome.error.code, str(outcome.error)))
            self.unreadable += outcome.error.code in UNREADABLE
        self.note(outcome.dataset, found)
        if outcome.error is None and outcome.size is not None:
            self._measure(outcome.size, outcome.place)

    def note(self, dataset: str, found: Sequence[Note]) -> None:
        """Counts what was found about one sample, each code once."""
        for code in {code for code, _ in found}:
            self.codes[dataset, code] += 1
        for code, message in found:
            messages = self.first.setdefault(code, [])
            if len(messages) < FIRST:
                messages.append(message)

    def _measure(self, size: Size, place: str) -> None:
        self.text[size.text.bit_length()] += 1
        self.visual[size.visual.bit_length()] += 1
        self.text_tokens += size.text
        self.visual_tokens += size.visual
        self.images += size.images
        self.videos += size.videos
        self.seconds += size.seconds
        keep = heapq.heappush if len(self.longest) < LONGEST else heapq.heappushpop
        keep(self.longest, (size.tokens, size.visual, place))

    def as_dict(self) -> dict:
        """The report as plain values, as --json prints it."""
        return {
            "samples": self.total,
            "bad": self.total_bad,
            "strict": self.strict,
            "unreadable": self.unreadable,
            "datasets": {
                name: {
                    "samples": count,
                    "bad": self.bad[name],
                    "codes": {
                        code: n for (of, code), n in sorted(self.codes.items()) if of == name
                    },
                }
                for name, count in self.samples.items()
            },
            "first": {code: self.first[code] for code in sorted(self.first)},
            "tokens": {
                "text": self.text_tokens,
                "visual": self.visual_tokens,
                "text_histogram": histogram(self.text),
                "visual_histogram": histogram(self.visual),
            },
            "media": {"images": self.images, "videos": self.videos, "seconds": self.seconds},
            "longest": [
                {"tokens": tokens, "visual": visual, "place": place}
                for tokens, visual, place in sorted(self.longest, reverse=True)
            ],
        }


def histogram(digits: Counter) -> list[tuple[int, int, int]]:
    """(from, to, samples) of token counts, each stretch twice as wide as the one before."""
    some = [n for n in digits if n]
    stretches = [0] if 0 in digits else []
    stretches += range(min(some, default=1), max(some, default=0) + 1)
    return [(1 << n >> 1, (1 << n) - 1 if n else 0, digits[n]) for n in stretches]


def check(
    records: Records,
    processor: VL3Processor,
    *,
    indices: Iterable[int] | None = None,
    strict: bool = False,
    visual_tokens: int = VISUAL_TOKENS,
    max_tokens: int = MAX_TOKENS,
    on_sample: Callable[[Outcome], None] | None = None,
    report: Report | None = None,
) -> Report:
    """The report on a data set, or on the samples of some numbers.

    on_sample: called with each outcome; report: one to add to, for several data sets
    """
    report = Report(strict=strict) if report is None else report
    for outcome in walk(
        records, processor, indices=indices, visual_tokens=visual_tokens, max_tokens=max_tokens
    ):
        report.add(outcome)
        if on_sample is not None:
            on_sample(outcome)
    return report
