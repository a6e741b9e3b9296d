"""The sound of a conversation: parts of messages, and the tracks of their videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vl3 import audio
from vl3.audio import SoundLength
from vl3.sound import RATE_HZ, Sound


@dataclass(frozen=True, slots=True, eq=False)
class SoundPart:
    """A sound of a message, or of a video in one, not read yet.

    part: as vl3.messages.reader reads it; source: a path or a Sound; options: start and end
    """

    part: dict
    source: str | Path | Sound
    options: dict

    kind = "audio"

    @property
    def is_file(self) -> bool:
        """Whether it lies on disk and all of it is asked for."""
        return not isinstance(self.source, Sound) and not self.options

    def measure(self) -> SoundLength:
        """Its length and times, exactly. Raises: vl3.video.VideoError."""
        if not isinstance(self.source, Sound):
            return audio.measure(self.source, **self.options)
        sound = self.source
        return SoundLength(
            num_samples=len(sound),
            start_s=sound.start_s,
            first_frame_s=sound.first_frame_s,
            track=sound.track,
            notes=sound.notes,
        )

    def read(self, on_wait: Callable[[], None] | None = None) -> Sound:
        """All of it. Raises: vl3.video.VideoError."""
        if isinstance(self.source, Sound):
            return self.source
        return audio.read(self.source, on_wait=on_wait, **self.options)

    def blocks(self, on_wait: Callable[[], None] | None = None) -> Iterator[np.ndarray]:
        """Its samples, a few seconds at a time. Raises: vl3.video.VideoError."""
        if isinstance(self.source, Sound):
            yield self.source.samples_S
        else:
            yield from audio.blocks(self.source, on_wait=on_wait, **self.options)


def sound_part(part: dict, source: object) -> SoundPart:
    """The sound of a part of type audio.

    source: a path, a Sound, or (samples, rate)
    Raises: ValueError for a range that holds nothing, or another source.
    """
    options = {key: part[key] for key in ("start", "end") if key in part}
    if isinstance(source, tuple):
        source = audio.from_array(*source)
    if isinstance(source, Sound):
        return SoundPart(part, part_of_sound(source, **options), {})
    if isinstance(source, str | Path):
        return SoundPart(part, source, options)
    raise ValueError(
        "the source of audio is a path, a file: or data: URL, bytes, a vl3.values.Sound or "
        "(samples, rate)"
    )


def part_of_sound(sound: Sound, start: float = 0.0, end: float | None = None) -> Sound:
    """What lies between the seconds start and end of the clip's clock; all of it without them."""
    first_s = sound.start_s + sound.first_frame_s
    first = max(0, round((start - first_s) * RATE_HZ)) if start else 0
    last = len(sound) if end is None else max(0, round((end - first_s) * RATE_HZ))
    if first == 0 and last >= len(sound):
        return sound
    if first >= min(last, len(sound)):
        raise ValueError(
            f"no sound lies between start {start:g} s and end {end} s; it is heard from "
            f"{first_s:g} to {first_s + sound.duration_s:g} s"
        )
    return replace(
        sound,
        samples_S=sound.samples_S[first:last],
        start_s=sound.start_s + first / RATE_HZ,
    )
