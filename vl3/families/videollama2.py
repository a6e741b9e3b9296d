"""DAMO-NLP-SG/VideoLLaMA2* and VideoLLaMA2.1*: a tower of fixed size, STC, a language model; no
remote code.

Mistral (7B, 7B-16F) and Mixtral (8x7B) write a conversation in Llama 2's words, Qwen2 (72B, and 7B
of 2.1) in its own. A video is one run of visual tokens where it stands in the message, without
times; a picture is shown as a video that stands still.

Source: VideoLLaMA2 model/__init__.py, videollama2_arch.py, encoder.py, __init__.py (mm_infer).
Differences: pictures stand where they stand in the messages, not always before all words; an answer
of an earlier turn is tokenized by itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import CLIPVisionConfig, PreTrainedConfig, SiglipVisionConfig

from vl3.audio.beats import RENAMED, SHARED_BIAS, repeated
from vl3.audio.released import beats_config
from vl3.config import BEATsConfig, VL3Config
from vl3.families.layouts import Family, Files, LayoutError, read_json, tensor_names
from vl3.families.parts import language_config
from vl3.families.settings import ProcessorSettings, SoundSettings
from vl3.families.template import Template
from vl3.video.square import Fit, Square
from vl3.vision.towers import KINDS, LAYER, USUAL_LAYER, is_tower, side

# Words of their config.json that say nothing about the language model.
_FOREIGN = (
    "vision_config",
    "audio_config",
    "image_aspect_ratio",
    "num_frames",
    "use_mm_proj",
    "use_cache",
)
_FOREIGN_PREFIXES = ("mm_", "freeze_", "tune_", "unfreeze_", "tokenizer_", "hidden_size_a")
_LANGUAGES = {
    "videollama2": "mistral",
    "videollama2_mistral": "mistral",
    "videollama2_mixtral": "mixtral",
    "videollama2_qwen2": "qwen2",
}
NUM_FRAMES = 8  # where a configuration names none
MAX_FRAMES = 32  # the most that their reader gives
PLAIN = ("linear", "identity", "mlp")  # their connectors over the mean of all frames

# Sizes of towers that a configuration knows by hub id only; others come with a vision_config.
TOWERS: dict[str, PreTrainedConfig] = {
    "openai/clip-vit-large-patch14-336": CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    ),
    "google/siglip-so400m-patch14-384": SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
    ),
    "apple/DFN5B-CLIP-ViT-H-14-378": CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        image_size=378,
        patch_size=14,
        projection_dim=1024,
    ),
}

_MISTRAL_7B = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "sliding_window": None,
}
_QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
}
_QWEN2_72B = _QWEN2_7B | {
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
_CLIP, _SIGLIP, _DFN = TOWERS
# Tower, connector and language model of DAMO-NLP-SG/VideoLLaMA{name}.
_RELEASED = {
    "2-7B": (_CLIP, "stc_connector", _MISTRAL_7B),
    "2-7B-16F": (_CLIP, "stc_connector", _MISTRAL_7B),
    "2-8x7B": (_CLIP, "stc_connector", _MISTRAL_7B | {"model_type": "mixtral"}),
    "2-72B": (_CLIP, "stc_connector", _QWEN2_72B),
    "2.1-7B-16F": (_SIGLIP, "stc_connector_v35", _QWEN2_7B),
    "2.1-7B-AV": (_SIGLIP, "stc_connector_v35", _QWEN2_7B),
}

LLAMA2 = Template(
    special=("<s>", "</s>"),
    begin="<s>",
    start="",
    end="</s>",
    after="",
    frame_stamp="",
    system_prompt=(
        "You are a helpful, respectful and honest assistant. Always answer as helpfully as "
        "possible, while being safe.  Your answers should not include any harmful, unethical, "
        "racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses "
        "are socially unbiased and positive in nature.\nIf a question does not make any sense, or "
        "is not factually coherent, explain why instead of answering something not correct. If you "
        "don't know the answer to a question, please don't share false information."
    ),
    user="[INST] {} [/INST]",
    system="<<SYS>>\n{}\n<</SYS>>\n\n",
)
QWEN2 = Template(frame_stamp="", system_prompt="You are a helpful assistant.")


def released(name: str) -> VL3Config | None:
    """The sizes of a released model by its hub id; None for another name."""
    found = _RELEASED.get(name.removeprefix("DAMO-NLP-SG/VideoLLaMA"))
    if found is None or not name.startswith("DAMO-NLP-SG/VideoLLaMA"):
        return None
    tower, connector, text = found
    return VL3Config(
        vision_config=TOWERS[tower].to_dict(),
        text_config=dict(text),  # type: ignore[arg-type]  # transformers makes a configuration
        connector=connector,
        image_token_id=0,
        audio_config=BEATsConfig(finetuned_model=True) if name.endswith("-AV") else None,
        audio_token_id=1 if name.endswith("-AV") else None,
    )


def _read_config(folder: Path, raw: dict) -> VL3Config:
    name = Path(folder).name
    _check_parts(name, raw)
    ear, slot = _ear(Path(folder), raw), _slot(Path(folder), raw)
    text = language_config(raw, _LANGUAGES[raw["model_type"]], _FOREIGN, _FOREIGN_PREFIXES)
    return VL3Config(
        vision_config=_tower(name, raw),
        text_config=text,  # type: ignore[arg-type]  # transformers makes a configuration of it
        connector=_connector(raw),
        image_token_id=slot,
        audio_config=ear,
        audio_connector=raw.get("mm_projector_a_type", "mlp2x_gelu"),
        audio_token_id=None if ear is None else _slot(Path(folder), raw, taken=slot),
        dtype=raw.get("torch_dtype", raw.get("dtype")),
    )


def _check_parts(name: str, raw: dict) -> None:
    """Raises: LayoutError for parts that are not read here."""
    if (feature := raw.get("mm_vision_select_feature", "patch")) != "patch":
        raise LayoutError(
            f"config.json of {name} has mm_vision_select_feature {feature!r}; only 'patch', which "
            "leaves the class token out, is read"
        )


def _ear(folder: Path, raw: dict) -> BEATsConfig | None:
    """The ear of 2.1-AV: as config.json spells it out, or BEATs as it was released; None for none.

    A release that was trained to name sounds has a classifier, which is not used.
    """
    if raw.get("mm_audio_tower") is None:
        return None
    if (sizes := raw.get("audio_config")) is not None:
        return beats_config({key: value for key, value in sizes.items() if key != "model_type"})
    names = tensor_names(folder)
    return BEATsConfig(finetuned_model=f"{_EAR}predictor.weight" in names)


def _connector(raw: dict) -> str:
    """Our name of their connector: what is plain there is over the mean of all frames."""
    name = raw.get("mm_projector_type", "linear")
    return f"mean_{name}" if name.startswith(PLAIN) else name


def _tower(name: str, raw: dict) -> Any:
    """The sizes of the vision tower: as config.json spells them out, or by its name there."""
    layer = raw.get("mm_vision_select_layer", USUAL_LAYER)
    if (sizes := raw.get("vision_config")) is not None:
        kinds = {kind.model_type: kind for kind in KINDS}
        if sizes.get("model_type") not in kinds:
            raise LayoutError(
                f"vision_config of {name} is of a {sizes.get('model_type')!r}; a tower is one of "
                f"{', '.join(kinds)}"
            )
        return kinds[sizes["model_type"]](**sizes | {LAYER: layer})
    tower = str(raw["mm_vision_tower"])  # a hub id, or where it lay when the model was trained
    known = {Path(hub).name.lower(): sizes for hub, sizes in TOWERS.items()}
    found = known.get(Path(tower).name.lower())
    if found is None:
        raise LayoutError(
            f"{name} has the vision tower {tower}, whose sizes are not known here; add them to its "
            f"config.json as vision_config (known by name: {', '.join(TOWERS)})"
        )
    return type(found)(**found.to_dict() | {LAYER: layer})


def _slot(folder: Path, raw: dict, taken: int | None = None) -> int:
    """A token id that no text gives, to mark the places of visual tokens; or, where that is taken,
    of sound.

    Theirs are marked by numbers below 0, which no table of embeddings has. The token for unknown
    letters never comes of a tokenizer that falls back to bytes; without one, it is the last row of
    the table, which no token has.
    """
    tokenizer = read_json(folder, "tokenizer.json") or {}
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
    core = tokenizer.get("model", {})
    unknown = core.get("unk_token")
    if unknown in added and core.get("byte_fallback") and added[unknown] != taken:
        return added[unknown]
    known = [*added.values(), *core.get("vocab", {}).values()]
    last = raw["vocab_size"] - (2 if taken == raw["vocab_size"] - 1 else 1)
    if last <= max(known, default=-1):
        raise LayoutError(
            f"every one of the {raw['vocab_size']} tokens of {folder.name} has a meaning, and "
            "visual tokens need one that has none; grow its token table by a row"
        )
    return last


def square_of(config: Any, fit: Fit | None = None) -> Square:
    """The square of a tower; fit: by default as the official helpers do it at inference."""
    seen = side(config) * config.patch_size
    usual: Fit = "crop" if isinstance(config, CLIPVisionConfig) else "stretch"
    red, green, blue = (int(share * 255) for share in KINDS[type(config)].mean)
    fill = red, green, blue
    return Square(side_px=config.image_size, seen_px=seen, fit=fit or usual, fill=fill)


def settings_of(config: Any, connector: str, num_frames: int) -> ProcessorSettings:
    """How a model with this tower and connector sees clips."""
    cells = side(config) ** 2
    return ProcessorSettings(
        patch=config.patch_size,
        image_merge=1,
        video_merge=1,
        min_tokens=2 * cells,  # two frames, which most connectors join
        budget_tokens=max(MAX_FRAMES, num_frames) * cells,
        max_frames=num_frames,
        prune=None,
        connector=connector,
        square=square_of(config),
        spread=True,
    )


def _read_settings(folder: Path, processor: dict, patch: int) -> ProcessorSettings:
    raw = read_json(folder, "config.json") or {}
    frames, ear = raw.get("num_frames", NUM_FRAMES), _ear(Path(folder), raw)
    found = settings_of(_tower(folder.name, raw), _connector(raw), frames)
    # All sound follows all frames, with nothing between them.
    return replace(found, sound=SoundSettings(ear=ear, order="append") if ear else None)


def _write(config: VL3Config, processor) -> Files:
    settings, vision = processor.settings, config.vision_config
    _check_expressible(config, processor)
    names = [name for name, sizes in TOWERS.items() if _alike(sizes, vision)]
    tower = names[0] if names else vision.model_type
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    text.pop("layer_types", None)
    kind = text.pop("model_type")
    sizes = {} if names else {"vision_config": vision.to_dict()}
    files = text | {
        "architectures": [f"Videollama2{kind.capitalize()}ForCausalLM"],
        "model_type": f"videollama2_{kind}",
        "rope_theta": rope.get("rope_theta", 1e6),
        "mm_vision_tower": tower,
        "mm_vision_select_layer": getattr(vision, LAYER, USUAL_LAYER),
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": vision.hidden_size,
        "mm_projector_type": config.connector.removeprefix("mean_"),
        "use_mm_proj": True,
        "image_aspect_ratio": "pad",
        "num_frames": settings.max_frames,
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
    }
    if config.audio_config is not None:
        files |= {
            "mm_audio_tower": "BEATs",
            "mm_projector_a_type": config.audio_connector,
            "mm_hidden_size_a": config.audio_config.width,
            "hidden_size_a": config.text_config.hidden_size,
        }
        if not _alike(BEATsConfig(finetuned_model=True), config.audio_config):
            sizes["audio_config"] = config.audio_config.to_dict()
    return {"config.json": files | sizes}


def _check_expressible(config: VL3Config, processor) -> None:
    """Raises: LayoutError for what their layout has no words for."""
    kind = config.text_config.model_type
    if kind not in _LANGUAGES.values():
        raise LayoutError(
            f"the layout of VideoLLaMA2 holds Mistral, Mixtral or Qwen2, and this language model "
            f"is {kind}; export to the own layout"
        )
    if processor.template != (QWEN2 if kind == "qwen2" else LLAMA2):
        raise LayoutError(
            "the layout of VideoLLaMA2 has its own prompt format, and this model another; export "
            "to the own layout"
        )
    ear = config.audio_config
    if ear is not None and (
        not isinstance(ear, BEATsConfig)
        or config.audio_connector == "linear"
        or processor.settings.sound.order != "append"
    ):
        raise LayoutError(
            "the layout of VideoLLaMA2 hears by BEATs and layers with GELU, all sound after all "
            "frames, and this model otherwise; export to the own layout"
        )
    if not is_tower(config.vision_config) or config.video_token_id is not None:
        raise LayoutError(
            "the layout of VideoLLaMA2 holds a vision tower of fixed size and one mark for "
            "pictures and videos; export to the own layout"
        )


def _alike(sizes: PreTrainedConfig, vision: Any) -> bool:
    """Whether a tower has these sizes, whichever of its layers is read."""
    said = [config.to_dict() | {LAYER: None, "dtype": None} for config in (sizes, vision)]
    return type(sizes) is type(vision) and said[0] == said[1]


_EAR = "model.audio_tower."
_MOST_LAYERS = 48  # of an ear
_TOWER = "model.vision_tower.vision_tower.vision_model."
_PAIRS = (
    (f"{_TOWER}*", "vision.tower.*"),
    *((f"{_EAR}{there}", f"ear.{here}") for there, here in RENAMED.items()),
    (f"{_EAR}*", "ear.*"),
    ("model.mm_projector_a.*", "audio_connector.readout.*"),
    *(
        (f"model.mm_projector.{part}.*", f"connector.{part}.*")
        for part in ("s1", "s2", "sampler", "readout")
    ),
    *((f"model.mm_projector.{part}", f"connector.linear.{part}") for part in ("weight", "bias")),
    ("model.mm_projector.*", "connector.layers.*"),
    ("lm_head.*", "language.lm_head.*"),
    ("model.*", "language.model.*"),
)


def _copies(config: VL3Config) -> dict[str, str]:
    """The names there of tensors that the layout holds once more, and ours of what they repeat."""
    if config.audio_config is None:
        return {}
    names = repeated(config.audio_config.encoder_layers)
    return {f"{_EAR}{name}": "ear." + SHARED_BIAS for name in names}


# The words of a conversation, by the language model.
TEMPLATES = {"mistral": LLAMA2, "mixtral": LLAMA2, "qwen2": QWEN2}


def _family(name: str, languages: tuple[str, ...], template: Template) -> Family:
    return Family(
        name=name,
        model_types=tuple(kind for kind, language in _LANGUAGES.items() if language in languages),
        pairs=_PAIRS,
        dropped=(
            f"{_TOWER}embeddings.position_ids",
            *(f"{_EAR}{name}" for name in repeated(_MOST_LAYERS)),
        ),
        copies=_copies,
        read_config=_read_config,
        read_settings=_read_settings,
        write=_write,
        template=template,
        tokenizer="Qwen2Tokenizer" if template is QWEN2 else "LlamaTokenizer",
    )


MISTRAL = _family("videollama2", ("mistral", "mixtral"), LLAMA2)
QWEN = _family("videollama2 with qwen2", ("qwen2",), QWEN2)
