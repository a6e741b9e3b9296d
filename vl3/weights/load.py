"""One door for every checkpoint: a path or hub id to a model that can answer, and its processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vl3.arguments import shown
from vl3.bundled import MODELS, NANO
from vl3.families import read_config, read_settings
from vl3.families.layouts import LayoutError
from vl3.families.settings import CONFIG_FILE
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.weights.adapters import (
    add_adapter,
    check_base,
    display_name,
    find_base,
    is_adapter,
    read_base,
)
from vl3.weights.hub import resolve
from vl3.weights.number_format import pick_dtype
from vl3.weights.quantize import bnb as quantization
from vl3.weights.quantize.int8_rows import quantize_remaining


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A model ready to answer, and where it came from."""

    model: VL3ForConditionalGeneration
    processor: VL3Processor
    name: str
    folder: Path
    adapter: str | None
    quantized: quantization.Quantized | None

    @property
    def is_nano(self) -> bool:
        return self.folder == NANO

    @property
    def path(self) -> str:
        """By which it is loaded again: its folder, or the name of a bundled model."""
        names = {folder: name for name, folder in MODELS.items()}
        return names.get(self.folder, str(self.folder))


def load(
    name: str | Path | None = None,
    *,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    quantize: str | None = None,
    adapter: str | Path | None = None,
    offline: bool = False,
) -> Loaded:
    """A checkpoint of any whole-model layout, on the device, in evaluation mode.

    dtype "auto" is bfloat16 on a GPU and float32 on a CPU up to 500 M parameters; above, what the
    processor computes faster (vl3.weights.number_format).
    quantize: None or one of vl3.weights.quantize.bnb.KINDS; adapter: a peft folder, or a run that
    trained one, applied to the loaded model. Where name itself is such a folder, its base is loaded
    as it was for training.
    Raises: LayoutError, ValueError or ImportError in one sentence.
    """
    folder = resolve(name, offline=offline)
    if is_adapter(folder):
        if adapter is not None:
            raise LayoutError(
                f"{display_name(folder)} is itself an adapter; load it alone, or its base as the "
                "model"
            )
        adapter, folder = folder, find_base(folder, offline=offline)
        quantize = quantize or read_base(adapter).quantize
    if adapter is not None:
        adapter = resolve(adapter, offline=offline)
        check_base(adapter, folder)
    target = pick_device(device)
    config = read_config(folder)
    kind = pick_dtype(dtype, target, count_parameters(config), quantize)
    extra = {"quantization_config": quantization.settings(quantize, kind)} if quantize else {}
    model = VL3ForConditionalGeneration.from_pretrained(
        folder, config=config, dtype=kind, device_map={"": target}, **extra
    )
    if quantize:
        quantization.use_cpu_kernels(model)
    processor = VL3Processor.from_pretrained(folder)
    if adapter is not None:
        add_adapter(model, adapter)
        if (adapter / CONFIG_FILE).is_file():
            processor.settings = read_settings(adapter, patch=config.vision_config.patch_size)
    rounded = quantize_remaining(model) if quantize == "nf4+int8" else ()
    if quantize and target.type == "cpu":
        _unmap_weights(model)
    return Loaded(
        model=model.eval(),
        processor=processor,
        name=Path(name).name if name and Path(name).is_dir() else str(name or "nano"),
        folder=folder,
        adapter=str(adapter) if adapter else None,
        quantized=quantization.inspect(model, quantize, rounded) if quantize else None,
    )


def _unmap_weights(model: VL3ForConditionalGeneration) -> None:
    """Copies the weights that were not quantized.

    On a CPU they are mapped from their files, each of which stays in memory as a whole for them.
    """
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.clone()


def pick_device(device: str | torch.device) -> torch.device:
    """The device asked for; "auto" takes CUDA, then Apple's GPU, then the CPU.

    Raises: ValueError for one that this machine, or this build of torch, does not have.
    """
    if not isinstance(device, str | torch.device):
        raise ValueError(f"device is auto, cpu, cuda, cuda:1 or mps - got {shown(device)}")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        asked = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"device is auto, cpu, cuda, cuda:1 or mps - got {shown(device)}"
        ) from error
    if asked.type == "cuda" and not torch.cuda.is_available():
        built = "sees no CUDA device" if torch.version.cuda else "is built without CUDA"
        raise ValueError(f"device {asked} is not to be had: this torch {built}; choose cpu or auto")
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ValueError(f"device {asked} is not to be had: there are {count}, counted from cuda:0")
    if asked.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {asked} is not to be had on this machine; choose cpu or auto")
    if asked.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device is auto, cpu, cuda, cuda:1 or mps - got {shown(device)}")
    return asked


def count_parameters(config) -> int:
    """Parameters of a model of these sizes, without building it in memory."""
    with torch.device("meta"):
        return VL3ForConditionalGeneration(config).num_parameters()
