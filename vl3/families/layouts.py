"""Checkpoint families: how each names its tensors and spells its configuration.

own       what save_pretrained writes here
official  DAMO-NLP-SG/VideoLLaMA3-*, hub and training side (read without their remote code)
native    transformers' own video_llama_3
siglip_navit  the stand-alone vision encoder, DAMO-NLP-SG/SigLIP-NaViT
siglip    plain SigLIP of the hub (google/siglip-so400m-patch14-384), start of training
qwen2     a plain Qwen2.5 language model, start of training

Every table is a list of (pattern, name) for one direction; the other is derived from it, so the two
cannot drift apart.
"""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vl3.arguments import shown, whole
from vl3.config import VL3Config, VL3VisionConfig
from vl3.units import format_bytes

# (name there, name here). "*" stands for any run of characters, the same on both sides.
_VISION_BLOCK = (
    ("encoder.layers.*.layer_norm1.*", "blocks.*.norm1.*"),
    ("encoder.layers.*.layer_norm2.*", "blocks.*.norm2.*"),
    ("encoder.layers.*.self_attn.out_proj.*", "blocks.*.attention.out.*"),
    ("encoder.layers.*.self_attn.q_proj.*", "blocks.*.attention.q.*"),
    ("encoder.layers.*.self_attn.k_proj.*", "blocks.*.attention.k.*"),
    ("encoder.layers.*.self_attn.v_proj.*", "blocks.*.attention.v.*"),
    ("encoder.layers.*.mlp.*", "blocks.*.mlp.*"),
    ("embeddings.patch_embedding.*", "patch_embedding.*"),
    ("post_layernorm.*", "norm.*"),
)


def _prefixed(pairs, there: str, here: str):
    return tuple((there + a, here + b) for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Layout:
    """A checkpoint family. pairs: (name there, name here); dropped: names there that mean nothing
    here (a copy of a tied head, parts that the encoder does not have)."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()

    def here(self, name: str) -> str | None:
        """Our name of their tensor; None when it is dropped, the name itself when unknown."""
        if any(_match(pattern, name) is not None for pattern in self.dropped):
            return None
        return _rename(name, self.pairs)

    def there(self, name: str) -> str:
        """Their name of our tensor."""
        return _rename(name, tuple((b, a) for a, b in self.pairs))


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


OWN = Layout("own", ())
OFFICIAL = Layout(
    "official",
    (
        *_prefixed(_VISION_BLOCK, "model.vision_encoder.", "vision."),
        ("model.mm_projector.*", "connector.*"),
        ("lm_head.*", "language.lm_head.*"),
        ("model.*", "language.model.*"),
    ),
)
OFFICIAL_TRAINING = Layout(
    "official training side",
    (
        *_prefixed(_VISION_BLOCK, "model.vision_encoder.vision_encoder.", "vision."),
        *OFFICIAL.pairs,
    ),
)
NATIVE = Layout(
    "native",
    (
        *_prefixed(_VISION_BLOCK, "model.vision_model.", "vision."),
        ("model.projector.*", "connector.*"),
        ("lm_head.*", "language.lm_head.*"),
        ("model.language_model.*", "language.model.*"),
    ),
)
SIGLIP_NAVIT = Layout("siglip_navit", _prefixed(_VISION_BLOCK, "", "vision."))
# The hub's SigLIP nests its vision half, a vision model saved on its own does not. Its fixed
# positions, pooling head and text half have no place in the encoder.
_SIGLIP_ONLY = ("embeddings.position_embedding.*", "embeddings.position_ids", "head.*")
SIGLIP = Layout(
    "siglip",
    (*_prefixed(_VISION_BLOCK, "vision_model.", "vision."), *SIGLIP_NAVIT.pairs),
    dropped=(
        *_SIGLIP_ONLY,
        *(f"vision_model.{name}" for name in _SIGLIP_ONLY),
        "text_model.*",
        "logit_scale",
        "logit_bias",
    ),
)
QWEN2 = Layout("qwen2", (("lm_head.*", "language.lm_head.*"), ("model.*", "language.model.*")))

_BY_MODEL_TYPE = {
    "vl3": OWN,
    "videollama3_qwen2": OFFICIAL,
    "video_llama_3": NATIVE,
    "videollama3_vision_encoder": SIGLIP_NAVIT,
    "siglip": SIGLIP,
    "siglip_vision_model": SIGLIP,
    "qwen2": QWEN2,
}
WHOLE_MODELS = ("own", "official", "official training side", "native")


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


def key_mapping(layout: Layout, names: list[str]) -> dict[str, str]:
    """Exact renamings for transformers' loader: one anchored pattern per renamed tensor."""
    renamed = {name: layout.here(name) for name in names}
    return {
        f"^{re.escape(there)}$": here
        for there, here in renamed.items()
        if here is not None and here != there
    }


def check_loaded(folder: Path, layout: Layout, info: dict) -> None:
    """Raises LayoutError listing what a load left out, did not know or could not fit."""
    problems = []
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(str(entry) for entry in info.get(kind, ())):
            shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if found[8:] else "")
            problems.append(f"{kind.replace('_', ' ')}: {shown}")
    if problems:
        raise LayoutError(
            f"{Path(folder).name} does not fit the {layout.name} layout - {'; '.join(problems)}"
        )


def detect(folder: Path, tensor_names: list[str] | None = None) -> Layout:
    """The family of a checkpoint folder, by the model_type of its config.json.

    Raises: LayoutError when there is no config.json or its model_type is not one of ours.
    """
    raw = read_json(folder, "config.json")
    if raw is None:
        raise LayoutError(
            f"{Path(folder).name or folder} has no config.json; give the folder of a checkpoint or "
            "a hub id such as DAMO-NLP-SG/VideoLLaMA3-2B"
        )
    kind = raw.get("model_type")
    layout = _BY_MODEL_TYPE.get(kind) if isinstance(kind, str) else None
    if layout is None:
        known = ", ".join(_BY_MODEL_TYPE)
        told = f"is a {kind!r} checkpoint" if isinstance(kind, str) else "names no model_type"
        raise LayoutError(f"{Path(folder).name} {told}; this program reads {known}")
    nested = "model.vision_encoder.vision_encoder."
    if layout is OFFICIAL and any(name.startswith(nested) for name in tensor_names or ()):
        return OFFICIAL_TRAINING
    return layout


def read_config(folder: Path) -> VL3Config:
    """The configuration of a whole model in any of its layouts.

    Raises: LayoutError for a part of a model, and for sizes that are missing or make no sense.
    """
    raw = read_json(folder, "config.json") or {}
    layout = detect(folder).name
    if layout not in WHOLE_MODELS:
        raise LayoutError(
            f"{Path(folder).name} holds only a part of a model ({layout}); a whole model is "
            "made of parts by vl3.weights.assemble"
        )
    try:
        if layout == "own":
            config = _from_own(raw)
        elif layout == "native":
            config = _from_native(raw)
        else:
            config = _from_official(folder, raw)
        return check_sizes(config)
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


def check_sizes(config: VL3Config) -> VL3Config:
    """The configuration, when its sizes are those of a model.

    Raises: ValueError for a size that is none.
    """
    text = config.text_config
    for name in ("hidden_size", "num_hidden_layers", "vocab_size"):
        whole(name, getattr(text, name), low=1)
    if text.is_encoder_decoder:
        raise ValueError(f"{text.model_type} is no causal language model")
    if not re.fullmatch(r"linear|mlp[1-9]x_gelu", str(config.connector)):
        raise ValueError(
            f"connector is linear or mlpNx_gelu, e.g. mlp2x_gelu - got {shown(config.connector)}"
        )
    for name in ("image_token_id", "video_token_id"):
        if getattr(config, name) is not None:
            whole(name, getattr(config, name), low=0, high=text.vocab_size - 1)
    return config


def _from_own(raw: dict) -> VL3Config:
    for part in ("vision_config", "text_config"):
        if not isinstance(raw[part], dict):
            raise ValueError(f"{part} is an object of sizes - got {shown(raw[part])}")
    return VL3Config(**{key: value for key, value in raw.items() if key != "model_type"})


def _from_official(folder: Path, raw: dict) -> VL3Config:
    vision = raw.get("vision_encoder_config")
    if vision is None:
        raise LayoutError(
            f"config.json of {Path(folder).name} has no vision_encoder_config, so the size of its "
            "vision encoder is unknown; use the hub checkpoint or add that entry"
        )
    foreign = {"vision_encoder_config", "vision_encoder", "auto_map", "architectures"}
    text = {key: value for key, value in raw.items() if key not in foreign}
    text["model_type"] = "qwen2"
    if (theta := text.pop("rope_theta", None)) is not None:
        text.pop("rope_scaling", None)
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": theta}
    text["dtype"] = text.pop("torch_dtype", None)
    mm = (
        "mm_",
        "image_",
        "use_mm",
        "use_token",
        "tokenizer_",
        "is_alignment",
        "num_frames",
        "max_frames",
        "transformers_version",
    )
    text = {key: value for key, value in text.items() if not key.startswith(mm)}
    return VL3Config(
        vision_config=_vision_config(vision),
        text_config=text,
        connector=raw.get("mm_projector_type", "mlp2x_gelu"),
        image_token_id=raw["image_token_index"],
        dtype=raw.get("torch_dtype", raw.get("dtype")),
    )


def _from_native(raw: dict) -> VL3Config:
    return VL3Config(
        vision_config=_vision_config(raw["vision_config"]),
        text_config=raw["text_config"],
        image_token_id=raw["image_token_id"],
        video_token_id=raw["video_token_id"],
        dtype=raw.get("dtype"),
    )


# The class defaults of the official and native vision configurations, which a checkpoint may leave
# out because it does not differ from them (facts: they are a base ViT, not the released model).
_VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


def _vision_config(raw: dict) -> VL3VisionConfig:
    return VL3VisionConfig(
        **{key: raw.get(key, default) for key, default in _VISION_DEFAULTS.items()}
    )


def vision_config(folder: Path) -> VL3VisionConfig:
    """The vision encoder's configuration of a stand-alone SigLIP-NaViT or plain SigLIP folder."""
    raw = read_json(folder, "config.json") or {}
    return _vision_config(raw.get("vision_config", raw))


def official_config(config: VL3Config, *, prune: bool) -> dict:
    """config.json of the official layout for a model of ours."""
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    text.pop("layer_types", None)
    vision = {key: getattr(config.vision_config, key) for key in _VISION_DEFAULTS}
    return text | {
        "architectures": ["Videollama3Qwen2ForCausalLM"],
        "model_type": "videollama3_qwen2",
        "auto_map": {
            "AutoConfig": "configuration_videollama3.Videollama3Qwen2Config",
            "AutoModel": "modeling_videollama3.Videollama3Qwen2Model",
            "AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM",
        },
        "rope_theta": rope.get("rope_theta", 1e6),
        "rope_scaling": None,
        "image_token_index": config.image_token_id,
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": config.connector,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -1,
        "use_mm_proj": True,
        "use_token_compression": prune,
        "vision_encoder": None,
        "vision_encoder_config": {"model_type": "videollama3_vision_encoder", **vision},
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
    }


def native_config(config: VL3Config, *, image_token_id: int, video_token_id: int) -> dict:
    """config.json of transformers' video_llama_3 for a model of ours.

    Raises: LayoutError for a connector that this class does not have.
    """
    if config.connector != "mlp2x_gelu":
        raise LayoutError(
            f"transformers' video_llama_3 has the mlp2x_gelu connector only, this model has "
            f"{config.connector}; export to the official layout instead"
        )
    vision = {key: getattr(config.vision_config, key) for key in _VISION_DEFAULTS}
    return {
        "architectures": ["VideoLlama3ForConditionalGeneration"],
        "model_type": "video_llama_3",
        "image_token_id": image_token_id,
        "video_token_id": video_token_id,
        "tie_word_embeddings": config.tie_word_embeddings,
        "text_config": config.text_config.to_dict(),
        "vision_config": {"model_type": "video_llama_3_vision", **vision},
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
    }
