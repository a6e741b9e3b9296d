"""Tiny random checkpoints of the parts that models are assembled from, and their tokenizers."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

WORDS = ["What happens in the video? A red circle moves right.", "user assistant system stream"]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
WINDOW = 16  # tokens: a prompt with a clip is far longer
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# name of a model: its model_type and sizes of its own
KINDS = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "mixtral": ("mixtral", MIXTURE),
    "qwen2": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen2.5": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "smollm2": ("llama", {"tie_word_embeddings": True}),
    "smollm3": ("smollm3", {}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 4096}),
    "gpt_neox": ("gpt_neox", {}),
}


def write_siglip(folder: Path) -> Path:
    """A plain SigLIP encoder."""
    config = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    SiglipVisionModel(config).save_pretrained(folder)
    return folder


def plain_tokenizer(style: str = "bytes") -> PreTrainedTokenizerFast:
    """A tokenizer without any token of a chat: GPT-2's style ("bytes") or that of Llama and Mistral
    ("words", which also puts <s> before every text)."""
    core = Tokenizer(BPE(byte_fallback=style == "words", unk_token=None))
    special = ["<s>", "</s>", "<unk>"]
    if style == "bytes":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet, more = pre_tokenizers.ByteLevel.alphabet(), []
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
        alphabet, more = [], [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = BpeTrainer(
        vocab_size=len(special) + len(more) + 280,
        initial_alphabet=alphabet,
        special_tokens=[*special, *more],
        show_progress=False,
    )
    core.train_from_iterator(WORDS * 20, trainer)
    if style == "words":
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    found = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    found.add_tokens([AddedToken(token, special=True) for token in special], special_tokens=True)
    return found


def write_language(folder: Path, kind: str, tokenizer, rows: int | None = None, **sizes) -> Path:
    """A language model of KINDS, or of any model_type, with large weights, and its tokenizer.

    rows: of its token table; by default as many as the tokenizer has tokens
    """
    model_type, own = KINDS.get(kind, (kind, {}))
    torch.manual_seed(3)
    rows = rows or len(tokenizer)
    config = AutoConfig.for_model(model_type, **(SIZES | {"vocab_size": rows} | own | sizes))
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
