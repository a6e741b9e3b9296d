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

from vl3.training.recipe import Recipe
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

    def seen(self, data: int, steps: int) -> int:
        """How many samples of a data set so many steps hold, on average."""
        return steps * self.step_samples * self.parts[data].taken // self.epoch_samples

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


class PartedOrder:
    """Steps that hold so many samples of each part; every part is an order of its own.

    An epoch is that of the first part. Of the others all samples are taken, in a random order,
    before any comes again, also over the end of an epoch.
    Source: VideoLLaMA 2.1-AV's joint training (2 : 1 : 1). Difference: its sampler never sees half
    of the rows of the smaller parts, and keeps one order for all epochs.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        names: Sequence[str],
        shares: dict[str, int],
        samples: int,
        seed: int,
    ) -> None:
        self.parts, self.step_samples = tuple(parts), samples
        each = samples // sum(shares.values())
        self.members = [
            [number for number, of in enumerate(names) if of == name] for name in shares
        ]
        self.orders = [
            DataOrder([parts[number] for number in members], each * share, seed + place)
            for place, (members, share) in enumerate(zip(self.members, shares.values()))
        ]

    def steps(self, epochs: float, least: int = 0) -> int:
        """Steps of so many epochs of the first part."""
        return self.orders[0].steps(epochs, least)

    def step(self, number: int) -> list[tuple[int, int]]:
        """The samples of a step, counted from 0, part by part."""
        return [
            (members[data], index)
            for members, order in zip(self.members, self.orders)
            for data, index in order.step(number)
        ]

    def seen(self, data: int, steps: int) -> int:
        """How many samples of a data set so many steps hold, on average."""
        (place,) = (place for place, members in enumerate(self.members) if data in members)
        return self.orders[place].seen(self.members[place].index(data), steps)


def order_of(recipe: Recipe, parts: Sequence[Part]) -> DataOrder | PartedOrder:
    """The order of a recipe's samples. parts: of its data sets"""
    batch = recipe.batch
    if not batch.parts:
        return DataOrder(parts, batch.samples, recipe.seed)
    names = [str(source.part) for source in recipe.data]
    return PartedOrder(parts, names, batch.parts, batch.samples, recipe.seed)


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
