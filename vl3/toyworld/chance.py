"""What of the questions about sound can be had by guessing: without hearing, and without seeing.

A model that guesses as well as can be does not score 0 when it is muted: it knows how the toy
world draws its sounds, and it sees the picture. So chance is counted: `deaf` gives each picture
other tracks and takes the answer that is right most often, `blind` the most frequent one to a
question with as many sounds. vl3.toyworld.score shows both beside the scores; at its levels, in
percent of 600 questions each and more:

    muted   sound 14, sounds 49, heard_when 32, loudness 47, pitch 50, sound_order 50, hear 51,
            any_sound 49, hearing 12, spoken 9, source 49, match 50
    blind   source 42, match 51

Of source, "No shape." is right most often, and a single sound is likely to be what a shape makes.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from vl3.toyworld.hearing import PLURALS
from vl3.toyworld.questions import QA, ask
from vl3.toyworld.sounds import sample_track
from vl3.toyworld.world import COLOURS, SHAPES, Level, Scene, sample_scene

REDRAWN = 300  # tracks for one picture
SIMILAR = 2000  # scenes from which the most frequent answers are counted
_KIND = {word: "kind" for pair in PLURALS.items() for word in pair}
# The words of a question that decide which answers it may have.
_TELLING = {"is", "do", "can", "does", "first", "last", "loud", "soft", "high", "low", "kind"}
_TELLING |= {*COLOURS, *SHAPES, "shape", "object", "makes"}


def deaf(level: Level, family: str, count: int, seed: int) -> float:
    """Share of right answers to a family about sound that picture and question allow."""
    rng = random.Random(f"deaf {seed}")
    right = 0
    for scene, qa in _asked(level, family, count, rng):
        answers: Counter[str] = Counter()
        for _ in range(REDRAWN):
            other = ask(replace(scene, track=sample_track(scene, rng, level)), rng, family)
            if other is not None and _form(other) == _form(qa):
                answers[_named(other)] += 1
        right += _best(answers) == _named(qa)
    return right / count


def blind(level: Level, family: str, count: int, seed: int) -> float:
    """Share of right answers to a family about sound and picture that sound and question allow.

    Of what is heard it counts how many sounds there are, and which of them is the answer.
    """
    rng = random.Random(f"blind {seed}")
    answers: dict[tuple, Counter[str]] = {}
    for scene, qa in _asked(level, family, SIMILAR, rng):
        answers.setdefault(_heard_form(scene, qa), Counter())[_heard_as(scene, qa)] += 1
    asked = list(_asked(level, family, count, rng))
    best = (_best(answers.get(_heard_form(*each), Counter())) for each in asked)
    return sum(one == _heard_as(*each) for one, each in zip(best, asked, strict=True)) / count


def _asked(level: Level, family: str, count: int, rng: random.Random) -> Iterator[tuple[Scene, QA]]:
    """So many random scenes of the level with a question each."""
    while count:
        scene = sample_scene(rng, level)
        if (qa := ask(scene, rng, family)) is not None:
            count -= 1
            yield scene, qa


def _best(answers: Counter[str]) -> str | None:
    return answers.most_common(1)[0][0] if answers else None


def _form(qa: QA) -> tuple[str, ...]:
    """What decides which answers a question may have: no wording, and all kinds of sound alike."""
    words = [_KIND.get(word, word) for word in re.findall(r"[a-z]+|\d+", qa.question.lower())]
    return tuple(sorted({word for word in words if word in _TELLING or word.isdigit()}))


def _heard_form(scene: Scene, qa: QA) -> tuple:
    """The form of a question with how many sounds there are; names of sprites are all alike."""
    unseen = [word for word in _form(qa) if word not in COLOURS and word not in SHAPES]
    return len(_kinds(scene)), *unseen


def _named(qa: QA) -> str:
    """The answer; of two named in the question, which of them it is."""
    if qa.family != "sound_order":
        return qa.answer
    other = qa.question.lower().rpartition(" or ")[2].strip("?. ")
    return "second" if qa.answer.lower().strip(". ") == other else "first"


def _heard_as(scene: Scene, qa: QA) -> str:
    """The answer; of a kind of sound, which of the sounds it is."""
    kind, kinds = qa.answer.rpartition(" ")[2].strip("."), _kinds(scene)
    return f"sound {kinds.index(kind)}" if kind in kinds else qa.answer


def _kinds(scene: Scene) -> list[str]:
    return [] if scene.track is None else [heard.kind for heard in scene.track.sounds]
