"""Words for what a scene holds: phrases that mean one sprite and no other, numbers, articles."""

from __future__ import annotations

import random

from vl3.toyworld.world import HELD_OUT, SEEN, Scene, Sprite

NUMBERS = ("Zero", "One", "Two", "Three", "Four", "Five")


MEDIA = {
    "image": ("image", "picture"),
    "video": ("video", "clip"),
    "audio": ("recording",),
}


def medium(scene: Scene, rng: random.Random) -> str:
    return rng.choice(MEDIA[scene.kind])


def loosely(question: str, rng: random.Random) -> str:
    """The question as people type it: now and then without capital or question mark."""
    if rng.random() < 0.12:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.") if rng.random() < 0.12 else question


def only(sprites: tuple[Sprite, ...], **wanted: str) -> bool:
    """Whether exactly one sprite has the wanted shape or colour."""
    return sum(all(getattr(s, key) == value for key, value in wanted.items()) for s in sprites) == 1


def refer(scene: Scene, sprite: Sprite, rng: random.Random) -> str:
    """A phrase that means this sprite and no other one of the scene."""
    phrases = [f"the {sprite.name}"]
    if only(scene.sprites, shape=sprite.shape):
        phrases.append(f"the {sprite.shape}")
    if only(scene.sprites, colour=sprite.colour):
        phrases.append(f"the {sprite.colour} {rng.choice(('shape', 'one', 'object'))}")
    if len(scene.sprites) == 1:
        phrases.append(rng.choice(("the shape", "the object", "it")))
    return rng.choice(phrases)


def pick(scene: Scene, rng: random.Random) -> Sprite | None:
    return rng.choice(scene.sprites) if scene.sprites else None


def pairs_of(scene: Scene) -> tuple[tuple[str, str], ...]:
    """The pairs of colour and shape a question may name; held-out ones where one is shown."""
    is_held_out = any(s.pair in HELD_OUT for s in scene.sprites)
    return SEEN + HELD_OUT if is_held_out else SEEN


def article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def seconds(count: int) -> str:
    return f"{count} second" if count == 1 else f"{count} seconds"


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
