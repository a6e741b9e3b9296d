"""A tiny random model of the real classes, shared by all tests, and where recorded outputs lie."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two threads that wait for each other make small models slow on a machine that does other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc

import pytest
import torch

from vl3.config import VL3Config, VL3VisionConfig
from vl3.families.settings import ProcessorSettings
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.toyworld.tokenizer import train_tokenizer

gc.freeze()  # else every release of a studio walks through all that torch and transformers define

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded official outputs and real clips, beside the repository."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("needs ../shared (recorded official outputs), not beside this checkout")
    return SHARED


@pytest.fixture
def decoding_here(monkeypatch):
    """Videos are decoded in a thread of this process, which sees what a test puts in their way."""
    monkeypatch.setenv("VL3_DECODER", "thread")


@pytest.fixture(scope="session")
def tokenizer():
    words = ["What happens in the video? A red circle moves right.", "user assistant system stream"]
    return train_tokenizer(words * 20, vocab_size=300)


def tiny_config(tokenizer, **changes) -> VL3Config:
    """Sizes of a model that runs in milliseconds."""
    vision = VL3VisionConfig(
        hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
    )
    text = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 384,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return VL3Config(
        vision_config=vision,
        text_config=text | changes,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )


def wide_awake(model: VL3ForConditionalGeneration) -> VL3ForConditionalGeneration:
    """The model with weights large enough that every input changes what it says."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
            elif parameter.abs().sum() == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_processor(tokenizer) -> VL3Processor:
    settings = ProcessorSettings(budget_tokens=400)
    return VL3Processor(
        tokenizer, settings, image_token_id=tokenizer.convert_tokens_to_ids("<image>")
    )


@pytest.fixture(scope="session")
def tiny_model(tokenizer) -> VL3ForConditionalGeneration:
    return wide_awake(VL3ForConditionalGeneration(tiny_config(tokenizer)))


@pytest.fixture(scope="session")
def tiny_folder(tiny_model, tiny_processor, tmp_path_factory) -> Path:
    """The tiny model as a checkpoint folder of our own layout."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def hearing_folder(tiny_folder, tmp_path_factory) -> Path:
    """The tiny model with a tiny ear of Whisper's kind, two seconds at a time."""
    import vl3
    from vl3.audio.ear import ear_class
    from vl3.config import WhisperEarConfig
    from vl3.weights.ears import add_ear

    config = WhisperEarConfig(
        d_model=32,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=64,
        num_mel_bins=80,
        max_source_positions=100,
    )
    studio = vl3.load(tiny_folder)
    processor = add_ear(studio.model, studio.processor, ear_class(config)(config))
    folder = tmp_path_factory.mktemp("hearing")
    wide_awake(studio.model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def joining_folder(tokenizer, tmp_path_factory) -> Path:
    """A tiny model whose connector joins two frames and 2 x 2 merged cells (tests/joining.py)."""
    from joining import Joining

    config = tiny_config(tokenizer)
    config.connector = Joining.NAME
    chosen = {"budget_tokens": 400, "min_tokens": 1, "connector": Joining.NAME, "prune": None}
    processor = VL3Processor(
        tokenizer, ProcessorSettings(**chosen), image_token_id=config.image_token_id
    )
    folder = tmp_path_factory.mktemp("joining")
    wide_awake(VL3ForConditionalGeneration(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
