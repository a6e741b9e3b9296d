"""Adapters as folders: which base they belong to, whether a model is it, putting them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from vl3.families.layouts import LayoutError, read_json, safetensors_names
from vl3.model import VL3ForConditionalGeneration
from vl3.weights.digest import weights_digest
from vl3.weights.hub import resolve
from vl3.weights.runs import RUN_FILE

ADAPTER_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
WHOLE_FILE = "trained.safetensors"  # modules trained whole beside an adapter


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter was trained on, as far as the adapter says.

    name: folder or hub id; quantize: how it was quantized; digest: of its weights
    """

    name: str | None
    quantize: str | None
    digest: str | None


def is_model(folder: Path) -> bool:
    """Whether the folder holds a model of its own."""
    return (folder / "config.json").is_file()


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no model of its own."""
    return (folder / ADAPTER_FILE).is_file() and not is_model(folder)


def read_base(folder: Path) -> Base:
    """What the adapter in a folder belongs to.

    Raises: LayoutError for a folder that holds no adapter.
    """
    settings = read_json(folder, ADAPTER_FILE)
    if settings is None:
        kind = "a whole model; load it as the model" if is_model(folder) else "no adapter"
        raise LayoutError(f"{display_name(folder)} is {kind}: it has no {ADAPTER_FILE}")
    run = read_json(folder, RUN_FILE) or {}
    return Base(
        name=settings.get("base_model_name_or_path"),
        quantize=run.get("recipe", {}).get("start", {}).get("quantize"),
        digest=(run.get("base") or {}).get("digest"),
    )


def find_base(adapter: Path, *, offline: bool = False) -> Path:
    """The folder of the model that an adapter was trained on.

    Raises: LayoutError where the adapter does not name it, or it cannot be found.
    """
    base = read_base(adapter)
    if not base.name:
        raise LayoutError(
            f"{display_name(adapter)} does not name its base model; load that one with --adapter "
            f"{adapter}"
        )
    try:
        return resolve(base.name, offline=offline)
    except LayoutError as error:
        raise LayoutError(
            f"the base of the adapter {display_name(adapter)} is missing ({error}); where it is "
            f"somewhere else, load it from there with --adapter {adapter}"
        ) from error


def check_base(adapter: Path, folder: Path) -> None:
    """Raises LayoutError where the folder's weights are not those the adapter was trained on.

    An adapter that does not say, and a base whose digest cannot be taken, pass.
    """
    base = read_base(adapter)
    if base.digest and weights_digest(folder) not in (base.digest, None):
        raise LayoutError(
            f"the adapter {display_name(adapter)} was trained on {base.name}, and the weights in "
            f"{display_name(folder)} are others; load it on the model it was trained on"
        )


def add_adapter(model: VL3ForConditionalGeneration, folder: Path) -> None:
    """Puts an adapter into the model, and the modules that were trained whole beside it.

    Raises: LayoutError where the adapter is damaged, or of a model of other sizes.
    """
    from peft import PeftConfig, load_peft_weights, set_peft_model_state_dict

    misfit = LayoutError(
        f"the adapter {display_name(folder)} does not fit this model: it was trained on "
        f"{read_base(folder).name or 'one of other sizes'}"
    )
    _check_weights(folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise LayoutError(
            f"{ADAPTER_FILE} of {display_name(folder)} cannot be used: "
            f"{' '.join(str(error).split())}"
        ) from error
    model.add_adapter(config)
    # Not model.load_adapter, which leaves the magnitudes of DoRA as they were.
    try:
        found: Any = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    except RuntimeError as error:
        raise misfit from error
    own = f"{config.peft_type.value.lower()}_"
    if found.unexpected_keys or any(own in name for name in found.missing_keys):
        raise misfit
    if (folder / WHOLE_FILE).is_file():
        whole, shapes = load_file(folder / WHOLE_FILE), _shapes(model)
        if any(shapes.get(name) != tensor.shape for name, tensor in whole.items()):
            raise misfit
        model.load_state_dict(whole, strict=False)


def _check_weights(folder: Path) -> None:
    """Raises LayoutError where the tensors of an adapter are not there as a whole."""
    if (folder / WEIGHTS_FILE).is_file():
        safetensors_names(folder / WEIGHTS_FILE)
    elif not (folder / "adapter_model.bin").is_file():
        raise LayoutError(
            f"the adapter {display_name(folder)} has no {WEIGHTS_FILE}; copy it there too"
        )
    if (folder / WHOLE_FILE).is_file():
        safetensors_names(folder / WHOLE_FILE)


def _shapes(model: VL3ForConditionalGeneration) -> dict:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def display_name(folder: Path) -> str:
    """The name to call a folder by: its own, with the run's before that of a checkpoint."""
    is_checkpoint = folder.name.startswith("checkpoint-")
    return f"{folder.parent.name}/{folder.name}" if is_checkpoint else folder.name
