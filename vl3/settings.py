"""What turns media into visual tokens, as each checkpoint family writes it down."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from vl3 import layouts

CONFIG_FILE = "processor_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSettings:
    """How DiffFP decides; see vl3.vision.prune."""

    mode: str = "official"
    threshold: float = 0.1
    min_tokens: int = 1
    keep: str = "earlier"


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


def read_settings(folder: Path, patch: int) -> ProcessorSettings:
    """Settings of a checkpoint folder: ours, the official layout's or the native one's."""
    own = layouts.read_json(folder, CONFIG_FILE) or {}
    if own.get("processor_class") == "VL3Processor":
        beside = ("processor_class", "auto_map", "image_token_id", "video_token_id")
        raw = {key: value for key, value in own.items() if key not in beside}
        raw["prune"] = PruneSettings(**raw["prune"]) if raw["prune"] else None
        return ProcessorSettings(**raw)
    if "video_processor" in own:
        return _native_settings(own, patch)
    return _official_settings(folder, own, patch)


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
