"""Messages with pictures and videos to tensors, and back to text.

Media are measured first (headers only), the grids follow from the token budget, and only then are
frames decoded, each resized to its grid at once. What the pruner drops never becomes a slot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoProcessor,
    BatchFeature,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from vl3 import prompt
from vl3.arguments import (
    choice,
    did_you_mean,
    instance,
    items,
    number,
    shown,
    switch,
    whole,
)
from vl3.config import VL3Config
from vl3.families import layouts, read_chat_template, read_config, read_settings
from vl3.families.settings import CONFIG_FILE, ProcessorSettings, PruneSettings
from vl3.families.template import CHATML, NATIVE_IMAGE, NATIVE_VIDEO, VIDEO_TOKEN, Template
from vl3.hf import from_pretrained
from vl3.hf.chat_template import chat_template
from vl3.messages.media import MediaInfo, MediaPart, annotate, find_media
from vl3.messages.reader import conversations, read
from vl3.pipeline import Planned, plan, prepare
from vl3.values import Clip, Keep, Patches

# What stands for a medium in a rendered text, and for which kind.
MARKS = {
    prompt.IMAGE_TOKEN: "image",
    NATIVE_IMAGE: "image",
    VIDEO_TOKEN: "video",
    NATIVE_VIDEO: "video",
}
PER_CALL = ("budget_tokens", "fps", "max_frames")
SAMPLING = ("num_frames",)
LONGEST = 1 << 30  # tokens that an argument may name
PADDING = ("padding", "padding_side", "pad_to_multiple_of", "truncation", "max_length")
NO_MEANING = (
    "add_special_tokens",
    "do_sample_frames",
    "return_metadata",
    "return_attention_mask",
    "return_mm_token_type_ids",
    "return_dict",
)
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


class VL3Processor(ProcessorMixin):
    """Messages to model inputs, with the tokenizer and settings of one checkpoint.

    Source: VideoLLaMA3 processing_videollama3.py and image_processing_videollama3.py. Differences:
    times and frames travel together in a Clip; the pruner runs here, so that the prompt has one
    slot per kept token and batches larger than one work; a text that looks like a special token
    stays text.
    """

    image_token, video_token = prompt.IMAGE_TOKEN, VIDEO_TOKEN

    def __init__(
        self,
        tokenizer,
        settings: ProcessorSettings,
        *,
        image_token_id: int,
        video_token_id: int | None = None,
        template: Template = CHATML,
    ) -> None:
        instance("tokenizer", tokenizer, PreTrainedTokenizerBase, "a tokenizer of transformers")
        instance("settings", settings, ProcessorSettings, "vl3.families.settings.ProcessorSettings")
        image_token_id = whole("image_token_id", image_token_id, low=0)
        if video_token_id is not None:
            video_token_id = whole("video_token_id", video_token_id, low=0)
        instance("template", template, Template, "a vl3.families.template.Template")
        jinja = chat_template(template=template)
        if tokenizer.chat_template is None:
            tokenizer.chat_template = jinja
        super().__init__(tokenizer, chat_template=jinja)
        self.settings, self.template = settings, template
        self.image_token_id, self.video_token_id = image_token_id, video_token_id
        self.slot_ids = prompt.SlotIds(
            image=image_token_id,
            video=image_token_id if video_token_id is None else video_token_id,
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
            template=read_chat_template(folder),
        )

    def to_dict(self) -> dict:
        """What save_pretrained writes beside the tokenizer."""
        ids = {"image_token_id": self.image_token_id, "video_token_id": self.video_token_id}
        other = {} if self.template == CHATML else {"template": asdict(self.template)}
        return {"processor_class": "VL3Processor"} | asdict(self.settings) | ids | other

    @property
    def model_input_names(self) -> list[str]:
        visual = ["pixel_values", "grid_thw", "merge_sizes", "keep_mask"]
        return ["input_ids", "attention_mask", *visual]

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
        Returns input_ids, attention_mask and, where there are media, pixel_values (uint8),
        grid_thw, merge_sizes, keep_mask; labels on request.
        Raises: ValueError or vl3.video.VideoError in one sentence for what cannot be read.
        """
        if return_tensors is not None:
            choice("return_tensors", return_tensors, ("pt",))
        add_generation_prompt = switch("add_generation_prompt", add_generation_prompt)
        add_system_prompt = switch("add_system_prompt", add_system_prompt)
        continue_final_message = switch("continue_final_message", continue_final_message)
        return_labels = switch("return_labels", return_labels)
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
        settings, num_frames, padding = self._options(options, prune)
        prompts, packed = [], []
        batch: Sequence
        if text is not None:
            batch = self._texts(text, images, videos)
        elif images is not None or videos is not None:
            raise ValueError("images and videos go into the messages, or beside text=")
        else:
            batch = conversations(cast(Sequence, messages))
        for conversation in batch:
            rendered, prepared = self._conversation(
                conversation, settings, num_frames, add_generation_prompt, add_system_prompt
            )
            prompts.append(self._unended(rendered) if continue_final_message else rendered)
            if prepared.media:
                packed.append((prepared.patches, prepared.keep))
        found: dict[str, Any] = self._pad(prompts, return_labels, **padding)
        if return_tensors is None:
            found = {name: tensor.tolist() for name, tensor in found.items()}
        return BatchFeature(found | (visual_tensors(packed) if packed else {}))

    def apply_chat_template(  # type: ignore[override]  # options by name, read in one place
        self,
        conversation: Sequence[dict] | Sequence[Sequence[dict]],
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        add_generation_prompt: bool = False,
        add_system_prompt: bool = False,
        continue_final_message: bool = False,
        return_assistant_tokens_mask: bool = False,
        processor_kwargs: dict | None = None,
        **kwargs,
    ):
        """A conversation, or a batch, as text; with tokenize as token ids [B, L]; with return_dict
        too as the whole input of the model, media read.

        As text, a video that was not read yet is one <video>. Token ids are lists, or tensors with
        return_tensors="pt", as of every class of transformers. Arguments of __call__ are taken in
        processor_kwargs or beside the others.
        """
        batch = conversations(conversation)
        is_batch = batch[0] is not conversation
        rendering: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        is_own = chat_template in (None, self.chat_template)
        if not tokenize or not is_own:
            texts = super().apply_chat_template(
                [_as_template(talk) for talk in batch],
                chat_template=chat_template,
                add_system_prompt=add_system_prompt,
                **rendering,
            )
            if not tokenize:
                return texts if is_batch else texts[0]
        options = kwargs | (processor_kwargs or {})
        for name in ("tools", "documents"):
            if options.pop(name, None):
                raise ValueError(f"this model was not trained with {name}; write them as text")
        if is_own:
            tensors = self(
                batch,
                add_system_prompt=add_system_prompt,
                return_tensors=return_tensors,
                return_labels=return_assistant_tokens_mask,
                **rendering,
                **options,
            )
            if return_assistant_tokens_mask:
                learned = torch.as_tensor(tensors.pop("labels")) != prompt.IGNORE
                mask = learned.long()
                tensors["assistant_masks"] = mask if return_tensors == "pt" else mask.tolist()
        elif return_assistant_tokens_mask:
            raise ValueError("the answers of a template of your own are not known; leave it out")
        else:
            media = [find_media(talk) for talk in batch]
            images, videos = (
                [
                    [medium.part for medium in talk if (medium.part["type"] == "image") is kind]
                    for talk in media
                ]
                for kind in (True, False)
            )
            tensors = self(
                text=texts, images=images, videos=videos, return_tensors=return_tensors, **options
            )
        return tensors if return_dict else tensors["input_ids"]

    def _options(self, options: dict, prune) -> tuple[ProcessorSettings, int | None, dict]:
        """The settings of one call, the frames of each video, and how it pads; options that
        tokenizers have but say nothing here are left out."""
        given: dict[str, Any] = {}
        known = (*PER_CALL, *SAMPLING, *PADDING)
        for name, value in options.items():
            if name in ("text_kwargs", "images_kwargs", "videos_kwargs"):
                instance(name, value, Mapping, "a dict of options")
                given |= value
            else:
                given[name] = value
        for name in given.keys() - {*known, *NO_MEANING}:
            raise ValueError(f"a processor has no option {name!r}{did_you_mean(name, known)}")
        changed: dict[str, Any] = {}
        if given.get("fps") is not None:
            changed["fps"] = number("fps", given["fps"], above=0)
        for name in ("budget_tokens", "max_frames"):
            if given.get(name) is not None:
                changed[name] = whole(name, given[name], low=1)
        if not isinstance(prune, str) or prune != "model":
            if prune is not None and not isinstance(prune, PruneSettings):
                raise ValueError(
                    f"prune is 'model', None to keep every token, or PruneSettings - got "
                    f"{shown(prune)}"
                )
            changed["prune"] = prune
        padding = {n: given[n] for n in PADDING if n in given}
        for name in ("pad_to_multiple_of", "max_length"):
            if padding.get(name) is not None:
                padding[name] = whole(name, padding[name], low=1, high=LONGEST)
        if "padding_side" in padding:
            choice("padding_side", padding["padding_side"], ("left", "right"))
        if given.get("num_frames") is not None:
            given["num_frames"] = whole("num_frames", given["num_frames"], low=1)
        return replace(self.settings, **changed), given.get("num_frames"), padding

    def _texts(self, text, images, videos) -> list[_Rendered]:
        """Each rendered text with its media as parts of a message, in the order of its marks."""
        texts = [text] if isinstance(text, str) else items("text", text, "a text, or several")
        if not texts or not all(isinstance(each, str) for each in texts):
            raise ValueError(f"text is a text, or a list of at least one - got {shown(text)}")
        marks = [re.findall("|".join(map(re.escape, MARKS)), each) for each in texts]
        wanted = {
            kind: [sum(MARKS[mark] == kind for mark in found) for found in marks]
            for kind in ("image", "video")
        }
        films = _shared_out(videos, len(texts), wanted["video"])
        pictures = _shared_out(images, len(texts), wanted["image"])
        batch = []
        for each, found, own_images, own_videos in zip(texts, marks, pictures, films):
            kinds = [MARKS[mark] for mark in found]
            if own_videos and "video" not in kinds:  # one mark a frame, of videos alone
                kinds = ["video"] * len(own_videos)
            rest = {"image": iter(own_images), "video": iter(own_videos)}
            parts = [
                source
                if isinstance(source, dict) and "type" in source
                else {"type": kind, kind: source}
                for kind in kinds
                if (source := next(rest[kind], None)) is not None
            ]
            if len(parts) != len(kinds) or any(
                next(left, None) is not None for left in rest.values()
            ):
                raise ValueError(
                    f"a text has {kinds.count('image')} <image> and {kinds.count('video')} <video> "
                    f"- got {len(own_images)} images and {len(own_videos)} videos for it"
                )
            batch.append(_Rendered(each, [{"role": "user", "content": parts}]))
        return batch

    def _conversation(
        self, messages, settings, num_frames, add_generation_prompt, add_system_prompt
    ):
        text = None
        if isinstance(messages, _Rendered):
            text, messages = messages.text, messages.messages
        media = find_media(messages)
        if num_frames is not None:
            media = [_sampled(medium, num_frames) for medium in media]
        prepared = prepare(plan(media, settings))
        if text is not None:
            parts = annotate(messages, media, prepared.shown)[0]["content"]
            counts = prepared.counts
            rendered = prompt.render_text(
                text, self.tokenizer, self.slot_ids, parts, counts, MARKS, self.template
            )
        else:
            rendered = self.render(
                messages,
                prepared.shown,
                prepared.counts,
                add_system_prompt=add_system_prompt,
                add_generation_prompt=add_generation_prompt,
            )
        return rendered, prepared

    def plan(self, messages: Sequence[dict], settings: ProcessorSettings | None = None) -> Planned:
        """What the media of a conversation cost, from headers alone.

        settings: in place of the checkpoint's own
        """
        return plan(find_media(messages), settings or self.settings)

    def render(
        self,
        messages: Sequence[dict],
        shown: Sequence[Clip | MediaInfo],
        counts: Sequence[int],
        *,
        add_system_prompt: bool = False,
        add_generation_prompt: bool = False,
    ) -> prompt.Prompt:
        """Token ids of a conversation, with slots for the visual tokens of each frame.

        shown: of each of its media the clip, or what headers say; counts: tokens of each frame, as
        a plan (all of them) or what was prepared (the kept ones) has them
        """
        return prompt.render(
            annotate(messages, find_media(messages), shown),
            self.tokenizer,
            self.slot_ids,
            counts,
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


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A text that a template rendered, and its media in a message."""

    text: str
    messages: list[dict]


def _shared_out(media, texts: int, wanted: list[int]) -> list[list]:
    """Media of each text: a list per text, or one list that is shared out by their marks."""
    if media is None:
        return [[] for _ in range(texts)]
    media = list(media) if isinstance(media, list | tuple) else [media]
    if len(media) == texts and all(isinstance(own, list | tuple) for own in media):
        return [list(own) for own in media]
    if texts == 1:
        return [media]
    ends = list(accumulate(wanted))
    shared = [media[end - count : end] for end, count in zip(ends, wanted)]
    shared[-1] += media[ends[-1] :]  # too many: told where marks are counted
    return shared


def _as_template(messages: Sequence[dict]) -> list[dict]:
    """The messages as a template reads them: of a medium its type and what is known of its times.

    How a video that is still to be read is sampled says nothing about the text.
    """

    def part(given: dict) -> dict:
        kind = given["type"]
        if kind == "text" or kind not in given:
            return given
        return {key: given[key] for key in ("type", "timestamp") if key in given}

    return [
        turn
        if isinstance(turn["content"], str)
        else turn | {"content": [part(given) for given in turn["content"]]}
        for turn in read(messages)
    ]


def _sampled(medium: MediaPart, num_frames: int) -> MediaPart:
    """The medium with so many frames, unless its own part says how many."""
    if medium.kind == "image" or medium.options.keys() & {"fps", "num_frames", "max_frames"}:
        return medium
    return replace(medium, options=medium.options | {"num_frames": num_frames})


def _truncated(rendered: prompt.Prompt, max_length: int) -> prompt.Prompt:
    """The first max_length tokens; visual tokens cannot be among those left out."""
    last = max((start + count for start, count in rendered.spans), default=0)
    if last > max_length:
        raise ValueError(
            f"a prompt of {len(rendered.ids)} tokens has visual ones up to position {last}, which "
            f"max_length {max_length} cuts; raise max_length, or lower budget_tokens or max_frames"
        )
    return replace(rendered, ids=rendered.ids[:max_length], labels=rendered.labels[:max_length])


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


AutoProcessor.register(VL3Config, VL3Processor, exist_ok=True)
