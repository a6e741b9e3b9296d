"""What a checkpoint of a run holds besides the state of the Trainer: weights, written and read."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

from safetensors.torch import load_file, save_file

from vl3.model import VL3ForConditionalGeneration
from vl3.training.recipe import Recipe
from vl3.weights.adapters import WHOLE_FILE
from vl3.weights.digest import weights_digest
from vl3.weights.hub import resolve
from vl3.weights.runs import checkpoints


class CannotSave(OSError):
    """A checkpoint could not be written; those before it are whole."""


def cannot_save(out: Path, step: int, error: Exception) -> CannotSave:
    """Why the checkpoint of a step could not be written into a run's folder, and the way on."""
    free_gb = shutil.disk_usage(out).free / 1e9
    before = checkpoints(out)
    way_on = (
        f"{before[-1].name} is whole: make room, then python -m train_cli resume {out}"
        if before
        else "there is none before it"
    )
    reason = " ".join(str(error).split())
    return CannotSave(
        f"the checkpoint of step {step} could not be written to {out} "
        f"({reason[:120]}; {free_gb:.1f} GB are free); {way_on}"
    )


def base_of(recipe: Recipe) -> dict[str, str | None] | None:
    """The model that training started from, and a digest of its weights; None for a new one."""
    if recipe.start.model is None:
        return None
    folder = resolve(recipe.start.model, offline=True)
    return {"name": recipe.start.model, "digest": weights_digest(folder)}


def save_weights(
    model: VL3ForConditionalGeneration, folder: Path, whole: dict | None, *, adapted: bool
) -> None:
    """The model; or, where it is adapted, the adapter in peft's own files and what trained whole.

    whole: all tensors by name, where the model has parts of them only
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not adapted:
        model.save_pretrained(folder, state_dict=whole)
        return
    # peft takes an output head that has an adapter for one that is trained, and would write all of
    # it: it is given nothing but adapters to write.
    tensors = whole or model.state_dict()
    adapters = {name: tensor for name, tensor in tensors.items() if "lora_" in name}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        model.save_pretrained(folder, state_dict=adapters)
    params = dict(model.named_parameters())
    trained = {
        name: (whole or params)[name].detach().contiguous()
        for name, param in params.items()
        if param.requires_grad and "lora_" not in name
    }
    save_file(trained, folder / WHOLE_FILE, metadata={"format": "pt"})


def load_weights(model: VL3ForConditionalGeneration, folder: Path) -> None:
    """The weights of a checkpoint into a model of the same recipe."""
    if (folder / "adapter_model.safetensors").is_file():
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        model.load_state_dict(load_file(folder / WHOLE_FILE), strict=False)
        return
    state = {}
    for file in folder.glob("*.safetensors"):
        state.update(load_file(file))
    result = model.load_state_dict(state, strict=False)
    tied = {"language.lm_head.weight"} if model.config.tie_word_embeddings else set()
    if result.unexpected_keys or set(result.missing_keys) - tied:
        raise ValueError(f"{folder.name} is of another model: {result}")
    model.tie_weights()
