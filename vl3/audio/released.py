"""Ears from their own releases: BEATs' file, a folder of Whisper."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError

from vl3.audio.beats import BEATs, own_tensors
from vl3.audio.ear import Ear
from vl3.audio.whisper import WhisperEar
from vl3.config import BEATsConfig, WhisperEarConfig

_BEYOND_THE_ENCODER = ("model.decoder.", "decoder.", "proj_out.")
_OF_A_FILE = ("model_type", "architectures", "transformers_version", "dtype", "torch_dtype")
# What a BEATs release says of its arrangement, which is built in here.
_ARRANGEMENT = {
    "layer_norm_first": False,
    "deep_norm": True,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "conv_bias": False,
    "activation_fn": "gelu",
}


# Sizes of encoders by hub id: width, layers, heads, width inside an MLP, mel channels.
_SIZES = {
    "tiny": (384, 4, 6, 1536, 80),
    "base": (512, 6, 8, 2048, 80),
    "small": (768, 12, 12, 3072, 80),
    "medium": (1024, 24, 16, 4096, 80),
    "large": (1280, 32, 20, 5120, 80),
    "large-v2": (1280, 32, 20, 5120, 80),
    "large-v3": (1280, 32, 20, 5120, 128),
    "large-v3-turbo": (1280, 32, 20, 5120, 128),
}
_FIELDS = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
)
WHISPER = {f"openai/whisper-{name}": dict(zip(_FIELDS, sizes)) for name, sizes in _SIZES.items()}


BEATS_RELEASE = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"  # the ear of VideoLLaMA 2.1-AV


def read_config(path: Path) -> BEATsConfig | WhisperEarConfig:
    """The configuration of the ear that load_ear loads from there, without its weights.

    Raises: ValueError - one sentence on what is there instead
    """
    return _whisper_config(path, {}) if path.is_dir() else beats_config(_read_beats(path)["cfg"])


def load_ear(path: str | Path, **settings) -> Ear:
    """An ear with released weights, in float32: BEATs of a .pt file, Whisper of a folder.

    settings: of its configuration that a release has no word for, such as pool or pool_bands
    A pickle is read with weights_only=True; every tensor of an encoder has to be there and fit.

    Raises: ValueError - one sentence on what is there instead
    """
    path = Path(path)
    ear = _whisper(path, settings) if path.is_dir() else _beats(path, settings)
    return ear.eval()


def beats_config(cfg: dict, **settings) -> BEATsConfig:
    """The configuration of a BEATs file from its entry "cfg".

    Raises: ValueError - another arrangement than that of the iter3+ releases
    """
    other = {
        name: cfg[name] for name, value in _ARRANGEMENT.items() if cfg.get(name, value) != value
    }
    if other:
        raise ValueError(
            f"a BEATs of another arrangement is not read: {other}; use a release of iter3+"
        )
    known = {name: value for name, value in cfg.items() if name in BEATsConfig.__annotations__}
    return BEATsConfig(**known | settings)


def _read_beats(path: Path) -> dict:
    """What a BEATs file holds; its tensors stay in the file until they are read."""
    if not path.is_file():
        raise ValueError(
            f"there is no ear at {path.name}; give BEATs' .pt file or Whisper's folder"
        )
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path.name} is no BEATs file: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or not {"cfg", "model"} <= found.keys():
        raise ValueError(f"{path.name} is no BEATs file: it has no entries cfg and model")
    return found


def _beats(path: Path, settings: dict) -> BEATs:
    found = _read_beats(path)
    ear = BEATs(beats_config(found["cfg"], **settings))
    _fill(ear, own_tensors(found["model"], ear.config.encoder_layers), path.name)
    return ear


def _whisper_config(folder: Path, settings: dict) -> WhisperEarConfig:
    try:
        said = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder.name} has no config.json that can be read") from error
    if said.get("model_type") != "whisper":
        raise ValueError(
            f"{folder.name} is {said.get('model_type')!r} and not a whisper model; give a folder "
            "of Whisper or BEATs' .pt file"
        )
    known = {name: value for name, value in said.items() if name not in _OF_A_FILE}
    return WhisperEarConfig(**known | settings)


def _whisper(folder: Path, settings: dict) -> WhisperEar:
    config = _whisper_config(folder, settings)
    try:
        loaded: Any = WhisperEar.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            key_mapping={r"^model\.encoder\.": "encoder."},
            output_loading_info=True,
            local_files_only=True,
        )
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the weights in {folder.name} cannot be read: {reason}") from error
    ear, found = loaded
    problems = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    problems += [f"{name[0]} is of another size" for name in sorted(found["mismatched_keys"])]
    problems += [
        f"{name} is unknown"
        for name in sorted(found["unexpected_keys"])
        if not name.startswith(_BEYOND_THE_ENCODER)
    ]
    _raise_for(folder.name, problems)
    return ear


def _fill(module: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str) -> None:
    """Raises: ValueError - a tensor is missing, unknown or of another size"""
    wanted = module.state_dict()
    problems = [f"{key} is missing" for key in wanted if key not in tensors]
    problems += [f"{key} is unknown" for key in tensors if key not in wanted]
    problems += [
        f"{key} is {tuple(tensors[key].shape)} and not {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    _raise_for(name, problems)
    module.load_state_dict(tensors)


def _raise_for(name: str, problems: list[str]) -> None:
    if problems:
        more = f" and {len(problems) - 8} more" if problems[8:] else ""
        raise ValueError(f"{name} does not fit its ear: {', '.join(problems[:8])}{more}")
