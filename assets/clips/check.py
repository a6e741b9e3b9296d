"""Asks nano-av about the demonstration clips, whose truth is known: python assets/clips/check.py

Goes the whole way of a user's file (decode, resize, prune, answer) and exits with 1 when one of the
questions of examples.json is answered wrongly. --all asks further wordings of every family.
"""

import argparse
import json
import random
import sys
from pathlib import Path

from make import SCENES

import vl3
from vl3.bundled import PAGE_MODEL
from vl3.toyworld.questions import ask

HERE = Path(__file__).parent
FAMILIES = (
    "colour",
    "shape",
    "count",
    "exist",
    "order",
    "when",
    "direction",
    "yesno",
    "absent",
    "caption",
)
SOUNDING = ("source", "match", "flash", "heard_when", "hearing", "sounds", "sound")
DRAWN = 15000  # questions of each family, so that every wording comes


def truths(scene) -> dict[str, str]:
    """Right answers to all wordings that many draws give."""
    rng = random.Random(0)
    families = (*FAMILIES, *SOUNDING) if scene.track else FAMILIES
    asked = [ask(scene, rng, family) for family in families for _ in range(DRAWN)]
    return {qa.question: qa.answer for qa in asked if qa is not None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default=PAGE_MODEL, help="checkpoint folder (default: %(default)s)"
    )
    parser.add_argument("--all", action="store_true", help="ask 30 further questions per clip")
    options = parser.parse_args()
    studio = vl3.load(options.model)
    wrong = 0
    for example in json.loads((HERE / "examples.json").read_text(encoding="utf-8")):
        video = studio.open(HERE / example["file"])
        known = truths(SCENES[example["file"]])
        further = random.Random(1).sample(sorted(known), 30) if options.all else []
        for question in [*example["questions"], *further]:
            answer = "".join(studio.ask(video, question, max_new_tokens=64))
            right = answer == known[question]
            wrong += not right and question in example["questions"]
            note = "" if right else f"   (truth: {known[question]})"
            sys.stdout.write(f"{example['file']}  {question}  {answer}{note}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
