"""DAMO-NLP-SG/VideoLLaMA3-*, as on the hub and as their training writes it; no remote code."""

from __future__ import annotations

from pathlib import Path

from vl3.config import VL3Config
from vl3.connectors import MLPConnector, connector_class
from vl3.families.layouts import Family, Files, LayoutError, prefixed, read_json
from vl3.families.parts import (
    ENCODER,
    PICTURE_STEPS,
    check_normalisation,
    language_config,
    read_encoder,
    write_encoder,
)
from vl3.families.settings import ProcessorSettings
from vl3.families.template import CHATML
from vl3.settings import PruneSettings

_PAIRS = (
    *prefixed(ENCODER, "model.vision_encoder.", "vision."),
    ("model.mm_projector.*", "connector.*"),
    ("lm_head.*", "language.lm_head.*"),
    ("model.*", "language.model.*"),
)
_NESTED = "model.vision_encoder.vision_encoder."  # one level deeper on the training side
# Entries of their config.json that say nothing about the language model.
_FOREIGN = ("vision_encoder_config", "vision_encoder")
_FOREIGN_PREFIXES = (
    "mm_",
    "image_",
    "use_mm",
    "use_token",
    "tokenizer_",
    "is_alignment",
    "num_frames",
    "max_frames",
)


def _read_config(folder: Path, raw: dict) -> VL3Config:
    vision = raw.get("vision_encoder_config")
    if vision is None:
        raise LayoutError(
            f"config.json of {Path(folder).name} has no vision_encoder_config, so the size of its "
            "vision encoder is unknown; use the hub checkpoint or add that entry"
        )
    text = language_config(raw, "qwen2", _FOREIGN, _FOREIGN_PREFIXES)
    return VL3Config(
        vision_config=read_encoder(vision),
        text_config=text,  # type: ignore[arg-type]  # transformers makes a configuration of it
        connector=raw.get("mm_projector_type", "mlp2x_gelu"),
        image_token_id=raw["image_token_index"],
        dtype=raw.get("torch_dtype", raw.get("dtype")),
    )


def _read_settings(folder: Path, processor: dict, patch: int) -> ProcessorSettings:
    images = read_json(folder, "preprocessor_config.json") or {}
    config = read_json(folder, "config.json") or {}
    check_normalisation(images, folder.name)
    return ProcessorSettings(
        patch=images.get("patch_size", patch),
        image_merge=processor.get("image_merge_size", 1),
        video_merge=processor.get("video_merge_size", 2),
        min_tokens=images.get("min_tokens", 16),
        budget_tokens=images.get("max_tokens", 16384),
        fps=processor.get("fps", 1),
        max_frames=processor.get("max_frames", 180),
        prune=PruneSettings() if config.get("use_token_compression", False) else None,
        connector=config.get("mm_projector_type", "mlp2x_gelu"),
    )


def _write(config: VL3Config, processor) -> Files:
    settings = processor.settings
    check_expressible(config, processor.template, "official")
    if config.video_token_id is not None:
        raise LayoutError(
            "this model marks videos with a token of their own, which the official layout does "
            "not have; export to the native layout"
        )
    return {
        "config.json": _config(config, prune=settings.prune is not None),
        "preprocessor_config.json": {
            "image_processor_type": "Videollama3ImageProcessor",
            "processor_class": "Videollama3Qwen2Processor",
            **PICTURE_STEPS,
            "patch_size": settings.patch,
            "min_tokens": settings.min_tokens,
            "max_tokens": settings.budget_tokens,
        },
        "processor_config.json": {
            "processor_class": "Videollama3Qwen2Processor",
            "fps": settings.fps,
            "max_frames": settings.max_frames,
            "image_merge_size": settings.image_merge,
            "video_merge_size": settings.video_merge,
        },
    }


def check_expressible(config: VL3Config, template, layout: str) -> None:
    """Raises LayoutError for a language model, connector or prompt format that it does not have."""
    kind = config.text_config.model_type
    if kind != "qwen2":
        raise LayoutError(
            f"the {layout} layout holds a Qwen2 language model, and this one is {kind}; export to "
            "the own layout"
        )
    if config.audio_config is not None:
        raise LayoutError(
            f"the {layout} layout has no ear, which this model has; export to the own layout"
        )
    if connector_class(config.connector) is not MLPConnector:
        raise LayoutError(
            f"the {layout} layout has no connector {config.connector}, which this model has; "
            "export to the own layout"
        )
    if template != CHATML:
        raise LayoutError(
            f"the {layout} layout has the prompt format of VideoLLaMA3, and this model another; "
            "export to the own layout"
        )


def _config(config: VL3Config, *, prune: bool) -> dict:
    """Their config.json for a model of ours."""
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    text.pop("layer_types", None)
    return text | {
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        "model_type": "videollama3_qwen2",
        "auto_map": {
            "AutoConfig": "configuration_videollama3.Videollama3Qwen2Config",
            "AutoModel": "modeling_videollama3.Videollama3Qwen2Model",
            "AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM",
        },
        "rope_theta": rope.get("rope_theta", 1e6),
        "rope_scaling": None,
        "image_token_index": config.image_token_id,
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": config.connector,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -1,
        "use_mm_proj": True,
        "use_token_compression": prune,
        "vision_encoder": None,
        "vision_encoder_config": {
            "model_type": "videollama3_vision_encoder",
            **write_encoder(config.vision_config),
        },
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
    }


OFFICIAL = Family(
    name="official",
    model_types=("videollama3_qwen2",),
    pairs=_PAIRS,
    read_config=_read_config,
    read_settings=_read_settings,
    write=_write,
)
OFFICIAL_TRAINING = Family(
    name="official training side",
    model_types=OFFICIAL.model_types,
    pairs=(*prefixed(ENCODER, _NESTED, "vision."), *_PAIRS),
    is_ours=lambda names: any(name.startswith(_NESTED) for name in names),
    read_config=_read_config,
    read_settings=_read_settings,
)
