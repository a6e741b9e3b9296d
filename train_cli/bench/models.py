"""Random models of the released widths with few layers, ours and transformers' of the same weights.

Every layer costs the same, so the ratios are those of the whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from vl3.config import VL3Config, VL3VisionConfig, _qwen2
from vl3.families.settings import ProcessorSettings
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.weights.export import export
from vl3.weights.load import load

SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large the models and inputs of this group are; the defaults are those to report."""

    vision_width: int = 1152
    vision_mlp: int = 4304
    vision_heads: int = 16
    vision_layers: int = 1
    text_width: int = 896
    text_mlp: int = 4864
    text_heads: int = 14
    text_layers: int = 2
    vocabulary: int = 151_936
    encoded: tuple[int, int, int] = (60, 16, 28)  # frames, rows, cols
    repeated: tuple[int, int, int] = (16, 16, 28)
    dense: tuple[int, int, int] = (32, 24, 32)
    visual_tokens: int = 1024
    pruned: tuple[int, int] = (2048, 4)  # visual tokens and layers where input shrinks
    full_logits: int = 512
    new_tokens: int = 16
    remembered: tuple[int, int] = (2048, 16_384)  # visual tokens before a later question


TINY = Sizes(
    vision_width=48,
    vision_mlp=96,
    vision_heads=4,
    text_width=64,
    text_mlp=96,
    text_heads=4,
    text_layers=2,
    vocabulary=4096,
    encoded=(6, 4, 4),
    repeated=(6, 4, 4),
    dense=(4, 4, 4),
    visual_tokens=64,
    pruned=(64, 2),
    full_logits=32,
    new_tokens=4,
    remembered=(64, 128),
)


def build(sizes: Sizes) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """A random model in float32 with nano's tokenizer, wide awake: no two logits are near."""
    nano = load().processor
    vision = VL3VisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=sizes.vision_mlp,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
    )
    text = _qwen2(
        hidden_size=sizes.text_width,
        intermediate_size=sizes.text_mlp,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=sizes.text_heads,
        num_key_value_heads=2,
        vocab_size=sizes.vocabulary,
        tie_word_embeddings=True,
        initializer_range=0.05,
    )
    torch.manual_seed(SEED)
    config = VL3Config(vision_config=vision, text_config=text, image_token_id=nano.slot_ids.image)
    model = VL3ForConditionalGeneration(config).eval()
    settings = ProcessorSettings(prune=None, system_prompt=False)
    return model, VL3Processor(nano.tokenizer, settings, image_token_id=nano.slot_ids.image)


@contextmanager
def native(model, processor) -> Iterator[torch.nn.Module]:
    """The same weights in transformers' own VideoLlama3ForConditionalGeneration, in float32."""
    from transformers import VideoLlama3ForConditionalGeneration

    with tempfile.TemporaryDirectory() as folder:
        export(model, processor, Path(folder), "native")
        yield VideoLlama3ForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        ).eval()
