"""Which samples make up each step: decided by seed and position alone, on any number of processes.

A run that is continued at step n, with other workers or another number of processes, sees the same
samples from there on as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vl3.training.samples import Size


@dataclass(frozen=True, slots=True)
class Part:
    """One data set in the mix: how many samples it has (None: no end) and an epoch takes of it."""

    length: int | None
    taken: int


class DataOrder:
    """The samples of every step of a run, as (data set, sample) numbers."""

    def __init__(self, parts: Sequence[Part], step_samples: int, seed: int) -> None:
        self.parts, self.step_samples, self.seed = tuple(parts), step_samples, seed
        self.epoch_samples = sum(part.taken for part in self.parts)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def steps(self, epochs: float, least: int = 0) -> int:
        """Steps of so many epochs, the last one filled up from the next epoch; `least` at least."""
        return max(least, -(-round(epochs * self.epoch_samples) // self.step_samples))

    def step(self, number: int) -> list[tuple[int, int]]:
        """The samples of a step, counted from 0."""
        first = number * self.step_samples
        places = (divmod(i, self.epoch_samples) for i in range(first, first + self.step_samples))
        return [tuple(self._epoch(epoch)[place].tolist()) for epoch, place in places]

    def _draw_epoch(self, epoch: int) -> np.ndarray:
        """(data set, sample) of each place of an epoch, [samples, 2]."""
        drawn = []
        for number, part in enumerate(self.parts):
            items = self._take(number, part, epoch * part.taken)
            drawn.append(np.stack([np.full(part.taken, number), items], axis=1))
        every = np.concatenate(drawn)
        return every[np.random.default_rng([self.seed, 1, epoch]).permutation(len(every))]

    def _take(self, number: int, part: Part, first: int) -> np.ndarray:
        """The next samples of a data set: all once in a random order, then in another order."""
        if part.length is None:
            return np.arange(first, first + part.taken)
        items, have = [], 0
        round_, skipped = divmod(first, part.length)
        while have < part.taken:
            rng = np.random.default_rng([self.seed, 2, number, round_])
            shuffled = rng.permutation(part.length)[skipped:]
            items.append(shuffled)
            have += len(shuffled)
            round_, skipped = round_ + 1, 0
        return np.concatenate(items)[: part.taken]


def split(
    sizes: Sequence[Size], tokens: int, patches: int, processes: int, pieces: float = math.inf
) -> list[int]:
    """For each sample of a step, the forward pass it goes into; pass i runs on process i % n.

    Every pass stays under all budgets (a sample that is over one alone has a pass of its own),
    holds samples of like length (rows are as long as the longest one) and costs about the same;
    all processes run equally many.
    """
    budgets = tokens, patches, pieces
    each = [(size.tokens, size.patches, size.pieces) for size in sizes]
    needed = max(sum(of) / most for of, most in zip(zip(*each), budgets))
    count = processes * max(1, math.ceil(needed / processes))
    while (chosen := _cut(each, budgets, count)) is None:
        count += processes
    return chosen


def _cut(
    sizes: Sequence[tuple[int, ...]], budgets: tuple[float, ...], count: int
) -> list[int] | None:
    """The pass of each sample, or None when so few passes cannot hold them."""
    costs = [sum(part / most for part, most in zip(size, budgets)) for size in sizes]
    share = sum(costs) / count
    chosen, nothing = [0] * len(sizes), (0,) * len(budgets)
    number, spent, used = 0, 0.0, nothing
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], i)):
        more = tuple(map(sum, zip(used, sizes[index])))
        over = any(part > most for part, most in zip(more, budgets))
        if used[0] and (over or spent + costs[index] / 2 > share * (number + 1)):
            number, used, more = number + 1, nothing, sizes[index]
            if number == count:
                return None
        chosen[index], used = number, more
        spent += costs[index]
    return chosen
