"""A step of training beside the official arrangement."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from train_cli.bench.measure import Mismatch, Row, beside

SEED = 0
CLIPS, QUESTIONS, FRAMES, SIDE_PX = 2, 8, 4, 168
LAYERS = 6
MICRO_BATCH = 2  # samples of one forward pass in the official scripts
MOST_APART = 1e-3  # of the losses


def training(
    rounds: int, frames: int = FRAMES, side_px: int = SIDE_PX, layers: int = LAYERS
) -> list[Row]:
    """Forward and backward of a step of ours against the official arrangement: transformers' native
    model, its own loss, every question with a copy of its clip, two samples padded to a pass.

    Both in float32 without pruning, on the same weights, clips and questions; both give the same
    loss.
    """
    import torch
    from transformers import VideoLlama3ForConditionalGeneration

    from vl3.training.setup import plain_attention
    from vl3.weights.export import export

    model, processor = medium_model(layers)
    with tempfile.TemporaryDirectory() as folder:
        export(model, processor, Path(folder), "native")
        stock = VideoLlama3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    stock.train()
    plain_attention(model)
    rows = []
    for name, questions in (
        ("one question a clip", 1),
        (f"{QUESTIONS} questions a clip", QUESTIONS),
    ):
        data = records(questions, frames, side_px)
        theirs = official_step(stock, processor, model.config, data)
        ours = our_step(model, processor, data)
        rows += beside(
            f"training step, {name}", ours, {"official arrangement": theirs}, rounds, same_loss
        )
    return rows


def same_loss(ours: float, theirs: float) -> str:
    if not abs(ours - theirs) < MOST_APART:
        raise Mismatch(f"losses of {ours} and {theirs}")
    return f"losses differ by {abs(ours - theirs):.0e}"


def medium_model(layers: int):
    """A random model with nano's tokenizer; 40 M parameters with 6 layers: matrices dominate."""
    import torch

    from vl3.config import VL3Config, VL3VisionConfig, _qwen2
    from vl3.families.settings import ProcessorSettings
    from vl3.model import VL3ForConditionalGeneration
    from vl3.processor import VL3Processor
    from vl3.weights.load import load

    tokenizer, slots = load().processor.tokenizer, load().processor.slot_ids
    vision = VL3VisionConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=layers, num_attention_heads=6
    )
    text = _qwen2(
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        vocab_size=32000,
        tie_word_embeddings=True,
    )
    torch.manual_seed(SEED)
    config = VL3Config(vision_config=vision, text_config=text, image_token_id=slots.image)
    model = VL3ForConditionalGeneration(config).train()
    settings = ProcessorSettings(prune=None, system_prompt=False)
    return model, VL3Processor(tokenizer, settings, image_token_id=slots.image)


def records(questions: int, frames: int, side_px: int) -> list:
    """Clips of noise, which nothing can skip, each with so many questions."""
    import numpy as np

    from vl3.data.records import Record
    from vl3.values import Clip

    noise = np.random.default_rng(SEED)
    found = []
    for number in range(CLIPS):
        pixels = noise.integers(0, 256, (frames, side_px, side_px, 3), dtype=np.uint8)
        clip = Clip(frames_TYX3=pixels, times_s=tuple(map(float, range(frames))), source="noise")
        conversations = []
        for index in range(questions):
            asked = [
                {"type": "video", "video": clip},
                {"type": "text", "text": f"What happens at second {index} of clip {number}?"},
            ]
            answer = f"At {index} seconds a red star appears and moves right."
            conversations.append(
                [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            )
        found.append(Record(id=str(number), dataset="noise", conversations=tuple(conversations)))
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
            loss = model(
                **inputs,
                attention_mask=mask,
                use_cache=False,
                num_items_in_batch=learned,
                skip_logits=True,
            ).loss
            loss.backward()
            total += loss.item()
        return total

    return step


def official_step(stock, processor, config, chosen: Sequence) -> Callable[[], float]:
    """The same questions one by one, each with its clip, two padded samples a pass, full logits."""
    import torch

    conversations = [conversation for record in chosen for conversation in record.conversations]
    batches = []
    for start in range(0, len(conversations), MICRO_BATCH):
        inputs = processor(conversations[start : start + MICRO_BATCH], return_labels=True)
        pixels = (inputs["pixel_values"].float() / 255 - 0.5) / 0.5
        ids = inputs["input_ids"]
        batches.append(
            {
                "input_ids": ids.masked_fill(
                    ids == config.image_token_id, stock.config.video_token_id
                ),
                "attention_mask": inputs["attention_mask"],
                "labels": inputs["labels"],
                "pixel_values_videos": pixels,
                "video_grid_thw": inputs["grid_thw"],
                "video_merge_sizes": inputs["merge_sizes"],
                "video_compression_mask": inputs["keep_mask"],
            }
        )
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
