"""Answers to held-out questions during training, as the model would give them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from vl3.data.records import Record
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.training.recipe import Evaluate

TOGETHER = 8  # conversations generated at once


@dataclass(frozen=True, slots=True)
class Answered:
    """A held-out question, the answer in the data and the generated one."""

    id: str
    dataset: str
    family: str
    question: str
    wanted: str
    given: str

    @property
    def is_right(self) -> bool:
        """Equal up to case, surrounding blanks and a final full stop."""
        return _plain(self.wanted) == _plain(self.given)


def _plain(text: str) -> str:
    return text.strip().rstrip(".").casefold()


def questions(records: Sequence[Record]) -> list[tuple[Record, str, list[dict], str]]:
    """(record, family, messages before it, answer) of the last answer of each conversation."""
    asked = []
    for record in records:
        answers = 0
        for conversation in record.conversations:
            answers += sum(message["role"] == "assistant" for message in conversation)
            if conversation[-1]["role"] == "assistant":
                family = record.families[answers - 1] if record.families else record.dataset
                asked.append((record, family, conversation[:-1], conversation[-1]["content"]))
    return asked


@torch.no_grad()
def answer(
    model: VL3ForConditionalGeneration,
    processor: VL3Processor,
    records: Sequence[Record],
    max_new_tokens: int,
    between: Callable[[], object] = lambda: None,
) -> list[Answered]:
    """Greedy answers to every question of the records, in order.

    between: called before each few of them
    """
    was_training = model.training
    model.eval()
    found = []
    asked = questions(records)
    for start in range(0, len(asked), TOGETHER):
        between()
        part = asked[start : start + TOGETHER]
        made = processor([messages for _, _, messages, _ in part], add_generation_prompt=True)
        inputs = {name: tensor.to(model.device) for name, tensor in made.items()}
        prompt = inputs["input_ids"].shape[1]
        ids = cast(Any, model).generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        for (record, family, messages, wanted), new in zip(part, ids[:, prompt:]):
            given = processor.decode(new)
            question = _text(messages[-1]["content"])
            names = (record.id, record.dataset, family)
            found.append(Answered(*names, question, _text(wanted), given))
    model.train(was_training)
    return found


def _text(content: str | list[dict]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if "text" in part)


def figures(answered: Sequence[Answered]) -> dict[str, float]:
    """Share of right answers, by family: eval/<family>."""
    count: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for entry in answered:
        count[entry.family] += 1
        right[entry.family] += entry.is_right
    return {f"eval/{name}": round(right[name] / count[name], 4) for name in sorted(count)}


def write(answered: Sequence[Answered], file: Path) -> None:
    """One JSON line per answer."""
    file.parent.mkdir(exist_ok=True)
    rows = [
        {name: getattr(entry, name) for name in Answered.__slots__} | {"right": entry.is_right}
        for entry in answered
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8")


def held_out(opened: Sequence, settings: Evaluate) -> list[Record]:
    """The first records of each held-out data set, settings.samples in all."""
    each = max(1, settings.samples // max(1, len(opened)))
    return [
        data[index]
        for data, source in zip(opened, settings.sources)
        for index in range(min(each, source.samples or len(data)))
    ]
