"""A model to a folder that others can load: the official layout, transformers' own, or ours."""

from __future__ import annotations

import json
from dataclasses import asdict
from errno import ENOTDIR
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import save_torch_state_dict
from transformers.core_model_loading import revert_weight_conversion

from vl3 import families
from vl3.arguments import did_you_mean, instance, shown
from vl3.families.layouts import Family, LayoutError, read_json
from vl3.families.settings import ProcessorSettings
from vl3.hf.chat_template import chat_template
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor

KINDS = tuple(families.EXPORTS)


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
    family = families.export_family(kind, model.config)
    files = family.write(model.config, processor) if family.write else {}
    folder = _made(folder)
    if kind == "own":
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return ()
    save_torch_state_dict(_named(model, family), folder, max_shard_size="5GB")
    processor.tokenizer.save_pretrained(folder)
    _write(folder, "generation_config.json", model.generation_config.to_diff_dict())
    for name, content in files.items():
        _write(folder, name, content)
    _plain_tokenizer(folder, family)
    template = chat_template(kind, system_prompt=processor.settings.system_prompt)
    if family not in families.EXPORTS.values():
        pass  # VideoLLaMA 2 reads the template of its tokenizer
    elif kind == "official":
        _write(folder, "chat_template.json", {"chat_template": template})
    else:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return tuple(_lost(processor.settings, folder, kind))


def _lost(settings: ProcessorSettings, folder: Path, layout: str) -> list[str]:
    """Settings of how clips are seen that the layout has no words for."""
    there = asdict(families.read_settings(folder, patch=settings.patch))
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


def _named(model, family: Family) -> dict[str, torch.Tensor]:
    """The weights under the family's names, a tied head once; experts, which transformers joins,
    each by itself as they are saved."""
    tied, inner = model.config.tie_word_embeddings, "language."
    weights = model.state_dict()
    own = {
        name.removeprefix(inner): weights.pop(name)
        for name in list(weights)
        if name.startswith(inner)
    }
    if tied:
        own.pop("lm_head.weight", None)
    saved = revert_weight_conversion(model.language, own)
    weights |= {inner + name: tensor for name, tensor in saved.items()}
    named = {family.there(name): _alone(tensor) for name, tensor in weights.items()}
    for there, name in family.copies(model.config).items():
        named[there] = weights[name].clone()
    return named


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with a memory of its own, as a file needs it."""
    is_part = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if is_part else tensor.contiguous()


def _write(folder: Path, name: str, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    (folder / name).write_text(text + "\n", encoding="utf-8")


def _plain_tokenizer(folder: Path, family: Family) -> None:
    """Names the tokenizer class that the layout uses, which any transformers version knows."""
    config = cast(dict, read_json(folder, "tokenizer_config.json"))
    _write(folder, "tokenizer_config.json", config | {"tokenizer_class": family.tokenizer})
