"""A training run that ends on time on any machine, and what it has learned, beside guessing.

Time is that which the processor spends on this process, so that other work on the machine neither
shortens the run nor spoils the measured speed.

How many steps there will be, of the encoder alone and of all, is decided from the measured speed,
before they begin: the rates fall to nothing at the last step, and the recipe in the checkpoint says
what was done. Should the machine become slower on the way, the run ends at its deadline all the
same.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from transformers import TrainerCallback

from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.draw import film
from vl3.toyworld.questions import ask
from vl3.toyworld.score import FIRST_SEED, Drawn, blinded, replies, score
from vl3.toyworld.world import Level, sample_scene
from vl3.training import run as runs
from vl3.training.nano import init
from vl3.training.nano.new_colour import Paint, asked_colour, draw
from vl3.training.recipe import Recipe, Start
from vl3.values import Clip
from vl3.weights.runs import checkpoints

TRIED = 4  # steps of each kind over which the speed is measured after a first one
ENCODER = 0.38  # share of the time that goes into the encoder alone
LEARNED = 0.2  # more right answers than by guessing; three standard deviations of 100 questions
CAREFUL = 0.93  # share of the steps that would fit; the rest is for the last checkpoint
PICTURES = Level(seconds=(0, 0), sprites=(1, 3))  # what the demo's recipe draws
FAMILIES = ("colour", "count", "shape")


class Stopwatch(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ended_s: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.ended_s.append(time.process_time())


class Deadline(TrainerCallback):
    """Ends the run after the step during which a time of time.process_time() passes."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if time.process_time() > self.at_s:
            control.should_save = control.should_training_stop = True


def encoder_step_seconds(
    model: VL3ForConditionalGeneration, processor: VL3Processor, seed: int
) -> float:
    """How long a step of the encoder alone takes here; the model is not changed."""
    tried = copy.deepcopy(model)
    init.train_encoder(tried, processor, 1, seed)
    started_s = time.process_time()
    init.train_encoder(tried, processor, TRIED, seed)
    return (time.process_time() - started_s) / TRIED


def step_seconds(recipe: Recipe) -> float:
    """How long one step of the recipe takes here, from the first steps of a run thrown away."""
    watch = Stopwatch()
    with TemporaryDirectory() as scratch:
        short = replace(recipe, out=scratch, save_every=TRIED + 1)
        runs.run(short, until=TRIED + 1, callbacks=(watch,))
    return (watch.ended_s[-1] - watch.ended_s[0]) / TRIED


def from_nothing(
    recipe: Recipe,
    deadline_s: float,
    begin_encoder: Callable[[int], Callable[[], object]],
    callbacks: tuple[TrainerCallback, ...] = (),
) -> Path:
    """The recipe of a nano, trained until a time of time.process_time(): its last checkpoint.

    begin_encoder: told how many steps the encoder has alone; what it returns is called after each
    Raises: FileExistsError when the folder holds a run already.
    """
    out = runs.folder(recipe)
    refuse(out)
    model, processor = init.untrained(recipe.seed)
    step_s = encoder_step_seconds(model, processor, recipe.seed)
    steps = max(1, int(ENCODER * (deadline_s - time.process_time()) / step_s))
    init.train_encoder(model, processor, steps, recipe.seed, begin_encoder(steps))
    model.save_pretrained(out / "start")
    processor.save_pretrained(out / "start")
    ready = replace(recipe, start=Start(model=str(out / "start")))
    return on_time(ready, deadline_s, callbacks)


def on_time(recipe: Recipe, deadline_s: float, callbacks: tuple[TrainerCallback, ...] = ()) -> Path:
    """As many steps of the recipe as fit before a time of time.process_time(): the checkpoint."""
    refuse(runs.folder(recipe))
    step_s = step_seconds(recipe)
    steps = max(1, int(CAREFUL * (deadline_s - time.process_time()) / step_s))
    fitted = replace(recipe, steps=steps, save_every=steps)
    return runs.run(fitted, callbacks=(Deadline(deadline_s), *callbacks))


def refuse(out: Path) -> None:
    """Raises FileExistsError, before anything is trained, where the folder holds a run already."""
    if checkpoints(out):
        raise FileExistsError(f"{out} holds a run already; choose another --out")


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of a family's questions answered right: about the pictures, and about black ones."""

    family: str
    seen: float
    blind: float


def shares(
    model: VL3ForConditionalGeneration, processor: VL3Processor, drawn: Drawn
) -> list[Shares]:
    """By family, in the order in which the families are first asked."""
    seen = score(model, processor, drawn)
    blind = score(model, processor, [(blinded(clip), qas) for clip, qas in drawn])
    families = dict.fromkeys(qa.family for _, qas in drawn for qa in qas)
    return [Shares(name, seen[name], blind[name]) for name in families]


def verdict(rows: list[Shares]) -> str | None:
    """What to do, as a sentence, where no family is answered better than by guessing."""
    if any(row.seen >= row.blind + LEARNED for row in rows):
        return None
    return (
        "It did not learn to look: no questions are answered better about the pictures than about "
        "black ones. It needs more time: --minutes"
    )


def table(rows: list[Shares]) -> str:
    """The shares in percent, as aligned lines."""
    lines = [f"{'':10}{'right':>8}{'blind':>8}"]
    lines += [f"{row.family:10}{100 * row.seen:7.0f}%{100 * row.blind:7.0f}%" for row in rows]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Asked:
    """A fresh picture, what is on it, and questions with the right and the generated answer."""

    clip: Clip
    shows: tuple[str, ...]
    answers: tuple[tuple[str, str, str], ...]


def examples(
    model: VL3ForConditionalGeneration, processor: VL3Processor, count: int, seed: int
) -> list[Asked]:
    """Pictures of the toy world with a question of each family that they settle."""
    rng = random.Random(FIRST_SEED + seed)
    found = []
    for _ in range(count):
        scene = sample_scene(rng, PICTURES)
        qas = [qa for family in FAMILIES if (qa := ask(scene, rng, family)) is not None]
        clip = film(scene, rng, PICTURES)
        said = replies(model, processor, [(clip, qa) for qa in qas])
        rows = tuple((qa.question, qa.answer, given) for qa, given in zip(qas, said, strict=True))
        found.append(Asked(clip, tuple(sprite.name for sprite in scene.sprites), rows))
    return found


@dataclass(frozen=True, slots=True)
class Learned:
    """Shares of colours named rightly where the new one is asked for, and where the old ones are;
    and the generated answers to the first questions about the new one.
    """

    new: float
    old: float
    answers: tuple[tuple[str, str, str], ...]


def colour_test(paint: Paint, count: int, seed: int) -> tuple[Drawn, Drawn]:
    """Fresh pictures with a question for the new colour, and pictures of the old colours."""
    fresh = f"fresh {seed}"
    old = [
        (clip, [qa for qa in qas if qa.family == "colour"])
        for clip, qas in draw(None, count, fresh)
    ]
    return asked_colour(paint, count, fresh), [(clip, qas) for clip, qas in old if qas]


def learned(
    model: VL3ForConditionalGeneration,
    processor: VL3Processor,
    test: tuple[Drawn, Drawn],
    told: int = 4,
) -> Learned:
    """What a model makes of a colour_test, with so many answers in words."""
    asked = [(clip, qas[0]) for clip, qas in test[0][:told]]
    said = replies(model, processor, asked)
    answers = tuple(
        (qa.question, qa.answer, given) for (_, qa), given in zip(asked, said, strict=True)
    )
    new, old = (score(model, processor, drawn)["colour"] for drawn in test)
    return Learned(new, old, answers)


def taught_verdict(paint: Paint, before: Learned, after: Learned) -> str | None:
    """What to do, as a sentence, where the new colour was not learned."""
    if after.new >= before.new + LEARNED:
        return None
    return f"It did not learn {paint.name}; it needs more time: --minutes"


def before_after(paint: Paint, before: Learned, after: Learned) -> str:
    """Both side by side, as aligned lines."""
    lines = [f"{'':44}{'before':>12}{'after':>12}"]
    for name, one, other in (
        (f"{paint.name} named rightly", before.new, after.new),
        ("old colours named rightly", before.old, after.old),
    ):
        lines.append(f"{name:44}{100 * one:11.0f}%{100 * other:11.0f}%")
    for (question, _, said), (_, _, says) in zip(before.answers, after.answers, strict=True):
        lines.append(f"{question:44}{said:>12}{says:>12}")
    return "\n".join(lines)
