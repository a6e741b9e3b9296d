"""How an ear cuts a sound, and which tokens it makes of it: known without weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vl3.sound import RATE_HZ, SoundTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class EarForm:
    """A sound is heard in pieces of so many steps, of which each gives a token for each band.

        samples   |------- piece 1 -------|--|
                                          |------- piece 2 -------|--|
        steps     | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | ...
                                           --  overhang

    step_samples: that a step stands for
    steps: of a whole piece
    bands: tokens of a step
    overhang: samples behind its last step that a piece has as well, for windows that begin in it
    takes_rest: whether a step that begins in the sound and ends behind it is one; otherwise it is
          left out, unless it would be the only one
    """

    step_samples: int
    steps: int
    bands: int = 1
    overhang: int = 0
    takes_rest: bool = True

    @property
    def tokens_per_s(self) -> float:
        return self.bands * RATE_HZ / self.step_samples

    @property
    def piece_samples(self) -> int:
        """Of a whole piece, without its overhang."""
        return self.steps * self.step_samples

    def steps_of(self, num_samples: int) -> int:
        """Steps of a sound, or of a piece with its overhang, of so many samples."""
        if self.takes_rest or not num_samples:
            return -(-num_samples // self.step_samples)
        return max(1, (num_samples - self.overhang) // self.step_samples)

    def tokens(self, num_samples: int, start_s: float = 0.0) -> SoundTokens:
        """The tokens of a whole sound, and their times. start_s: of its first sample"""
        edges = np.arange(self.steps_of(num_samples) + 1) * self.step_samples
        edges_s = start_s + np.minimum(edges, num_samples) / RATE_HZ
        spans_s = tuple(zip(edges_s[:-1].tolist(), edges_s[1:].tolist()))
        return SoundTokens(spans_s=spans_s, bands=self.bands)

    def pieces(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The pieces of a sound that comes in blocks of any length; nothing more is held."""
        held, is_first = np.zeros(0, np.float32), True
        whole = self.piece_samples + self.overhang
        for block_S in blocks:
            held = np.concatenate([held, block_S])
            while len(held) >= whole:
                yield held[:whole]
                held, is_first = held[self.piece_samples :], False
        rest = len(held) if self.takes_rest else (len(held) - self.overhang) // self.step_samples
        if rest > 0 or (is_first and len(held)):
            yield held
