"""The values of sound, beside those of vl3.values, which has them too."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vl3.arguments import instance, number

RATE_HZ = 16_000  # samples a second of every Sound


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTrack:
    """What a sound was before it became mono at 16 kHz.

    codec: the name of the format ("aac"); layout: of the channels ("stereo", "5.1")
    bits: of a stored sample, 0 where the format has no such number
    channels, heard: how many there are, and of how many the mean is heard
    cancelled: their mean has less than 1 % of their power, so the first alone is heard
    tracks: how many the file holds; packets, lost_packets: of the part that was read
    gaps_s: start and length of each silence in place of what the track does not have
    picture_s: when the first frame of the picture is shown and the last one ends, on the clock of
          the sound; None where there is none
    start_s, end_s: of the sound that was read; peak: its largest level
    """

    codec: str
    rate_hz: int
    channels: int
    layout: str
    bits: int = 0
    heard: int = 1
    cancelled: bool = False
    tracks: int = 1
    packets: int = 0
    lost_packets: int = 0
    gaps_s: tuple[tuple[float, float], ...] = ()
    picture_s: tuple[float, float] | None = None
    start_s: float = 0.0
    end_s: float = 0.0
    peak: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sound:
    """Mono sound of 16,000 samples a second, and when it is heard.

    Shapes: samples_S - float32, full scale from -1 to 1; none where a video has no sound
    start_s: of the first sample, counted from the first frame of the picture, below 0 where sound
          comes first; 0 where there is no picture
    first_frame_s: where that frame is on the clip's clock, which the times of a Clip count from: a
          sample is start_s + first_frame_s there
    track: what it was made from; None where it did not come from a file, or that has no sound
    notes: what a person must know of how the source was read, one sentence each
    """

    samples_S: np.ndarray
    start_s: float = 0.0
    source: str
    first_frame_s: float = 0.0
    track: SoundTrack | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        instance("samples_S of a sound", self.samples_S, np.ndarray, "a NumPy array")
        if self.samples_S.ndim != 1 or self.samples_S.dtype != np.float32:
            raise ValueError(
                "a sound needs float32 samples of shape (samples,), mono at 16 kHz - got "
                f"{self.samples_S.dtype} {self.samples_S.shape}; vl3.audio.from_array makes them"
            )
        number("start_s of a sound", self.start_s, unit="seconds")

    @property
    def kind(self) -> str:
        """Always "audio", beside "image" and "video" of clips."""
        return "audio"

    @property
    def duration_s(self) -> float:
        return len(self.samples_S) / RATE_HZ

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s

    def __len__(self) -> int:
        return len(self.samples_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundTokens:
    """The tokens that an ear makes of one sound, and the time that each stands for.

    They are steps x bands, in this order; where an ear has one token a step there is one band, else
    bands go from low to high.

    spans_s: start and end of each step, seconds on the clock of the sound, ascending
    """

    spans_s: tuple[tuple[float, float], ...]
    bands: int = 1

    @property
    def num_tokens(self) -> int:
        return len(self.spans_s) * self.bands

    def pooled(self, pool: int) -> SoundTokens:
        """What is left where so many neighbouring steps become one; the last has the rest."""
        firsts, ends = self.spans_s[::pool], [*self.spans_s[pool - 1 :: pool], *self.spans_s[-1:]]
        spans_s = tuple((first[0], end[1]) for first, end in zip(firsts, ends))
        return SoundTokens(spans_s=spans_s, bands=self.bands)

    def before(self, times_s: Sequence[float]) -> tuple[int, ...]:
        """Tokens before the first of the times, from it to the second, ..., from the last on.

        times_s: ascending, on the clock of the sound. A token belongs where its start is.
        Gives one number more than there are times.
        """
        starts_s = [start for start, _ in self.spans_s]
        edges = [0, *(bisect_left(starts_s, time_s) for time_s in times_s), len(starts_s)]
        return tuple(self.bands * (end - first) for first, end in pairwise(edges))


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundRuns:
    """How many tokens of a video's sound stand before its first step and after each.

    order: "interleave" between the frames between which they are heard, "chunk" after the frames of
    each chunk_s seconds, "append" after the last frame
    """

    tokens: SoundTokens
    order: str = "interleave"
    chunk_s: float = 2.0

    def __call__(self, times_s: Sequence[float]) -> tuple[int, ...]:
        """By the times of the steps, ascending, on the clip's clock."""
        if self.order == "append":
            return (*(0,) * len(times_s), self.tokens.num_tokens)
        if self.order == "chunk":  # a frame counts from where its chunk begins
            times_s = [self.chunk_s * (time_s // self.chunk_s) for time_s in times_s]
        return self.tokens.before(times_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundContext:
    """What the language model heard of one medium.

    tokens: on the clip's clock; runs: (first position, slots) of each stretch in the prompt
    key: by which a studio finds the sound again while it keeps it
    track: what it was before it became mono; None where nothing was heard
    """

    tokens: SoundTokens
    runs: tuple[tuple[int, int], ...] = ()
    key: str = ""
    track: SoundTrack | None = None
