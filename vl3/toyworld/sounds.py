"""What is heard in the toy world: which sounds there are, and when a scene has which.

A Track is a handful of numbers; vl3.toyworld.synthesis makes samples of it, vl3.toyworld.hearing
asks about it. A sound that begins in the second of an event of a sprite is made by that sprite.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vl3.toyworld.world import Level, Scene, Sprite

VOICE = "voice"
PITCHED = ("beep", "buzz", "chirp", "bell")
KINDS = (*PITCHED, "hiss", "click")
PITCHES = ("low", "high")
LOUDNESSES = ("loud", "soft")

# Sounds begin a little after the whole second, so that no token of an ear (0.08 s) holds the end
# of one second and the beginning of a sound of the next, and end within it.
EARLIEST_S, LATEST_S = 0.05, 0.25
SHORTEST_S, LONGEST_S = 0.25, 0.6
LOUD_DB, SOFT_DB = (-14.0, -10.0), (-34.0, -30.0)  # of the power of a full square wave
HUM_DB = (-66.0, -52.0)
FLASHES = 0.35  # share of the sprites in clips with sound that flash
MIXED = 0.2  # share of the tracks of several sounds of which a sprite makes some
FARTHEST_SHIFT_S = 3


@dataclass(frozen=True, slots=True)
class Heard:
    """One sound: what it is, when it is heard and how.

    kind: one of KINDS, or VOICE; pitch: "low" or "high", None for kinds without
    second: in which it is heard, start_s: when it begins; length_s: of what is synthesised
    level_db: of its power; loud: whether that is one of LOUD_DB
    tune: 0 to 1, from the lowest of its kind and pitch to the highest, or the slowest voice to the
    fastest
    digit, speaker: what a voice says, and whose it is
    """

    kind: str
    pitch: str | None
    loud: bool
    start_s: float
    length_s: float
    level_db: float
    tune: float
    digit: int | None = None
    speaker: str | None = None

    @property
    def second(self) -> int:
        return int(self.start_s)

    @property
    def loudness(self) -> str:
        return "loud" if self.loud else "soft"


@dataclass(frozen=True, slots=True)
class Track:
    """What is heard with a scene: sounds in their order, and a hum where hum_db is its level."""

    sounds: tuple[Heard, ...]
    hum_db: float | None
    seed: int


def with_sound(scene: Scene, rng: random.Random, level: Level) -> Scene:
    """The scene with a track, where the level gives it one; sound alone has no sprites.

    In a clip with sound some sprites flash: an event that may have a sound, as coming and leaving.
    """
    if scene.seconds == 0 or rng.random() >= level.sound:
        return scene
    if rng.random() < level.alone:
        scene = replace(scene, sprites=(), digit=None, seen=False)
    else:
        scene = replace(scene, sprites=tuple(_flashing(s, rng) for s in scene.sprites))
    return replace(scene, track=sample_track(scene, rng, level))


def _flashing(sprite: Sprite, rng: random.Random) -> Sprite:
    """The sprite with a flash, or without; it neither comes nor leaves in that second."""
    if sprite.stop_s - sprite.start_s < 2 or rng.random() >= FLASHES:
        return sprite
    return replace(sprite, flash_s=rng.randint(sprite.start_s + 1, sprite.stop_s - 1))


def event_seconds(scene: Scene) -> dict[int, list[Sprite]]:
    """In which seconds sprites come (not at the beginning), leave (before the end) or flash."""
    found: dict[int, list[Sprite]] = {}
    for sprite in scene.sprites:
        for second in (sprite.start_s, sprite.stop_s, sprite.flash_s):
            if second is not None and 0 < second < scene.seconds:
                found.setdefault(second, []).append(sprite)
    return found


def makers(scene: Scene) -> list[Sprite | None]:
    """For each sound of the scene the sprite that makes it: the one with an event in its second."""
    if scene.track is None:
        return []
    events = event_seconds(scene)
    return [events.get(heard.second, [None])[0] for heard in scene.track.sounds]


def sample_track(scene: Scene, rng: random.Random, level: Level) -> Track:
    """A random track for a scene, with its sounds on events, off them, or some of both.

    Off them is where the picture does not match: the sounds that would be on events all earlier or
    later by the same one to three seconds, or those of another clip. No sound is in a second in
    which two sprites have an event, since no one could say which made it.
    """
    seconds = _seconds(scene, rng, rng.randint(*level.sounds))
    sounds = tuple(_sample_sound(rng, second, level) for second in sorted(seconds))
    hum_db = rng.uniform(*HUM_DB) if rng.random() < level.hum else None
    return Track(sounds, hum_db, rng.getrandbits(32))


def _seconds(scene: Scene, rng: random.Random, wanted: int) -> list[int]:
    on, off = on_and_off(scene)
    if not on:
        return rng.sample(off, min(wanted, len(off)))
    late = [second for second in off if second > 0]  # what is there from the start makes no sound
    if wanted > 1 and late and rng.random() < MIXED:
        some = rng.randint(1, wanted - 1)
        first = rng.sample(on, min(some, len(on)))
        return first + rng.sample(late, min(wanted - some, len(late)))
    matching = rng.sample(on, min(wanted, len(on), len(late) or wanted))
    if not late or rng.random() < 0.5:
        return matching
    shifts = [shift for shift in range(-FARTHEST_SHIFT_S, FARTHEST_SHIFT_S + 1) if shift]
    if rng.random() < 0.5:
        for shift in rng.sample(shifts, len(shifts)):
            shifted = [second + shift for second in matching]
            if all(second in late for second in shifted):
                return shifted
    return rng.sample(late, len(matching))


def on_and_off(scene: Scene) -> tuple[list[int], list[int]]:
    """The seconds in which one sprite has an event, and those in which none has."""
    events = event_seconds(scene)
    on = [second for second, sprites in events.items() if len(sprites) == 1]
    return on, [second for second in range(scene.seconds) if second not in events]


def _sample_sound(rng: random.Random, second: int, level: Level) -> Heard:
    kind, digit, speaker = rng.choice(KINDS), None, None
    if rng.random() < level.voices:
        kind, digit, speaker = VOICE, rng.randint(0, 9), rng.choice(level.speakers)
    loud = rng.random() < 0.5
    return Heard(
        kind=kind,
        pitch=rng.choice(PITCHES) if kind in PITCHED else None,
        loud=loud,
        start_s=second + rng.uniform(EARLIEST_S, LATEST_S),
        length_s=rng.uniform(SHORTEST_S, LONGEST_S),
        level_db=rng.uniform(*(LOUD_DB if loud else SOFT_DB)),
        tune=rng.random(),
        digit=digit,
        speaker=speaker,
    )


def only(track: Track, **wanted: object) -> bool:
    """Whether exactly one sound has the wanted kind, pitch or loudness."""
    having = [all(getattr(s, key) == value for key, value in wanted.items()) for s in track.sounds]
    return sum(having) == 1
