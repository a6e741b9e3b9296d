"""Parts that training starts from: vision encoders and language models on their own.

navit   the stand-alone vision encoder, DAMO-NLP-SG/SigLIP-NaViT
siglip  plain SigLIP of the hub (google/siglip-so400m-patch14-384), at any resolution
clip    CLIP of the hub, a tower of one size (openai/clip-vit-large-patch14-336, apple/DFN5B-CLIP-*)
language  any causal language model of transformers (Qwen2.5, Llama, Mistral, SmolLM ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig

from vl3.config import VL3VisionConfig
from vl3.families.layouts import Family, LayoutError, prefixed

# (name there, name here) of the official encoder, which has SigLIP's names.
ENCODER = (
    ("encoder.layers.*.layer_norm1.*", "blocks.*.norm1.*"),
    ("encoder.layers.*.layer_norm2.*", "blocks.*.norm2.*"),
    ("encoder.layers.*.self_attn.out_proj.*", "blocks.*.attention.out.*"),
    ("encoder.layers.*.self_attn.q_proj.*", "blocks.*.attention.q.*"),
    ("encoder.layers.*.self_attn.k_proj.*", "blocks.*.attention.k.*"),
    ("encoder.layers.*.self_attn.v_proj.*", "blocks.*.attention.v.*"),
    ("encoder.layers.*.mlp.*", "blocks.*.mlp.*"),
    ("embeddings.patch_embedding.*", "patch_embedding.*"),
    ("post_layernorm.*", "norm.*"),
)
# The class defaults of the official and native vision configurations, which a checkpoint may leave
# out because it does not differ from them (facts: they are a base ViT, not the released model).
_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


# How both layouts of the released models write down what is done to pixels here.
PICTURE_STEPS = {
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def check_normalisation(raw: dict, name: str) -> None:
    """Raises LayoutError for pixels that are normalised otherwise than the released models do."""
    for key in ("image_mean", "image_std"):
        if raw.get(key, [0.5] * 3) != [0.5] * 3:
            raise LayoutError(
                f"{name} normalises pixels with {key} = {raw[key]}; the released models use "
                "0.5 everywhere and only that is supported"
            )


def language_config(
    raw: dict, model_type: str, foreign: Sequence[str], prefixes: tuple[str, ...]
) -> dict:
    """The language model's configuration within that of a whole model, which says both at once.

    foreign, prefixes: what is left out of it
    """
    others = (*foreign, "auto_map", "architectures", "transformers_version")
    text = {key: value for key, value in raw.items() if key not in others}
    text["model_type"] = model_type
    if (theta := text.pop("rope_theta", None)) is not None:
        text.pop("rope_scaling", None)
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    text["dtype"] = text.pop("torch_dtype", None)
    return {key: value for key, value in text.items() if not key.startswith(prefixes)}


def read_encoder(raw: dict) -> VL3VisionConfig:
    """Our sizes of an encoder from the configuration of theirs."""
    return VL3VisionConfig(**{key: raw.get(key, default) for key, default in _DEFAULTS.items()})


def write_encoder(config: VL3VisionConfig) -> dict:
    """Their configuration of an encoder of ours, without its model_type."""
    return {key: getattr(config, key) for key in _DEFAULTS}


def _read_vision(folder: Path, raw: dict) -> VL3VisionConfig:
    return read_encoder(raw.get("vision_config", raw))


def _read_clip(folder: Path, raw: dict) -> CLIPVisionConfig:
    return CLIPVisionConfig(**raw.get("vision_config", raw))


def _read_language(folder: Path, raw: dict) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers' checks of a field are of many kinds
        why = " ".join(str(error).split())
        raise LayoutError(f"config.json of {folder.name} cannot be used: {why[:200]}") from error


NAVIT = Family(
    name="siglip_navit",
    model_types=("videollama3_vision_encoder",),
    pairs=prefixed(ENCODER, "", "vision."),
    read_config=_read_vision,
)
# The hub's SigLIP nests its vision half, a vision model saved on its own does not. Its fixed
# positions, pooling head and text half have no place in the encoder.
_SIGLIP_ONLY = ("embeddings.position_embedding.*", "embeddings.position_ids", "head.*")
SIGLIP = Family(
    name="siglip",
    model_types=("siglip", "siglip_vision_model"),
    pairs=(*prefixed(ENCODER, "vision_model.", "vision."), *NAVIT.pairs),
    dropped=(
        *_SIGLIP_ONLY,
        *(f"vision_model.{name}" for name in _SIGLIP_ONLY),
        "text_model.*",
        "logit_scale",
        "logit_bias",
    ),
    read_config=_read_vision,
)
_CLIP_ONLY = ("embeddings.position_ids",)
CLIP = Family(
    name="clip",
    model_types=("clip", "clip_vision_model"),
    pairs=(("vision_model.*", "vision.tower.*"), ("*", "vision.tower.*")),
    dropped=(
        *_CLIP_ONLY,
        *(f"vision_model.{name}" for name in _CLIP_ONLY),
        "text_model.*",
        "text_projection.*",
        "visual_projection.*",
        "logit_scale",
    ),
    read_config=_read_clip,
)
# Whatever transformers knows as a causal language model; vl3.families.detect asks it.
LANGUAGE = Family(
    name="language model", model_types=(), pairs=(("*", "language.*"),), read_config=_read_language
)
