"""What variants of a recipe have learned, beside each other and over several seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from vl3.data.records import Record
from vl3.processor import VL3Processor
from vl3.toyworld.score import exact_samples
from vl3.training.evaluate import held_out
from vl3.training.recipe import Evaluate
from vl3.training.samples import Sample, build
from vl3.training.sources import open_source
from vl3.weights.load import load

SCORES = "scores.json"
FRESH = "ablation"  # the seed of the scenes that are asked about, which no run has


@dataclass(frozen=True, slots=True)
class Scores:
    """Answers of one run to fresh questions, by family.

    right, asked: how many; an answer counts when greedy decoding gives it letter by letter
    tokens: of sight and sound, of a question's medium, mean
    """

    right: dict[str, int]
    asked: dict[str, int]
    tokens: float

    @property
    def share(self) -> float:
        """The mean of the families' shares of right answers."""
        return sum(self.right[name] / self.asked[name] for name in self.asked) / len(self.asked)


def score(folder: Path, settings: Evaluate) -> Scores:
    """Asks the model of a run about the samples of settings.sources, always the same ones."""
    loaded = load(folder, device="cpu", dtype=torch.float32)  # where its samples are made
    records = held_out([open_source(source, FRESH) for source in settings.sources], settings)
    samples = [_sample(loaded.processor, record) for record in records]
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for family, is_right in exact_samples(loaded.model, loaded.processor, samples):
        right[family] = right.get(family, 0) + int(is_right)
        asked[family] = asked.get(family, 0) + 1
    slots = (loaded.processor.image_token_id, loaded.processor.audio_token_id)
    seen = sum(int((s.ids_L == slot).sum()) for s in samples for slot in slots if slot is not None)
    return Scores(right, asked, seen / len(samples))


def _sample(processor: VL3Processor, record: Record) -> Sample:
    return build(record, processor, processor.settings.budget_tokens)


def write(scores: Scores, folder: Path) -> None:
    (folder / SCORES).write_text(json.dumps(asdict(scores), indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Scores | None:
    """What was written there, None where nothing was, or not to its end."""
    try:
        return Scores(**json.loads((folder / SCORES).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def table(by_variant: Mapping[str, Sequence[Scores]]) -> str:
    """Markdown: percent right of each family, mean of the seeds; of all families their mean, and
    from the lowest to the highest seed."""
    families = dict.fromkeys(name for rows in by_variant.values() for s in rows for name in s.asked)
    lines = [f"| | tokens | {' | '.join(families)} | mean | of the seeds |"]
    lines.append(f"|---|{'---:|' * (len(families) + 3)}")
    for variant, rows in by_variant.items():
        shares = [
            sum(scores.right[name] / scores.asked[name] for scores in rows) / len(rows)
            for name in families
        ]
        means = sorted(scores.share for scores in rows)
        tokens = sum(scores.tokens for scores in rows) / len(rows)
        cells = " | ".join(f"{100 * share:.1f}" for share in (*shares, sum(means) / len(means)))
        spread = f"{100 * means[0]:.1f} to {100 * means[-1]:.1f}"
        lines.append(f"| {variant} | {tokens:.0f} | {cells} | {spread} |")
    return "\n".join(lines)
