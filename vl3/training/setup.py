"""The model and processor a recipe starts from: loaded, frozen where nothing trains, adapted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.checkpoint import checkpoint
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from vl3.language.layers import decoder_layers, linear_names, name_of
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.settings import PruneSettings
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.nano import init
from vl3.training.nano.sound_loss import SoundLoss
from vl3.training.nano.source_loss import SourceLoss
from vl3.training.nano.spatial_loss import SpatialLoss
from vl3.training.nano.temporal_loss import TemporalLoss
from vl3.training.ranges import HEARING, MODULES
from vl3.training.recipe import Adapter, Recipe
from vl3.training.remember import Remember
from vl3.vision.towers import is_tower
from vl3.weights.assemble import assemble, renew_connector
from vl3.weights.ears import add_ear, load_ear
from vl3.weights.hub import resolve
from vl3.weights.load import load
from vl3.weights.number_format import LARGE, bfloat16_time

MLP = "mlp2x_gelu"  # the connector where none is named
# Linear layers of the vision encoder, which adapters go into.
TARGETS = {
    "vision": r"vision\.blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.fc[12])",
}
TOWER = r"vision\.tower\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])"


def adapter_targets(model: VL3ForConditionalGeneration) -> dict[str, str]:
    """Regular expressions for the linear layers of each module that adapters go into.

    Of the language model all inside its layers, whatever they are called; experts that are kept as
    one tensor have none.
    """
    layers = decoder_layers(model.language)
    body, head = (
        re.escape(name_of(model, part)) for part in (layers, model.get_output_embeddings())
    )
    whole = {
        name: rf"{name}\.({_either([module])})"
        for name in ("connector", *HEARING)
        if (module := getattr(model, name)) is not None
    }
    vision = {"vision": TOWER} if is_tower(model.config.vision_config) else TARGETS
    return vision | whole | {"language": rf"{body}\.\d+\.({_either(layers)})", "words": head}


def _either(parts: Iterable[torch.nn.Module]) -> str:
    """What matches the names, within each part, of its linear layers."""
    return "|".join(map(re.escape, linear_names(parts)))


def compute_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The format of the arithmetic: bfloat16 where the device computes it faster than float32."""
    if wanted != "auto":
        return getattr(torch, wanted)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if device.type == "cpu" and bfloat16_time() <= 1 else torch.float32


def prepare(
    recipe: Recipe, device: torch.device, fresh: bool = True
) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """The model on the device, ready to train, and its processor with the recipe's settings.

    What trains is float32; what is frozen has the format of the arithmetic.
    fresh: False where a checkpoint's weights follow, for which nothing is trained here
    """
    kind = compute_dtype(recipe.dtype, device)
    model, processor = _start(recipe, device, kind, fresh)
    check_window(recipe, model.config.text_config)
    processor.settings = settings_for(recipe, processor)
    model.requires_grad_(False)
    if recipe.adapter:
        add_adapter(model, recipe.adapter)
    for name in MODULES:
        if getattr(recipe.rates, name):
            getattr(model, name).requires_grad_(True).float()
        if name in recipe.checkpointing:
            if getattr(model, name) is None:
                raise ValueError(f"checkpointing: this model has no {name}; leave it out")
            checkpoint_blocks(getattr(model, name))
    return model.train(), processor


def arguments(recipe: Recipe, out: Path, steps: int, device: torch.device) -> TrainingArguments:
    """transformers' arguments of a recipe; what we do ourselves is switched off there."""
    return TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=1,
        ignore_data_skip=True,
        max_grad_norm=recipe.optim.clip,
        bf16=compute_dtype(recipe.dtype, device) == torch.bfloat16,
        use_cpu=device.type == "cpu",
        eval_strategy="steps" if recipe.evaluate.every else "no",
        eval_steps=recipe.evaluate.every,
        save_strategy="steps",
        save_steps=recipe.save_every,
        logging_steps=recipe.log_every,
        logging_first_step=True,
        report_to=recipe.report_to,
        seed=recipe.seed,
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=False,
    )


def auxiliary_losses(recipe: Recipe, processor: VL3Processor) -> list[AuxiliaryLoss]:
    """The losses beside that of the answers which the recipe asks for."""
    found: list[AuxiliaryLoss] = []
    if recipe.nano.temporal_loss:
        found.append(TemporalLoss(processor.tokenizer))
    if images := recipe.nano.spatial_images:
        found.append(SpatialLoss(processor.tokenizer, images, f"{recipe.seed} sight {recipe.name}"))
    if sounds := recipe.nano.sounds:
        found.append(SoundLoss(processor, sounds, f"{recipe.seed} hearing {recipe.name}"))
    if clips := recipe.nano.sources:
        found.append(SourceLoss(processor, clips, f"{recipe.seed} sources {recipe.name}"))
    if recipe.remember:
        found.append(Remember(processor, recipe.remember, f"{recipe.seed} remember"))
    return found


def check_window(recipe: Recipe, text) -> None:
    """Raises ValueError for rows longer than what a layer of the language model sees.

    Samples that share a row are kept apart by a mask for all layers, which has no window.
    """
    kinds = set(getattr(text, "layer_types", None) or ("sliding_attention", "chunked_attention"))
    windows = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    found = [getattr(text, name, None) for kind, name in windows.items() if kind in kinds]
    window = min((size for size in found if size is not None), default=None)
    if window is not None and recipe.batch.max_tokens > window:
        raise ValueError(
            f"layers of this language model see the last {window} tokens only, and rows of "
            f"{recipe.batch.max_tokens} are trained without a window; set batch.max_tokens to "
            f"{window} or less"
        )


def _start(recipe: Recipe, device: torch.device, kind: torch.dtype, fresh: bool):
    start = recipe.start
    if start.nano:
        model, processor = init.untrained(recipe.seed)
        init.train_encoder(model, processor, recipe.nano.encoder_steps if fresh else 0, recipe.seed)
        return model, _with_ear(recipe, model, processor, fresh)
    if start.vision:
        vision, language = resolve(start.vision), resolve(start.language)
        kept: dict[str, Any] = {"tower": start.tower, "dtype": kind, "seed": recipe.seed}
        model, processor = assemble(vision, language, connector=start.connector or MLP, **kept)
    else:
        loaded = load(start.model, device=str(device), dtype=kind, quantize=start.quantize)
        model, processor = loaded.model, loaded.processor
        # Adapters remember it, wherever they are used from.
        is_here = Path(cast(str, start.model)).is_dir()
        model.name_or_path = str(loaded.folder.resolve()) if is_here else start.model
        if loaded.adapter:
            raise ValueError(
                f"{start.model} is an adapter; merge it first with python -m train_cli export "
                "--merge-adapters, or resume its run"
            )
        if start.connector:
            processor = renew_connector(model, processor, start.connector, recipe.seed)
    processor = _with_ear(recipe, model, processor, fresh)
    if device.type == "cpu" and model.num_parameters() < LARGE:
        plain_attention(model)
    return model.to(device), processor  # type: ignore[arg-type]  # its decorator hides the method


def _with_ear(
    recipe: Recipe, model: VL3ForConditionalGeneration, processor: VL3Processor, fresh: bool
):
    """The processor of the model, which gets the ear that the recipe starts from.

    Raises: ValueError for rates of an ear that is not there.
    """
    if recipe.start.ear:
        if model.ear is not None:
            raise ValueError("start.ear: this model has an ear already; set it to null")
        add = init.add_nano_ear if recipe.nano.sound_words else add_ear
        processor = add(model, processor, load_ear(recipe.start.ear, recipe.seed))
    if recipe.nano.ear_steps:
        init.train_ear(model, processor, recipe.nano.ear_steps if fresh else 0, recipe.seed)
    for name in ("ear", "audio_connector"):
        if getattr(recipe.rates, name) and model.ear is None:
            raise ValueError(f"rates.{name}: this model has no ear; name one under start.ear")
    return processor


def plain_attention(model: VL3ForConditionalGeneration) -> None:
    """Attention without the fused kernel, whose backward pass is slower at small sizes on a CPU."""
    model.set_attn_implementation("eager")


def settings_for(recipe: Recipe, processor: VL3Processor):
    media = recipe.media
    chosen: dict[str, Any] = {
        name: value
        for name in ("fps", "max_frames", "image_merge", "video_merge", "frame_tokens")
        if (value := getattr(media, name)) is not None
    }
    if media.fit is not None:
        if processor.settings.square is None:
            raise ValueError(
                "media.fit is of models whose vision tower sees squares of one size, and this one "
                "takes pictures of any size; leave it out"
            )
        chosen["square"] = replace(processor.settings.square, fit=media.fit)
    if media.prune is not None:
        own = processor.settings.prune or PruneSettings()
        chosen["prune"] = own if media.prune else None
    if (heard := processor.settings.sound) is not None:
        sound = {"hear": media.sound, "tokens": media.sound_tokens, "order": media.sound_order}
        asked: dict[str, Any] = {name: value for name, value in sound.items() if value is not None}
        chosen["sound"] = replace(heard, **asked)
    elif media.sound:
        raise ValueError("media.sound: this model has no ear; name one under start.ear")
    return replace(processor.settings, **chosen)


def add_adapter(model: VL3ForConditionalGeneration, adapter: Adapter) -> None:
    """Puts untrained low-rank adapters beside the linear layers of the modules, in float32.

    Beside layers in bfloat16 peft makes them in bfloat16, where small steps are rounded away.
    """
    from peft import LoraConfig

    if "connector" in adapter.on and not linear_names([model.connector]):
        raise ValueError(
            f"the connector {model.config.connector} has no linear layer for an adapter; take "
            "connector out of adapter.on, or train it whole by rates.connector"
        )
    targets = adapter_targets(model)
    if missing := [name for name in adapter.on if name not in targets]:
        raise ValueError(f"adapter.on: this model has no {missing[0]}; leave it out")
    model.add_adapter(
        LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            use_dora=adapter.kind == "dora",
            target_modules="|".join(f"(?:{targets[name]})" for name in adapter.on),
        )
    )
    for param in model.parameters():
        if param.requires_grad:
            param.data = param.data.float()


def checkpoint_blocks(module: torch.nn.Module) -> None:
    """Keeps only the input of each block of the module; the backward pass computes it again."""
    for block in module.modules():
        if isinstance(block, GradientCheckpointingLayer):
            layer: Any = block
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
