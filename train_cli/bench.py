"""Measure this project beside its peers, in one run on the same weights and data.

    python -m train_cli bench            all of it, a few minutes
    python -m train_cli bench --json     figures for other programs

Absolute times mean little on a shared machine: read the ratios.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from train_cli.config import OK

SEED = 0
CLIPS, QUESTIONS, FRAMES, SIDE_PX = 2, 8, 4, 168
MICRO_BATCH = 2  # samples of one forward pass in the official scripts


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="times each side is measured")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(chosen) -> int:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    figures = {"training_step": training_step(chosen.rounds)}
    if chosen.json:
        print(json.dumps(figures, indent=2))
        return OK
    print("Training step (forward and backward), official arrangement / ours, CPU seconds:")
    for name, row in figures["training_step"].items():
        print(f"  {name}: {row['theirs_s']:.2f} / {row['ours_s']:.2f} = {row['ratio']:.2f} x "
              f"(p20 {row['p20']:.2f}, p80 {row['p80']:.2f}; "
              f"losses differ by {row['loss_difference']:.1e})")  # fmt: skip
    return OK


def training_step(rounds: int) -> dict[str, dict[str, float]]:
    """A step of ours against the official arrangement: transformers' native model, its own loss,
    every question with a copy of its clip, two samples padded to a forward pass.

    Both in float32 without pruning, on the same weights, clips and questions; both give the same
    loss.
    """
    import torch
    from transformers import VideoLlama3ForConditionalGeneration

    from vl3.training.setup import plain_attention
    from vl3.weights.export import export

    model, processor = medium_model()
    with tempfile.TemporaryDirectory() as folder:
        export(model, processor, Path(folder), "native")
        stock = VideoLlama3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    stock.train()
    plain_attention(model)
    found = {}
    for name, questions in (
        ("one question a clip", 1),
        (f"{QUESTIONS} questions a clip", QUESTIONS),
    ):
        theirs = official_step(stock, processor, model.config, records(questions))
        ours = our_step(model, processor, records(questions))
        losses = ours(), theirs()
        times = [(cpu_s(theirs), cpu_s(ours)) for _ in range(rounds)]
        ratios = sorted(there / here for there, here in times)
        found[name] = {
            "theirs_s": statistics.median(there for there, _ in times),
            "ours_s": statistics.median(here for _, here in times),
            "ratio": statistics.median(ratios),
            "p20": ratios[len(ratios) // 5],
            "p80": ratios[-1 - len(ratios) // 5],
            "loss_difference": abs(losses[0] - losses[1]),
        }
    return found


def cpu_s(step: Callable[[], float]) -> float:
    """CPU seconds of one call, over all threads."""
    started = time.process_time()
    step()
    return time.process_time() - started


def medium_model():
    """A random model of 40 M parameters with nano's tokenizer: matrices dominate."""
    import torch

    from vl3.config import VL3Config, VL3VisionConfig, _qwen2
    from vl3.model import VL3ForConditionalGeneration
    from vl3.processor import VL3Processor
    from vl3.settings import ProcessorSettings
    from vl3.weights.load import load

    tokenizer, slots = load().processor.tokenizer, load().processor.slot_ids
    vision = VL3VisionConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=6
    )
    text = _qwen2(
        hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=2, vocab_size=32000, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(SEED)
    config = VL3Config(vision_config=vision, text_config=text, image_token_id=slots.image)
    model = VL3ForConditionalGeneration(config).train()
    settings = ProcessorSettings(prune=None, system_prompt=False)
    return model, VL3Processor(tokenizer, settings, image_token_id=slots.image)


def records(questions: int) -> list:
    """Clips of noise, which nothing can skip, each with so many questions."""
    import numpy as np

    from vl3.training.data.records import Record
    from vl3.values import Clip

    noise = np.random.default_rng(SEED)
    found = []
    for number in range(CLIPS):
        frames = noise.integers(0, 256, (FRAMES, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        clip = Clip(frames_TYX3=frames, times_s=tuple(map(float, range(FRAMES))), source="noise")
        talks = []
        for index in range(questions):
            asked = [
                {"type": "video", "video": clip},
                {"type": "text", "text": f"What happens at second {index} of clip {number}?"},
            ]
            answer = f"At {index} seconds a red star appears and moves right."
            talks.append([{"role": "user", "content": asked},
                          {"role": "assistant", "content": answer}])  # fmt: skip
        found.append(Record(id=str(number), dataset="noise", talks=tuple(talks)))
    return found


def our_step(model, processor, chosen: Sequence) -> Callable[[], float]:
    """Forward and backward of all records through the engine's packed passes."""
    import torch

    from vl3.training.collate import attention_mask, collate
    from vl3.training.samples import build

    samples = [build(record, processor, 10240) for record in chosen]
    passes = [
        collate(samples[start : start + MICRO_BATCH], processor.tokenizer.pad_token_id, 588)
        for start in range(0, len(samples), MICRO_BATCH)
    ]
    learned = sum(part.learned for part in passes)

    def step() -> float:
        model.zero_grad()
        total = 0.0
        for part in passes:
            inputs = dict(part.inputs)
            mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), torch.float32)
            loss = model(**inputs, attention_mask=mask, use_cache=False,
                         num_items_in_batch=learned).loss  # fmt: skip
            loss.backward()
            total += loss.item()
        return total

    return step


def official_step(stock, processor, config, chosen: Sequence) -> Callable[[], float]:
    """The same questions one by one, each with its clip, two padded samples a pass, full logits."""
    import torch

    talks = [talk for record in chosen for talk in record.talks]
    batches = []
    for start in range(0, len(talks), MICRO_BATCH):
        inputs = processor(talks[start : start + MICRO_BATCH], return_labels=True)
        pixels = (inputs["pixel_values"].float() / 255 - 0.5) / 0.5
        ids = inputs["input_ids"]
        batches.append({
            "input_ids": ids.masked_fill(ids == config.image_token_id, stock.config.video_token_id),
            "attention_mask": inputs["attention_mask"],
            "labels": inputs["labels"],
            "pixel_values_videos": pixels,
            "video_grid_thw": inputs["grid_thw"],
            "video_merge_sizes": inputs["merge_sizes"],
            "video_compression_mask": inputs["keep_mask"],
        })  # fmt: skip
    learned = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)

    def step() -> float:
        stock.zero_grad()
        total = 0.0
        for batch in batches:
            loss = stock(**batch, use_cache=False, num_items_in_batch=torch.tensor(learned)).loss
            loss.backward()
            total += loss.item()
        return total

    return step
