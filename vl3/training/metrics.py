"""What the log of a run says: losses, right answers and speeds since its last line."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from vl3.training.collate import MicroBatch


class RunningMetrics:
    """What happened since the last line of the log: losses and answers by data set and family."""

    def __init__(self) -> None:
        self.losses: Any = Counter()  # of floats, which its type does not know
        self.tokens: Any = Counter()
        self.right: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.seen_tokens = self.patches = self.samples = 0
        self.wait_s = 0.0
        self.since = time.perf_counter()

    def add(self, part: MicroBatch, losses_K: torch.Tensor, right_K: torch.Tensor) -> None:
        """One pass and what the model made of it."""
        self.seen_tokens += part.tokens
        self.samples += len(part.ids)
        self.patches += len(part.inputs["pixel_values"])
        count = len(part.owners)
        loss = torch.zeros(count).index_add_(0, part.answers_K, losses_K.float().cpu())
        tokens = torch.bincount(part.answers_K, minlength=count)
        wrong = torch.bincount(part.answers_K[~right_K.cpu()], minlength=count)
        for number, (dataset, family) in enumerate(part.owners):
            self.losses[dataset] += loss[number].item()
            self.tokens[dataset] += tokens[number].item()
            self.answers[family] += 1
            self.right[family] += int(wrong[number] == 0)

    def add_auxiliary(self, groups: Iterable[Mapping[str, torch.Tensor]]) -> None:
        """Auxiliary losses by name; the groups add up to one value of each."""
        names = set()
        for found in groups:
            for name, loss in found.items():
                self.losses[name] += loss.item()
                names.add(name)
        self.tokens.update(names)

    def merge(self, other: RunningMetrics) -> None:
        """Adds the counts of another process."""
        for name in ("losses", "tokens", "right", "answers"):
            getattr(self, name).update(getattr(other, name))
        self.seen_tokens += other.seen_tokens
        self.samples += other.samples
        self.patches += other.patches

    def figures(self) -> dict[str, float]:
        """loss/<data set>, right/<family> (share of answers that greedy decoding gets right), and
        speeds."""
        seconds = time.perf_counter() - self.since
        losses = {f"loss/{n}": v / max(1, self.tokens[n]) for n, v in self.losses.items()}
        right = {f"right/{n}": self.right[n] / count for n, count in self.answers.items()}
        return {
            **{name: round(value, 4) for name, value in sorted((losses | right).items())},
            "tokens_per_s": round(self.seen_tokens / seconds, 1),
            "patches_per_s": round(self.patches / seconds, 1),
            "samples_per_s": round(self.samples / seconds, 2),
            "data_wait": round(self.wait_s / seconds, 3),
        }
