"""Checkpoint families: each a file that holds its names, configuration, settings and template.

A family is a vl3.families.layouts.Family; to add one, write a file with it and put it into
FAMILIES. Everything else of the library asks the functions below.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vl3.arguments import whole
from vl3.config import VL3Config, VL3VisionConfig
from vl3.connectors import connector_class
from vl3.families.layouts import Family, LayoutError, read_json
from vl3.families.native import NATIVE
from vl3.families.own import OWN, PROCESSOR
from vl3.families.parts import CLIP, LANGUAGE, NAVIT, SIGLIP
from vl3.families.settings import CONFIG_FILE, ProcessorSettings
from vl3.families.template import Template, read_template
from vl3.families.videollama2 import MISTRAL, QWEN
from vl3.families.videollama3 import OFFICIAL, OFFICIAL_TRAINING
from vl3.vision.towers import is_tower

FAMILIES = (OWN, OFFICIAL_TRAINING, OFFICIAL, NATIVE, MISTRAL, QWEN, NAVIT, SIGLIP, CLIP)
EXPORTS = {family.name: family for family in (OWN, OFFICIAL, NATIVE)}


def detect(folder: Path, tensor_names: list[str] | None = None) -> Family:
    """The family of a checkpoint folder, by the model_type of its config.json.

    tensor_names: where they are known, to tell families of one model_type apart
    Raises: LayoutError when there is no config.json or its model_type is not one of ours.
    """
    raw = read_json(folder, "config.json")
    if raw is None:
        raise LayoutError(
            f"{Path(folder).name or folder} has no config.json; give the folder of a checkpoint or "
            "a hub id such as DAMO-NLP-SG/VideoLLaMA3-2B"
        )
    kind = raw.get("model_type")
    for family in FAMILIES:
        is_ours = family.is_ours is None or family.is_ours(tensor_names or [])
        if kind in family.model_types and is_ours:
            return family
    if isinstance(kind, str) and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return LANGUAGE
    known = ", ".join(dict.fromkeys(name for family in FAMILIES for name in family.model_types))
    told = f"is a {kind!r} checkpoint" if isinstance(kind, str) else "names no model_type"
    raise LayoutError(
        f"{Path(folder).name} {told}; this program reads {known} and the causal language models of "
        "transformers"
    )


def export_family(kind: str, config: VL3Config) -> Family:
    """The family of a kind of EXPORTS; the official one is that of the model's generation."""
    if kind == OFFICIAL.name and is_tower(config.vision_config):
        return QWEN if config.text_config.model_type == "qwen2" else MISTRAL
    return EXPORTS[kind]


def read_config(folder: Path) -> VL3Config:
    """The configuration of a whole model in any of its layouts.

    Raises: LayoutError for a part of a model, and for sizes that are missing or make no sense.
    """
    raw = read_json(folder, "config.json") or {}
    family = detect(folder)
    if not family.is_whole:
        raise LayoutError(
            f"{Path(folder).name} is a {raw['model_type']!r} checkpoint, only a part of a model; a "
            "whole model is made of parts by vl3.weights.assemble"
        )
    try:
        return check_sizes(cast(VL3Config, family.read_config(Path(folder), raw)))
    except LayoutError:
        raise
    except KeyError as error:
        raise LayoutError(
            f"config.json of {Path(folder).name} has no {error.args[0]}; download it again, or add "
            "that entry"
        ) from error
    except Exception as error:  # transformers' checks of a field are of many kinds
        why = " ".join(str(error).split())
        raise LayoutError(
            f"config.json of {Path(folder).name} cannot be used: {why[:200]}"
        ) from error


def read_vision(folder: Path) -> Any:
    """The vision encoder's configuration, of an encoder's own folder or of a whole model.

    Raises: LayoutError for a folder that holds no encoder.
    """
    family = detect(folder)
    if family.is_whole:
        return read_config(folder).vision_config
    found = family.read_config(Path(folder), cast(dict, read_json(folder, "config.json")))
    if not isinstance(found, VL3VisionConfig) and not is_tower(found):
        raise LayoutError(f"{Path(folder).name} holds a {family.name} and no vision encoder")
    return found


def read_language(folder: Path) -> PreTrainedConfig:
    """The configuration of a causal language model in a folder of its own.

    Raises: LayoutError for a folder that holds something else.
    """
    family = detect(folder)
    if family is not LANGUAGE:
        raise LayoutError(f"{Path(folder).name} is no language model but {family.name}")
    return family.read_config(Path(folder), cast(dict, read_json(folder, "config.json")))


def check_sizes(config: VL3Config) -> VL3Config:
    """The configuration, when its sizes are those of a model.

    Raises: ValueError for a size that is none.
    """
    text = config.text_config
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        whole(name, getattr(text, name), low=1)
    if text.is_encoder_decoder:
        raise ValueError(f"{text.model_type} is no causal language model")
    connector_class(config.connector)
    if not isinstance(config.vision_config, VL3VisionConfig):
        if not is_tower(config.vision_config):
            raise ValueError(
                f"vision_config is of a {config.vision_config.model_type!r}, no encoder"
            )
        for name in ("image_size", "patch_size", "num_hidden_layers", "hidden_size"):
            whole(name, getattr(config.vision_config, name), low=1)
    for name in ("image_token_id", "video_token_id", "audio_token_id"):
        if getattr(config, name) is not None:
            whole(name, getattr(config, name), low=0, high=text.vocab_size - 1)
    return config


def read_settings(folder: Path, patch: int) -> ProcessorSettings:
    """Settings of a checkpoint's or an adapter's folder, in the words of any whole-model layout.

    patch: the encoder's, where the folder does not say
    Raises: LayoutError for settings that cannot be used.
    """
    raw = read_json(folder, CONFIG_FILE) or {}
    if raw.get("processor_class") == PROCESSOR:
        family = OWN
    else:
        family = NATIVE if "video_processor" in raw else OFFICIAL
        kind = (read_json(folder, "config.json") or {}).get("model_type")
        family = MISTRAL if kind in (*MISTRAL.model_types, *QWEN.model_types) else family
    try:
        return cast(Callable, family.read_settings)(Path(folder), raw, patch)
    except LayoutError:
        raise
    except KeyError as error:
        why = f"it has no {error.args[0]}"
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        why = str(error)
    raise LayoutError(f"{CONFIG_FILE} of {Path(folder).name} cannot be used: {why}")


def read_chat_template(folder: Path) -> Template:
    """How a checkpoint writes conversations: what its own processor_config.json spells out, or the
    template of its family.

    Raises: LayoutError for one that cannot be followed.
    """
    raw = read_json(folder, CONFIG_FILE) or {}
    if raw.get("processor_class") != PROCESSOR:
        return detect(folder).template
    try:
        return read_template(raw.get("template"))
    except ValueError as error:
        raise LayoutError(
            f"{CONFIG_FILE} of {Path(folder).name} cannot be used: {error}"
        ) from error
