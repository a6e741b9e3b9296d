"""A trained result as one folder that needs nothing else, checked by what the model says.

Adapters are merged into their base in float32, the weights written in the format asked for, the
folder read back by the program it is for. The logits for a bundled clip are compared after each of
the two steps; a folder that says something else is not left behind.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from safetensors import safe_open
from transformers import BatchFeature

from vl3.bundled import CLIPS
from vl3.families import read_config
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.weights.adapters import (
    WHOLE_FILE,
    add_adapter,
    display_name,
    find_base,
    is_adapter,
    read_base,
)
from vl3.weights.export import export
from vl3.weights.hub import resolve
from vl3.weights.load import Loaded, count_parameters, load
from vl3.weights.quantize.bnb import dequantized

CLIP = CLIPS / "three_shapes.mp4"
FRAMES = 8

# The largest difference of a logit that is still the same model, as a share of the standard
# deviation of all logits, and why it is not zero. Measured on nano: 4e-6 merged, 0.04 from int8;
# written 0 in float32, 0.01 in float16, 0.02 in bfloat16. A tiny adapter left out: 0.12; one of
# its layers left out: 0.004.
MERGED = {
    None: (1e-3, "sums are taken in another order"),
    "nf4": (1e-3, "sums are taken in another order"),
    "int8": (0.1, "8-bit layers round their inputs as well, merged ones do not"),
}
WRITTEN = {
    "float32": (1e-3, "sums are taken in another order"),
    "float16": (2e-2, "weights are rounded to 11 binary digits"),
    "bfloat16": (1e-1, "weights are rounded to 8 binary digits"),
}


class Differs(RuntimeError):
    """What was made says something else than what it was made from."""


@dataclass(frozen=True, slots=True)
class Check:
    """Two models compared on one prompt with a clip.

    largest: difference of two logits, spread: standard deviation of the first one's logits;
    agreement: share of positions with the same most likely token;
    tolerance: of largest, as a share of spread, and the reason why it is not zero
    """

    step: str
    largest: float
    spread: float
    agreement: float
    tolerance: float
    reason: str

    @property
    def passed(self) -> bool:
        return self.largest <= self.tolerance * self.spread

    def __str__(self) -> str:
        return (
            f"{self.step}: logits differ by at most {self.largest:.2g} of a spread of "
            f"{self.spread:.2g}, the most likely token is the same at {100 * self.agreement:.1f} % "
            f"of the positions (allowed: {self.tolerance * self.spread:.2g}; {self.reason})"
        )


@dataclass(frozen=True, slots=True)
class Written:
    """The folder that was written, in words and numbers."""

    folder: str
    layout: str
    dtype: str
    source: str
    base: str | None
    notes: tuple[str, ...]
    checks: tuple[Check, ...]


def export_checked(
    source: str | Path | None,
    folder: Path,
    layout: str = "own",
    *,
    dtype: str | None = None,
    adapter: str | Path | None = None,
    offline: bool = False,
) -> Written:
    """Writes a run, a checkpoint or any model, adapters merged, to a folder of its own.

    layout: one of vl3.weights.export.KINDS; dtype: one of WRITTEN, by default that of the base
    Raises: FileExistsError, LayoutError, MemoryError or Differs, in one sentence; then there is no
    folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; choose another folder")
    _check_memory(source, offline)
    loaded = load(source, device="cpu", dtype="float32", adapter=adapter, offline=offline)
    stored = getattr(torch, dtype) if dtype else read_config(loaded.folder).dtype
    kind = str(stored or torch.float32).removeprefix("torch.")
    inputs, checks, notes = prompt(loaded.processor), [], _notes(loaded)
    model, said = loaded.model, logits(loaded.model, inputs)
    if loaded.adapter:
        model = merged(loaded)
        before, said = said, logits(model, inputs)
        tolerance = MERGED[loaded.quantized.kind if loaded.quantized else None]
        checks.append(compare("merged", before, said, *tolerance))
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _refuse(checks)
        _set_dtype(model, getattr(torch, kind))
        notes += export(model, loaded.processor, partial, layout)
        notes += _seen(inputs, prompt(VL3Processor.from_pretrained(partial)))
        name, base = loaded.name, str(loaded.folder) if loaded.adapter else None
        slots_BL = model.slots(inputs["input_ids"])
        del model, loaded  # the weights that are read back need the room
        after = read_back(partial, layout, inputs, slots_BL)
        checks.append(compare("written", said, after, *WRITTEN[kind]))
        _refuse(checks)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Written(str(folder), layout, kind, name, base, tuple(notes), tuple(checks))


def merged(loaded: Loaded) -> VL3ForConditionalGeneration:
    """The model with its adapter folded into its linear layers, none of them quantized."""
    model = loaded.model
    if loaded.quantized:
        weights = dequantized(model)
        model = load(loaded.folder, device="cpu", dtype="float32").model
        for name, weight in weights.items():
            cast(torch.Tensor, model.get_submodule(name).weight).data.copy_(weight)
        add_adapter(model, Path(cast(str, loaded.adapter)))
    return fold(model)


def fold(model: VL3ForConditionalGeneration) -> VL3ForConditionalGeneration:
    """The same model, each adapted layer replaced by a plain one that gives the same."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)}
    if "language.lm_head" in adapted and model.config.tie_word_embeddings:
        _untie(model, adapted["language.lm_head"].get_base_layer())
    for name, layer in adapted.items():
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model


def _untie(model: VL3ForConditionalGeneration, head: Any) -> None:
    """Gives the output head its own weights: what is merged there is not for the embeddings."""
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False


def prompt(processor: VL3Processor) -> BatchFeature:
    """A question about the bundled clip, as the model takes it."""
    parts = [
        {"type": "video", "video": {"path": str(CLIP), "max_frames": FRAMES}},
        {"type": "text", "text": "What happens in the video?"},
    ]
    return processor([{"role": "user", "content": parts}], add_generation_prompt=True)


@torch.no_grad()
def logits(model: VL3ForConditionalGeneration, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What the model expects after each token of the prompt, [L, V] float32."""
    return model(**inputs, use_cache=False).logits[0].float()


def read_back(
    folder: Path, layout: str, inputs: Mapping[str, torch.Tensor], slots_BL: torch.Tensor
) -> torch.Tensor:
    """The logits of a written folder: of transformers' own class for its layout, else of ours."""
    if layout == "native":
        return native_logits(folder, inputs, slots_BL)
    return logits(load(folder, device="cpu", dtype="float32").model, inputs)


@torch.no_grad()
def native_logits(
    folder: Path, inputs: Mapping[str, torch.Tensor], slots_BL: torch.Tensor
) -> torch.Tensor:
    """The logits of transformers' VideoLlama3ForConditionalGeneration for our inputs."""
    from transformers import VideoLlama3ForConditionalGeneration

    model = VideoLlama3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    output = model(
        input_ids=inputs["input_ids"].masked_fill(slots_BL, model.config.video_token_id),
        attention_mask=inputs["attention_mask"],
        pixel_values_videos=inputs["pixel_values"].float() / 127.5 - 1,
        video_grid_thw=inputs["grid_thw"],
        video_merge_sizes=inputs["merge_sizes"],
        video_compression_mask=inputs["keep_mask"],
        use_cache=False,
    )
    return output.logits[0].float()


def compare(
    step: str, before_LV: torch.Tensor, after_LV: torch.Tensor, tolerance: float, reason: str
) -> Check:
    """How far two models' logits for one prompt are apart."""
    same = before_LV.argmax(-1) == after_LV.argmax(-1)
    return Check(
        step=step,
        largest=(before_LV - after_LV).abs().max().item(),
        spread=before_LV.std().item(),
        agreement=same.float().mean().item(),
        tolerance=tolerance,
        reason=reason,
    )


def _refuse(checks: list[Check]) -> None:
    if failed := [check for check in checks if not check.passed]:
        raise Differs(f"the result is not the same model and was not kept - {failed[0]}")


def _notes(loaded: Loaded) -> list[str]:
    """What was made of base and adapter, in words."""
    if not loaded.adapter:
        return []
    adapter = Path(loaded.adapter)
    trained_on = read_base(adapter).quantize
    if loaded.quantized:
        base = f"dequantized from {trained_on}, the weights that the adapter was trained on"
    elif trained_on:
        base = f"loaded whole, while the adapter was trained on it in {trained_on}"
    else:
        base = "loaded whole, as for training"
    notes = [f"The base is {base}; merged in float32."]
    if (adapter / WHOLE_FILE).is_file():
        with safe_open(adapter / WHOLE_FILE, "pt") as tensors:
            modules = sorted({name.split(".")[0] for name in tensors.keys()})  # noqa: SIM118
        if modules:
            notes.append(f"Trained whole beside the adapter, and included: {', '.join(modules)}.")
    return notes


def _seen(here: BatchFeature, there: BatchFeature) -> list[str]:
    """What the folder's own settings make of the bundled clip, where it is something else."""
    if all(torch.equal(tensor, there[name]) for name, tensor in here.items()):
        return []
    figures = [
        f"{len(inputs['keep_mask'])} visual tokens, {int(inputs['keep_mask'].sum())} kept"
        for inputs in (here, there)
    ]
    return [
        f"With the settings that the folder holds, the bundled clip is {figures[1]}, where this "
        f"model takes {figures[0]}: its answers there are not the ones here."
    ]


def _set_dtype(model: VL3ForConditionalGeneration, dtype: torch.dtype) -> None:
    """The weights in that format, and a configuration that says so."""
    model.to(dtype)  # type: ignore[arg-type]  # its decorator hides the method
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = dtype


def _check_memory(name: str | Path | None, offline: bool) -> None:
    """Raises MemoryError before the work where the weights in float32 will not fit."""
    folder = resolve(name, offline=offline)
    base = find_base(folder, offline=offline) if is_adapter(folder) else folder
    needed = 4 * count_parameters(read_config(base))
    free = psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"merging and comparing {display_name(folder)} in float32 needs {needed / 1e9:.0f} GB "
            f"of memory, and {free / 1e9:.0f} GB are free; use a machine with more"
        )
