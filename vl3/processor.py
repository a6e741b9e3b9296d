"""Messages with pictures and videos to tensors, and back to text.

Media are measured first (headers only), the grids follow from the token budget, and only then are
frames decoded, each resized to its grid at once. What the pruner drops never becomes a slot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast

from vl3 import layouts, prompt, video
from vl3.values import Clip, Grid, Keep, Patches
from vl3.video.images import image_size
from vl3.vision import fit_grid, patchify
from vl3.vision.prune import keep_all, prune

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
    """What turns media into visual tokens. Sizes in pixels per patch side, budgets in tokens."""

    patch: int = 14
    image_merge: int = 1
    video_merge: int = 2
    min_tokens: int = 16
    budget_tokens: int = 16384
    fps: float = 1.0
    max_frames: int = 180
    sampling: str = "exact"
    system_prompt: bool = True  # chats start with the official system prompt
    prune: PruneSettings | None = field(default_factory=PruneSettings)


@dataclass(frozen=True, slots=True)
class Measured:
    """What headers say of a medium: frames that will be read, their size, times and the length."""

    frames: int
    height_px: int
    width_px: int
    times_s: tuple[float, ...] | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """An image or a video of a message, not read yet."""

    part: dict
    is_image: bool
    source: object
    options: dict

    def measure(self, settings: ProcessorSettings) -> Measured:
        """Its size, from headers and packets; nothing is decoded but a first frame."""
        if isinstance(self.source, Clip):
            return Measured(*self.source.frames_TYX3.shape[:3], self.source.times_s)
        if self.is_image:
            if isinstance(self.source, str | Path):
                return Measured(1, *image_size(Path(self.source)))
            return Measured(*video.read_image(self.source).frames_TYX3.shape[:3])
        planned = video.schedule(self.source, **self.sampling(settings))
        shown = video.probe(self.source)
        return Measured(
            len(planned), shown.height_px, shown.width_px, planned.times_s, planned.duration_s
        )

    def sampling(self, settings: ProcessorSettings) -> dict:
        """fps, max_frames, start, end and mode, the part's own before the processor's."""
        own = {key: value for key, value in self.options.items() if value is not None}
        return {
            "fps": settings.fps,
            "max_frames": settings.max_frames,
            "mode": settings.sampling,
        } | own

    def read(self, settings, grid: Grid, on_frame: Callable[[int, int], None] | None) -> Clip:
        """The decoded frames at the size of the grid."""
        size = (grid.rows * settings.patch, grid.cols * settings.patch)
        if isinstance(self.source, Clip):
            return resize_clip(self.source, size)
        if self.is_image:
            return video.read_image(self.source, size=size)
        return video.read(self.source, size=size, on_frame=on_frame, **self.sampling(settings))


class VL3Processor:
    """Messages to model inputs, with the tokenizer and settings of one checkpoint.

    Source: VideoLLaMA3 processing_videollama3.py and image_processing_videollama3.py. Differences:
    times and frames travel together in a Clip; the pruner runs here, so that the prompt has one
    slot per kept token and batches larger than one work; a text that looks like a special token
    stays text.
    """

    def __init__(
        self,
        tokenizer,
        settings: ProcessorSettings,
        *,
        image_token_id: int,
        video_token_id: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.slot_ids = prompt.SlotIds(
            image=image_token_id,
            video=image_token_id if video_token_id is None else video_token_id,
        )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> VL3Processor:
        """The processor of a checkpoint folder in any whole-model layout."""
        folder = Path(path)
        config = layouts.read_config(folder)
        return cls(
            load_tokenizer(folder),
            read_settings(folder, patch=config.vision_config.patch_size),
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
        )

    def save_pretrained(self, path: str | Path) -> None:
        """Writes tokenizer and settings beside the model's config.json and weights."""
        self.tokenizer.save_pretrained(path)
        raw = {"processor_class": "VL3Processor", **asdict(self.settings)}
        Path(path, CONFIG_FILE).write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")

    def __call__(
        self,
        messages: Sequence[dict] | Sequence[Sequence[dict]],
        *,
        add_generation_prompt: bool = False,
        add_system_prompt: bool = False,
        return_labels: bool = False,
        return_tensors: str = "pt",
        prune: PruneSettings | str | None = "model",
        budget_tokens: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Tensors for the model, of one conversation or a batch (padded on the left).

        prune: "model" for the checkpoint's own setting, None to keep every token, or settings.
        Returns input_ids, attention_mask and, where there are media, pixel_values (uint8),
        grid_thw, merge_sizes, keep_mask; labels on request.
        Raises: ValueError or vl3.video.VideoError in one sentence for what cannot be read.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is 'pt' - got {return_tensors!r}")
        batch = [messages] if messages and isinstance(messages[0], dict) else list(messages)
        settings = self.settings
        if prune != "model":
            settings = replace(settings, prune=prune)
        if budget_tokens is not None:
            settings = replace(settings, budget_tokens=budget_tokens)
        prompts, packed = [], []
        for conversation in batch:
            rendered, patches, keep = self._conversation(
                conversation, settings, add_generation_prompt, add_system_prompt
            )
            prompts.append(rendered)
            if patches is not None:
                packed.append((patches, keep))
        tensors = self._pad(prompts, return_labels)
        return tensors | visual_tensors(packed) if packed else tensors

    def _conversation(self, messages, settings, add_generation_prompt, add_system_prompt):
        media = find_media(messages)
        patches = keep = None
        annotated, counts = messages, []
        if media:
            grids = self.grids(media, [medium.measure(settings) for medium in media], settings)
            clips = [medium.read(settings, grid, None) for medium, grid in zip(media, grids)]
            grids = [replace(grid, frames=len(clip)) for grid, clip in zip(grids, clips)]
            patches = cut(clips, grids)
            keep = decide(patches, settings.prune)
            annotated = annotate(messages, media, clips)
            counts = [n for frames in keep.kept_per_frame for n in frames]
        rendered = prompt.render(
            annotated, self.tokenizer, self.slot_ids, counts,
            add_system_prompt=add_system_prompt, add_generation_prompt=add_generation_prompt,
        )  # fmt: skip
        return rendered, patches, keep

    def grids(
        self, media: Sequence[Medium], measured: Sequence[Measured], settings: ProcessorSettings
    ) -> list[Grid]:
        """Grids of the media of one prompt under their common budget."""
        return fit_grid(
            [(size.frames, size.height_px, size.width_px) for size in measured],
            [settings.image_merge if medium.is_image else settings.video_merge
             for medium in media],
            settings.budget_tokens, patch=settings.patch, min_tokens=settings.min_tokens,
        )  # fmt: skip

    def _pad(self, prompts: list[prompt.Prompt], return_labels: bool) -> dict[str, torch.Tensor]:
        longest = max(len(rendered.ids) for rendered in prompts)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, prompt.IGNORE)
        for row, rendered in enumerate(prompts):
            used = slice(longest - len(rendered.ids), longest)
            ids[row, used] = torch.tensor(rendered.ids)
            mask[row, used] = 1
            labels[row, used] = torch.tensor(rendered.labels)
        tensors = {"input_ids": ids, "attention_mask": mask}
        return tensors | {"labels": labels} if return_labels else tensors

    def decode(self, token_ids) -> str:
        """Text of generated ids, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)


def find_media(messages: Sequence[dict]) -> list[Medium]:
    """The images and videos of a conversation, in order.

    A video is a path, a Clip or {"path", "fps", "max_frames", "start", "end"}; an image a path, a
    PIL image or an array of height x width x 3.
    """
    media = []
    for message in messages:
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if isinstance(part, str) or "text" in part:
                continue
            kind = part.get("type")
            if kind not in ("image", "video") or kind not in part:
                raise ValueError(
                    f"a message part is text, image or video with an entry of that name - got "
                    f"type {kind!r} with {sorted(part)}"
                )
            source, options = part[kind], {}
            if isinstance(source, dict):
                options = {key: value for key, value in source.items() if key != "path"}
                unknown = options.keys() - {"fps", "max_frames", "start", "end", "mode"}
                if unknown or "path" not in source:
                    raise ValueError(
                        "a video given as a dict has path and optionally fps, max_frames, start, "
                        f"end, mode - got {sorted(source)}"
                    )
                source = source["path"]
            media.append(Medium(part, kind == "image" or _is_image(source), source, options))
    return media


def _is_image(source) -> bool:
    """Whether what a message calls a video is a still picture."""
    return source.is_image if isinstance(source, Clip) else video.is_image(source)


def annotate(messages, media: Sequence[Medium], clips: Sequence[Clip]) -> list[dict]:
    """The messages with frame counts and times in place of the media, as prompt.render takes."""
    known = {id(medium.part): (medium, clip) for medium, clip in zip(media, clips)}

    def replaced(part):
        if id(part) not in known:
            return part
        medium, clip = known[id(part)]
        if medium.is_image:
            return {"type": "image", "timestamp": part.get("timestamp")}
        return {"type": "video", "num_frames": len(clip), "timestamps": clip.times_s}

    return [
        message
        if isinstance(message["content"], str)
        else message | {"content": [replaced(part) for part in message["content"]]}
        for message in messages
    ]


def cut(clips: Sequence[Clip], grids: Sequence[Grid]) -> Patches:
    """Patches of decoded clips whose frames already have the size of their grids."""
    pixels = [patchify(clip.frames_TYX3, grid) for clip, grid in zip(clips, grids)]
    return Patches(pixels_NP=torch.cat(pixels), grids=tuple(grids))


def decide(patches: Patches, settings: PruneSettings | None) -> Keep:
    """The pruner's mask, or one that keeps everything when pruning is off."""
    return keep_all(patches.grids) if settings is None else prune(patches, **asdict(settings))


def visual_tensors(packed: Sequence[tuple[Patches, Keep]]) -> dict[str, torch.Tensor]:
    """pixel_values, grid_thw, merge_sizes and keep_mask of a batch, packed one after the other."""
    grids = [grid for patches, _ in packed for grid in patches.grids]
    return {
        "pixel_values": torch.cat([patches.pixels_NP for patches, _ in packed]),
        "grid_thw": torch.tensor([[grid.frames, grid.rows, grid.cols] for grid in grids]),
        "merge_sizes": torch.tensor([grid.merge for grid in grids]),
        "keep_mask": torch.cat([keep.keep_M for _, keep in packed]),
    }


def resize_clip(clip: Clip, size: tuple[int, int]) -> Clip:
    """The clip at height x width, resized as at decode (PIL, bicubic, uint8)."""
    if clip.frames_TYX3.shape[1:3] == size:
        return clip
    frames = [
        np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC))
        for frame in clip.frames_TYX3
    ]
    return replace(clip, frames_TYX3=np.stack(frames))


def load_tokenizer(folder: Path):
    """The checkpoint's tokenizer, from its files alone (no remote code).

    Raises: LayoutError when tokenizer.json is absent.
    """
    if not (folder / "tokenizer.json").is_file():
        raise layouts.LayoutError(
            f"{folder.name} has no tokenizer.json; copy it from the base model"
        )
    return PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")


def read_settings(folder: Path, patch: int) -> ProcessorSettings:
    """Settings of a checkpoint folder: ours, the official layout's or the native one's."""
    own = layouts.read_json(folder, CONFIG_FILE) or {}
    if own.get("processor_class") == "VL3Processor":
        raw = {key: value for key, value in own.items() if key != "processor_class"}
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
