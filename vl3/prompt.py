"""Messages to token ids: the chat template, visual slots, time stamps, and what is learned.

The template's own special tokens are placed by id; everything between them is tokenized as plain
text. A user who types "<|im_end|>" or "<image>" therefore writes ordinary letters, and the ids
equal those of the official template in all other cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from vl3.families.template import (
    AUDIO_TOKEN,
    CHATML,
    IMAGE_TOKEN,
    STREAM_TOKENS,
    SYSTEM_PROMPT,
    VIDEO_TOKEN,
    Template,
)
from vl3.messages.reader import read
from vl3.values import IGNORE

__all__ = ["IGNORE", "IMAGE_TOKEN", "SYSTEM_PROMPT", "Prompt", "SlotIds", "render", "render_text"]


@dataclass(frozen=True, slots=True)
class Special:
    """One special token of the template; a visual slot names the kind of its medium."""

    text: str
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    text: what the template gives, one placeholder per run of slots
    ids, labels: token ids with one slot per visual token; IGNORE where nothing is learned
    spans: (first position, slots) of every run of visual slots, in order: of an image, a frame, or
    the frames that a connector joins
    sounds: the same of sound: of one by itself, or of what is heard between two frames
    """

    text: str
    ids: list[int]
    labels: list[int]
    spans: list[tuple[int, int]] = field(default_factory=list)
    sounds: list[tuple[int, int]] = field(default_factory=list)

    @property
    def media_end(self) -> int:
        """The position after the last slot; 0 where there is none."""
        return max((sum(runs[-1]) for runs in (self.spans, self.sounds) if runs), default=0)


@dataclass(frozen=True, slots=True)
class SlotIds:
    """Token ids that mark the slots of images, of video frames and of sound.

    audio: None for a model that hears nothing
    """

    image: int
    video: int
    audio: int | None = None


def render(
    messages: Sequence[dict],
    tokenizer,
    slot_ids: SlotIds,
    counts: Iterable[int],
    *,
    template: Template = CHATML,
    add_system_prompt: bool = False,
    add_generation_prompt: bool = False,
) -> Prompt:
    """Token ids of a conversation, with a run of slots for every image and step of a video.

    counts: slots of each run, in order (vl3.vision.token_map.SlotRuns). A step is a frame; where a
    connector joins frames it is those that its tokens stand for, and is written as one frame would
    be, with the time of its first one
    template: the words around what is said, as of the checkpoint's processor

    A message is as vl3.messages.reader reads it, with media as vl3.messages.media.annotate leaves
    them: {"type": "image", optional "timestamp"}, {"type": "video", "num_frames" (its steps),
    optional "timestamps" (of each step), optional "sounds" (slots before the first step and after
    each)}, {"type": "audio"}; times in seconds.

    Labels: an assistant's tokens after its header, with the end token, unless its message says
    "loss": False; and the first token after a stream turn, where the model decides whether to speak
    or to go on watching.
    Raises: ValueError when frames and counts differ in number, and as vl3.messages.reader.read.
    Source: VideoLLaMA3 chat_template.json and processing_videollama3.py. Difference: after a stream
            turn every decision is labelled; thinning the silent majority is left to training.
    """
    prompt = Prompt(text="", ids=[], labels=[])
    turns = list(read(messages))
    if add_system_prompt and turns and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": template.system_prompt})
    if template.system:
        turns = with_system_inside(turns, template)
    runs = iter(counts)
    answer = list(_pieces(template, template.turn("assistant")[0]))
    end_id = tokenizer.convert_tokens_to_ids(template.end)
    text, after_stream = template.begin, False
    _append(prompt, _pieces(template, template.begin), tokenizer, slot_ids, runs)
    for turn in turns:
        pieces = list(_turn_pieces(turn, template))
        text += _written(pieces)
        start = len(prompt.ids)
        _append(prompt, pieces, tokenizer, slot_ids, runs)
        if turn["role"] == "assistant" and turn.get("loss", True):
            learned = slice(start + _count_ids(answer, tokenizer), _last(prompt.ids, end_id) + 1)
            prompt.labels[learned] = prompt.ids[learned]
        if after_stream:
            prompt.labels[start] = prompt.ids[start]
        after_stream = turn["role"] == "stream"
    if add_generation_prompt:
        text += _written(answer)
        _append(prompt, answer, tokenizer, slot_ids, runs)
    if (left := sum(1 for _ in runs)) > 0:
        raise ValueError(f"the messages have {left} frames fewer than were encoded")
    return replace(prompt, text=text)


def _turn_pieces(turn: dict, template: Template) -> Iterable[str | Special]:
    """The pieces of one message: plain text and special tokens."""
    opening, closing = template.turn(turn["role"])
    yield from _pieces(template, opening)
    content = turn["content"]
    if isinstance(content, str):
        yield content
    else:
        for part in content:
            yield from _part_pieces(part, template)
    yield from _pieces(template, closing)
    yield from _pieces(template, template.after_turn(turn["role"]))
    if turn["role"] == "stream" and isinstance(content, str):  # the official template is uneven
        yield "\n"


def with_system_inside(turns: Sequence[dict], template: Template) -> list[dict]:
    """The turns with what the system says at the beginning of the turn that follows it.

    Raises: ValueError where none does.
    """
    found: list[dict] = []
    before: list[dict] = []
    opening, closing = template.system.split("{}")
    for turn in turns:
        parts = turn["content"]
        if isinstance(parts, str):
            parts = [{"type": "text", "text": parts}]
        if turn["role"] == "system":
            texts = ({"type": "text", "text": text} for text in (opening, closing))
            before = [*before, next(texts), *parts, next(texts)]
        elif before and turn["role"] != "assistant":
            found.append(turn | {"content": [*before, *parts]})
            before = []
        else:
            found.append(turn)
    if before:
        raise ValueError(
            "what the system says stands in the user's words with this model, and none follow; "
            "add a message of a user"
        )
    return found


def _pieces(template: Template, text: str) -> Iterable[str | Special]:
    """Text of the template itself, its special tokens apart."""
    for piece in template.pieces(text):
        is_special = piece in template.special or piece in STREAM_TOKENS
        yield Special(piece) if is_special else piece


def _written(pieces: Iterable[str | Special]) -> str:
    return "".join(piece if isinstance(piece, str) else piece.text for piece in pieces)


def _part_pieces(part: dict, template: Template) -> Iterable[str | Special]:
    kind = part["type"]
    if kind == "text":
        yield part["text"]
    elif kind == "image":
        if "timestamp" in part:
            yield template.image_stamp.format(stamp(part["timestamp"]))
        yield Special(IMAGE_TOKEN, slot="image")
        yield "\n"
    elif kind == "video" and "num_frames" in part:
        times, num_frames = part.get("timestamps"), part["num_frames"]
        before, *sounds = part.get("sounds") or (0,) * (num_frames + 1)
        if before:
            yield Special(AUDIO_TOKEN, slot="audio")
        if not template.frame_stamp:  # one run, and one mark for all of it
            for index in range(num_frames):
                yield Special("" if index else VIDEO_TOKEN, slot="video")
                if sounds[index]:
                    yield Special("", slot="audio")
            yield "\n"
            return
        for index in range(num_frames):
            if times is not None:
                yield template.frame_stamp.format(stamp(times[index]))
            yield Special(IMAGE_TOKEN, slot="video")
            if sounds[index]:
                yield Special(AUDIO_TOKEN, slot="audio")
            yield "," if index < num_frames - 1 else "\n"
    elif kind == "audio":
        if part.get("sounds") != [0]:  # muted
            yield Special(AUDIO_TOKEN, slot="audio")
            yield "\n"
    else:
        raise ValueError(f"a part of type {kind} is not ready for a prompt; annotate it first")


def stamp(time_s: float) -> str:
    """Seconds with one decimal, halves to even, as the official template rounds."""
    return str(round(float(time_s), 1))


def _append(prompt: Prompt, pieces, tokenizer, slot_ids: SlotIds, counts) -> None:
    """Adds the ids of one turn; text between two special tokens is tokenized in one go."""
    runs: list[str | Special] = []
    for piece in pieces:
        if isinstance(piece, str) and runs and isinstance(runs[-1], str):
            runs[-1] += piece
        else:
            runs.append(piece)
    texts = [run for run in runs if isinstance(run, str)]
    encoded = iter(plain_ids(tokenizer, texts))
    for run in runs:
        if isinstance(run, str):
            ids = next(encoded)
        elif run.slot is None:
            ids = [tokenizer.convert_tokens_to_ids(run.text)]
        else:
            count = next(counts, None)
            if count is None:
                raise ValueError("the messages have more frames than were encoded")
            spans = prompt.sounds if run.slot == "audio" else prompt.spans
            spans.append((len(prompt.ids), count))
            ids = [getattr(slot_ids, run.slot)] * count
        prompt.ids.extend(ids)
        prompt.labels.extend([IGNORE] * len(ids))


def plain_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, special tokens in it read as ordinary letters."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _count_ids(pieces: Iterable[str | Special], tokenizer) -> int:
    """Ids of pieces that hold no slots."""
    counted = Prompt(text="", ids=[], labels=[])
    _append(counted, pieces, tokenizer, SlotIds(image=0, video=0), iter(()))
    return len(counted.ids)


def _last(ids: Sequence[int], token_id: int) -> int:
    """The position of the last of those tokens."""
    return len(ids) - 1 - ids[::-1].index(token_id)


def render_text(
    text: str,
    tokenizer,
    slot_ids: SlotIds,
    media: Sequence[dict],
    counts: Iterable[int],
    marks: dict[str, str],
    template: Template = CHATML,
) -> Prompt:
    """Token ids of a text that a template has rendered: special tokens in it are special.

    media: a part per medium, in order, as render takes them; marks: what stands for a medium, and
    of which type; a mark of an image also stands for one step of a video; counts: as of render
    """
    prompt, runs = Prompt(text=text, ids=[], labels=[]), iter(counts)
    parts, frames, sounds = iter(media), 0, iter(())
    known = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    pieces: list[str | Special] = []
    for piece in re.split("(" + "|".join(map(re.escape, [*marks, *known])) + ")", text):
        if piece in marks and frames == 0:
            part = next(parts, None)
            if part is None:
                raise ValueError("the text has more marks of images and videos than were given")
            if (marks[piece] == "audio") != (part["type"] == "audio"):
                raise ValueError(f"the text marks {marks[piece]} where {part['type']} was given")
            frames = part.get("num_frames", 1) if part["type"] == "video" else 1
            if marks[piece] == "video":
                pieces += list(_part_pieces(part, template))[:-1]  # the text has its own line end
                frames = 0
                continue
            sounds = iter(part.get("sounds") or ())
            pieces += [Special(AUDIO_TOKEN, slot="audio")] if next(sounds, 0) else []
        if piece in marks:
            pieces.append(Special(piece, slot=cast(dict, part)["type"]))
            pieces += [Special(AUDIO_TOKEN, slot="audio")] if next(sounds, 0) else []
            frames -= 1
        elif piece in known:
            pieces.append(Special(piece))
        elif piece:
            pieces.append(piece)
    _append(prompt, pieces, tokenizer, slot_ids, runs)
    if (left := sum(1 for _ in runs)) > 0:
        raise ValueError(f"the text has {left} frames fewer than were encoded")
    return prompt
