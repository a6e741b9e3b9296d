"""Questions about a scene of the toy world, with their answers, in a handful of free wordings.

Each family is one function (scene, rng) -> (question, answer), or None where the scene does not
settle the question. Answers are the only right ones, letter by letter. Families about time are in
vl3.toyworld.events, those about sound in vl3.toyworld.hearing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from vl3.toyworld import events
from vl3.toyworld.events import ANSWER_OF_MOTION, Pair
from vl3.toyworld.hearing import HEARD_FAMILIES, SOUND_FAMILIES
from vl3.toyworld.phrases import (
    NUMBERS,
    article,
    loosely,
    medium,
    only,
    pairs_of,
    pick,
    plural,
    refer,
    seconds,
)
from vl3.toyworld.world import COLOURS, SHAPES, Scene, Sprite

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


@dataclass(frozen=True, slots=True)
class QA:
    """One question with its only right answer."""

    family: str
    question: str
    answer: str


def ask(scene: Scene, rng: random.Random, family: str) -> QA | None:
    """A question of the family about the scene; None where the scene does not settle one."""
    if scene.kind == "audio" and family not in HEARD_FAMILIES:
        return None
    pair = (FAMILIES | SOUND_FAMILIES)[family](scene, rng)
    if pair is None:
        return None
    question, answer = pair
    question = question.replace("{clip}", medium(scene, rng))
    if rng.random() < 0.5:
        question = question.replace("colour", "color")
    return QA(family, loosely(question, rng), answer)


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


def _colour(scene: Scene, rng: random.Random) -> Pair:
    choices = [s for s in scene.sprites if only(scene.sprites, shape=s.shape)]
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
        f"In which colour is {what} drawn?",
        f"What's the colour of {what}?",
    ]
    return rng.choice(wordings), f"{sprite.colour.capitalize()}."


def _shape(scene: Scene, rng: random.Random) -> Pair:
    choices = [s for s in scene.sprites if only(scene.sprites, colour=s.colour)]
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
        f"Tell me the shape of {what}.",
        f"What kind of shape is {what}?",
    ]
    return rng.choice(wordings), f"{sprite.shape.capitalize()}."


def _count(scene: Scene, rng: random.Random) -> Pair:
    kind = rng.random()
    if kind < 0.6:
        noun, count = rng.choice(("shapes", "objects", "things")), len(scene.sprites)
    elif kind < 0.8:
        shape = _attribute(scene, rng, "shape", SHAPES)
        noun, count = plural(shape), sum(s.shape == shape for s in scene.sprites)
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
        f"What is the number of {noun}?",
    )
    return rng.choice(wordings), f"{NUMBERS[count]}."


def _attribute(scene: Scene, rng: random.Random, key: str, values: tuple[str, ...]) -> str:
    """A value that mostly occurs in the scene, at times in another one."""
    present = [getattr(s, key) for s in scene.sprites]
    return rng.choice(present) if present and rng.random() < 0.6 else rng.choice(values)


def _exist(scene: Scene, rng: random.Random) -> Pair:
    names = [s.name for s in scene.sprites]
    shapes, colours = [s.shape for s in scene.sprites], [s.colour for s in scene.sprites]
    yes, kind = rng.random() < 0.5, rng.random()
    if kind < 0.6:
        other = [pair for pair in pairs_of(scene) if " ".join(pair) not in names]
        near = [pair for pair in other if pair[0] in colours or pair[1] in shapes]
        far = near if near and rng.random() < 0.7 else other
        pool = names if yes else [" ".join(pair) for pair in far]
    elif kind < 0.8:
        pool = shapes if yes else [shape for shape in SHAPES if shape not in shapes]
    else:
        pool = colours if yes else [colour for colour in COLOURS if colour not in colours]
        pool = [f"{colour} {rng.choice(('shape', 'object'))}" for colour in pool]
    if not pool:
        return None
    thing = article(rng.choice(pool))
    wordings = (
        f"Is there {thing}?",
        f"Is there {thing} in the {{clip}}?",
        f"Do you see {thing}?",
        f"Can you see {thing}?",
        f"Does the {{clip}} show {thing}?",
        f"Is {thing} in the {{clip}}?",
    )
    return rng.choice(wordings), "Yes." if yes else "No."


def _absent(scene: Scene, rng: random.Random) -> Pair:
    missing = [shape for shape in SHAPES if shape not in {s.shape for s in scene.sprites}]
    shape = rng.choice(missing)
    wordings = [f"What colour is the {shape}?", f"What is the colour of the {shape}?"]
    if scene.kind == "video":
        wordings += [f"Where does the {shape} go?", f"When does the {shape} appear?"]
    return rng.choice(wordings), f"There is no {shape}."


def _yesno(scene: Scene, rng: random.Random) -> Pair:
    sprite = pick(scene, rng)
    if sprite is None:
        return None
    kind, yes = rng.random(), rng.random() < 0.5
    others = [pair for pair in pairs_of(scene) if pair != sprite.pair]
    if kind < 0.4 and only(scene.sprites, shape=sprite.shape):
        wrong = [colour for colour, shape in others if shape == sprite.shape]
        colour = sprite.colour if yes else rng.choice(wrong)
        question = f"Is the {sprite.shape} {colour}?"
    elif kind < 0.6 and only(scene.sprites, colour=sprite.colour):
        wrong = [shape for colour, shape in others if colour == sprite.colour]
        shape = sprite.shape if yes else rng.choice(wrong)
        question = f"Is the {sprite.colour} {rng.choice(('shape', 'object'))} {article(shape)}?"
    elif scene.kind == "image":
        return None
    elif kind < 0.8:
        candidates = [s for s in scene.sprites if (s.motion != "still") == yes]
        if not candidates:
            return None
        who = refer(scene, rng.choice(candidates), rng)
        question = rng.choice((f"Does {who} move?", f"Is {who} moving?"))
    else:
        return _before(scene, rng)
    return question, "Yes." if yes else "No."


def _before(scene: Scene, rng: random.Random) -> Pair:
    pair = events.two_by_time(scene, rng)
    if pair is None:
        return None
    (first, _), (second, _) = pair
    yes = rng.random() < 0.5
    one, other = (first, second) if yes else (second, first)
    return f"Does {one} appear before {other}?", "Yes." if yes else "No."


# Each relation with its opposite, its axis (0 across, 1 down) and its sign along the axis.
RELATIONS = {
    "left of": ("right of", 0, -1),
    "right of": ("left of", 0, 1),
    "above": ("below", 1, -1),
    "below": ("above", 1, 1),
}
LEAST_GAP_PX = 12.0


def _relation(scene: Scene, rng: random.Random) -> Pair:
    """Which side of another sprite one is on, where that is clear and never changes."""
    known = []
    for one in scene.sprites:
        for other in scene.sprites:
            known += [(one, name, other) for name in RELATIONS if _always(one, name, other)]
    if not known:
        return None
    sprite, name, beside = rng.choice(known)
    who, whom = refer(scene, sprite, rng), refer(scene, beside, rng)
    opposite = RELATIONS[name][0]
    kind = rng.random()
    if kind < 0.5:
        yes = rng.random() < 0.5
        said = name if yes else opposite
        wordings = (f"Is {who} {said} {whom}?", f"Is {who} to be seen {said} {whom}?")
        return rng.choice(wordings), "Yes." if yes else "No."
    first, second = sorted((name, opposite), key=lambda _: rng.random())
    question = f"Is {who} {first.removesuffix(' of')} or {second} {whom}?"
    return question, f"{name.removesuffix(' of').capitalize()}."


def _always(one: Sprite, name: str, other: Sprite) -> bool:
    """Whether the relation is clear whenever both are visible (once at least)."""
    times_s = range(max(one.start_s, other.start_s), min(one.stop_s, other.stop_s))
    _, axis, sign = RELATIONS[name]
    gaps_px = [sign * (one.centre(t)[axis] - other.centre(t)[axis]) for t in times_s]
    return one is not other and bool(gaps_px) and min(gaps_px) >= LEAST_GAP_PX


BOX_STEP = 50  # of the 1000 of a side: two or three digits a number, and an IoU of about 0.87


def _box(scene: Scene, rng: random.Random) -> Pair:
    """The box of a sprite (at a time) as VideoLLaMA 3 writes it, to the nearest 50 of 1000."""
    sprite = pick(scene, rng)
    if sprite is None:
        return None
    time_s = rng.randrange(sprite.start_s, sprite.stop_s)
    who = refer(scene, sprite, rng)
    when_s = "" if scene.kind == "image" else f" at {seconds(time_s)}"
    wordings = (
        f"Give the box of {who}{when_s}.",
        f"What is the bounding box of {who}{when_s}?",
        f"Box of {who}{when_s}?",
        f"Locate {who}{when_s}.",
    )
    return rng.choice(wordings), box_text(sprite.box(time_s), scene.height_px, scene.width_px)


def box_text(box_px: tuple[float, float, float, float], height_px: int, width_px: int) -> str:
    """[[x0,y0,x1,y1]] in multiples of BOX_STEP on the 0-1000 scale."""
    sides_px = (width_px, height_px, width_px, height_px)
    scaled = [1000 * value / side for value, side in zip(box_px, sides_px, strict=True)]
    rounded = [min(1000, max(0, BOX_STEP * round(value / BOX_STEP))) for value in scaled]
    return f"[[{','.join(map(str, rounded))}]]"


# What the options of a multiple-choice question are drawn from; the right one is among them.
OPTIONS = {
    "colour": tuple(f"{colour.capitalize()}." for colour in COLOURS),
    "shape": tuple(f"{shape.capitalize()}." for shape in SHAPES),
    "direction": tuple(ANSWER_OF_MOTION.values()),
    "digit": tuple(f"{digit}." for digit in range(10)),
}
LETTERS = "ABCD"
# Asked for the letter alone, or for the answer, from which the letter follows.
FOR_LETTER = (
    "Answer with the option's letter from the given choices directly.",
    "Answer with the letter.",
    "Give only the letter.",
)
FOR_BOTH = ("Which one is right?", "Choose the right one.", "Which option is it?")


def _choice(scene: Scene, rng: random.Random) -> Pair:
    """A question of another family with four options in random order."""
    family = rng.choice(tuple(OPTIONS))
    pair = FAMILIES[family](scene, rng)
    if pair is None:
        return None
    question, answer = pair
    wrong = rng.sample([option for option in OPTIONS[family] if option != answer], 3)
    return _listed(question, answer, wrong, rng)


def _letter(scene: Scene, rng: random.Random) -> Pair:
    """Options with an answer that stands in the question: the step before choosing by sight."""
    answer, *wrong = rng.sample(OPTIONS[rng.choice(tuple(OPTIONS))], 4)
    question = f"Which one is {answer.removesuffix('.')}?"
    return _listed(question, answer, wrong, rng)


def _listed(question: str, answer: str, wrong: list[str], rng: random.Random) -> Pair:
    """The question with its options, answered with a letter or, by the request, with both."""
    request = rng.choice((*FOR_LETTER, *FOR_BOTH))
    options = rng.sample([answer, *wrong], 4)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    letter = LETTERS[options.index(answer)]
    told = f"{letter}." if request in FOR_LETTER else f"{answer.removesuffix('.')}, so {letter}."
    return f"{question}\n{listed}\n{request}", told


def _about(scene: Scene, rng: random.Random) -> Pair:
    return rng.choice(ABOUT)


FAMILIES: dict[str, Callable[[Scene, random.Random], Pair]] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "exist": _exist,
    "yesno": _yesno,
    "relation": _relation,
    "position": events.position,
    "box": _box,
    "digit": events.digit,
    "digit_at": events.digit_at,
    "order": events.order,
    "when": events.when,
    "leave": events.leave,
    "direction": events.direction,
    "choice": _choice,
    "letter": _letter,
    "caption": events.describe,
    "absent": _absent,
    "about": _about,
}
