"""Questions about a scene of the toy world, with their answers, in a handful of free wordings.

Each family is one function (scene, rng) -> (question, answer), or None where the scene does not
settle the question. Answers are the only right ones, letter by letter.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from vl3.training.world import COLOURS, SHAPES, Scene, Sprite

NUMBERS = ("Zero", "One", "Two", "Three", "Four", "Five")
ANSWER_OF_MOTION = {
    "right": "Right.",
    "left": "Left.",
    "up": "Up.",
    "down": "Down.",
    "still": "It does not move.",
}
ABOUT = (
    ("Who are you?", "I am nano, a toy model that knows only coloured shapes."),
    ("What can you do?", "I answer questions about coloured shapes in short videos."),
    ("What can I ask?", "Ask about colours, shapes, counts, times and directions."),
    ("Hello", "Hello! Ask me about the shapes."),
    ("Hi", "Hello! Ask me about the shapes."),
    ("Thank you", "You are welcome."),
    ("Thanks", "You are welcome."),
    ("Help", "Ask about colours, shapes, counts, times and directions."),
)

Pair = tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class QA:
    """One question with its only right answer."""

    family: str
    question: str
    answer: str


def ask(scene: Scene, rng: random.Random, family: str) -> QA | None:
    """A question of the family about the scene; None where the scene does not settle one."""
    pair = FAMILIES[family](scene, rng)
    if pair is None:
        return None
    question, answer = pair
    question = question.replace("{clip}", _medium(scene, rng))
    if rng.random() < 0.5:
        question = question.replace("colour", "color")
    return QA(family, _loosely(question, rng), answer)


def ask_many(scene: Scene, rng: random.Random, families: dict[str, float], count: int) -> list[QA]:
    """Up to count different questions; families maps a name to how often it is drawn."""
    found: dict[str, QA] = {}
    names, weights = tuple(families), tuple(families.values())
    for family in rng.choices(names, weights, k=3 * count):
        qa = ask(scene, rng, family)
        if qa is not None:
            found.setdefault(qa.question, qa)
        if len(found) == count:
            break
    return list(found.values())


def _medium(scene: Scene, rng: random.Random) -> str:
    return rng.choice(("image", "picture") if scene.is_image else ("video", "clip"))


def _loosely(question: str, rng: random.Random) -> str:
    """The question as people type it: now and then without capital or question mark."""
    if rng.random() < 0.12:
        question = question[0].lower() + question[1:]
    return question.rstrip("?.") if rng.random() < 0.12 else question


def _only(sprites: tuple[Sprite, ...], **wanted: str) -> bool:
    """Whether exactly one sprite has the wanted shape or colour."""
    return sum(all(getattr(s, key) == value for key, value in wanted.items()) for s in sprites) == 1


def _refer(scene: Scene, sprite: Sprite, rng: random.Random) -> str:
    """A phrase that means this sprite and no other one of the scene."""
    phrases = [f"the {sprite.name}"]
    if _only(scene.sprites, shape=sprite.shape):
        phrases.append(f"the {sprite.shape}")
    if _only(scene.sprites, colour=sprite.colour):
        phrases.append(f"the {sprite.colour} {rng.choice(('shape', 'one', 'object'))}")
    if len(scene.sprites) == 1:
        phrases.append(rng.choice(("the shape", "the object", "it")))
    return rng.choice(phrases)


def _pick(scene: Scene, rng: random.Random) -> Sprite | None:
    return rng.choice(scene.sprites) if scene.sprites else None


def _colour(scene: Scene, rng: random.Random) -> Pair:
    choices = [s for s in scene.sprites if _only(scene.sprites, shape=s.shape)]
    if not choices:
        return None
    sprite = rng.choice(choices)
    what = f"the {sprite.shape}"
    if len(scene.sprites) == 1 and rng.random() < 0.4:
        what = rng.choice(("the shape", "the object", "it"))
    wordings = [
        f"What colour is {what}?",
        f"What colour is {what}?",
        f"What is the colour of {what}?",
        f"Which colour is {what}?",
        f"What colour does {what} have?",
        f"Tell me the colour of {what}.",
    ]
    return rng.choice(wordings), f"{sprite.colour.capitalize()}."


def _shape(scene: Scene, rng: random.Random) -> Pair:
    choices = [s for s in scene.sprites if _only(scene.sprites, colour=s.colour)]
    if not choices:
        return None
    sprite = rng.choice(choices)
    noun = rng.choice(("object", "shape", "thing", "one"))
    what = f"the {sprite.colour} {noun}"
    if len(scene.sprites) == 1 and rng.random() < 0.4:
        what = rng.choice(("it", "the object", "this"))
    wordings = [
        f"What shape is {what}?",
        f"What shape is {what}?",
        f"What is the shape of {what}?",
        f"Which shape is {what}?",
        f"What shape does {what} have?",
        f"What is {sprite.colour}?",
    ]
    return rng.choice(wordings), f"{sprite.shape.capitalize()}."


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def _count(scene: Scene, rng: random.Random) -> Pair:
    kind = rng.random()
    if kind < 0.6:
        noun, count = rng.choice(("shapes", "objects", "things")), len(scene.sprites)
    elif kind < 0.8:
        shape = _attribute(scene, rng, "shape", SHAPES)
        noun, count = _plural(shape), sum(s.shape == shape for s in scene.sprites)
    else:
        colour = _attribute(scene, rng, "colour", tuple(COLOURS))
        noun = f"{colour} {rng.choice(('shapes', 'objects'))}"
        count = sum(s.colour == colour for s in scene.sprites)
    wordings = (
        f"How many {noun} are there?",
        f"How many {noun} are there?",
        f"How many {noun} are in the {{clip}}?",
        f"How many {noun} do you see?",
        f"How many {noun} can you see?",
        f"Count the {noun}.",
    )
    return rng.choice(wordings), f"{NUMBERS[count]}."


def _attribute(scene: Scene, rng: random.Random, key: str, values: tuple[str, ...]) -> str:
    """A value that mostly occurs in the scene, at times in another one."""
    present = [getattr(s, key) for s in scene.sprites]
    return rng.choice(present) if present and rng.random() < 0.75 else rng.choice(values)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _exist(scene: Scene, rng: random.Random) -> Pair:
    names = [s.name for s in scene.sprites]
    shapes, colours = [s.shape for s in scene.sprites], [s.colour for s in scene.sprites]
    yes, kind = rng.random() < 0.5, rng.random()
    if kind < 0.6:
        near = [f"{c} {s}" for c in colours for s in SHAPES]
        near += [f"{c} {s}" for c in COLOURS for s in shapes]
        far = [f"{c} {s}" for c in COLOURS for s in SHAPES]
        pool = names if yes else (near if near and rng.random() < 0.7 else far)
        pool = pool if yes else [name for name in pool if name not in names]
    elif kind < 0.8:
        pool = shapes if yes else [shape for shape in SHAPES if shape not in shapes]
    else:
        pool = colours if yes else [colour for colour in COLOURS if colour not in colours]
        pool = [f"{colour} {rng.choice(('shape', 'object'))}" for colour in pool]
    if not pool:
        return None
    thing = _article(rng.choice(pool))
    wordings = (
        f"Is there {thing}?",
        f"Is there {thing} in the {{clip}}?",
        f"Do you see {thing}?",
        f"Can you see {thing}?",
        f"Does the {{clip}} show {thing}?",
    )
    return rng.choice(wordings), "Yes." if yes else "No."


def _absent(scene: Scene, rng: random.Random) -> Pair:
    missing = [shape for shape in SHAPES if shape not in {s.shape for s in scene.sprites}]
    shape = rng.choice(missing)
    wordings = [f"What colour is the {shape}?", f"What is the colour of the {shape}?"]
    if not scene.is_image:
        wordings += [f"Where does the {shape} go?", f"When does the {shape} appear?"]
    return rng.choice(wordings), f"There is no {shape}."


def _yesno(scene: Scene, rng: random.Random) -> Pair:
    sprite = _pick(scene, rng)
    if sprite is None:
        return None
    kind = rng.random()
    if kind < 0.4 and _only(scene.sprites, shape=sprite.shape):
        colour = sprite.colour if rng.random() < 0.5 else rng.choice(tuple(COLOURS))
        question, yes = f"Is the {sprite.shape} {colour}?", colour == sprite.colour
    elif kind < 0.6 and _only(scene.sprites, colour=sprite.colour):
        shape = sprite.shape if rng.random() < 0.5 else rng.choice(SHAPES)
        question = f"Is the {sprite.colour} {rng.choice(('shape', 'object'))} {_article(shape)}?"
        yes = shape == sprite.shape
    elif scene.is_image:
        return None
    elif kind < 0.8:
        who, yes = _refer(scene, sprite, rng), sprite.motion != "still"
        question = rng.choice((f"Does {who} move?", f"Is {who} moving?"))
    else:
        return _before(scene, rng)
    return question, "Yes." if yes else "No."


def _before(scene: Scene, rng: random.Random) -> Pair:
    pair = _two_by_time(scene, rng)
    if pair is None:
        return None
    (first, _), (second, _) = pair
    yes = rng.random() < 0.5
    one, other = (first, second) if yes else (second, first)
    return f"Does {one} appear before {other}?", "Yes." if yes else "No."


def _two_by_time(scene: Scene, rng: random.Random):
    """Two sprites that appear at different times as (phrase, sprite), the earlier one first."""
    sprites = rng.sample(scene.sprites, len(scene.sprites))
    for one in sprites:
        for other in sprites:
            if one.start_s < other.start_s:
                return (_refer(scene, one, rng), one), (_refer(scene, other, rng), other)
    return None


def _order(scene: Scene, rng: random.Random) -> Pair:
    pair = _two_by_time(scene, rng)
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
    )
    return rng.choice(wordings), answer[0].upper() + answer[1:] + "."


def _seconds(count: int) -> str:
    return f"{count} second" if count == 1 else f"{count} seconds"


def _when(scene: Scene, rng: random.Random) -> Pair:
    sprite = _pick(scene, rng)
    if sprite is None:
        return None
    who, kind = _refer(scene, sprite, rng), rng.random()
    if kind < 0.35:
        wordings = (f"When does {who} appear?", f"At what time does {who} appear?")
        return rng.choice(wordings), f"At {_seconds(sprite.start_s)}."
    if kind < 0.55:
        wordings = (f"When does {who} disappear?", f"At what time does {who} disappear?")
        if sprite.stop_s == scene.seconds:
            return rng.choice(wordings), "It stays until the end."
        return rng.choice(wordings), f"At {_seconds(sprite.stop_s)}."
    wordings = (f"When is {who} visible?", f"When can {who} be seen?", f"When do you see {who}?")
    return rng.choice(wordings), f"From {sprite.start_s} to {_seconds(sprite.stop_s - 1)}."


def _direction(scene: Scene, rng: random.Random) -> Pair:
    sprite = _pick(scene, rng)
    if sprite is None:
        return None
    who = _refer(scene, sprite, rng)
    wordings = (
        f"Which way does {who} move?",
        f"Which way does {who} go?",
        f"In which direction does {who} move?",
        f"Which direction does {who} move?",
        f"Where does {who} go?",
        f"How does {who} move?",
    )
    return rng.choice(wordings), ANSWER_OF_MOTION[sprite.motion]


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


def _caption(scene: Scene, rng: random.Random) -> Pair:
    wordings = CAPTION_WORDINGS if scene.is_image else CAPTION_WORDINGS + 3 * EVENT_WORDINGS
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
    if scene.is_image:
        listed = " and ".join(_article(s.name) for s in sprites)
        return listed[0].upper() + listed[1:] + "."
    return " ".join(_sentence(s) for s in sprites)


def _sentence(sprite: Sprite) -> str:
    moves = "stays still" if sprite.motion == "still" else f"moves {sprite.motion}"
    if sprite.start_s == 0:
        thing = _article(sprite.name)
        return f"{thing[0].upper()}{thing[1:]} {moves}."
    return f"At {_seconds(sprite.start_s)} {_article(sprite.name)} appears and {moves}."


def _digit(scene: Scene, rng: random.Random) -> Pair:
    if scene.digit is None:
        return None
    wordings = (
        "What digit is shown?",
        "Which digit is it?",
        "What number is in the {clip}?",
        "Which number do you see?",
    )
    return rng.choice(wordings), f"{scene.digit}."


def _about(scene: Scene, rng: random.Random) -> Pair:
    return rng.choice(ABOUT)


FAMILIES: dict[str, Callable[[Scene, random.Random], Pair]] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "exist": _exist,
    "order": _order,
    "when": _when,
    "direction": _direction,
    "caption": _caption,
    "yesno": _yesno,
    "absent": _absent,
    "digit": _digit,
    "about": _about,
}
