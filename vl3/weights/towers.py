"""Vision towers of one fixed size from their own releases: CLIP and SigLIP, as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig

from vl3.families import layouts
from vl3.families.layouts import Family, LayoutError, read_json

KINDS = {
    "clip": CLIPVisionConfig,
    "clip_vision_model": CLIPVisionConfig,
    "siglip": SiglipVisionConfig,
    "siglip_vision_model": SiglipVisionConfig,
}
# What stands beside the tower in a release of both halves.
_OTHER_HALF = ("text_", "logit_", "visual_projection", "vision_model.position_ids")


def read_tower(folder: Path) -> PreTrainedConfig:
    """The sizes of a tower in a folder of its own, or of both halves.

    Raises: LayoutError for a folder that holds something else.
    """
    return TOWER.read_config(folder, read_json(folder, "config.json") or {})


def _read(folder: Path, raw: dict) -> PreTrainedConfig:
    kind = KINDS.get(raw.get("model_type", ""))
    if kind is None:
        raise LayoutError(
            f"{folder.name} is no vision tower of one size but {raw.get('model_type')!r}; give "
            "CLIP or SigLIP"
        )
    return kind(**raw.get("vision_config", raw))


TOWER = Family(name="vision tower", model_types=tuple(KINDS), pairs=(), read_config=_read)


def load_tower(tower: Any, folder: Path) -> None:
    """Fills a tower with the weights of the folder, strictly.

    Raises: LayoutError that lists tensors which are missing, unknown or of another shape.
    """
    names = layouts.tensor_names(folder)  # whose errors are sentences
    loaded, info = type(tower).from_pretrained(
        folder,
        config=tower.config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told by our own sentence, with all names
        local_files_only=True,
    )
    others = {name for name in names if name.startswith(_OTHER_HALF)}
    info["unexpected_keys"] = set(info["unexpected_keys"]) - others
    layouts.check_loaded(folder, TOWER, info)
    tower.load_state_dict(loaded.state_dict())
