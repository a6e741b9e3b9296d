"""Train a small model in minutes, offline: see the whole path from data to answers.

    python -m train_cli demo                   a nano from nothing, in three minutes on two cores
    python -m train_cli demo --minutes 20      the same with more time
    python -m train_cli demo --from-bundled    the bundled nano learns a new colour

It ends in that time, also on a slow machine, which then learns less. Counted is the time
that one core spends on it: a machine that does other work takes longer and learns the same. The
blind score is that of the same questions about black pictures: what can be had by guessing.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from train_cli.config import read_recipe
from train_cli.exits import OK, USAGE, fail
from vl3.arguments import number
from vl3.bundled import PAGE_COMMAND
from vl3.training.ready import check_out, folder

MINUTES, BUNDLED_MINUTES = 3.0, 1.5
SCORING = 0.08  # share of the time that is left for questions afterwards
SCORED = 100  # questions of each family
PICTURES = 240  # that teach a colour
SEED = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"time of one core for the whole demo (default: {MINUTES:g}, "
        f"with --from-bundled {BUNDLED_MINUTES:g})",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder (default: runs/nano_demo, runs/nano_colour)"
    )
    parser.add_argument(
        "--from-bundled",
        action="store_true",
        help="teach the bundled nano the colour brown with a LoRA",
    )


def run(chosen: argparse.Namespace) -> int:
    started_s, began_s = time.process_time(), time.monotonic()
    name = "nano_colour" if chosen.from_bundled else "nano_demo"
    recipe = read_recipe(["--config", name])
    if chosen.out is not None:
        recipe = replace(recipe, out=str(chosen.out))
    minutes = chosen.minutes
    if minutes is None:
        minutes = BUNDLED_MINUTES if chosen.from_bundled else MINUTES
    try:
        number("--minutes", minutes, above=0, unit="minutes")
        check_out(folder(recipe))
    except (ValueError, OSError) as error:
        fail(error)
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)  # of several that wait for each other, time could not be predicted
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    train = _colour if chosen.from_bundled else _nano
    try:
        train(recipe, deadline_s=started_s + 60 * minutes * (1 - SCORING))
    except (ValueError, OSError) as error:
        fail(error, USAGE)
    say(
        f"{time.process_time() - started_s:.0f} s of one core, "
        f"{time.monotonic() - began_s:.0f} s by the clock"
    )
    return OK


def say(line: str) -> None:
    """A line about what is going on; results are for standard output."""
    print(line, file=sys.stderr, flush=True)


def _nano(recipe, deadline_s: float) -> None:
    from PIL import Image
    from tqdm import tqdm

    from train_cli.progress import Progress
    from vl3.toyworld.score import draw
    from vl3.training import demo
    from vl3.weights.load import load

    def begin_encoder(count: int):
        say(f"{count} steps of the encoder alone: what each piece of a picture shows")
        bar = tqdm(total=count, unit="step", dynamic_ncols=True, mininterval=_interval())

        def after() -> None:
            bar.update()
            if bar.n == count:
                bar.close()

        return after

    say("a tokenizer from the toy world's text, an untrained nano, the speed of this machine")
    last = demo.from_nothing(recipe, deadline_s, begin_encoder, (Progress(),))
    loaded = load(last)
    drawn = draw(demo.PICTURES, demo.FAMILIES, SCORED, SEED)
    print(
        f"\n{SCORED} fresh questions of each kind, right letter by letter; blind: black pictures\n"
    )
    rows = demo.shares(loaded.model, loaded.processor, drawn)
    print(demo.table(rows))
    if (sentence := demo.verdict(rows)) is not None:
        print(f"\n{sentence}")
    pictures = last.parent / "pictures"
    pictures.mkdir(exist_ok=True)
    for place, asked in enumerate(demo.examples(loaded.model, loaded.processor, 3, SEED), 1):
        file = pictures / f"{place}.png"
        Image.fromarray(asked.clip.frames_TYX3[0]).save(file)
        print(f"\n{file}: {', '.join(asked.shows)}")
        _print_answers(asked.answers)
    _go_on(last.parent, pictures / "1.png", "How many shapes are there?")


def _colour(recipe, deadline_s: float) -> None:
    from train_cli.progress import Progress
    from vl3.bundled import NANO
    from vl3.training import demo
    from vl3.training import run as runs
    from vl3.training.nano import new_colour
    from vl3.weights.load import load

    out = runs.folder(recipe)
    demo.refuse(out)
    say(f"{PICTURES} pictures, most of them with something brown, in {out / 'data'}")
    file = new_colour.write(out / "data", new_colour.BROWN, PICTURES, "taught")
    (source,) = recipe.data
    recipe = replace(
        recipe,
        start=replace(recipe.start, model=str(NANO)),
        data=[replace(source, path=str(file))],
    )
    before = load(NANO)
    test = demo.colour_test(new_colour.BROWN, SCORED, SEED)
    untaught = demo.learned(before.model, before.processor, test)
    last = demo.on_time(recipe, deadline_s, (Progress(),))
    after = load(last)
    taught = demo.learned(after.model, after.processor, test)
    print("\n" + demo.before_after(new_colour.BROWN, untaught, taught))
    if (sentence := demo.taught_verdict(new_colour.BROWN, untaught, taught)) is not None:
        print(f"\n{sentence}")
    _go_on(out, out / "data" / "0000.png", "What shape is the brown thing?")


def _print_answers(answers) -> None:
    for question, wanted, given in answers:
        verdict = "" if given == wanted else f"   (right: {wanted})"
        print(f"  {question:44} {given}{verdict}")


def _go_on(out: Path, picture: Path, question: str) -> None:
    print(
        f"\nGo on with it:\n"
        f"  {PAGE_COMMAND} --model {out}\n"
        f'  python -m train_cli chat --model {out} --video {picture} "{question}"\n'
    )


def _interval() -> float:
    return 0.2 if sys.stderr.isatty() else 30.0
