"""Tiny random checkpoints in the official layouts of VideoLLaMA 2, made of transformers' own parts.

The language model, the tower and the connector are saved each by itself, as their makers do, and
their tensors put under the names of the released files; nothing of vl3 writes any of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from language_models import plain_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, normalizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vl3.audio.beats import RENAMED, BEATs
from vl3.config import BEATsConfig
from vl3.connectors import connector_class
from vl3.toyworld.tokenizer import train_tokenizer

SIDE = 4  # patches of a side of the tower
TOWER = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 14,
}
LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "vocab_size": 600,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# name of a release: tower, language model, connector, frames
RELEASES = {
    "7B": ("clip", "mistral", "stc_connector", 8),
    "7B-16F": ("clip", "mistral", "stc_connector", 16),
    "8x7B": ("clip", "mixtral", "stc_connector", 8),
    "72B": ("clip", "qwen2", "stc_connector", 8),
    "2.1-7B-16F": ("siglip", "qwen2", "stc_connector_v35", 16),
}
WORDS = ["What happens in the video? A red circle moves right.", "user assistant system stream"]


@dataclass(frozen=True, slots=True, eq=False)
class Release:
    """A checkpoint folder and the parts that it was made of."""

    folder: Path
    tower: torch.nn.Module
    language: torch.nn.Module
    connector: torch.nn.Module
    num_frames: int
    ear: torch.nn.Module | None = None
    projector: torch.nn.Module | None = None


def tower_of(kind: str):
    """A tower whose square is 4 x 4 patches; SigLIP's has 6 pixels more, as the real one has."""
    torch.manual_seed(11)
    if kind == "clip":
        return CLIPVisionModel(CLIPVisionConfig(**TOWER, image_size=14 * SIDE)).eval()
    return SiglipVisionModel(SiglipVisionConfig(**TOWER, image_size=14 * SIDE + 6)).eval()


def tokenizer_of(language: str):
    """Llama's kind, which falls back to bytes, or Qwen2's."""
    if language == "qwen2":
        return train_tokenizer(WORDS * 20, vocab_size=300)
    raw = json.loads(plain_tokenizer("words").backend_tokenizer.to_str())
    raw["added_tokens"] = raw["added_tokens"][:3]  # <s>, </s> and <unk>; bytes are plain tokens
    raw["model"]["unk_token"] = "<unk>"
    # Mistral's first ones put a space before every stretch of text, after a special token as well.
    raw["pre_tokenizer"] = None
    core = Tokenizer.from_str(json.dumps(raw))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def on_disk(model, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors as transformers saves a model."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def write_release(folder: Path, name: str, tmp: Path, *, connector=None, pickled=False) -> Release:
    """A release of RELEASES; connector: another one by their name; pickled: a .bin file.

    With -AV behind its name, it hears.
    """
    kind, language, its_own, num_frames = RELEASES[name.removesuffix("-AV")]
    connector = connector or its_own
    tower, tokenizer = tower_of(kind), tokenizer_of(language)
    torch.manual_seed(13)
    own = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    sizes = LANGUAGE | own | (MIXTURE if language == "mixtral" else {})
    if language != "qwen2":
        sizes |= {"sliding_window": None}
    text = AutoConfig.for_model(
        language, **sizes | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    )
    model = AutoModelForCausalLM.from_config(text).eval()
    ours = connector if "connector" in connector or "spatial" in connector else f"mean_{connector}"
    built = connector_class(ours)(ours, TOWER["hidden_size"], LANGUAGE["hidden_size"]).eval()
    wide_awake(tower, model, built)
    tensors = {
        f"model.vision_tower.vision_tower.vision_model.{key.removeprefix('vision_model.')}": tensor
        for key, tensor in on_disk(tower, tmp / "tower").items()
    }
    tensors |= on_disk(model, tmp / "language")
    for key, tensor in built.state_dict().items():
        key = key.removeprefix("layers.").removeprefix("linear.")
        tensors[f"model.mm_projector.{key}"] = tensor.contiguous()
    ear = projector = None
    if name.endswith("-AV"):
        ear, projector = _ear()
        wide_awake(projector)
        there = {here: name for name, here in RENAMED.items()}  # as BEATs is released
        tensors |= {f"model.audio_tower.{there.get(k, k)}": t for k, t in ear.state_dict().items()}
        shared = "model.audio_tower.encoder.layers.{}.self_attn.relative_attention_bias.weight"
        for layer in range(1, ear.config.encoder_layers):
            tensors[shared.format(layer)] = tensors[shared.format(0)].clone()
        tensors |= {f"model.mm_projector_a.{key}": t for key, t in projector.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = sizes | {
        "architectures": [f"Videollama2{language.capitalize()}ForCausalLM"],
        "_name_or_path": "a-base-model",
        "model_type": f"videollama2_{language}",
        "mm_vision_tower": f"/where/it/was/trained/{kind}-tiny",
        "vision_config": tower.config.to_dict(),
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": TOWER["hidden_size"],
        "mm_projector_type": connector,
        "mm_projector_lr": None,
        "use_mm_proj": True,
        "freeze_mm_mlp_adapter": False,
        "tune_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "num_frames": num_frames,
        "tokenizer_model_max_length": 2048,
        "tokenizer_padding_side": "right",
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "transformers_version": "4.40.0",
        "use_cache": True,
    }
    if ear is not None:
        config |= {
            "mm_audio_tower": "/where/it/was/trained/audio_tower.bin",
            "mm_projector_a_type": "mlp2x_gelu",
            "mm_hidden_size_a": ear.config.encoder_embed_dim,
            "hidden_size_a": LANGUAGE["hidden_size"],
            "audio_config": ear.config.to_dict(),
        }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(own))
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return Release(folder, tower, model, built, num_frames, ear, projector)


def _ear() -> tuple[BEATs, torch.nn.Module]:
    """A BEATs that was trained to name sounds, and the projector behind it."""
    torch.manual_seed(17)
    config = BEATsConfig(
        embed_dim=32,
        encoder_layers=2,
        encoder_embed_dim=48,
        encoder_ffn_embed_dim=64,
        encoder_attention_heads=4,
        conv_pos=16,
        conv_pos_groups=4,
        finetuned_model=True,
        predictor_class=5,
        initializer_range=0.1,
    )
    width = LANGUAGE["hidden_size"]
    layers = [torch.nn.Linear(48, width), torch.nn.GELU(), torch.nn.Linear(width, width)]
    return BEATs(config).eval(), torch.nn.Sequential(*layers)


def wide_awake(*models: torch.nn.Module) -> None:
    """Weights large enough that every input changes what is said."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for model in models for p in model.parameters()):
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 0.15)
            elif parameter.abs().sum() == 0:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
