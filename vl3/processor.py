"""Messages with pictures and videos to tensors, and back to text.

Media are measured first (headers only), the grids follow from the token budget, and only then are
frames decoded, each resized to its grid at once. What the pruner drops never becomes a slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoProcessor,
    BatchFeature,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from vl3 import prompt
from vl3.arguments import choice, did_you_mean, instance, switch, whole
from vl3.config import VL3Config
from vl3.families import layouts, read_chat_template, read_config, read_settings
from vl3.families.settings import CONFIG_FILE, ProcessorSettings
from vl3.families.template import AUDIO_TOKEN, CHATML, VIDEO_TOKEN, Template
from vl3.hf import from_pretrained
from vl3.hf.chat_template import chat_template
from vl3.hf.processor_calls import (
    MARKS,
    ChatTemplateMixin,
    RenderedText,
    read_options,
    rendered_texts,
)
from vl3.messages.media import annotate, find_media
from vl3.messages.reader import conversations
from vl3.pipeline import AnyPart, Heard, Planned, Prepared, plan, prepare, spelled_out
from vl3.settings import PruneSettings
from vl3.values import Keep, Patches
from vl3.vision.prune import keep_all
from vl3.vision.token_map import SlotRuns

# Of from_pretrained: what others pass to every class, and which is the same for us whatever it is.
LOADING = {
    "trust_remote_code",
    "use_fast",
    "backend",
    "_from_auto",
    "_from_pipeline",
    "config",
    "padding_side",
    "proxies",
    "code_revision",
    "dtype",
    "torch_dtype",
}


class VL3Processor(ChatTemplateMixin):
    """Messages to model inputs, with the tokenizer and settings of one checkpoint.

    Source: VideoLLaMA3 processing_videollama3.py and image_processing_videollama3.py. Differences:
    times and frames travel together in a Clip; the pruner runs here, so that the prompt has one
    slot per kept token and batches larger than one work; a text that looks like a special token
    stays text.
    """

    image_token, video_token, audio_token = prompt.IMAGE_TOKEN, VIDEO_TOKEN, AUDIO_TOKEN

    def __init__(
        self,
        tokenizer,
        settings: ProcessorSettings,
        *,
        image_token_id: int,
        video_token_id: int | None = None,
        audio_token_id: int | None = None,
        template: Template = CHATML,
    ) -> None:
        instance("tokenizer", tokenizer, PreTrainedTokenizerBase, "a tokenizer of transformers")
        instance("settings", settings, ProcessorSettings, "vl3.families.settings.ProcessorSettings")
        image_token_id = whole("image_token_id", image_token_id, low=0)
        if video_token_id is not None:
            video_token_id = whole("video_token_id", video_token_id, low=0)
        if audio_token_id is not None:
            audio_token_id = whole("audio_token_id", audio_token_id, low=0)
        instance("template", template, Template, "a vl3.families.template.Template")
        jinja = chat_template(template=template, sound=settings.sound is not None)
        if (tokenizer.pad_token_id or 0) in (image_token_id, video_token_id):
            tokenizer.pad_token = tokenizer.eos_token  # padding must not look like a visual token
        if tokenizer.chat_template is None:
            tokenizer.chat_template = jinja
        super().__init__(tokenizer, chat_template=jinja)
        self.settings, self.template = settings, template
        self.image_token_id, self.video_token_id = image_token_id, video_token_id
        self.audio_token_id = audio_token_id
        self.slot_ids = prompt.SlotIds(
            image=image_token_id,
            video=image_token_id if video_token_id is None else video_token_id,
            audio=audio_token_id,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]  # options by name, read in one place
        cls, pretrained_model_name_or_path: str | Path, **kwargs
    ) -> VL3Processor:
        """The processor of a checkpoint in any whole-model layout: a folder or a hub id.

        Takes subfolder, revision and what else says where files are; settings of
        ProcessorSettings (fps, budget_tokens ...) replace those of the folder. Code of a checkpoint
        is never run.
        Raises: LayoutError for a folder that is no checkpoint, ValueError for an unknown name.
        """
        folder = from_pretrained.place(pretrained_model_name_or_path, kwargs)
        known = {field.name for field in fields(ProcessorSettings)}
        changed = {name: kwargs.pop(name) for name in known & kwargs.keys()}
        for name in kwargs.keys() - LOADING:
            raise ValueError(
                f"a processor has no setting {name!r}{did_you_mean(name, [*known, 'subfolder'])}"
            )
        own = layouts.read_json(folder, CONFIG_FILE) or {}
        if "image_token_id" in own:  # needs no model beside it, as an adapter has none
            ids, patch = own, own["patch"]
        else:
            config = read_config(folder)
            ids, patch = vars(config), config.vision_config.patch_size
        return cls(
            load_tokenizer(folder),
            replace(read_settings(folder, patch=patch), **changed),
            image_token_id=ids["image_token_id"],
            video_token_id=ids["video_token_id"],
            audio_token_id=ids.get("audio_token_id"),
            template=read_chat_template(folder),
        )

    def to_dict(self) -> dict:
        """What save_pretrained writes beside the tokenizer."""
        ids = {"image_token_id": self.image_token_id, "video_token_id": self.video_token_id}
        settings = asdict(replace(self.settings, sound=None))
        del settings["sound"]
        if self.settings.square is None:  # nor is there one where pictures may have any size
            del settings["square"]
        if not self.settings.spread:
            del settings["spread"]
        other: dict[str, Any] = {}
        if self.template != CHATML:
            other["template"] = asdict(self.template)
        if self.settings.sound:
            other |= {"sound": self.settings.sound.to_dict(), "audio_token_id": self.audio_token_id}
        return {"processor_class": "VL3Processor"} | settings | ids | other

    @property
    def model_input_names(self) -> list[str]:
        visual = ["pixel_values", "grid_thw", "merge_sizes", "keep_mask"]
        sound = ["input_features", "feature_lengths", "sound_pieces", "sound_pools"]
        return ["input_ids", "attention_mask", *visual, *(sound if self.settings.sound else ())]

    def __call__(
        self,
        messages: Sequence[dict] | Sequence[Sequence[dict]] | None = None,
        *,
        text: str | Sequence[str] | None = None,
        images=None,
        videos=None,
        add_generation_prompt: bool = False,
        add_system_prompt: bool = False,
        continue_final_message: bool = False,
        return_labels: bool = False,
        return_tensors: str | None = "pt",
        prune: PruneSettings | str | None = "model",
        **options,
    ) -> BatchFeature:
        """Tensors for the model, of one conversation or a batch (padded on the left).

        text: instead of messages, what a chat template rendered, with <image> and <video> where
        images and videos (lists, or a list per text) go
        prune: "model" for the checkpoint's own setting, None to keep every token, or settings.
        options: budget_tokens, fps, max_frames or num_frames for this call; padding_side,
        pad_to_multiple_of, truncation and max_length as of tokenizers
        sound: False for what a deaf model would get
        Returns input_ids, attention_mask and, where there are media, pixel_values (uint8),
        grid_thw, merge_sizes, keep_mask; where there is sound, input_features, feature_lengths,
        sound_pieces, sound_pools; labels on request.
        Raises: ValueError or vl3.video.VideoError in one sentence for what cannot be read.
        """
        if return_tensors is not None:
            choice("return_tensors", return_tensors, ("pt",))
        add_generation_prompt = switch("add_generation_prompt", add_generation_prompt)
        add_system_prompt = switch("add_system_prompt", add_system_prompt)
        continue_final_message = switch("continue_final_message", continue_final_message)
        return_labels = switch("return_labels", return_labels)
        asked = read_options(self.settings, options, prune)
        prompts, packed, heard = [], [], []
        for conversation in self._batch(messages, text, images, videos, return_labels):
            prepared = self._prepared(conversation, asked.settings, asked.num_frames)
            if isinstance(conversation, RenderedText):
                rendered = self._render_text(conversation, prepared)
            else:
                rendered = self.render(
                    conversation,
                    prepared.slots,
                    add_system_prompt=add_system_prompt,
                    add_generation_prompt=add_generation_prompt,
                )
            prompts.append(self._unended(rendered) if continue_final_message else rendered)
            if prepared.grids:
                packed.append(_packed(prepared))
            heard += [sound for sound in prepared.heard if sound and sound.num_tokens]
        found: dict[str, Any] = self._pad(prompts, return_labels, **asked.padding)
        if return_tensors is None:
            found = {name: tensor.tolist() for name, tensor in found.items()}
        if packed:
            found |= visual_tensors(packed)
        if heard:
            found |= sound_tensors(heard)
        return BatchFeature(found)

    @staticmethod
    def _batch(messages, text, images, videos, return_labels: bool) -> Sequence:
        """The conversations of a call, or its rendered texts."""
        if (messages is None) == (text is None):
            raise ValueError("a processor takes messages or text, one of them")
        if text is not None and return_labels:
            raise ValueError("a rendered text does not say what is learned; pass messages")
        if isinstance(messages, str) or (
            isinstance(messages, list | tuple) and messages and isinstance(messages[0], str)
        ):
            raise ValueError(
                "messages are dicts with role and content - got text; pass it as text=, or in a "
                "message of a user"
            )
        if text is not None:
            return rendered_texts(text, images, videos)
        if images is not None or videos is not None:
            raise ValueError("images and videos go into the messages, or beside text=")
        return conversations(messages)

    @staticmethod
    def _prepared(conversation, settings: ProcessorSettings, num_frames: int | None) -> Prepared:
        is_text = isinstance(conversation, RenderedText)
        media = find_media(conversation.messages if is_text else conversation)
        if num_frames is not None:
            media = [_sampled(medium, num_frames) for medium in media]
        return prepare(plan(media, settings))

    def _render_text(self, rendered: RenderedText, prepared: Prepared) -> prompt.Prompt:
        slots = prepared.slots
        (message,) = annotate(rendered.messages, prepared.media, slots)
        counts = _flat(slots)
        return prompt.render_text(
            rendered.text,
            self.tokenizer,
            self.slot_ids,
            message["content"],
            counts,
            MARKS,
            self.template,
        )

    def plan(self, messages: Sequence[dict], settings: ProcessorSettings | None = None) -> Planned:
        """What the media of a conversation cost, from headers alone.

        settings: in place of the checkpoint's own
        """
        return plan(find_media(messages), settings or self.settings)

    def render(
        self,
        messages: Sequence[dict],
        slots: Sequence[SlotRuns],
        *,
        add_system_prompt: bool = False,
        add_generation_prompt: bool = False,
    ) -> prompt.Prompt:
        """Token ids of a conversation, with slots for the visual tokens of its media.

        slots: of each of its media, as a plan (before pruning) or what was prepared has them
        """
        return prompt.render(
            annotate(messages, find_media(messages), slots),
            self.tokenizer,
            self.slot_ids,
            _flat(slots),
            template=self.template,
            add_system_prompt=add_system_prompt,
            add_generation_prompt=add_generation_prompt,
        )

    def _pad(
        self,
        prompts: list[prompt.Prompt],
        return_labels: bool,
        *,
        padding: bool | str = True,
        padding_side: str = "left",
        pad_to_multiple_of: int | None = None,
        truncation: bool = False,
        max_length: int | None = None,
    ) -> dict[str, torch.Tensor]:
        if truncation and max_length is not None:
            prompts = [_truncated(rendered, max_length) for rendered in prompts]
        longest = max(len(rendered.ids) for rendered in prompts)
        if padding == "max_length" and max_length is not None:
            longest = max(longest, max_length)
        if pad_to_multiple_of:
            longest = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, prompt.IGNORE)
        for row, rendered in enumerate(prompts):
            start = 0 if padding_side == "right" else longest - len(rendered.ids)
            used = slice(start, start + len(rendered.ids))
            ids[row, used] = torch.tensor(rendered.ids, dtype=ids.dtype)
            mask[row, used] = 1
            labels[row, used] = torch.tensor(rendered.labels, dtype=ids.dtype)
        tensors = {"input_ids": ids, "attention_mask": mask}
        return tensors | {"labels": labels} if return_labels else tensors

    def _unended(self, rendered: prompt.Prompt) -> prompt.Prompt:
        """The prompt without what ends its last message, which the model goes on with."""
        end = self.tokenizer.convert_tokens_to_ids(self.template.end)
        kept = len(rendered.ids) - 1 - rendered.ids[::-1].index(end)
        text = rendered.text.removesuffix(self.template.after).removesuffix(self.template.end)
        return replace(rendered, text=text, ids=rendered.ids[:kept], labels=rendered.labels[:kept])

    def decode(self, token_ids, skip_special_tokens: bool = True, **kwargs) -> str:
        """Text of generated ids, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens, **kwargs)

    def batch_decode(self, sequences, skip_special_tokens: bool = True, **kwargs) -> list[str]:
        """Texts of a batch of generated ids, without special tokens."""
        return self.tokenizer.batch_decode(
            sequences, skip_special_tokens=skip_special_tokens, **kwargs
        )


def _flat(slots: Sequence[SlotRuns]) -> list[int]:
    return [count for runs in slots for count in runs.in_order]


def _sampled(medium: AnyPart, num_frames: int) -> AnyPart:
    """The medium with so many frames, unless its own part says how many."""
    if medium.kind != "video" or medium.options.keys() & {"fps", "num_frames", "max_frames"}:
        return medium
    return replace(medium, options=medium.options | {"num_frames": num_frames})


def _truncated(rendered: prompt.Prompt, max_length: int) -> prompt.Prompt:
    """The first max_length tokens; visual tokens cannot be among those left out."""
    last = rendered.media_end
    if last > max_length:
        raise ValueError(
            f"a prompt of {len(rendered.ids)} tokens has visual ones up to position {last}, which "
            f"max_length {max_length} cuts; raise max_length, or lower budget_tokens or max_frames"
        )
    return replace(rendered, ids=rendered.ids[:max_length], labels=rendered.labels[:max_length])


def _packed(prepared: Prepared) -> tuple[Patches, Keep]:
    """Patches as the model takes them, and the mask over them."""
    patches = spelled_out(prepared.patches)
    is_same = patches is prepared.patches
    return patches, prepared.keep if is_same else keep_all(patches.grids)


def visual_tensors(packed: Sequence[tuple[Patches, Keep]]) -> dict[str, torch.Tensor]:
    """pixel_values, grid_thw, merge_sizes and keep_mask of a batch, packed one after the other."""
    grids = [grid for patches, _ in packed for grid in patches.grids]
    return {
        "pixel_values": torch.cat([patches.pixels_NP for patches, _ in packed]),
        "grid_thw": torch.tensor([[grid.frames, grid.rows, grid.cols] for grid in grids]),
        "merge_sizes": torch.tensor([grid.merge for grid in grids]),
        "keep_mask": torch.cat([keep.keep_M for _, keep in packed]),
    }


def sound_tensors(heard: Sequence[Heard]) -> dict[str, torch.Tensor]:
    """What the model takes of all sounds of a batch, one after the other."""
    banks = [bank_AZ for sound in heard for bank_AZ in sound.banks]
    return {
        "input_features": torch.nn.utils.rnn.pad_sequence(banks, batch_first=True),
        "feature_lengths": torch.cat([sound.lengths for sound in heard]),
        "sound_pieces": torch.tensor([len(sound.lengths) for sound in heard]),
        "sound_pools": torch.tensor([sound.pool for sound in heard]),
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


AutoProcessor.register(VL3Config, VL3Processor, exist_ok=True)
