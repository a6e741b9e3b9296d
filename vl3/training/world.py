"""A toy world of coloured shapes that move, appear and disappear: scenes and their pictures.

A Scene is a handful of numbers; `render` draws it at any times and any scale, so the same scene can
be a training sample of 112 x 112 pixels at 1 frame per second or a smooth clip for a person.
Nothing here knows a model, a tokenizer or a question (see vl3.training.questions).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vl3.values import Clip

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
MOTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}

MIN_SPEED_PX, MAX_SPEED_PX = 5.0, 13.0
MIN_SIZE_PX, MAX_SIZE_PX = 28, 40
LATTICE_PX = 14
DIGIT_HEIGHT_PX = 40
DIGIT_RGB = (255, 255, 255)
# Lit segments of 0..9: top, middle, bottom, then upper left and right, lower left and right.
SEGMENTS = tuple(
    f"{lit:07b}" for lit in (0b1011111, 0b0000101, 0b1110110, 0b1110101, 0b0101101,
                             0b1111001, 0b1111011, 0b1000101, 0b1111111, 0b1111101)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sprite:
    """One shape: what it is, when it is visible and how its centre moves (pixels per second).

    It is visible at the times start_s <= t < stop_s and at (x_px, y_px) when it appears.
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

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def visible(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.stop_s

    def centre(self, time_s: float) -> tuple[float, float]:
        """Column and row of the centre in pixels."""
        dx, dy = MOTIONS[self.motion]
        travel_px = self.speed_px * (time_s - self.start_s)
        return self.x_px + dx * travel_px, self.y_px + dy * travel_px


@dataclass(frozen=True, slots=True)
class Scene:
    """A background, its sprites and perhaps one digit, for `seconds` seconds (0: a still image)."""

    height_px: int
    width_px: int
    seconds: int
    background: tuple[int, int, int]
    grain: int
    seed: int
    sprites: tuple[Sprite, ...]
    digit: int | None = None

    @property
    def is_image(self) -> bool:
        return self.seconds == 0

    @property
    def times_s(self) -> tuple[float, ...]:
        """The times of the frames at one frame per second."""
        return tuple(float(second) for second in range(max(1, self.seconds)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """How hard the scenes of one part of the curriculum are.

    seconds (0, 0) gives still images. Of the clips, a share is shaky (boxes of pixels change a
    little from frame to frame, as a video codec makes them), noisy (all pixels do) or rescaled
    (drawn large and resized). With jitter_px, sprites of one size start on a lattice of patches, at
    most that far off it: shapes then look alike each time, which is where learning them begins.
    """

    seconds: tuple[int, int]
    sprites: tuple[int, int]
    sizes_px: tuple[tuple[int, int], ...] = ((112, 112),)
    digits: float = 0.0
    shaky: float = 0.0
    noisy: float = 0.0
    rescaled: float = 0.0
    jitter_px: float | None = None


def sample_scene(rng: random.Random, level: Level) -> Scene:
    """A random scene of the level; no two of its sprites have the same colour and shape."""
    height_px, width_px = rng.choice(level.sizes_px)
    seconds = rng.randint(*level.seconds)
    grey = rng.randint(8, 246)
    background = tuple(min(255, max(0, grey + rng.randint(-7, 7))) for _ in range(3))
    sprites: list[Sprite] = []
    wanted = rng.randint(*level.sprites)
    for _ in range(60):
        if len(sprites) == wanted:
            break
        sprite = _sample_sprite(rng, height_px, width_px, seconds)
        if level.jitter_px is not None:
            sprite = _on_lattice(sprite, rng, height_px, width_px, level.jitter_px)
        if all(_apart(sprite, other) for other in sprites):
            sprites.append(sprite)
    digit = rng.randint(0, 9) if rng.random() < level.digits else None
    if not all(_apart(sprite, _digit_sprite(seconds)) for sprite in sprites):
        digit = None
    grain = rng.choice((0, 0, 4, 10))
    return Scene(
        height_px, width_px, seconds, background, grain, rng.getrandbits(32), tuple(sprites), digit
    )


def _sample_sprite(rng: random.Random, height_px: int, width_px: int, seconds: int) -> Sprite:
    shape, colour = rng.choice(SHAPES), rng.choice(tuple(COLOURS))
    rgb = tuple(min(255, max(0, value + rng.randint(-12, 12))) for value in COLOURS[colour])
    size_px = rng.randint(MIN_SIZE_PX, MAX_SIZE_PX)
    start_s, stop_s = _sample_span(rng, seconds)
    motion = rng.choice(tuple(MOTIONS)) if seconds else "still"
    dx, dy = MOTIONS[motion]
    room_px = (abs(dx) * width_px + abs(dy) * height_px) - size_px - 2
    fastest_px = min(MAX_SPEED_PX, room_px / (stop_s - start_s))
    speed_px = rng.uniform(MIN_SPEED_PX, fastest_px) if fastest_px >= MIN_SPEED_PX else 0.0
    if not speed_px:
        motion, dx, dy = "still", 0, 0
    travel_px = speed_px * (stop_s - start_s)
    x_px = _sample_start(rng, width_px, size_px, dx * travel_px)
    y_px = _sample_start(rng, height_px, size_px, dy * travel_px)
    return Sprite(shape, colour, rgb, size_px, start_s, stop_s, motion, speed_px, x_px, y_px)


def _on_lattice(
    sprite: Sprite, rng: random.Random, height_px: int, width_px: int, jitter_px: float
) -> Sprite:
    """The sprite, still and three lattice steps large (if not jittered), on the lattice."""
    size_px = sprite.size_px if jitter_px else 3 * LATTICE_PX
    places = []
    for centre_px, side_px in ((sprite.x_px, width_px), (sprite.y_px, height_px)):
        corner_px = round((centre_px - 1.5 * LATTICE_PX) / LATTICE_PX) * LATTICE_PX
        centre_px = corner_px + 1.5 * LATTICE_PX + rng.uniform(-jitter_px, jitter_px)
        places.append(min(side_px - size_px / 2, max(size_px / 2, centre_px)))
    x_px, y_px = places
    return replace(sprite, size_px=size_px, motion="still", speed_px=0.0, x_px=x_px, y_px=y_px)


def _sample_span(rng: random.Random, seconds: int) -> tuple[int, int]:
    if seconds < 3 or rng.random() < 0.35:
        return 0, max(1, seconds)
    start_s = 0 if rng.random() < 0.25 else rng.randint(0, seconds - 2)
    stop_s = seconds if rng.random() < 0.25 else rng.randint(start_s + 2, seconds)
    return start_s, stop_s


def _sample_start(rng: random.Random, side_px: int, size_px: int, travel_px: float) -> float:
    low_px, high_px = size_px / 2 + 1, side_px - size_px / 2 - 1
    return rng.uniform(low_px + max(0.0, -travel_px), high_px - max(0.0, travel_px))


def _digit_sprite(seconds: int) -> Sprite:
    """The place of a digit, in the top left corner, as something to keep away from."""
    centre_px = DIGIT_HEIGHT_PX / 2 + 4
    place = (centre_px, centre_px)
    return Sprite("", "", DIGIT_RGB, DIGIT_HEIGHT_PX, 0, max(1, seconds), "still", 0.0, *place)


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


def render(scene: Scene, times_s: tuple[float, ...] | None = None, scale: int = 1) -> np.ndarray:
    """The frames of a scene at the given times.

    Shapes: result frames_TYX3 uint8 RGB of scale * (height_px, width_px) pixels
    """
    times_s = scene.times_s if times_s is None else times_s
    background_YX3 = _background(scene, scale)
    frames_TYX3 = np.repeat(background_YX3[None], len(times_s), axis=0)
    for frame_YX3, time_s in zip(frames_TYX3, times_s, strict=True):
        for sprite in scene.sprites:
            if sprite.visible(time_s):
                x_px, y_px = sprite.centre(time_s)
                mask_YX = _mask(sprite.shape, sprite.size_px * scale)
                _paint(frame_YX3, mask_YX, sprite.rgb, x_px * scale, y_px * scale)
    return frames_TYX3


def coverage(scene: Scene, time_s: float = 0.0) -> np.ndarray:
    """Which sprite shows at each pixel.

    Shapes: result sprite_YX - its index in scene.sprites, -1 for background
    """
    sprite_YX = np.full((scene.height_px, scene.width_px), -1)
    for index, sprite in enumerate(scene.sprites):
        if sprite.visible(time_s):
            mask_YX = _mask(sprite.shape, sprite.size_px) > 0.5
            window, cut = _overlap(sprite_YX.shape, mask_YX.shape, *sprite.centre(time_s))
            sprite_YX[window][mask_YX[cut]] = index
    return sprite_YX


def _background(scene: Scene, scale: int) -> np.ndarray:
    height_px, width_px = scene.height_px, scene.width_px
    frame_YX3 = np.empty((height_px, width_px, 3), np.int16)
    frame_YX3[:] = scene.background
    if scene.grain:
        noise = np.random.default_rng(scene.seed)
        frame_YX3 += noise.integers(
            -scene.grain, scene.grain, (height_px, width_px, 1), dtype=np.int16, endpoint=True
        )
    frame_YX3 = frame_YX3.clip(0, 255).astype(np.uint8)
    frame_YX3 = frame_YX3.repeat(scale, axis=0).repeat(scale, axis=1)
    if scene.digit is not None:
        mask_YX = _digit_mask(scene.digit, DIGIT_HEIGHT_PX * scale)
        corner_px = (DIGIT_HEIGHT_PX / 2 + 4) * scale
        _paint(frame_YX3, mask_YX, DIGIT_RGB, corner_px, corner_px)
    return frame_YX3


def _paint(
    frame_YX3: np.ndarray, mask_YX: np.ndarray, rgb: tuple[int, int, int], x_px: float, y_px: float
) -> None:
    window, cut = _overlap(frame_YX3.shape[:2], mask_YX.shape, x_px, y_px)
    window_YX3, alpha_YX1 = frame_YX3[window], mask_YX[cut][..., None]
    ink_YX3 = np.asarray(rgb, np.float32)
    window_YX3[:] = (window_YX3 + alpha_YX1 * (ink_YX3 - window_YX3) + 0.5).astype(np.uint8)


def _overlap(
    frame: tuple[int, int], mask: tuple[int, int], x_px: float, y_px: float
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a mask centred at (x_px, y_px) meets the frame: slices of the frame, of the mask."""
    inside, cut = [], []
    for side, extent, centre_px in zip(frame, mask, (y_px, x_px), strict=True):
        first = round(centre_px - extent / 2)
        start, stop = max(0, first), max(0, min(side, first + extent))
        inside.append(slice(start, stop))
        cut.append(slice(start - first, stop - first))
    return tuple(inside), tuple(cut)


@lru_cache(maxsize=1024)
def _mask(shape: str, size_px: int) -> np.ndarray:
    """Coverage 0..1 of the pixels of a square of size_px that holds the shape, smooth at edges."""
    fine_px = 4 * size_px
    canvas = Image.new("L", (fine_px, fine_px))
    draw = ImageDraw.Draw(canvas)
    if shape == "circle":
        draw.ellipse((0, 0, fine_px - 1, fine_px - 1), fill=255)
    else:
        corners = [(x * fine_px, y * fine_px) for x, y in _outline(shape)]
        draw.polygon(corners, fill=255)
    small = canvas.resize((size_px, size_px), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a shape in a unit square."""
    if shape == "square":
        return [(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]
    if shape == "triangle":
        return [(0.5, 0.03), (1.0, 0.95), (0.0, 0.95)]
    if shape == "star":
        points = []
        for corner in range(10):
            radius = 0.53 if corner % 2 == 0 else 0.22
            angle = math.pi * corner / 5
            points.append((0.5 + radius * math.sin(angle), 0.53 - radius * math.cos(angle)))
        return points
    a, b = 0.34, 0.66
    return [
        (a, 0),
        (b, 0),
        (b, a),
        (1, a),
        (1, b),
        (b, b),
        (b, 1),
        (a, 1),
        (a, b),
        (0, b),
        (0, a),
        (a, a),
    ]


@lru_cache(maxsize=64)
def _digit_mask(digit: int, height_px: int) -> np.ndarray:
    """Coverage 0..1 of a seven-segment digit in a square of height_px."""
    mask_YX = np.zeros((height_px, height_px), np.float32)
    left, right, thick = height_px // 5, 4 * height_px // 5, max(1, height_px // 6)
    half = (height_px - thick) // 2
    rows = (0, half, height_px - thick)
    for segment, lit in enumerate(SEGMENTS[digit]):
        if lit == "0":
            continue
        if segment < 3:
            mask_YX[rows[segment] : rows[segment] + thick, left:right] = 1
            continue
        top = 0 if segment < 5 else half
        col = left if segment % 2 == 1 else right - thick
        mask_YX[top : top + half + thick, col : col + thick] = 1
    return mask_YX


def shake(frames_TYX3: np.ndarray, noise: np.random.Generator, whole: bool) -> np.ndarray:
    """A copy whose pixels change by a grey level or two over time, as a video codec makes them.

    whole shakes each pixel of each frame; otherwise a random box of about every third frame.
    """
    frames, height_px, width_px, _ = frames_TYX3.shape
    change_TYX1 = noise.integers(-2, 3, (frames, height_px, width_px, 1), dtype=np.int16)
    if not whole:
        quiet_TYX1 = np.ones_like(change_TYX1, dtype=bool)
        for index in np.flatnonzero(noise.random(frames) < 0.35):
            top, left = noise.integers(0, height_px - 28), noise.integers(0, width_px - 28)
            bottom, right = noise.integers(top + 14, height_px), noise.integers(left + 14, width_px)
            quiet_TYX1[index, top:bottom, left:right] = False
        change_TYX1[quiet_TYX1] = 0
    return (frames_TYX3 + change_TYX1).clip(0, 255).astype(np.uint8)


def film(scene: Scene, rng: random.Random, level: Level) -> Clip:
    """The clip (or image) of a scene at one frame per second, with the level's imperfections."""
    if rng.random() < level.rescaled:
        large_TYX3 = render(scene, scale=rng.choice((2, 3)))
        size = (scene.width_px, scene.height_px)
        frames_TYX3 = np.stack(
            [
                np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC))
                for f in large_TYX3
            ]
        )
    else:
        frames_TYX3 = render(scene)
    kind = rng.random()
    if not scene.is_image and kind < level.noisy + level.shaky:
        noise = np.random.default_rng(rng.getrandbits(32))
        frames_TYX3 = shake(frames_TYX3, noise, whole=kind < level.noisy)
    times_s = None if scene.is_image else scene.times_s
    return Clip(frames_TYX3=frames_TYX3, times_s=times_s, source=f"scene {scene.seed}")
