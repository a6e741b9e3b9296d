"""What every checkpoint family is made of: names of tensors, and the files of a folder.

Every table of names is a list of (pattern, name) for one direction; the other is derived from it,
so the two cannot drift apart.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig

from vl3.arguments import shown
from vl3.families.settings import ProcessorSettings
from vl3.families.template import CHATML, Template
from vl3.units import format_bytes

Files = dict[str, dict]  # names of JSON files and what they hold


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Family:
    """How one kind of checkpoint writes a model down, in and out.

    name: as messages and exports call it; model_types: of its config.json
    pairs: (name there, name here) of tensors, "*" for any run of characters, the same on both sides
    dropped: names there that mean nothing here (parts that the encoder does not have)
    copies: names there of tensors that are written once more, and our names of what they repeat
    is_ours: told from the tensor names where two families share a model_type
    read_config: (folder, config.json) to the configuration of a whole model, or of the part it is
    read_settings: (folder, processor_config.json, patch side) to the settings of a processor
    write: (configuration, processor) to the JSON files of an export, tokenizer apart
    template: how it writes conversations, where its folder does not say otherwise
    tokenizer: the class that an export names
    """

    name: str
    model_types: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    read_config: Callable[[Path, dict], PreTrainedConfig]
    dropped: tuple[str, ...] = ()
    copies: Callable[[Any], dict[str, str]] = lambda config: {}
    is_ours: Callable[[list[str]], bool] | None = None
    read_settings: Callable[[Path, dict, int], ProcessorSettings] | None = None
    write: Callable[..., Files] | None = None
    template: Template = CHATML
    tokenizer: str = "Qwen2Tokenizer"

    @property
    def is_whole(self) -> bool:
        """Whether its checkpoints are whole models, not parts of one."""
        return self.read_settings is not None

    def here(self, name: str) -> str | None:
        """Our name of their tensor; None when it is dropped, the name itself when unknown."""
        if any(_match(pattern, name) is not None for pattern in self.dropped):
            return None
        return _rename(name, self.pairs)

    def there(self, name: str) -> str:
        """Their name of our tensor."""
        return _rename(name, tuple((b, a) for a, b in self.pairs))


def prefixed(
    pairs: tuple[tuple[str, str], ...], there: str, here: str
) -> tuple[tuple[str, str], ...]:
    """The pairs with a prefix before each name."""
    return tuple((there + a, here + b) for a, b in pairs)


def _match(pattern: str, name: str) -> tuple[str, ...] | None:
    found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), name)
    return found.groups() if found else None


def _rename(name: str, pairs) -> str:
    for source, target in pairs:
        groups = _match(source, name)
        if groups is not None:
            for group in groups:
                target = target.replace("*", group, 1)
            return target
    return name


class LayoutError(ValueError):
    """A folder that is not a checkpoint we can read; the text says why and what to do."""


def read_json(folder: Path, name: str) -> dict | None:
    """The object in a JSON file of a checkpoint folder, or None where the file is absent.

    Raises: LayoutError for a file that holds no JSON object.
    """
    file = Path(folder) / name
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        why = POINTER if is_lfs_pointer(file) else f"is not valid JSON: {error}"
        raise LayoutError(f"{name} of {Path(folder).name} {why}") from error
    if not isinstance(found, dict):
        raise LayoutError(f"{name} of {Path(folder).name} holds {shown(found)}, not a JSON object")
    return found


POINTER = (
    "is a pointer that git left in place of the file; fetch the files with git lfs pull, or "
    "download the checkpoint by its hub id"
)


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what git leaves where git-lfs did not fetch the content."""
    with open(file, "rb") as opened:
        return opened.read(64).startswith(b"version https://git-lfs.github.com/spec/")


def tensor_names(folder: Path, variant: str | None = None) -> list[str]:
    """Names of all tensors of a checkpoint folder, from headers alone.

    variant: as transformers' from_pretrained takes it: "fp16" of model.fp16.safetensors
    Raises: LayoutError when there are no weights, a shard is missing, or a file is damaged.
    """
    folder = Path(folder)
    dot = f".{variant}" if variant else ""
    for index in (f"model.safetensors.index{dot}.json", f"pytorch_model.bin.index{dot}.json"):
        if (listed := read_json(folder, index)) is not None:
            return _shard_names(folder, index, listed.get("weight_map"))
    if (file := folder / f"model{dot}.safetensors").is_file():
        return safetensors_names(file)
    if (file := folder / f"pytorch_model{dot}.bin").is_file():
        return _pickle_names(file)
    raise LayoutError(
        f"{folder.name} has no weights; expected model{dot}.safetensors, its shards with an index, "
        f"or pytorch_model{dot}.bin"
    )


def _shard_names(folder: Path, index: str, weight_map) -> list[str]:
    """The names that an index lists; the header of every shard is read."""
    is_map = isinstance(weight_map, dict) and weight_map
    if not is_map or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise LayoutError(f"{index} of {folder.name} lists no shards in weight_map")
    shards = sorted(set(weight_map.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise LayoutError(f"{index} of {folder.name} names {outside[0]!r}, outside its folder")
    if absent := [shard for shard in shards if not (folder / shard).is_file()]:
        raise LayoutError(
            f"{folder.name} lacks {', '.join(absent)}, named in {index}; download it again"
        )
    for shard in shards:
        if shard.endswith(".safetensors"):
            safetensors_names(folder / shard)
    return list(weight_map)


def safetensors_names(file: Path) -> list[str]:
    """The names in the header of a file.

    Raises: LayoutError for a file that is not there as a whole.
    """
    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise _damaged(file) from error


def _pickle_names(file: Path) -> list[str]:
    try:
        return list(torch.load(file, map_location="meta", weights_only=True))
    except pickle.UnpicklingError as error:
        if is_lfs_pointer(file) or "unsupported global" not in str(error).lower():
            raise _damaged(file) from error
        raise LayoutError(
            f"{file.name} of {file.parent.name} holds more than tensors, which could run code, and "
            "is not read; convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> LayoutError:
    if is_lfs_pointer(file):
        return LayoutError(f"{file.name} of {file.parent.name} {POINTER}")
    return LayoutError(
        f"{file.name} of {file.parent.name} is damaged or was not downloaded to its end "
        f"({format_bytes(file.stat().st_size)}); download it again"
    )


def key_mapping(family: Family, names: list[str]) -> dict[str, str]:
    """Exact renamings for transformers' loader: one anchored pattern per renamed tensor."""
    renamed = {name: family.here(name) for name in names}
    return {
        f"^{re.escape(there)}$": here
        for there, here in renamed.items()
        if here is not None and here != there
    }


def check_loaded(folder: Path, family: Family, info: dict) -> None:
    """Raises LayoutError listing what a load left out, did not know or could not fit."""
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(str(entry) for entry in info.get(kind, ())):
            shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if found[8:] else "")
            problems.append(f"{kind.replace('_', ' ')}: {shown}")
    if problems:
        raise LayoutError(
            f"{Path(folder).name} does not fit the {family.name} layout - {'; '.join(problems)}"
        )
