"""What turns media into visual tokens, as each checkpoint family writes it down."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import get_args

from vl3.arguments import choice, did_you_mean, number, shown, whole
from vl3.families import layouts
from vl3.ops import Mode
from vl3.vision.prune import Side

CONFIG_FILE = "processor_config.json"
SAMPLINGS = ("exact", "official")


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSettings:
    """How DiffFP decides; see vl3.vision.prune.

    Raises: ValueError in one sentence for a number or name that it does not take.
    """

    mode: str = "official"
    threshold: float = 0.1
    min_tokens: int = 1
    keep: str = "earlier"

    def __post_init__(self) -> None:
        found = {
            "mode": choice("mode", self.mode, get_args(Mode)),
            "threshold": number("threshold", self.threshold, low=0),
            "min_tokens": whole("min_tokens", self.min_tokens, low=0),
            "keep": choice("keep", self.keep, get_args(Side)),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorSettings:
    """What turns media into visual tokens. Sizes in pixels per patch side, budgets in tokens.

    frame_tokens bounds each frame too, for models that were trained on small pictures only.
    """

    patch: int = 14
    image_merge: int = 1
    video_merge: int = 2
    min_tokens: int = 16
    budget_tokens: int = 16384
    frame_tokens: int | None = None
    fps: float = 1.0
    max_frames: int = 180
    sampling: str = "exact"
    system_prompt: bool = True  # chats start with the official system prompt
    prune: PruneSettings | None = field(default_factory=PruneSettings)

    def merge_of(self, kind: str) -> int:
        """How many patches a side make a token of an "image" or a "video"."""
        return self.image_merge if kind == "image" else self.video_merge

    def __post_init__(self) -> None:
        for name in (
            "patch",
            "image_merge",
            "video_merge",
            "min_tokens",
            "budget_tokens",
            "frame_tokens",
            "max_frames",
        ):
            if (given := getattr(self, name)) is not None or name != "frame_tokens":
                object.__setattr__(self, name, whole(name, given, low=1))
        object.__setattr__(self, "fps", number("fps", self.fps, above=0))
        choice("sampling", self.sampling, SAMPLINGS)
        if not isinstance(self.prune, PruneSettings | None):
            raise ValueError(f"prune is settings of the pruner, or none - got {shown(self.prune)}")


def read_settings(folder: Path, patch: int) -> ProcessorSettings:
    """Settings of a checkpoint folder: ours, the official layout's or the native one's."""
    own = layouts.read_json(folder, CONFIG_FILE) or {}
    try:
        if own.get("processor_class") == "VL3Processor":
            return _own_settings(own)
        if "video_processor" in own:
            return _native_settings(own, patch)
        return _official_settings(folder, own, patch)
    except layouts.LayoutError:
        raise
    except KeyError as error:
        why = f"it has no {error.args[0]}"
    except (ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        why = str(error)
    raise layouts.LayoutError(f"{CONFIG_FILE} of {Path(folder).name} cannot be used: {why}")


def _own_settings(own: dict) -> ProcessorSettings:
    beside = ("processor_class", "auto_map", "image_token_id", "video_token_id")
    raw = {key: value for key, value in own.items() if key not in beside}
    _check_names(raw, ProcessorSettings)
    if isinstance(prune := raw.get("prune"), dict):
        _check_names(prune, PruneSettings)
        raw["prune"] = PruneSettings(**prune)
    return ProcessorSettings(**raw)


def _check_names(raw: dict, kind: type) -> None:
    names = [field.name for field in fields(kind)]
    for name in raw:
        if name not in names:
            raise ValueError(f"it has no setting {name}{did_you_mean(name, names)}")


def _official_settings(folder: Path, processor: dict, patch: int) -> ProcessorSettings:
    images = layouts.read_json(folder, "preprocessor_config.json") or {}
    config = layouts.read_json(folder, "config.json") or {}
    _check_normalisation(images, folder)
    return ProcessorSettings(
        patch=images.get("patch_size", patch),
        image_merge=processor.get("image_merge_size", 1),
        video_merge=processor.get("video_merge_size", 2),
        min_tokens=images.get("min_tokens", 16),
        budget_tokens=images.get("max_tokens", 16384),
        fps=processor.get("fps", 1),
        max_frames=processor.get("max_frames", 180),
        prune=PruneSettings() if config.get("use_token_compression", False) else None,
    )


def _native_settings(own: dict, patch: int) -> ProcessorSettings:
    images, videos = own["image_processor"], own["video_processor"]
    _check_normalisation(videos, Path(CONFIG_FILE))
    side = videos["patch_size"] * videos["merge_size"]
    return ProcessorSettings(
        patch=videos.get("patch_size", patch),
        image_merge=images["merge_size"],
        video_merge=videos["merge_size"],
        budget_tokens=videos["size"]["longest_edge"] // side**2,
        fps=videos.get("fps") or 1,
        max_frames=videos.get("max_frames") or 180,
        prune=PruneSettings() if videos.get("use_token_compression") else None,
    )


def _check_normalisation(raw: dict, folder: Path) -> None:
    for key in ("image_mean", "image_std"):
        if raw.get(key, [0.5] * 3) != [0.5] * 3:
            raise layouts.LayoutError(
                f"{folder.name} normalises pixels with {key} = {raw[key]}; the released models use "
                "0.5 everywhere and only that is supported"
            )
