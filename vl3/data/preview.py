"""A record as the model sees it: frames at their size, what is pruned, tokens, what is learned."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vl3.data.checks import count_tokens
from vl3.data.normalize import media_parts
from vl3.data.records import Record
from vl3.pipeline import Prepared, prepare
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE, Prompt
from vl3.values import Clip
from vl3.video.sample import thin

MOST_FRAMES = 24  # shown of one medium; a report stays a file that opens
MOST_PIECE = 4  # tokens that one letter can be made of
DIMMED = 38  # alpha of what the pruner removed, of 255


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame: its picture (webp, pruned cells nearly transparent), its time, tokens kept."""

    picture: bytes
    time_s: float | None
    kept: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class MediaPreview:
    """One medium: frames shown, how many the model gets, their size in pixels.

    name: the file and what is taken of it; notes: what could not be read exactly
    """

    file: str
    name: str
    frames: tuple[Frame, ...]
    count: int
    height_px: int
    width_px: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """Tokens that make up a piece of the prompt.

    visual: the slots of one frame; heard: those of the sound that stands in one place
    """

    text: str
    count: int = 1
    learned: bool = False
    special: bool = False
    visual: bool = False
    heard: bool = False


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A sample as it is shown: media, and one row of pieces for each of its conversations."""

    place: str
    id: str
    dataset: str
    media: tuple[MediaPreview, ...]
    conversations: tuple[tuple[TextPiece, ...], ...]
    learned: int
    tokens: int


def preview(record: Record, place: str, processor: VL3Processor, visual_tokens: int) -> Preview:
    """Decodes the media of a record and renders its conversations.

    Raises: vl3.video.VideoError.
    """
    settings = replace(processor.settings, budget_tokens=visual_tokens)
    prepared = prepare(processor.plan(record.conversations[0], settings))
    slots = prepared.slots
    prompts = [processor.render(each, slots) for each in record.conversations]
    return Preview(
        place=place,
        id=record.id,
        dataset=record.dataset,
        media=tuple(_joined(_looks(media_parts(record.conversations[0]), prepared))),
        conversations=tuple(tuple(pieces(prompt, processor.tokenizer)) for prompt in prompts),
        learned=sum(label != IGNORE for prompt in prompts for label in prompt.labels),
        tokens=count_tokens(prompts),
    )


def _looks(parts: list[dict], prepared: Prepared) -> Iterator[MediaPreview]:
    start = 0
    seen = [part for part in parts if part["type"] != "audio"]
    for part, clip, grid in zip(seen, prepared.shown, prepared.grids):
        kept = prepared.keep.keep_M[start : start + grid.num_tokens]
        start += grid.num_tokens
        kept_TRC = kept.view(grid.frames, grid.token_rows, grid.token_cols)
        yield MediaPreview(
            file=_file(part),
            name=_name(part),
            frames=tuple(
                _frame(clip, index, kept_TRC[index])
                for index in thin(len(clip), MOST_FRAMES).tolist()
            ),
            count=len(clip),
            height_px=clip.frames_TYX3.shape[1],
            width_px=clip.frames_TYX3.shape[2],
            notes=clip.notes,
        )


def _joined(looks: Iterable[MediaPreview]) -> list[MediaPreview]:
    """The looks with single frames of one file, as a stream shows them, put together."""
    found: list[MediaPreview] = []
    for look in looks:
        before = found[-1] if found else None
        if before and look.count == 1 and before.file == look.file and look.frames[0].time_s:
            found[-1] = replace(
                before,
                name=f"{look.file}, frame by frame",
                frames=(*before.frames, *look.frames)[:MOST_FRAMES],
                count=before.count + 1,
                notes=tuple(dict.fromkeys((*before.notes, *look.notes))),
            )
        else:
            found.append(look)
    return found


def _file(part: dict) -> str:
    source = part[part["type"]]
    clip = getattr(source, "clip", source)  # of one that comes with its sound
    if isinstance(clip, Clip):
        return clip.source
    return Path(source["path"] if isinstance(source, dict) else source).name


def _name(part: dict) -> str:
    """The file of a medium, and what is taken of it."""
    source = part[part["type"]]
    options = source if isinstance(source, dict) else {}
    said = [
        f"{key} {value if isinstance(value, str) else format(value, 'g')}"
        for key, value in options.items()
        if key != "path"
    ]
    return ", ".join([_file(part), *said])


def _frame(clip: Clip, index: int, kept_RC: torch.Tensor) -> Frame:
    return Frame(
        picture=picture(clip.frames_TYX3[index], kept_RC.numpy()),
        time_s=None if clip.times_s is None else clip.times_s[index],
        kept=int(kept_RC.sum()),
        tokens=kept_RC.numel(),
    )


def picture(rgb_YX3: np.ndarray, kept_RC: np.ndarray) -> bytes:
    """A webp of the frame in which the cells that are not kept are nearly transparent."""
    image = Image.fromarray(rgb_YX3)
    if not kept_RC.all():
        alpha = Image.fromarray(np.where(kept_RC, 255, DIMMED).astype(np.uint8))
        image.putalpha(alpha.resize(image.size, Image.Resampling.NEAREST))
    out = io.BytesIO()
    image.save(out, "webp", quality=82)
    return out.getvalue()


def pieces(prompt: Prompt, tokenizer) -> list[TextPiece]:
    """The prompt in pieces of text, each a token or the few that make up one letter."""
    slots, sounds = dict(prompt.spans + prompt.sounds), dict(prompt.sounds)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    found, start = [], 0
    while start < len(prompt.ids):
        if slots.get(start):
            heard = start in sounds
            found.append(TextPiece(text="", count=slots[start], visual=not heard, heard=heard))
            start += slots[start]
            continue
        end, text = start + 1, _text(tokenizer, prompt.ids[start : start + 1])
        while text.endswith("\ufffd") and end - start < MOST_PIECE and end < len(prompt.ids):
            end += 1
            text = _text(tokenizer, prompt.ids[start:end])
        learned = prompt.labels[start] != IGNORE
        found.append(
            TextPiece(
                text=text, count=end - start, learned=learned, special=prompt.ids[start] in special
            )
        )
        start = end
    return found


def _text(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)
