"""What sixteen lines teach a model and what it forgets meanwhile: the table of docs/training.md.

    export PYTHONPATH=.:tests
    python -m recipes.learning                    all rows, on the drawn clips
    python -m recipes.learning --media FOLDER     on real ones (tests/recipes/lines.py)
    python -m recipes.learning lora "lora, 100 steps" --of new --seed 1
    python -m recipes.learning lora --lines 1 5 10  fewer than the sixteen

A trained answer comes back where greedy decoding gives it letter by letter. Old questions are 400
about scenes that no training draws, the same ones before and after: those that were right and are
wrong now are lost, the others way round gained. A model of random weights has none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from recipes import lines
from transformers.utils import logging

from train_cli.config import read_recipe
from vl3.bundled import NANO
from vl3.data.readers import open_records
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.score import CLIP_FAMILIES, CLIPS, IMAGES, STILL_FAMILIES, Drawn, draw, exact
from vl3.training import evaluate
from vl3.training import run as runs
from vl3.weights.load import load

ALL = 16  # lines
OLD = 400  # questions about the toy world
LONGEST = 64  # tokens of an answer
FULL = ("--adapter", "null", "--rates.adapter", "null", "--remember", "0")
BEFORE = (
    "--adapter.rank",
    "128",
    "--adapter.alpha",
    "256",
    "--adapter.dropout",
    "0.05",
    "--adapter.on",
    "[language]",
    "--rates.connector",
    "2e-5",
    "--rates.adapter",
    "2e-5",
    "--remember",
    "0",
)

# Name of a row and what it says to `run` beside model and data.
ROWS = {
    "lora": ("--config", "lora"),
    "lora, remember 0": ("--config", "lora", "--remember", "0"),
    "lora, 100 steps": ("--config", "lora", "--steps", "100"),
    "qlora": ("--config", "qlora"),
    "dora": ("--config", "dora"),
    "all of the language model": ("--config", "lora", *FULL, "--rates.language", "1e-3"),
    "as lora was: rank 128, 2e-5, one step of 128": (
        "--config",
        "lora",
        *BEFORE,
        "--batch.samples",
        "128",
        "--steps",
        "1",
    ),
    "as somebody tried: 1e-3, 60 steps": (
        "--config",
        "lora",
        *BEFORE,
        "--rates.adapter",
        "1e-3",
        "--steps",
        "60",
    ),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What training made of a model, and how long it took.

    back: share of the trained answers; old: None without old questions; minutes: of one core
    """

    back: float
    old: Change | None
    minutes: float


def old_questions(count: int = OLD) -> Drawn:
    """Fresh clips and pictures of the toy world with about so many questions, of all families."""
    each = count // (2 * len(CLIP_FAMILIES)) + 1
    found, left = [], count
    for clip, qas in draw(CLIPS, CLIP_FAMILIES, each, 5) + draw(
        IMAGES, STILL_FAMILIES, 2 * each, 6
    ):
        found.append((clip, qas[:left]))
        left -= len(found[-1][1])
    return [(clip, qas) for clip, qas in found if qas]


def rights(model: VL3ForConditionalGeneration, processor: VL3Processor, old: Drawn) -> torch.Tensor:
    """Whether the answer to each question is right letter by letter, in one order: bool [Q]."""
    return torch.tensor([right > 0 for _, right in exact(model, processor, old)])


@dataclass(frozen=True, slots=True)
class Change:
    """How many of the same questions were right before and are after; lost and gained ones."""

    before: int
    after: int
    lost: int
    gained: int
    asked: int

    @classmethod
    def of(cls, before_Q: torch.Tensor, after_Q: torch.Tensor) -> Change:
        """The change from one model's answers to another's."""
        lost, gained = before_Q & ~after_Q, after_Q & ~before_Q
        counts = (int(each.sum()) for each in (before_Q, after_Q, lost, gained))
        return cls(*counts, asked=len(before_Q))

    def __str__(self) -> str:
        return f"{self.after} of {self.asked} (-{self.lost} +{self.gained})"


def first(file: Path, count: int) -> Path:
    """The first lines of a file of lines, as a file beside it."""
    part = file.with_name(f"first_{count}.json")
    part.write_text(json.dumps(json.loads(file.read_text())[:count]), encoding="utf-8")
    return part


def back_share(model: VL3ForConditionalGeneration, processor: VL3Processor, file: Path) -> float:
    """Share of the answers in a data set that greedy decoding gives letter by letter."""
    opened = open_records(file, name="mine")
    records = [opened[index] for index in range(len(opened))]
    answered = evaluate.answer(model, processor, records, LONGEST)
    return sum(one.given.strip() == one.wanted for one in answered) / len(answered)


def tried(
    settings: tuple[str, ...], base: Path, file: Path, old: Drawn, before_Q: torch.Tensor | None
) -> Result:
    """Trains a model with these settings on the lines of a file.

    before_Q: which of the old questions the base answers rightly
    """
    with TemporaryDirectory() as folder:
        recipe = read_recipe(
            [
                *settings,
                "--start.model",
                str(base),
                "--data.mine.path",
                str(file),
                "--out",
                f"{folder}/run",
                "--workers",
                "0",
            ]
        )
        started_s = time.process_time()
        last = runs.run(recipe)
        minutes = (time.process_time() - started_s) / 60
        loaded = load(last)
        back = back_share(loaded.model, loaded.processor, file)
        change = None
        if old:
            change = Change.of(before_Q, rights(loaded.model, loaded.processor, old))
    return Result(back, change, minutes)


def qwen(folder: Path) -> Path:
    """A tiny model of random weights with as many words as Qwen2.5 has, assembled as a real one is.

    Its tokenizer has Qwen2's format and splits; its words were learned from English sentences.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

    from vl3.toyworld.tokenizer import train_tokenizer
    from vl3.weights.assemble import assemble

    said = [line[2] for media in (Path(), None) for line in lines.lines_of(media)]
    torch.manual_seed(3)
    vision = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    text = Qwen2Config(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=True,
    )
    SiglipVisionModel(vision).save_pretrained(folder / "siglip")
    Qwen2ForCausalLM(text).save_pretrained(folder / "qwen")
    train_tokenizer(said * 4, vocab_size=600).save_pretrained(folder / "qwen")
    model, processor = assemble(folder / "siglip", folder / "qwen")
    model.save_pretrained(folder / "whole")
    processor.save_pretrained(folder / "whole")
    return folder / "whole"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; default all")
    parser.add_argument("--media", type=Path, help="folder with the real clips")
    parser.add_argument(
        "--of",
        nargs="+",
        choices=("new", "own", "qwen"),
        default=("new", "own"),
        help="lines in new words, in nano's own; qwen: a random model",
    )
    parser.add_argument("--lines", nargs="+", type=int, default=(ALL,), help="the first so many")
    parser.add_argument("--seed", type=int, default=0, help="of the adapter, order and scenes")
    chosen = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    old, before_Q = [], None
    if set(chosen.of) != {"qwen"}:
        old, loaded = old_questions(), load(NANO)
        before_Q = rights(loaded.model, loaded.processor, old)
        print(f"old questions right before: {int(before_Q.sum())} of {len(before_Q)}\n")
    print("| setting | lines, words | answers back | old questions right | CPU minutes |")
    print("|---|---|---:|---:|---:|", flush=True)
    with TemporaryDirectory() as scratch:
        for kind in chosen.of:
            folder = Path(scratch, kind)
            folder.mkdir()
            words = lines.OWN if kind == "own" else lines.NEW
            file = lines.write(folder, words, chosen.media)
            base, asked = (qwen(folder), []) if kind == "qwen" else (NANO, old)
            for name, count in itertools.product(chosen.rows or ROWS, chosen.lines):
                settings = (*ROWS[name], "--seed", str(chosen.seed))
                result = tried(settings, base, first(file, count), asked, before_Q)
                print(
                    f"| {name} | {count} {kind} | {100 * result.back:.0f} % | "
                    f"{result.old or '-'} | {result.minutes:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
