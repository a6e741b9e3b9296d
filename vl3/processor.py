"""Messages with pictures and videos to tensors, and back to text.

Media are measured first (headers only), the grids follow from the token budget, and only then are
frames decoded, each resized to its grid at once. What the pruner drops never becomes a slot.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from vl3 import layouts, prompt
from vl3.arguments import instance, switch
from vl3.media import Measured, Medium, annotate, find_media
from vl3.messages import conversations
from vl3.settings import CONFIG_FILE, ProcessorSettings, PruneSettings, read_settings
from vl3.values import Clip, Grid, Keep, Patches
from vl3.vision import fit_grid, patchify
from vl3.vision.prune import keep_all, prune


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
        instance("path", path, str | Path, "a checkpoint folder")
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
        add_generation_prompt = switch("add_generation_prompt", add_generation_prompt)
        add_system_prompt = switch("add_system_prompt", add_system_prompt)
        return_labels = switch("return_labels", return_labels)
        if return_tensors != "pt":
            raise ValueError(f"return_tensors is 'pt' - got {return_tensors!r}")
        batch = conversations(messages)
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
        budget_tokens = settings.budget_tokens
        if settings.frame_tokens is not None:
            num_frames = sum(size.frames for size in measured)
            budget_tokens = min(budget_tokens, settings.frame_tokens * num_frames)
        return fit_grid(
            [(size.frames, size.height_px, size.width_px) for size in measured],
            [settings.image_merge if medium.is_image else settings.video_merge
             for medium in media],
            budget_tokens, patch=settings.patch, min_tokens=settings.min_tokens,
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


def cut(clips: Sequence[Clip], grids: Sequence[Grid]) -> Patches:
    """Patches of decoded clips whose frames already have the size of their grids."""
    pixels = [patchify(clip.frames_TYX3, grid) for clip, grid in zip(clips, grids)]
    joined = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
    return Patches(pixels_NP=joined, grids=tuple(grids))


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


def load_tokenizer(folder: Path):
    """The checkpoint's tokenizer, from its files alone (no remote code).

    Raises: LayoutError when tokenizer.json is absent or damaged.
    """
    if not (folder / "tokenizer.json").is_file():
        raise layouts.LayoutError(
            f"{folder.name} has no tokenizer.json; copy it from the base model"
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        layouts.read_json(folder, name)  # whose errors are sentences
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    except Exception as error:  # the tokenizers library raises plain Exception
        why = " ".join(str(error).split())
        raise layouts.LayoutError(
            f"the tokenizer of {folder.name} cannot be read: {why[:200]}"
        ) from error
