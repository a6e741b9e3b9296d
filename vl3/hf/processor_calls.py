"""How processors of transformers are called: options by many names, rendered texts, templates.

Ours needs messages alone; whoever calls it as any other class goes through here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from transformers import ProcessorMixin

from vl3 import prompt
from vl3.arguments import choice, did_you_mean, instance, items, number, shown, switch, whole
from vl3.families.settings import ProcessorSettings
from vl3.families.template import AUDIO_TOKEN, NATIVE_IMAGE, NATIVE_VIDEO, VIDEO_TOKEN
from vl3.messages.media import find_media
from vl3.messages.reader import conversations, read
from vl3.settings import PruneSettings

# What stands for a medium in a rendered text, and for which kind.
MARKS = {
    prompt.IMAGE_TOKEN: "image",
    NATIVE_IMAGE: "image",
    VIDEO_TOKEN: "video",
    NATIVE_VIDEO: "video",
    AUDIO_TOKEN: "audio",
}
PER_CALL = ("budget_tokens", "fps", "max_frames", "sound")
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


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What one call asks for: settings, the frames of each video, and how prompts are padded."""

    settings: ProcessorSettings
    num_frames: int | None
    padding: dict[str, Any]


def read_options(settings: ProcessorSettings, options: Mapping, prune) -> CallOptions:
    """The options of a call over the settings of a processor; what tokenizers take but says nothing
    here is left out.

    prune: "model" for the settings' own, None for off, or PruneSettings
    Raises: ValueError in one sentence for an unknown name or a value that cannot be.
    """
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
                f"prune is 'model', None to keep every token, or PruneSettings - got {shown(prune)}"
            )
        changed["prune"] = prune
    if given.get("sound") is not None and settings.sound:
        changed["sound"] = replace(settings.sound, hear=switch("sound", given["sound"]))
    padding = {name: given[name] for name in PADDING if name in given}
    for name in ("pad_to_multiple_of", "max_length"):
        if padding.get(name) is not None:
            padding[name] = whole(name, padding[name], low=1, high=LONGEST)
    if "padding_side" in padding:
        choice("padding_side", padding["padding_side"], ("left", "right"))
    if given.get("num_frames") is not None:
        given["num_frames"] = whole("num_frames", given["num_frames"], low=1)
    return CallOptions(replace(settings, **changed), given.get("num_frames"), padding)


@dataclass(frozen=True, slots=True)
class RenderedText:
    """A text that a template rendered, and its media in a message."""

    text: str
    messages: list[dict]


def rendered_texts(text, images, videos) -> list[RenderedText]:
    """Each rendered text with its media as parts of a message, in the order of its marks.

    images, videos: lists, or a list per text
    Raises: ValueError where marks and media differ in number.
    """
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
        if len(parts) != len(kinds) or any(next(left, None) is not None for left in rest.values()):
            raise ValueError(
                f"a text has {kinds.count('image')} <image> and {kinds.count('video')} <video> "
                f"- got {len(own_images)} images and {len(own_videos)} videos for it"
            )
        batch.append(RenderedText(each, [{"role": "user", "content": parts}]))
    return batch


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


class ChatTemplateMixin(ProcessorMixin):
    """apply_chat_template for a processor whose call takes messages, or text with media."""

    chat_template: str

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
                [_as_template(each) for each in batch],
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
            tensors = self(text=texts, **_media_of(batch), return_tensors=return_tensors, **options)
        return tensors if return_dict else tensors["input_ids"]


def _media_of(batch: Sequence[Sequence[dict]]) -> dict[str, list[list[dict]]]:
    """The media of each conversation by their kind, as a call with text takes them."""
    media = [[medium.part for medium in find_media(each)] for each in batch]
    return {
        f"{kind}s": [[part for part in each if part["type"] == kind] for each in media]
        for kind in ("image", "video")
    }


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
