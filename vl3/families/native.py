"""transformers' own video_llama_3."""

from __future__ import annotations

from pathlib import Path

from vl3.config import VL3Config
from vl3.families.layouts import Family, Files, LayoutError, prefixed
from vl3.families.parts import (
    ENCODER,
    PICTURE_STEPS,
    check_normalisation,
    read_encoder,
    write_encoder,
)
from vl3.families.settings import CONFIG_FILE, ProcessorSettings
from vl3.families.template import NATIVE_IMAGE, NATIVE_VIDEO
from vl3.families.videollama3 import check_expressible
from vl3.settings import PruneSettings


def _read_config(folder: Path, raw: dict) -> VL3Config:
    return VL3Config(
        vision_config=read_encoder(raw["vision_config"]),
        text_config=raw["text_config"],
        image_token_id=raw["image_token_id"],
        video_token_id=raw["video_token_id"],
        dtype=raw.get("dtype"),
    )


def _read_settings(folder: Path, processor: dict, patch: int) -> ProcessorSettings:
    images, videos = processor["image_processor"], processor["video_processor"]
    check_normalisation(videos, CONFIG_FILE)
    side = videos["patch_size"] * videos["merge_size"]
    return ProcessorSettings(
        patch=videos.get("patch_size", patch),
        image_merge=images["merge_size"],
        video_merge=videos["merge_size"],
        budget_tokens=videos["size"]["longest_edge"] // side**2,
        fps=videos.get("fps") or 1,
        max_frames=videos.get("max_frames") or 180,
        prune=PruneSettings() if videos.get("use_token_compression") else None,
    )


def _write(config: VL3Config, processor) -> Files:
    settings, vocabulary = processor.settings, processor.tokenizer.get_vocab()
    check_expressible(config, processor.template, "native")
    for name in (NATIVE_IMAGE, NATIVE_VIDEO):
        if name not in vocabulary:
            raise LayoutError(
                f"the tokenizer has no {name}, which transformers' video_llama_3 marks visual "
                "tokens with; export to the official layout"
            )
    if config.connector != "mlp2x_gelu":
        raise LayoutError(
            f"transformers' video_llama_3 has the mlp2x_gelu connector only, this model has "
            f"{config.connector}; export to the official layout instead"
        )
    shared = PICTURE_STEPS | {"patch_size": settings.patch, "temporal_patch_size": 1}

    def edges(merge: int) -> dict:
        per_token = (settings.patch * merge) ** 2
        return {
            "shortest_edge": settings.min_tokens * per_token,
            "longest_edge": settings.budget_tokens * per_token,
        }

    image = shared | {
        "image_processor_type": "VideoLlama3ImageProcessor",
        "merge_size": settings.image_merge,
        "size": edges(settings.image_merge),
    }
    video = shared | {
        "video_processor_type": "VideoLlama3VideoProcessor",
        "merge_size": settings.video_merge,
        "size": edges(settings.video_merge),
        # No fps: the class then refuses num_frames, which transformers serve sends. Who asks
        # for fps or num_frames gets frames sampled; vl3.weights.export says so.
        "max_frames": settings.max_frames,
        "do_sample_frames": False,
        "return_metadata": True,
        "use_token_compression": settings.prune is not None,
    }
    processors = {
        "processor_class": "VideoLlama3Processor",
        "image_processor": image,
        "video_processor": video,
    }
    ids = {"image": vocabulary[NATIVE_IMAGE], "video": vocabulary[NATIVE_VIDEO]}
    return {"config.json": _config(config, ids), "processor_config.json": processors}


def _config(config: VL3Config, ids: dict[str, int]) -> dict:
    return {
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "model_type": "video_llama_3",
        "image_token_id": ids["image"],
        "video_token_id": ids["video"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": config.text_config.to_dict(),
        "vision_config": {
            "model_type": "video_llama_3_vision",
            **write_encoder(config.vision_config),
        },
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
    }


NATIVE = Family(
    name="native",
    model_types=("video_llama_3",),
    pairs=(
        *prefixed(ENCODER, "model.vision_model.", "vision."),
        ("model.projector.*", "connector.*"),
        ("lm_head.*", "language.lm_head.*"),
        ("model.language_model.*", "language.model.*"),
    ),
    read_config=_read_config,
    read_settings=_read_settings,
    write=_write,
)
