"""What transformers' from_pretrained has to be told about a checkpoint in any of our layouts.

A caller's own arguments stay; those that decide where the files lie (subfolder, revision, an
adapter's folder) are settled here, as the layout is known from the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from vl3 import families
from vl3.families import layouts

# Of from_pretrained, not of the configuration, which has some of the same names.
NOT_CONFIG = (
    "dtype",
    "torch_dtype",
    "attn_implementation",
    "quantization_config",
    "generation_config",
)
PLACES = ("revision", "cache_dir", "token", "force_download", "local_files_only")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A checkpoint's folder, and how transformers loads it.

    adapter: the folder of one that goes onto it; tells: whether the caller wants the report of the
    load; misfits: whether tensors of other sizes may be left out
    """

    folder: Path
    family: layouts.Family
    arguments: dict
    adapter: Path | None
    tells: bool
    misfits: bool


def find(name: str | Path, given: dict) -> Found:
    """The checkpoint of that name, with the caller's keyword arguments of from_pretrained."""
    given = dict(given)
    folder, adapter = place(name, given), None
    given.pop("trust_remote_code", None)
    told = (given.get("adapter_kwargs") or {}).get("_adapter_model_path")
    if told is not None and Path(told) != folder:  # an Auto class found the base already
        adapter = Path(told)
    elif (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        from vl3.weights.adapters import find_base

        adapter, folder = folder, find_base(folder, offline=bool(given.get("local_files_only")))
    if adapter is not None:
        given.pop("adapter_kwargs", None)
    names = layouts.tensor_names(folder, given.get("variant"))
    family = families.detect(folder, names)
    layouts.read_json(folder, "generation_config.json")  # whose errors are sentences
    config = given.pop("config", None)
    if not isinstance(config, PreTrainedConfig):
        config = families.read_config(Path(config or folder))
        changes = {n: v for n, v in given.items() if hasattr(config, n) and n not in NOT_CONFIG}
        for field, value in changes.items():
            setattr(config, field, value)
            del given[field]
    if not given.keys() & {"dtype", "torch_dtype", "device_map", "quantization_config"}:
        given["dtype"] = torch.float32 if config.dtype == torch.float16 else None
    tells = given.pop("output_loading_info", False)
    misfits = given.pop("ignore_mismatched_sizes", False)
    arguments = given | {
        "config": config,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # told by our own sentence, with all names
        "trust_remote_code": False,
        "key_mapping": _renamed(family, names, given.get("key_mapping")),
    }
    return Found(folder, family, arguments, adapter, tells, misfits)


def place(name: str | Path, given: dict) -> Path:
    """The folder that holds the files; takes what says where they are out of the arguments."""
    from vl3.weights.hub import resolve

    options = {key: value for key in PLACES if (value := given.pop(key, None)) is not None}
    subfolder = given.pop("subfolder", None) or ""
    if subfolder and Path(name).expanduser().is_dir():
        return Path(name).expanduser() / subfolder
    return resolve(name, subfolder=subfolder, **options) / subfolder


def finish(found: Found, model, info: dict):
    """The loaded model with its adapter, checked; or, where it was asked for, with the report.

    Raises: LayoutError that lists missing, unexpected or misfitting tensors.
    """
    if not found.tells:
        kept = dict(info)
        here = found.family.here
        kept["unexpected_keys"] = [n for n in info["unexpected_keys"] if here(n) is not None]
        if found.misfits:
            other = {key[0] for key in kept.pop("mismatched_keys")}
            kept["missing_keys"] = set(info["missing_keys"]) - other
        layouts.check_loaded(found.folder, found.family, kept)
    model._weight_conversions = None  # or save_pretrained would write their names, not ours
    if found.adapter is not None:
        from vl3.weights.adapters import add_adapter

        add_adapter(model, found.adapter)
    return (model, info) if found.tells else model


def _renamed(family: layouts.Family, names: list[str], own: dict | None) -> dict[str, str]:
    """One renaming per tensor: the caller's own patterns, then the layout's."""
    if not own:
        return layouts.key_mapping(family, names)
    mapping = {}
    for name in names:
        new = name
        for pattern, replacement in own.items():
            new = re.sub(pattern, replacement, new)
        here = family.here(new)
        if here is not None and here != name:
            mapping[f"^{re.escape(name)}$"] = here
    return mapping
