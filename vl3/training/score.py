"""Scores a toy-world model on fresh scenes, family by family, with the blind score beside it.

    python -m vl3.training.score --model assets/nano

An answer counts when greedy decoding gives it letter by letter. Blind means black frames with the
true time stamps: what can be guessed from the question alone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.training.batch import Remembered, build_sample, collate
from vl3.training.nano import answer_logits, answers_right
from vl3.training.questions import QA, ask
from vl3.training.world import Level, film, sample_scene
from vl3.values import Clip

IMAGES = Level(seconds=(0, 0), sprites=(1, 4))
CLIPS = Level(seconds=(3, 10), sprites=(1, 3), shaky=0.2, noisy=0.05, rescaled=0.15)
STILL_FAMILIES = ("colour", "shape", "count", "exist", "yesno", "caption", "absent")
CLIP_FAMILIES = (*STILL_FAMILIES[:4], "order", "when", "direction", *STILL_FAMILIES[4:])
FIRST_SEED = 1_000_000  # training draws its scenes from text seeds, which never meet these
BATCH = 16


def draw(
    level: Level, families: tuple[str, ...], count: int, seed: int
) -> list[tuple[Clip, list[QA]]]:
    """Fresh clips with at most one question a family, until each family has count questions."""
    missing = dict.fromkeys(families, count)
    drawn = []
    rng = random.Random(FIRST_SEED + seed)
    while any(missing.values()) and len(drawn) < 40 * count:
        scene = sample_scene(rng, level)
        asked = [ask(scene, rng, family) for family, left in missing.items() if left]
        asked = [qa for qa in asked if qa is not None]
        clip = film(scene, rng, level)
        if asked:
            drawn.append((clip, asked))
        for qa in asked:
            missing[qa.family] -= 1
    return drawn


def blinded(clip: Clip) -> Clip:
    """The clip with black frames."""
    return replace(clip, frames_TYX3=np.zeros_like(clip.frames_TYX3))


@torch.no_grad()
def score(
    model: VL3ForConditionalGeneration, tokens: Remembered, drawn: list[tuple[Clip, list[QA]]]
) -> dict[str, float]:
    """Share of answers right per family, one question to a prompt.

    All answers of a clip are read off one forward pass: greedy decoding gives an answer exactly
    when each of its tokens is the likeliest one after the true tokens before it.
    """
    tally: dict[str, list[bool]] = {}
    by_length = sorted(drawn, key=lambda pair: len(pair[0]))
    for start in range(0, len(by_length), BATCH):
        samples = [
            build_sample(clip, [[qa] for qa in qas], tokens)
            for clip, qas in by_length[start : start + BATCH]
        ]
        batch = collate(samples, tokens.pad_token_id)
        for family, right in answers_right(answer_logits(model, batch), batch):
            tally.setdefault(family, []).append(right)
    return {family: sum(hits) / len(hits) for family, hits in tally.items()}


def score_all(model, tokens: Remembered, count: int, seed: int) -> dict[str, dict[str, float]]:
    """Scores on clips and images, seen and blind: {"clips", "clips_blind", "images", ...}."""
    results = {}
    kinds = (("clips", CLIPS, CLIP_FAMILIES), ("images", IMAGES, STILL_FAMILIES))
    for name, level, families in kinds:
        drawn = draw(level, families, count, seed)
        drawn += draw(replace(level, digits=1.0), ("digit",), count, seed + 1)
        results[name] = score(model, tokens, drawn)
        black = [(blinded(clip), qas) for clip, qas in drawn]
        results[f"{name}_blind"] = score(model, tokens, black)
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as a Markdown table in percent."""
    lines = [
        "| family | clips | blind | images | blind |",
        "|---|---:|---:|---:|---:|",
    ]
    for family in (*CLIP_FAMILIES, "digit"):
        cells = [results[column].get(family) for column in results]
        shown = " | ".join("" if cell is None else f"{100 * cell:.1f}" for cell in cells)
        lines.append(f"| {family} | {shown} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vl3.training.score", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--model", type=Path, default=Path("assets/nano"),
                        help="checkpoint folder (default: %(default)s)")  # fmt: skip
    parser.add_argument("--count", type=int, default=500,
                        help="fresh clips per family (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0,
                        help="decides the clips (default: %(default)s)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the shares to this file")
    options = parser.parse_args()
    model = VL3ForConditionalGeneration.from_pretrained(
        options.model, dtype=torch.float32, attn_implementation="eager"
    )
    tokens = Remembered(VL3Processor.from_pretrained(options.model).tokenizer)
    results = score_all(model.eval(), tokens, options.count, options.seed)
    sys.stdout.write(table(results) + "\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
