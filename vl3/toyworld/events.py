"""Questions about what happens over time: order, times, directions, changing digits, captions.

Each family is one function (scene, rng) -> (question, answer), or None where the scene does not
settle the question.
"""

from __future__ import annotations

import random
from collections import Counter

from vl3.toyworld.phrases import article, pick, refer, seconds, sentence
from vl3.toyworld.world import COLOURS, SHAPES, Scene, Sprite

Pair = tuple[str, str] | None

ANSWER_OF_MOTION = {
    "right": "Right.",
    "left": "Left.",
    "up": "Up.",
    "down": "Down.",
    "still": "It does not move.",
}


def two_by_time(scene: Scene, rng: random.Random):
    """Two sprites that appear at different times as (phrase, sprite), the earlier one first."""
    sprites = rng.sample(scene.sprites, len(scene.sprites))
    for one in sprites:
        for other in sprites:
            if one.start_s < other.start_s:
                return (refer(scene, one, rng), one), (refer(scene, other, rng), other)
    return None


def order(scene: Scene, rng: random.Random) -> Pair:
    pair = two_by_time(scene, rng)
    if pair is None:
        return None
    if rng.random() < 0.5:
        return _order_named(pair, rng)
    late = rng.random() < 0.4
    starts = Counter(s.start_s for s in scene.sprites)
    start_s = max(starts) if late else min(starts)
    if starts[start_s] > 1:
        return _order_named(pair, rng)
    word = "last" if late else "first"
    name = next(s.name for s in scene.sprites if s.start_s == start_s)
    wordings = (
        f"Which shape appears {word}?",
        f"What appears {word}?",
        f"What comes {word}?",
        f"Which object comes {word}?",
        f"Which shape do you see {word}?",
        f"What is the {word} shape to appear?",
    )
    return rng.choice(wordings), f"The {name}."


def _order_named(pair, rng: random.Random) -> Pair:
    phrases = [phrase for phrase, _ in pair]
    late = rng.random() < 0.3
    answer = phrases[1] if late else phrases[0]
    rng.shuffle(phrases)
    word = "second" if late else "first"
    wordings = (
        f"Which appears {word}, {phrases[0]} or {phrases[1]}?",
        f"What comes {word}, {phrases[0]} or {phrases[1]}?",
        f"Which came {word}, {phrases[0]} or {phrases[1]}?",
        f"Which one appears {word}: {phrases[0]} or {phrases[1]}?",
    )
    return rng.choice(wordings), sentence(answer)


def when(scene: Scene, rng: random.Random) -> Pair:
    sprite = pick(scene, rng)
    if sprite is None or scene.kind == "image":
        return None
    who, kind = refer(scene, sprite, rng), rng.random()
    if kind < 0.35:
        wordings: tuple[str, ...] = (
            f"When does {who} appear?",
            f"At what time does {who} appear?",
            f"When does {who} show up?",
        )
        return rng.choice(wordings), f"At {seconds(sprite.start_s)}."
    if kind < 0.55:
        return _left(scene, sprite, who, rng)
    wordings = (
        f"When is {who} visible?",
        f"When can {who} be seen?",
        f"When do you see {who}?",
        f"From when to when is {who} visible?",
    )
    return rng.choice(wordings), f"From {sprite.start_s} to {seconds(sprite.stop_s - 1)}."


def leave(scene: Scene, rng: random.Random) -> Pair:
    """When a sprite leaves, mostly of one that does before the end."""
    if scene.kind == "image":
        return None
    leaving = [s for s in scene.sprites if s.stop_s < scene.seconds]
    sprite = rng.choice(leaving) if leaving and rng.random() < 0.8 else pick(scene, rng)
    return None if sprite is None else _left(scene, sprite, refer(scene, sprite, rng), rng)


def _left(scene: Scene, sprite: Sprite, who: str, rng: random.Random) -> Pair:
    wordings = (
        f"When does {who} disappear?",
        f"At what time does {who} disappear?",
        f"When does {who} leave?",
    )
    stays = sprite.stop_s == scene.seconds
    told = "It stays until the end." if stays else f"At {seconds(sprite.stop_s)}."
    return rng.choice(wordings), told


def direction(scene: Scene, rng: random.Random) -> Pair:
    sprite = pick(scene, rng)
    if sprite is None or scene.kind == "image":
        return None
    who = refer(scene, sprite, rng)
    wordings = (
        f"Which way does {who} move?",
        f"Which way does {who} go?",
        f"In which direction does {who} move?",
        f"Which direction does {who} move?",
        f"Where does {who} go?",
        f"How does {who} move?",
        f"In what direction is {who} moving?",
    )
    return rng.choice(wordings), ANSWER_OF_MOTION[sprite.motion]


THIRDS = (
    ("top left", "top", "top right"),
    ("left", "middle", "right"),
    ("bottom left", "bottom", "bottom right"),
)
CLEAR_OF_BORDER = 0.12  # of a third; nearer to its border nothing is asked


def position(scene: Scene, rng: random.Random) -> Pair:
    """Where a sprite is (at a time), in words; places are about equally frequent."""
    by_place: dict[str, list[tuple[Sprite, int]]] = {}
    for sprite in scene.sprites:
        for time_s in range(sprite.start_s, sprite.stop_s):
            place = _place(scene, sprite, time_s)
            if place is not None:
                by_place.setdefault(place, []).append((sprite, time_s))
    if not by_place:
        return None
    place = rng.choice(sorted(by_place))
    if place == "middle" and rng.random() < 0.5:  # the largest part of all centres
        return None
    sprite, time_s = rng.choice(by_place[place])
    who = refer(scene, sprite, rng)
    when_s = "" if scene.kind == "image" else f" at {seconds(time_s)}"
    wordings = (
        f"Where is {who}{when_s}?",
        f"Where in the {{clip}} is {who}{when_s}?",
        f"Where can {who} be seen{when_s}?",
        f"In which part of the {{clip}} is {who}{when_s}?",
    )
    return rng.choice(wordings), "In the middle." if place == "middle" else f"At the {place}."


def _place(scene: Scene, sprite: Sprite, time_s: int) -> str | None:
    """The third of the frame, down and across, that holds the centre; None near a border."""
    x_px, y_px = sprite.centre(time_s)
    thirds = (3 * x_px / scene.width_px, 3 * y_px / scene.height_px)
    if any(abs(third - border) < CLEAR_OF_BORDER for third in thirds for border in (1, 2)):
        return None
    return THIRDS[int(thirds[1])][int(thirds[0])]


def digit(scene: Scene, rng: random.Random) -> Pair:
    """The digit of a scene in which it does not change."""
    if scene.digit is None or scene.digit.change_s is not None:
        return None
    wordings = (
        "What digit is shown?",
        "Which digit is it?",
        "What number is in the {clip}?",
        "Which number do you see?",
        "Which digit does the {clip} show?",
        "Read the digit.",
    )
    return rng.choice(wordings), f"{scene.digit.first}."


def digit_at(scene: Scene, rng: random.Random) -> Pair:
    """The digit at a time; before and after a change about equally often."""
    if scene.digit is None or scene.kind == "image":
        return None
    shown = scene.digit
    times = [range(scene.seconds)]
    if shown.change_s is not None:
        times = [range(shown.change_s), range(shown.change_s, scene.seconds)]
    time_s = rng.choice(rng.choice(times))
    when_s = f"at {seconds(time_s)}"
    wordings = (
        f"What digit is shown {when_s}?",
        f"Which digit do you see {when_s}?",
        f"What number is in the {{clip}} {when_s}?",
        f"Which digit is it {when_s}?",
    )
    return rng.choice(wordings), f"{shown.shown(time_s)}."


CAPTION_WORDINGS = (
    "Describe the {clip}.",
    "Describe the {clip}.",
    "What is in the {clip}?",
    "What do you see?",
    "What does the {clip} show?",
    "What can you see in the {clip}?",
    "Describe this {clip}.",
    "What is this?",
    "Tell me about the {clip}.",
    "Give a caption.",
)
EVENT_WORDINGS = ("What happens?", "What happens in the {clip}?", "What is happening?")


def describe(scene: Scene, rng: random.Random) -> Pair:
    wordings = CAPTION_WORDINGS if scene.kind == "image" else CAPTION_WORDINGS + 3 * EVENT_WORDINGS
    return rng.choice(wordings), caption(scene)


def caption(scene: Scene) -> str:
    """The only caption of a scene: its sprites by time of appearance, then colour, then shape."""
    colours = tuple(COLOURS)
    sprites = sorted(
        scene.sprites,
        key=lambda s: (s.start_s, colours.index(s.colour), SHAPES.index(s.shape)),
    )
    if not sprites:
        return "Nothing but a plain background."
    if scene.kind == "image":
        return sentence(" and ".join(article(s.name) for s in sprites))
    return " ".join(_told(s) for s in sprites)


def _told(sprite: Sprite) -> str:
    moves = "stays still" if sprite.motion == "still" else f"moves {sprite.motion}"
    if sprite.start_s == 0:
        return sentence(f"{article(sprite.name)} {moves}")
    return f"At {seconds(sprite.start_s)} {article(sprite.name)} appears and {moves}."
