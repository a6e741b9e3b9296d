"""Messages to token ids: the chat template, visual slots, time stamps, and what is learned.

The template's own special tokens are placed by id; everything between them is tokenized as plain
text. A user who types "<|im_end|>" or "<image>" therefore writes ordinary letters, and the ids
equal those of the official template in all other cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from vl3.messages.reader import read
from vl3.values import IGNORE

SYSTEM_PROMPT = (
    "You are VideoLLaMA3 created by Alibaba DAMO Academy, "
    "a helpful assistant to help people understand images and videos."
)
IMAGE_TOKEN = "<image>"


@dataclass(frozen=True, slots=True)
class Special:
    """One special token of the template; a visual slot names the kind of its medium."""

    text: str
    slot: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation.

    text: what the template gives, one placeholder per frame
    ids, labels: token ids with one slot per visual token; IGNORE where nothing is learned
    spans: (first position, slots) of every frame or image, in order
    """

    text: str
    ids: list[int]
    labels: list[int]
    spans: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SlotIds:
    """Token ids that mark the visual slots of images and of video frames."""

    image: int
    video: int


def render(
    messages: Sequence[dict],
    tokenizer,
    slot_ids: SlotIds,
    tokens_per_frame: Iterable[int],
    *,
    add_system_prompt: bool = False,
    add_generation_prompt: bool = False,
) -> Prompt:
    """Token ids of a conversation, with as many slots per frame as tokens_per_frame says.

    A message is as vl3.messages.reader reads it, with media as vl3.messages.media.annotate leaves
    them: {"type": "image", optional "timestamp"}, {"type": "video", "num_frames", optional
    "timestamps"}; times in seconds.

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
        turns.insert(0, {"role": "system", "content": SYSTEM_PROMPT})
    counts = iter(tokens_per_frame)
    text, after_stream = "", False
    for turn in turns:
        pieces = list(_turn_pieces(turn))
        text += "".join(piece if isinstance(piece, str) else piece.text for piece in pieces)
        start = len(prompt.ids)
        _append(prompt, pieces, tokenizer, slot_ids, counts)
        if turn["role"] == "assistant" and turn.get("loss", True):
            header = len(_header_ids(tokenizer))
            prompt.labels[start + header : -1] = prompt.ids[start + header : -1]
        if after_stream:
            prompt.labels[start] = prompt.ids[start]
        after_stream = turn["role"] == "stream"
    if add_generation_prompt:
        text += "<|im_start|>assistant\n"
        ids = _header_ids(tokenizer)
        prompt.ids.extend(ids)
        prompt.labels.extend([IGNORE] * len(ids))
    if (left := sum(1 for _ in counts)) > 0:
        raise ValueError(f"the messages have {left} frames fewer than were encoded")
    return Prompt(text=text, ids=prompt.ids, labels=prompt.labels, spans=prompt.spans)


def _turn_pieces(turn: dict) -> Iterable[str | Special]:
    """The pieces of one message: plain text and special tokens."""
    kind = "stream" if turn["role"] == "stream" else "im"
    yield Special(f"<|{kind}_start|>")
    yield turn["role"] + "\n"
    content = turn["content"]
    if isinstance(content, str):
        yield content
    else:
        for part in content:
            yield from _part_pieces(part)
    yield Special(f"<|{kind}_end|>")
    if kind == "im" or isinstance(content, str):  # the official template is uneven here
        yield "\n"


def _part_pieces(part: dict) -> Iterable[str | Special]:
    kind = part["type"]
    if kind == "text":
        yield part["text"]
    elif kind == "image":
        if "timestamp" in part:
            yield f"Time {stamp(part['timestamp'])}s: "
        yield Special(IMAGE_TOKEN, slot="image")
        yield "\n"
    elif kind == "video" and "num_frames" in part:
        times, num_frames = part.get("timestamps"), part["num_frames"]
        for index in range(num_frames):
            if times is not None:
                yield f"Time {stamp(times[index])}s:"
            yield Special(IMAGE_TOKEN, slot="video")
            yield "," if index < num_frames - 1 else "\n"
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
            prompt.spans.append((len(prompt.ids), count))
            ids = [getattr(slot_ids, run.slot)] * count
        prompt.ids.extend(ids)
        prompt.labels.extend([IGNORE] * len(ids))


def plain_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, special tokens in it read as ordinary letters."""
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def _header_ids(tokenizer) -> list[int]:
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    return [start, *plain_ids(tokenizer, ["assistant\n"])[0]]


def render_text(
    text: str,
    tokenizer,
    slot_ids: SlotIds,
    media: Sequence[dict],
    tokens_per_frame: Iterable[int],
    marks: dict[str, str],
) -> Prompt:
    """Token ids of a text that a template has rendered: special tokens in it are special.

    media: a part per medium, in order, as render takes them; marks: what stands for a medium, and
    of which type; a mark of an image also stands for one frame of a video
    """
    prompt, counts = Prompt(text=text, ids=[], labels=[]), iter(tokens_per_frame)
    parts, frames = iter(media), 0
    known = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    pieces: list[str | Special] = []
    for piece in re.split("(" + "|".join(map(re.escape, [*marks, *known])) + ")", text):
        if piece in marks and frames == 0:
            part = next(parts, None)
            if part is None:
                raise ValueError("the text has more marks of images and videos than were given")
            frames = part.get("num_frames", 1) if part["type"] == "video" else 1
            if marks[piece] == "video":
                pieces.extend(list(_part_pieces(part))[:-1])  # the text has its own line end
                frames = 0
                continue
        if piece in marks:
            pieces.append(Special(piece, slot=cast(dict, part)["type"]))
            frames -= 1
        elif piece in known:
            pieces.append(Special(piece))
        elif piece:
            pieces.append(piece)
    _append(prompt, pieces, tokenizer, slot_ids, counts)
    if (left := sum(1 for _ in counts)) > 0:
        raise ValueError(f"the text has {left} frames fewer than were encoded")
    return prompt
