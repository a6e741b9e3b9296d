"""Our own layout: what save_pretrained writes here."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from vl3.arguments import did_you_mean, shown
from vl3.config import VL3Config
from vl3.families.layouts import Family, read_json
from vl3.families.settings import ProcessorSettings, SoundSettings
from vl3.settings import PruneSettings
from vl3.video.square import read_square

PROCESSOR = "VL3Processor"
# What stands in processor_config.json beside the settings.
_BESIDE = (
    "processor_class",
    "auto_map",
    "image_token_id",
    "video_token_id",
    "audio_token_id",
    "template",
)


def _read_config(folder: Path, raw: dict) -> VL3Config:
    for part in ("vision_config", "text_config"):
        if not isinstance(raw[part], dict):
            raise ValueError(f"{part} is an object of sizes - got {shown(raw[part])}")
    return VL3Config(**{key: value for key, value in raw.items() if key != "model_type"})


def _read_settings(folder: Path, processor: dict, patch: int) -> ProcessorSettings:
    raw = {key: value for key, value in processor.items() if key not in _BESIDE}
    _check_names(raw, ProcessorSettings)
    config = read_json(folder, "config.json") or {}  # an adapter's folder has none
    if "connector" not in raw and "connector" in config:
        raw["connector"] = config["connector"]
    if isinstance(prune := raw.get("prune"), dict):
        _check_names(prune, PruneSettings)
        raw["prune"] = PruneSettings(**prune)
    if isinstance(sound := raw.get("sound"), dict):
        _check_names(sound, SoundSettings)
    elif "sound" not in raw and config.get("audio_config"):
        raw["sound"] = {"ear": config["audio_config"]}
    if "square" in raw:
        raw["square"] = read_square(raw["square"])
    return ProcessorSettings(**raw)


def _check_names(raw: dict, kind: type) -> None:
    names = [field.name for field in fields(kind)]
    for name in raw:
        if name not in names:
            raise ValueError(f"it has no setting {name}{did_you_mean(name, names)}")


OWN = Family(
    name="own",
    model_types=("vl3",),
    pairs=(),
    read_config=_read_config,
    read_settings=_read_settings,
)
