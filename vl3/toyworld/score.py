"""Scores a toy-world model on fresh scenes, family by family, with the blind score beside it.

    python -m vl3.toyworld.score --model assets/nano
    python -m vl3.toyworld.score --model assets/nano-av --sound
    python -m vl3.toyworld.score --model assets/nano-av --beside assets/nano

An answer counts when greedy decoding gives it letter by letter; beside that, boxes are scored by
their overlap, times with a second to spare, and captions by the objects and motions they name.
Blind means black frames with the true time stamps: what can be guessed from the question alone.
Held-out pairs are colours on shapes on which training never drew them. --beside asks two models
about the same clips, in silence.

Of a model that hears, --sound scores clips with sound, about what is heard and what is seen, as
they are, muted (silence of the same length) and blind, beside what can be guessed
(vl3.toyworld.chance); then sounds without picture, and digits of a voice that training never heard.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vl3.bundled import NANO_NAME
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.sound import Sound
from vl3.toyworld import chance
from vl3.toyworld.draw import Film, Medium, shoot
from vl3.toyworld.hearing import HEARD_FAMILIES, SEEN_FAMILIES
from vl3.toyworld.questions import QA, ask
from vl3.toyworld.voices import HELD_OUT_SPEAKER
from vl3.toyworld.world import COLOURS, HELD_OUT, MOTIONS, SHAPES, Level, sample_scene
from vl3.training.collate import attention_mask, collate
from vl3.training.samples import Sample, build
from vl3.training.sources import scene_record
from vl3.values import Clip
from vl3.weights.hub import resolve

IMAGES = Level(seconds=(0, 0), sprites=(1, 4))
CLIPS = Level(seconds=(3, 10), sprites=(1, 3), shaky=0.2, noisy=0.05, rescaled=0.15)
SOUNDING = Level(
    seconds=(4, 10), sprites=(2, 3), shaky=0.2, noisy=0.05, rescaled=0.15, sound=1.0, hum=0.5
)
VOICES = 0.12  # of the sounds, where not only voices are asked about
STILL_FAMILIES = (
    "colour",
    "shape",
    "count",
    "exist",
    "yesno",
    "relation",
    "position",
    "box",
    "caption",
    "absent",
)
CLIP_FAMILIES = (*STILL_FAMILIES[:-2], "order", "when", "direction", *STILL_FAMILIES[-2:])
STILL_DIGIT_FAMILIES = ("digit", "choice")
CLIP_DIGIT_FAMILIES = ("digit", "digit_at", "choice")
HELD_OUT_FAMILIES = ("colour", "shape", "exist", "order", "direction", "caption")
FIRST_SEED = 1_000_000  # training draws its scenes from text seeds, which never meet these
GUESSED = 500  # questions of which chance is counted
BATCH = 16
LONGEST_REPLY = 64

Asked = tuple[Medium, list[QA]]
Drawn = Sequence[Asked]


def draw(level: Level, families: tuple[str, ...], count: int, seed: int) -> list[Asked]:
    """Fresh clips with at most one question a family, until each family has count questions."""
    missing = dict.fromkeys(families, count)
    drawn: list[Asked] = []
    rng = random.Random(FIRST_SEED + seed)
    while any(missing.values()) and len(drawn) < 40 * count:
        scene = sample_scene(rng, level)
        tried = [ask(scene, rng, family) for family, left in missing.items() if left]
        asked = [qa for qa in tried if qa is not None]
        medium = shoot(scene, rng, level)
        if asked:
            drawn.append((medium, asked))
        for qa in asked:
            missing[qa.family] -= 1
    return drawn


def blinded(medium: Medium) -> Medium:
    """The clip with black frames; its sound stays as it is."""
    if isinstance(medium, Film):
        return replace(medium, clip=_black(medium.clip))
    return _black(medium) if isinstance(medium, Clip) else medium


def _black(clip: Clip) -> Clip:
    return replace(clip, frames_TYX3=np.zeros_like(clip.frames_TYX3))


def muted(medium: Medium) -> Medium:
    """The sound as silence of the same length; the picture stays as it is."""
    if isinstance(medium, Film):
        return replace(medium, sound=_silent(medium.sound))
    return _silent(medium) if isinstance(medium, Sound) else medium


def _silent(sound: Sound) -> Sound:
    return replace(sound, samples_S=np.zeros_like(sound.samples_S))


def overlap(reply: str, truth: str) -> float:
    """Intersection over union of two boxes [[x0,y0,x1,y1]]; 0 for a reply that is no box."""
    boxes = [re.fullmatch(r"\[\[(\d+),(\d+),(\d+),(\d+)\]\]", text) for text in (reply, truth)]
    if None in boxes:
        return 0.0
    one, other = ([int(value) for value in box.groups()] for box in boxes if box)
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def within_a_second(reply: str, truth: str) -> float:
    """1 when the sentence is the same and each of its times at most one second off."""
    same = re.sub(r"\d+ seconds?|\d+", "#", reply) == re.sub(r"\d+ seconds?|\d+", "#", truth)
    times = ([int(value) for value in re.findall(r"\d+", text)] for text in (reply, truth))
    return float(same and all(abs(one - other) <= 1 for one, other in zip(*times)))


def same_events(reply: str, truth: str) -> float:
    """1 when two captions name the same objects with the same motions."""
    return float(_named(reply) == _named(truth))


def _named(caption: str) -> list[tuple[str, ...]]:
    known = {*COLOURS, *SHAPES, *MOTIONS}
    parts = re.split(r"\. | and an? ", caption.rstrip("."))
    return sorted(tuple(word for word in part.split() if word in known) for part in parts)


def same_sounds(reply: str, truth: str) -> float:
    """1 when two descriptions of sounds name the same ones in the same order, at whatever times."""
    one, other = (re.sub(r" at \d+ seconds?", "", text) for text in (reply, truth))
    return float(one == other)


def word_errors(reply: str, truth: str) -> float:
    """Digits that are wrong, missing or too many, for each digit that is said."""
    said, meant = (re.findall(r"\d", text) for text in (reply, truth))
    row = list(range(len(meant) + 1))  # edits from none of the reply to each beginning of the truth
    for number, digit in enumerate(said, 1):
        before, row[0] = row[0], number
        for place, right in enumerate(meant, 1):
            changed = before + (digit != right)
            before, row[place] = row[place], min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1] / len(meant)


# Families of which an answer can be nearly right, the name of the measure, and how it is taken.
MEASURES: dict[str, tuple[str, Callable[[str, str], float]]] = {
    "box": ("box, mean IoU", overlap),
    "when": ("when, within 1 s", within_a_second),
    "caption": ("caption, objects and motions", same_events),
    "heard_when": ("heard_when, within 1 s", within_a_second),
    "hearing": ("hearing, sounds", same_sounds),
    "spoken": ("spoken, word error rate", word_errors),
}


@torch.no_grad()
def score(model: VL3ForConditionalGeneration, processor: VL3Processor, drawn: Drawn) -> dict:
    """Mean score per family (share of answers right letter by letter) and per measure."""
    tally: dict[str, list[float]] = {}
    by_length = sorted(drawn, key=lambda pair: _steps(pair[0]))
    for name, value in (*exact(model, processor, by_length), *_near(model, processor, by_length)):
        tally.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in tally.items()}


def _steps(medium: Medium) -> float:
    """How long it is, in frames or seconds."""
    return medium.duration_s if isinstance(medium, Sound) else len(medium)


def exact(model, processor: VL3Processor, drawn: Drawn) -> Iterator[tuple[str, float]]:
    """Family and whether each answer is right, in one order for the same questions.

    All answers of a clip are read off one forward pass: greedy decoding gives an answer exactly
    when each of its tokens is the likeliest one after the true tokens before it.
    """
    records = (
        scene_record(str(number), "scenes", medium, [[qa] for qa in qas])
        for number, (medium, qas) in enumerate(drawn)
    )
    budget = processor.settings.budget_tokens
    return exact_samples(model, processor, (build(record, processor, budget) for record in records))


@torch.no_grad()
def exact_samples(
    model, processor: VL3Processor, samples: Iterable[Sample]
) -> Iterator[tuple[str, float]]:
    """As exact, of samples."""
    pad_id, patch_values = processor.tokenizer.pad_token_id, 3 * processor.settings.patch**2
    waiting = iter(samples)
    while some := list(islice(waiting, BATCH)):
        part = collate(some, pad_id, patch_values)
        inputs = dict(part.inputs)
        mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), model.dtype)
        output = model(**inputs, attention_mask=mask, use_cache=False, skip_logits=True)
        wrong = torch.bincount(part.answers_K[~output.right_K], minlength=len(part.owners))
        for (_, family), misses in zip(part.owners, wrong.tolist(), strict=True):
            yield family, float(misses == 0)


def _near(model, processor: VL3Processor, drawn: Drawn) -> Iterable[tuple[str, float]]:
    """Measure and value of each answer that is decoded and then compared."""
    asked = [(medium, qa) for medium, qas in drawn for qa in qas if qa.family in MEASURES]
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        for reply, (_, qa) in zip(replies(model, processor, part), part, strict=True):
            name, measure = MEASURES[qa.family]
            yield name, measure(reply, qa.answer)


def replies(model, processor: VL3Processor, asked: list[tuple[Medium, QA]]) -> list[str]:
    """What greedy decoding answers, through the processor, as one batch."""
    records = (scene_record("", "", medium, [[qa]]) for medium, qa in asked)
    conversations = [record.conversations[0][:-1] for record in records]
    inputs = processor(messages=conversations, add_generation_prompt=True)
    ids = model.generate(**inputs, max_new_tokens=LONGEST_REPLY, do_sample=False)
    new = ids[:, inputs["input_ids"].shape[1] :]
    return [processor.decode(row).strip() for row in new]


def draw_all(count: int, seed: int) -> dict[str, list[Asked]]:
    """Clips, images, and clips of held-out pairs, all without sound."""
    drawn = {}
    kinds = (
        ("clips", CLIPS, CLIP_FAMILIES, CLIP_DIGIT_FAMILIES),
        ("images", IMAGES, STILL_FAMILIES, STILL_DIGIT_FAMILIES),
    )
    for name, level, families, digit_families in kinds:
        drawn[name] = draw(level, families, count, seed)
        drawn[name] += draw(replace(level, digits=1.0), digit_families, count, seed + 1)
    held_out = replace(CLIPS, pairs=HELD_OUT)
    return {**drawn, "held_out": draw(held_out, HELD_OUT_FAMILIES, count, seed + 2)}


def score_all(model, processor: VL3Processor, count: int, seed: int) -> dict[str, dict]:
    """Scores on clips and images, seen and blind, and on clips of held-out pairs."""
    results = {}
    for name, drawn in draw_all(count, seed).items():
        results[name] = score(model, processor, drawn)
        if name != "held_out":
            black = [(blinded(medium), qas) for medium, qas in drawn]
            results[f"{name}_blind"] = score(model, processor, black)
    return results


def score_beside(
    one: tuple[VL3ForConditionalGeneration, VL3Processor],
    other: tuple[VL3ForConditionalGeneration, VL3Processor],
    count: int,
    seed: int,
) -> dict[str, dict]:
    """Two models about the same clips without sound: shares of right answers, how much the first
    has more of them, and between which bounds that lies with 95 % (normal, of paired answers)."""
    columns: dict[str, dict[str, float]] = {name: {} for name in BESIDE}
    for name, drawn in draw_all(count, seed).items():
        pairs: dict[str, list[tuple[float, float]]] = {}
        for (family, right), (_, others) in zip(exact(*one, drawn), exact(*other, drawn)):
            for row in (f"{family}, {HEADS.get(name, name)}", f"all, {HEADS.get(name, name)}"):
                pairs.setdefault(row, []).append((right, others))
        for row, answers in pairs.items():
            ours, theirs = (sum(side) / len(answers) for side in zip(*answers))
            squares = sum((a - b - ours + theirs) ** 2 for a, b in answers)
            error = 1.96 * math.sqrt(squares / max(1, len(answers) - 1) / len(answers))
            values = (ours, theirs, ours - theirs, ours - theirs - error, ours - theirs + error)
            for column, value in zip(BESIDE, values):
                columns[column][row] = value
    return columns


def score_sound(model, processor: VL3Processor, count: int, seed: int) -> dict[str, dict]:
    """Scores on clips with sound: as they are, muted, blind, what is heard alone, a new voice.

    chance_muted and chance_blind: what the best guesses score
    """
    level = replace(SOUNDING, voices=VOICES)
    spoken = replace(level, voices=1.0, sounds=(1, 3))
    families = (*HEARD_FAMILIES, *SEEN_FAMILIES, *CLIP_FAMILIES)
    drawn = draw(level, tuple(name for name in families if name != "spoken"), count, seed + 3)
    drawn += draw(spoken, ("spoken",), count, seed + 4)
    alone = draw(replace(level, alone=1.0), tuple(HEARD_FAMILIES), count, seed + 5)
    new = draw(replace(spoken, speakers=(HELD_OUT_SPEAKER,)), ("spoken",), count, seed + 6)
    return {
        "sound": score(model, processor, drawn),
        "sound_muted": score(model, processor, [(muted(medium), qas) for medium, qas in drawn]),
        "chance_muted": {
            name: chance.deaf(spoken if name == "spoken" else level, name, GUESSED, seed)
            for name in (*HEARD_FAMILIES, "source", "match")
        },
        "sound_blind": score(model, processor, [(blinded(medium), qas) for medium, qas in drawn]),
        "chance_blind": {
            name: chance.blind(level, name, GUESSED, seed) for name in ("source", "match")
        },
        "sound_alone": score(model, processor, alone),
        "new_voice": score(model, processor, new),
    }


BESIDE = ("this model", "the other", "more", "at least", "at most")
HEADS = {
    "clips_blind": "blind",
    "images_blind": "blind",
    "held_out": "held-out pairs",
    "sound": "clips with sound",
    "sound_muted": "muted",
    "chance_muted": "guessed",
    "sound_blind": "blind",
    "chance_blind": "guessed",
    "sound_alone": "sound alone",
    "new_voice": "new voice",
}


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as a Markdown table in percent."""
    heads = " | ".join(HEADS.get(name, name) for name in results)
    lines = [f"| family | {heads} |", f"|---|{'---:|' * len(results)}"]
    names = dict.fromkeys(name for column in results.values() for name in column)
    for name in sorted(names, key=_rank):
        cells = [column.get(name) for column in results.values()]
        shown = " | ".join("" if cell is None else f"{100 * cell:.1f}" for cell in cells)
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def _rank(name: str) -> tuple[int, str]:
    """Families in their usual order, a measure right after its family."""
    order = (*HEARD_FAMILIES, *SEEN_FAMILIES, *CLIP_FAMILIES, *CLIP_DIGIT_FAMILIES, "all")
    return order.index(name.split(",")[0]), name


def _load(name: Path) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    folder = resolve(name)
    model = VL3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), VL3Processor.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vl3.toyworld.score", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path(NANO_NAME),
        help="checkpoint or run folder (default: %(default)s)",
    )
    parser.add_argument(
        "--count", type=int, default=500, help="fresh clips per family (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides the clips (default: %(default)s)"
    )
    parser.add_argument(
        "--sound", action="store_true", help="score clips with sound, of a model that hears"
    )
    parser.add_argument(
        "--beside", type=Path, metavar="MODEL", help="compare with this model, on the same clips"
    )
    parser.add_argument("--json", type=Path, help="also write the shares to this file")
    options = parser.parse_args()
    given = (options.count, options.seed)
    if options.beside and options.sound:
        parser.error("--beside compares clips without sound; leave out --sound")
    if options.beside:
        results = score_beside(_load(options.model), _load(options.beside), *given)
    else:
        results = (score_sound if options.sound else score_all)(*_load(options.model), *given)
    sys.stdout.write(table(results) + "\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
