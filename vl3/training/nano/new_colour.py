"""Pictures in which a shape has a colour that the toy world does not know, as a data set in files.

A model of the toy world is taught the new colour with an adapter. Every third picture has the old
colours only, so that these stay what they were.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vl3.toyworld.draw import film
from vl3.toyworld.questions import QA, ask_many
from vl3.toyworld.world import Level, Scene, sample_scene
from vl3.values import Clip

PICTURES = Level(seconds=(0, 0), sprites=(1, 3))
# Families whose wrong answers never need a colour that is not in the picture.
FAMILIES = {"colour": 3.0, "shape": 1.0, "count": 0.5}
QUESTIONS = 4  # of a picture
SPREAD = 12  # by which each of red, green and blue may differ, as in the toy world


@dataclass(frozen=True, slots=True)
class Paint:
    """A colour and its name."""

    name: str
    rgb: tuple[int, int, int]


BROWN = Paint("brown", (118, 74, 36))


def painted(scene: Scene, paint: Paint, rng: random.Random) -> Scene:
    """The scene with one of its shapes in the new colour."""
    chosen = rng.randrange(len(scene.sprites))
    rgb = [min(255, max(0, value + rng.randint(-SPREAD, SPREAD))) for value in paint.rgb]
    sprites = list(scene.sprites)
    sprites[chosen] = replace(sprites[chosen], colour=paint.name, rgb=(rgb[0], rgb[1], rgb[2]))
    return replace(scene, sprites=tuple(sprites))


def draw(paint: Paint | None, count: int, seed: str) -> Iterator[tuple[Clip, list[QA]]]:
    """Pictures with questions about them; with a paint, each shows it."""
    for index in range(count):
        rng = random.Random(f"{seed} {index}")
        qas: list[QA] = []
        while not qas:
            scene = sample_scene(rng, PICTURES)
            scene = painted(scene, paint, rng) if paint else scene
            qas = ask_many(scene, rng, FAMILIES, QUESTIONS)
        yield film(scene, rng, PICTURES), qas


def asked_colour(paint: Paint, count: int, seed: str) -> list[tuple[Clip, list[QA]]]:
    """Pictures with the questions of which the new colour is the answer."""
    wanted = f"{paint.name.capitalize()}."
    found = []
    for clip, qas in draw(paint, 3 * count, seed):
        if chosen := [qa for qa in qas if qa.answer == wanted]:
            found.append((clip, chosen[:1]))
    return found[:count]


def write(folder: Path, paint: Paint, count: int, seed: str) -> Path:
    """A JSONL file and the pictures beside it; the questions of a picture share its tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    third = count // 3
    pictures = [*draw(paint, count - third, seed), *draw(None, third, seed)]
    rows = []
    for number, (clip, qas) in enumerate(pictures):
        Image.fromarray(clip.frames_TYX3[0]).save(folder / f"{number:04}.png")
        rows.append({"images": [f"{number:04}.png"], "message_lists": [_talk(qa) for qa in qas]})
    file = folder / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def _talk(qa: QA) -> list[dict]:
    return [
        {"role": "user", "content": qa.question},
        {"role": "assistant", "content": qa.answer},
    ]
