"""Frames of a scene, at any times and any scale.

The same scene can be a training sample of 112 x 112 pixels at 1 frame per second or a smooth clip
for a person. Where it has sound, its frames and its sound become one Film.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from vl3.sound import Sound
from vl3.toyworld.synthesis import listen
from vl3.toyworld.world import (
    DARK_INK,
    DIGIT_WIDTH,
    LIGHT_INK,
    LIT_LEVELS,
    Level,
    Scene,
    Sprite,
)
from vl3.values import Clip

FLASH = 0.75  # of the way from its own colour that a flashing sprite goes
# Lit segments of 0..9: top, middle, bottom, then upper left and right, lower left and right.
SEGMENTS = tuple(
    f"{lit:07b}"
    for lit in (
        0b1011111,
        0b0000101,
        0b1110110,
        0b1110101,
        0b0101101,
        0b1111001,
        0b1111011,
        0b1000101,
        0b1111111,
        0b1111101,
    )
)


def render(scene: Scene, times_s: tuple[float, ...] | None = None, scale: int = 1) -> np.ndarray:
    """The frames of a scene at the given times.

    Shapes: result frames_TYX3 uint8 RGB of scale * (height_px, width_px) pixels
    """
    times_s = scene.times_s if times_s is None else times_s
    background_YX3 = _background(scene, scale)
    frames_TYX3 = np.repeat(background_YX3[None], len(times_s), axis=0)
    digit = scene.digit
    for frame_YX3, time_s in zip(frames_TYX3, times_s, strict=True):
        if digit is not None:
            mask_YX = _digit_mask(
                digit.shown(time_s), digit.height_px * scale, digit.stroke_px * scale
            )
            _paint(frame_YX3, mask_YX, digit.rgb, digit.x_px * scale, digit.y_px * scale)
        for sprite in scene.sprites:
            if sprite.visible(time_s):
                x_px, y_px = sprite.centre(time_s)
                mask_YX = _mask(sprite.shape, sprite.size_px * scale)
                rgb = _flashing(scene, sprite) if sprite.flashes(time_s) else sprite.rgb
                _paint(frame_YX3, mask_YX, rgb, x_px * scale, y_px * scale)
    return frames_TYX3


def coverage(scene: Scene, time_s: float = 0.0) -> np.ndarray:
    """Which sprite shows at each pixel.

    Shapes: result sprite_YX - its index in scene.sprites, len(scene.sprites) within the box of the
            digit, -1 for background
    """
    sprite_YX = np.full((scene.height_px, scene.width_px), -1)
    for index, sprite in enumerate(scene.sprites):
        if sprite.visible(time_s):
            mask_YX = _mask(sprite.shape, sprite.size_px) > 0.5
            window, cut = _overlap(sprite_YX.shape, mask_YX.shape, *sprite.centre(time_s))
            sprite_YX[window][mask_YX[cut]] = index
    if scene.digit is not None:
        left, top, right, bottom = map(round, scene.digit.box(time_s))
        sprite_YX[max(0, top) : bottom, max(0, left) : right] = len(scene.sprites)
    return sprite_YX


def _flashing(scene: Scene, sprite: Sprite) -> tuple[int, int, int]:
    """The colour of a sprite in its flash: bright before dark, dark before bright."""
    ink = LIGHT_INK if scene.background[0] < 128 else DARK_INK
    red, green, blue = (
        round(FLASH * to + (1 - FLASH) * own) for own, to in zip(sprite.rgb, ink, strict=True)
    )
    return red, green, blue


def _background(scene: Scene, scale: int) -> np.ndarray:
    height_px, width_px = scene.height_px, scene.width_px
    frame_YX3 = np.empty((height_px, width_px, 3), np.int16)
    frame_YX3[:] = scene.background
    frame_YX3[:, :, 0] += np.linspace(-LIT_LEVELS, LIT_LEVELS, width_px).round().astype(np.int16)
    frame_YX3[:, :, 2] += (
        np.linspace(-LIT_LEVELS, LIT_LEVELS, height_px).round().astype(np.int16)[:, None]
    )
    if scene.grain:
        noise = np.random.default_rng(scene.seed)
        frame_YX3 += noise.integers(
            -scene.grain, scene.grain, (height_px, width_px, 1), dtype=np.int16, endpoint=True
        )
    frame_YX3 = frame_YX3.clip(0, 255).astype(np.uint8)
    return frame_YX3.repeat(scale, axis=0).repeat(scale, axis=1)


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
    return (inside[0], inside[1]), (cut[0], cut[1])


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


@lru_cache(maxsize=1024)
def _digit_mask(digit: int, height_px: int, stroke_px: int) -> np.ndarray:
    """Coverage 0..1 of a seven-segment digit, height_px high."""
    width_px = round(DIGIT_WIDTH * height_px)
    mask_YX = np.zeros((height_px, width_px), np.float32)
    half_px = (height_px - stroke_px) // 2
    rows = (0, half_px, height_px - stroke_px)
    for segment, lit in enumerate(SEGMENTS[digit]):
        if lit == "0":
            continue
        if segment < 3:
            mask_YX[rows[segment] : rows[segment] + stroke_px] = 1
            continue
        top = 0 if segment < 5 else half_px
        left = 0 if segment % 2 == 1 else width_px - stroke_px
        mask_YX[top : top + half_px + stroke_px, left : left + stroke_px] = 1
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


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A clip and what is heard with it, for a part of a message: {"type": "video", "video": film}.

    Both count from the first frame. A model that hears nothing takes the clip alone, and so does
    one that is told not to: {"sound": False} beside it.
    """

    clip: Clip
    sound: Sound

    @property
    def kind(self) -> str:
        """ "video", as of its clip."""
        return self.clip.kind

    def __len__(self) -> int:
        return len(self.clip)


Medium = Clip | Film | Sound


def shoot(scene: Scene, rng: random.Random, level: Level) -> Medium:
    """What a message holds of a scene: its clip, its clip with sound, or its sound alone."""
    if scene.kind == "audio":
        return listen(scene)
    clip = film(scene, rng, level)
    return clip if scene.track is None else Film(clip, listen(scene))


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
    if scene.kind == "video" and kind < level.noisy + level.shaky:
        noise = np.random.default_rng(rng.getrandbits(32))
        frames_TYX3 = shake(frames_TYX3, noise, whole=kind < level.noisy)
    times_s = None if scene.kind == "image" else scene.times_s
    return Clip(frames_TYX3=frames_TYX3, times_s=times_s, source=f"scene {scene.seed}")
