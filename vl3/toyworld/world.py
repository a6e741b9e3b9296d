"""A toy world of coloured shapes that move, appear and disappear: scenes, and how they are sampled.

A Scene is a handful of numbers; vl3.toyworld.draw makes frames of it, vl3.toyworld.questions asks
about it, and vl3.toyworld.sounds says what is heard. Nothing here knows a picture, a model or a
tokenizer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from vl3.toyworld.sounds import Track, with_sound
from vl3.toyworld.voices import SEEN_SPEAKERS

COLOURS = {
    "red": (214, 38, 38),
    "orange": (245, 132, 28),
    "yellow": (244, 216, 48),
    "green": (38, 158, 66),
    "cyan": (62, 206, 216),
    "blue": (44, 78, 212),
    "purple": (132, 48, 172),
    "pink": (246, 130, 184),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
# Pairs that training never draws and never speaks of: what was learned about colours and about
# shapes is tried on them together.
HELD_OUT = (
    ("yellow", "circle"),
    ("blue", "square"),
    ("purple", "triangle"),
    ("cyan", "star"),
    ("orange", "cross"),
)
SEEN = tuple((c, s) for s in SHAPES for c in COLOURS if (c, s) not in HELD_OUT)
MOTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}

MIN_SPEED_PX, MAX_SPEED_PX = 5.0, 13.0
MIN_SIZE_PX, MAX_SIZE_PX = 28, 40
LATTICE_PX = 14
MIN_DIGIT_PX, MAX_DIGIT_PX = 32, 48  # height
DIGIT_WIDTH = 0.6  # of its height
# Backgrounds are grey and faintly lit: red rises from left to right and blue from top to bottom by
# this much on either side. The encoder knows where patches lie relative to one another only; before
# a plain background nothing tells it where in the frame they are.
LIT_LEVELS = 14
LIGHT_INK, DARK_INK = (255, 255, 255), (16, 16, 16)


@dataclass(frozen=True, slots=True)
class Sprite:
    """One shape: what it is, when it is visible and how its centre moves (pixels per second).

    It is visible at the times start_s <= t < stop_s and at (x_px, y_px) when it appears.
    flash_s: the second in which it flashes; None where it does not
    """

    shape: str
    colour: str
    rgb: tuple[int, int, int]
    size_px: int
    start_s: int
    stop_s: int
    motion: str
    speed_px: float
    x_px: float
    y_px: float
    flash_s: int | None = None

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    @property
    def pair(self) -> tuple[str, str]:
        return self.colour, self.shape

    def visible(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.stop_s

    def flashes(self, time_s: float) -> bool:
        return self.flash_s is not None and self.flash_s <= time_s < self.flash_s + 1

    def centre(self, time_s: float) -> tuple[float, float]:
        """Column and row of the centre in pixels."""
        dx, dy = MOTIONS[self.motion]
        travel_px = self.speed_px * (time_s - self.start_s)
        return self.x_px + dx * travel_px, self.y_px + dy * travel_px

    def box(self, time_s: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels."""
        x_px, y_px = self.centre(time_s)
        half_px = self.size_px / 2
        return x_px - half_px, y_px - half_px, x_px + half_px, y_px + half_px


@dataclass(frozen=True, slots=True)
class Digit:
    """A seven-segment digit centred at (x_px, y_px); from change_s on it shows `then` instead.

    change_s None: it never changes.
    """

    first: int
    then: int
    change_s: int | None
    height_px: int
    stroke_px: int
    rgb: tuple[int, int, int]
    x_px: float
    y_px: float

    def shown(self, time_s: float) -> int:
        changed = self.change_s is not None and time_s >= self.change_s
        return self.then if changed else self.first

    def box(self, time_s: float) -> tuple[float, float, float, float]:
        """Left, top, right and bottom in pixels."""
        half_px = self.height_px / 2
        aside_px = DIGIT_WIDTH * half_px
        return (
            self.x_px - aside_px,
            self.y_px - half_px,
            self.x_px + aside_px,
            self.y_px + half_px,
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """A background, its sprites and perhaps one digit, for `seconds` seconds (0: a still image).

    track: what is heard; None where it has no sound
    seen: whether there is a picture; sound alone has none, and no sprites
    """

    height_px: int
    width_px: int
    seconds: int
    background: tuple[int, int, int]
    grain: int
    seed: int
    sprites: tuple[Sprite, ...]
    digit: Digit | None = None
    track: Track | None = None
    seen: bool = True

    @property
    def kind(self) -> str:
        """ "image", which has no times, "video", or "audio" where nothing is seen."""
        if not self.seen:
            return "audio"
        return "image" if self.seconds == 0 else "video"

    @property
    def times_s(self) -> tuple[float, ...]:
        """The times of the frames at one frame per second."""
        return tuple(float(second) for second in range(max(1, self.seconds)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """How hard the scenes of one part of the curriculum are.

    seconds (0, 0) gives still images. digits is the share of scenes with a digit, changing the
    share of those (in clips) whose digit changes. Of the clips, a share is shaky (boxes of pixels
    change a little from frame to frame, as a video codec makes them), noisy (all pixels do) or
    rescaled (drawn large and resized). With jitter_px, sprites and digits of about one size lie on
    a lattice of patches, at most that far off it: shapes then look alike each time, which is where
    learning them begins; half a lattice step gives free places and sizes. pairs are the colours
    and shapes that occur.

    sound is the share of clips that have it, alone the share of those that are heard without their
    picture. sounds are the fewest and most in a clip, one a second at most; voices is the share of
    sounds that are spoken digits, by one of the speakers, hum the share of clips with a hum behind
    their sounds.
    """

    seconds: tuple[int, int]
    sprites: tuple[int, int]
    sizes_px: tuple[tuple[int, int], ...] = ((112, 112),)
    digits: float = 0.0
    changing: float = 0.5
    shaky: float = 0.0
    noisy: float = 0.0
    rescaled: float = 0.0
    jitter_px: float | None = None
    pairs: tuple[tuple[str, str], ...] = SEEN
    sound: float = 0.0
    alone: float = 0.0
    sounds: tuple[int, int] = (0, 3)
    voices: float = 0.0
    speakers: tuple[str, ...] = SEEN_SPEAKERS
    hum: float = 0.0


def sample_scene(rng: random.Random, level: Level) -> Scene:
    """A random scene of the level; no two of its sprites have the same colour and shape."""
    height_px, width_px = rng.choice(level.sizes_px)
    seconds = rng.randint(*level.seconds)
    grey = rng.randint(LIT_LEVELS, 255 - LIT_LEVELS)
    wanted = rng.randint(*level.sprites)
    has_digit = rng.random() < level.digits
    for attempt in range(20):  # begin again where all do not fit; later on fewer will do
        digit = _sample_digit(rng, height_px, width_px, seconds, grey, level) if has_digit else None
        sprites = _sample_sprites(rng, height_px, width_px, seconds, digit, wanted, level)
        if len(sprites) >= min(wanted, max(1, wanted - attempt // 4)):
            break
    grain = rng.choice((0, 0, 4, 10))
    scene = Scene(
        height_px, width_px, seconds, (grey,) * 3, grain, rng.getrandbits(32), sprites, digit
    )
    return with_sound(scene, rng, level) if level.sound else scene


def _sample_sprites(
    rng: random.Random, height_px: int, width_px: int, seconds: int, digit, wanted: int, level
) -> tuple[Sprite, ...]:
    """Up to `wanted` sprites that keep away from the digit and from one another."""
    sprites: list[Sprite] = []
    for _ in range(wanted):
        motion = rng.choice(tuple(MOTIONS)) if seconds else "still"  # not more often what fits
        for _ in range(15):
            sprite = _sample_sprite(rng, height_px, width_px, seconds, motion, level.pairs)
            if level.jitter_px is not None:
                sprite = _on_lattice(sprite, rng, height_px, width_px, level.jitter_px)
            if all(_apart(sprite, other) for other in (*sprites, *_taken(digit, seconds))):
                sprites.append(sprite)
                break
    return tuple(sprites)


def _sample_digit(
    rng: random.Random, height_px: int, width_px: int, seconds: int, grey: int, level: Level
) -> Digit:
    first = rng.randint(0, 9)
    then, change_s = first, None
    if seconds >= 3 and rng.random() < level.changing:
        then = rng.choice([digit for digit in range(10) if digit != first])
        change_s = rng.randint(1, seconds - 1)
    high_px = rng.randint(MIN_DIGIT_PX, MAX_DIGIT_PX)
    stroke_px = rng.randint(high_px // 8, high_px // 5)
    x_px = rng.uniform(DIGIT_WIDTH * high_px / 2 + 1, width_px - DIGIT_WIDTH * high_px / 2 - 1)
    y_px = rng.uniform(high_px / 2 + 1, height_px - high_px / 2 - 1)
    if level.jitter_px is not None:
        high_px = _loosened(3 * LATTICE_PX, high_px, level.jitter_px)
        stroke_px = _loosened(LATTICE_PX // 2, stroke_px, level.jitter_px)
        x_px = _snap(x_px, width_px, high_px, rng, level.jitter_px)
        y_px = _snap(y_px, height_px, high_px, rng, level.jitter_px)
    rgb = LIGHT_INK if grey < 128 else DARK_INK
    return Digit(first, then, change_s, high_px, stroke_px, rgb, x_px, y_px)


def _taken(digit: Digit | None, seconds: int) -> tuple[Sprite, ...]:
    """The place of a digit as something to keep away from."""
    if digit is None:
        return ()
    place = (digit.x_px, digit.y_px)
    span_s = (0, max(1, seconds))
    return (Sprite("", "", digit.rgb, digit.height_px, *span_s, "still", 0.0, *place),)


def _sample_sprite(
    rng: random.Random, height_px: int, width_px: int, seconds: int, motion: str, pairs
) -> Sprite:
    colour, shape = rng.choice(pairs)
    red, green, blue = (min(255, max(0, level + rng.randint(-12, 12))) for level in COLOURS[colour])
    size_px = rng.randint(MIN_SIZE_PX, MAX_SIZE_PX)
    start_s, stop_s = _sample_span(rng, seconds)
    dx, dy = MOTIONS[motion]
    speed_px = 0.0
    if motion != "still":
        room_px = (abs(dx) * width_px + abs(dy) * height_px) - size_px - 2
        stop_s = min(stop_s, start_s + int(room_px / MIN_SPEED_PX))
        speed_px = rng.uniform(MIN_SPEED_PX, min(MAX_SPEED_PX, room_px / (stop_s - start_s)))
    travel_px = speed_px * (stop_s - start_s)
    x_px = _sample_start(rng, width_px, size_px, dx * travel_px)
    y_px = _sample_start(rng, height_px, size_px, dy * travel_px)
    rgb = (red, green, blue)
    return Sprite(shape, colour, rgb, size_px, start_s, stop_s, motion, speed_px, x_px, y_px)


def _on_lattice(
    sprite: Sprite, rng: random.Random, height_px: int, width_px: int, jitter_px: float
) -> Sprite:
    """The sprite, still, on the lattice; the less jitter, the nearer to three steps large."""
    size_px = _loosened(3 * LATTICE_PX, sprite.size_px, jitter_px)
    x_px = _snap(sprite.x_px, width_px, size_px, rng, jitter_px)
    y_px = _snap(sprite.y_px, height_px, size_px, rng, jitter_px)
    return replace(sprite, size_px=size_px, motion="still", speed_px=0.0, x_px=x_px, y_px=y_px)


def _loosened(fixed_px: int, free_px: int, jitter_px: float) -> int:
    """From one length for all to a free one, reached where jitter covers the lattice."""
    return round(fixed_px + min(1.0, 2 * jitter_px / LATTICE_PX) * (free_px - fixed_px))


def _snap(
    centre_px: float, side_px: int, size_px: int, rng: random.Random, jitter_px: float
) -> float:
    """The nearest centre of three lattice steps, jittered, inside the frame."""
    corner_px = round((centre_px - 1.5 * LATTICE_PX) / LATTICE_PX) * LATTICE_PX
    centre_px = corner_px + 1.5 * LATTICE_PX + rng.uniform(-jitter_px, jitter_px)
    return min(side_px - size_px / 2, max(size_px / 2, centre_px))


def _sample_span(rng: random.Random, seconds: int) -> tuple[int, int]:
    if seconds < 3 or rng.random() < 0.35:
        return 0, max(1, seconds)
    start_s = 0 if rng.random() < 0.25 else rng.randint(0, seconds - 2)
    stop_s = seconds if rng.random() < 0.25 else rng.randint(start_s + 2, seconds)
    return start_s, stop_s


def _sample_start(rng: random.Random, side_px: int, size_px: int, travel_px: float) -> float:
    low_px, high_px = size_px / 2 + 1, side_px - size_px / 2 - 1
    return rng.uniform(low_px + max(0.0, -travel_px), high_px - max(0.0, travel_px))


def _apart(one: Sprite, other: Sprite) -> bool:
    if one.name == other.name:
        return False
    reach_px = 0.52 * (one.size_px + other.size_px)
    first_s, last_s = max(one.start_s, other.start_s), min(one.stop_s, other.stop_s)
    for half_second in range(2 * first_s, 2 * last_s + 1):
        (x1, y1), (x2, y2) = one.centre(half_second / 2), other.centre(half_second / 2)
        if max(abs(x1 - x2), abs(y1 - y2)) < reach_px:
            return False
    return True
