"""A model to a folder that others can load: the official layout, transformers' own, or ours."""

from __future__ import annotations

import json
from dataclasses import asdict
from errno import ENOTDIR
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import save_torch_state_dict

from vl3.arguments import did_you_mean, instance, shown
from vl3.families import layouts
from vl3.families.layouts import NATIVE, OFFICIAL, LayoutError
from vl3.families.settings import ProcessorSettings, read_settings
from vl3.hf.chat_template import NATIVE_IMAGE, NATIVE_VIDEO, chat_template
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor

KINDS = ("own", "official", "native")


def export(
    model, processor: VL3Processor, folder: str | Path, kind: str = "own"
) -> tuple[str, ...]:
    """Writes model, processor and tokenizer to folder in one of the layouts of KINDS.

    Returns what the layout has no words for, a sentence each: settings of how clips are seen.

    "native" loads with transformers' VideoLlama3ForConditionalGeneration and gives the same
    logits; "official" has the tensor names and config.json of the released checkpoints, whose
    Python files are not part of it.
    Raises: LayoutError for a quantized model, an adapter, or what a layout cannot express.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise LayoutError(
            f"no layout {shown(kind)}; choose {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
        )
    if getattr(model, "quantization_method", None) is not None:
        raise LayoutError("a quantized model cannot be exported; load it without quantize first")
    if getattr(model, "_hf_peft_config_loaded", False):
        raise LayoutError("a model with an adapter cannot be exported; merge the adapter first")
    instance("model", model, VL3ForConditionalGeneration, "a VL3ForConditionalGeneration")
    instance("processor", processor, VL3Processor, "a VL3Processor")
    folder = _made(folder)
    if kind == "own":
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return ()
    layout = OFFICIAL if kind == "official" else NATIVE
    config = _official(model, processor) if kind == "official" else _native(model, processor)
    save_torch_state_dict(_named(model, layout), folder, max_shard_size="5GB")
    processor.tokenizer.save_pretrained(folder)
    _write(folder, "generation_config.json", model.generation_config.to_diff_dict())
    for name, content in config.items():
        _write(folder, name, content)
    _plain_tokenizer(folder)
    template = chat_template(kind, system_prompt=processor.settings.system_prompt)
    if kind == "official":
        _write(folder, "chat_template.json", {"chat_template": template})
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return tuple(_lost(processor.settings, folder, kind))


def _lost(settings: ProcessorSettings, folder: Path, layout: str) -> list[str]:
    """Settings of how clips are seen that the layout has no words for."""
    there = asdict(read_settings(folder, patch=settings.patch))
    lost = {n: value for n, value in asdict(settings).items() if there[n] != value}
    notes = []
    if lost:
        named = ", ".join(f"{name} {value} (there {there[name]})" for name, value in lost.items())
        notes.append(f"The {layout} layout cannot say how this model sees clips in full: {named}.")
    if layout == "native":
        notes.append(
            "transformers' own processor takes every frame of a video unless it is asked for fps "
            f"or num_frames; this model sees {settings.fps:g} a second, so pass "
            f"fps={settings.fps:g}."
        )
    return notes


def _made(folder: str | Path) -> Path:
    """The folder, made where there is none. Raises: LayoutError."""
    instance("folder", folder, str | Path, "a folder to write to")
    try:
        if not str(folder):
            raise NotADirectoryError(ENOTDIR, "it has no name")
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise LayoutError(
            f"nothing can be written to {shown(str(folder))}: {why}; choose another folder"
        ) from error
    return Path(folder)


def _named(model, layout) -> dict[str, torch.Tensor]:
    """The weights under the layout's names, a tied head once."""
    tied = model.config.tie_word_embeddings
    return {
        layout.there(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if not (tied and name == "language.lm_head.weight")
    }


def _official(model, processor: VL3Processor) -> dict[str, dict]:
    settings = processor.settings
    if model.config.video_token_id is not None:
        raise LayoutError(
            "this model marks videos with a token of their own, which the official layout does "
            "not have; export to the native layout"
        )
    return {
        "config.json": layouts.official_config(model.config, prune=settings.prune is not None),
        "preprocessor_config.json": {
            "image_processor_type": "Videollama3ImageProcessor",
            "processor_class": "Videollama3Qwen2Processor",
            **_picture_steps(),
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


def _native(model, processor: VL3Processor) -> dict[str, dict]:
    settings, tokenizer = processor.settings, processor.tokenizer
    ids = {}
    for name in (NATIVE_IMAGE, NATIVE_VIDEO):
        ids[name] = tokenizer.get_vocab().get(name)
        if ids[name] is None:
            raise LayoutError(
                f"the tokenizer has no {name}, which transformers' video_llama_3 marks visual "
                "tokens with; export to the official layout"
            )
    config = layouts.native_config(
        model.config, image_token_id=ids[NATIVE_IMAGE], video_token_id=ids[NATIVE_VIDEO]
    )
    shared = _picture_steps() | {"patch_size": settings.patch, "temporal_patch_size": 1}

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
        # No fps: the class then refuses num_frames, which transformers serve sends. Whoever asks
        # for fps or num_frames gets frames sampled; NOT_HELD says so.
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
    return {"config.json": config, "processor_config.json": processors}


def _picture_steps() -> dict:
    half = [0.5, 0.5, 0.5]
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
    }


def _write(folder: Path, name: str, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def _plain_tokenizer(folder: Path) -> None:
    """Names the tokenizer class that both layouts use, which any transformers version knows."""
    config = cast(dict, layouts.read_json(folder, "tokenizer_config.json"))  # just written
    _write(folder, "tokenizer_config.json", config | {"tokenizer_class": "Qwen2Tokenizer"})
