"""Rows of the known file formats, each brought into one form. Pure functions, no file is touched.

The form (`Draft`): conversations whose turns have role and content, and the media that tags and
placeholders stand for. A content is a text, in which <image> and <video> are tags, or a list of
parts as vl3.messages.reader reads them; text of a part is taken literally, a part {"type": "image"}
without a source stands for the next medium listed. Roles are not checked here.

    messages        canonical, Hugging Face, OpenAI, swift: "messages" or "message_lists"
    conversations   LLaVA, VideoLLaMA 2 and 3, ShareGPT: "conversations" of from and value
    completion      TRL: "prompt" and "completion", texts or messages
    stream          VideoLLaMA 3 streams: "stream": true, "conversation" of role, content, time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from vl3.arguments import did_you_mean
from vl3.data import rules
from vl3.data.records import BadSample
from vl3.data.rules import Note
from vl3.messages import reader
from vl3.messages.keys import KINDS, LABELS
from vl3.messages.reader import is_given

STREAM_FRAMES = 400  # official STREAM_MAX_FRAMES
STREAM_FPS = 1.0
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")
# What a row may say of all its videos; other such keys of rows are facts about the file.
ROW_OPTIONS = (
    "fps",
    "max_frames",
    "nframes",
    "start",
    "start_time",
    "video_start",
    "end",
    "end_time",
    "video_end",
    "sample_fps",
    "times",
    "timestamps",
)
SYSTEM = ("system", "system_prompt")
# Columns of peers that change what is asked or learned and have no use here.
UNUSED_COLUMNS = (
    "tools",
    "objects",
    "rejected",
    "chosen",
    "rejected_response",
    "rejected_messages",
    "history",
    "min_pixels",
    "max_pixels",
    "total_pixels",
    "num_frames",
)
SLIPS = (
    "max_frames",
    "start_time",
    "end_time",
    "video_start",
    "video_end",
    "sample_fps",
    "system_prompt",
)
TURN_KEYS = {"role", "from", "content", "value", "loss", "loss_scale", "weight", "time"}


@dataclass(kw_only=True)
class Draft:
    """A row in one form, its media not looked for yet.

    conversations: turns {"role", "content", "loss"}; a content is a text or a list of text parts
    and media
    media: parts as vl3.messages.reader reads them, whose sources are paths, URLs, bytes or lists
    of them
    shared: whether the conversations are about the same media, which then stand in front of each
    notes: what the row says without effect
    """

    conversations: list[list[dict]]
    media: list[dict]
    shared: bool = False
    id: object = None
    dataset: object = None
    meta: dict = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def messages(row: dict) -> Draft:
    """Canonical rows, Hugging Face and OpenAI messages, swift; also several about one clip.

    Source: TRL and transformers chat templates (parts with type), ms-swift (columns, loss),
            Molmo2 (message_lists).
    """
    notes: list[Note] = []
    media = _media(row, notes)
    if row.get("message_lists") is None:
        return _draft(row, [_turns(row.get("messages"), '"messages"', notes)], media, notes)
    lists = _list(row["message_lists"], '"message_lists"')
    conversations = [_turns(turns, '"message_lists"', notes) for turns in lists]
    return _draft(row, conversations, media, notes, shared=True)


def conversations(row: dict) -> Draft:
    """LLaVA and VideoLLaMA rows; ShareGPT rows with plural columns.

    A tag <image> that stands for a video, as in LLaVA-Video, is read as <video>.
    Raises: BadSample E114 where image and video are both set.
    Source: VideoLLaMA3 train.py (_convert_normal), LLaMA-Factory (columns).
    """
    if is_given(row.get("image")) and is_given(row.get("video")):
        raise rules.image_and_video()
    notes: list[Note] = []
    turns = _stripped(_turns(row.get("conversations"), '"conversations"', notes))
    media = _media(row, notes)
    kinds = {medium["type"] for medium in media}
    texts = [turn["content"] for turn in turns if isinstance(turn["content"], str)]
    if kinds == {"video"} and not any("<video>" in text for text in texts):
        for turn in turns:
            if turn["role"] in ("human", "user") and isinstance(turn["content"], str):
                turn["content"] = turn["content"].replace("<image>", "<video>")
    return _draft(row, [turns], media, notes)


def completion(row: dict) -> Draft:
    """TRL rows: what is asked is not learned, the completion is. Source: TRL SFTTrainer."""
    asked, answered = row.get("prompt"), row.get("completion")
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if isinstance(answered, str):
        answered = [{"role": "assistant", "content": answered}]
    notes: list[Note] = []
    before = [turn | {"loss": False} for turn in _turns(asked, '"prompt"', notes)]
    turns = before + _turns(answered, '"completion"', notes)
    return _draft(row, [turns], _media(row, notes), notes)


def stream(row: dict) -> Draft:
    """Rows of a watched stream: a turn of role stream for every frame, messages at their times.

    Frames are taken at start_time, start_time + 1/fps, ... ("fps" of the row, else 1) up to the
    time of each message, at most STREAM_FRAMES; messages after the last frame are left out.
    Raises: BadSample E140 for times that are not ascending or outside the clip.
    Source: VideoLLaMA3 train.py (_convert_stream). Difference: time stamps are those of the file,
            the official ones count from start_time and never reach the prompt.
    """
    notes: list[Note] = []
    video = _part({"type": "video", "video": row.get("video")}, '"video"', notes)
    if not isinstance(video.get("video"), str | bytes):
        raise rules.wrong_type('"video" of a stream', "one path", row.get("video"))
    start = _number(row.get("start_time", 0.0), '"start_time"')
    end = _number(row.get("end_time"), '"end_time"')
    fps = STREAM_FPS if row.get("fps") is None else _number(row["fps"], '"fps"')
    if not 0 < fps <= reader.FASTEST_FPS:
        raise rules.wrong_type('"fps"', f"above 0 and at most {reader.FASTEST_FPS}", fps)
    said = row.get("conversation", row.get("conversations"))
    turns, shown, last = [], 0, start
    for index, message in enumerate(_list(said, '"conversation"'), start=1):
        time_s = _object(message, f"message {index}").get("time")
        time_s = _number(time_s, f'"time" of message {index}')
        if not start <= time_s <= end:
            raise rules.outside_clip(index, time_s, start, end)
        if time_s < last:
            raise rules.not_ascending("message", index, time_s, last)
        last = time_s
        while (now := start + shown / fps) <= time_s and now < end and shown < STREAM_FRAMES:
            frame = video | {"start": now, "end": now + 1 / fps, "fps": fps, "max_frames": 1}
            turns.append({"role": "stream", "content": [frame]})
            shown += 1
        if shown == STREAM_FRAMES and start + shown / fps <= time_s:
            break
        turns.append(_turn(message, index, notes))
    return _draft(row, [_stripped(turns)], [], notes)


FORMATS: dict[str, Callable[[dict], Draft]] = {
    "canonical": messages,
    "hf": messages,
    "openai": messages,
    "swift": messages,
    "llava": conversations,
    "sharegpt": conversations,
    "trl": completion,
    "stream": stream,
}


def detect(row: dict) -> str | None:
    """The format of a row by its keys; None when it has none of them."""
    if row.get("stream") is True:
        return "stream"
    if isinstance(row.get("message_lists"), list):
        return "canonical"
    if isinstance(row.get("messages"), list):
        return _flavour(row)
    if isinstance(row.get("conversations"), list):
        return "sharegpt" if any(row.get(kind + "s") is not None for kind in KINDS) else "llava"
    if row.get("prompt") is not None and row.get("completion") is not None:
        return "trl"
    return None


def _flavour(row: dict) -> str:
    """Which of the formats with messages a row is; all are read by the same function."""
    turns = [turn for turn in row["messages"] if isinstance(turn, dict)]
    parts = [
        part
        for turn in turns
        if isinstance(turn.get("content"), list)
        for part in turn["content"]
        if isinstance(part, dict)
    ]
    if any(part.get("type") in ("image_url", "video_url") for part in parts):
        return "openai"
    if row.get("media") is not None:
        return "canonical"
    if parts:
        return "hf"
    columns = any(row.get(kind) is not None or row.get(kind + "s") is not None for kind in KINDS)
    return "swift" if columns else "canonical"


def _draft(
    row: dict,
    conversations: list[list[dict]],
    media: list[dict],
    notes: list[Note],
    shared: bool = False,
) -> Draft:
    key, system = next(((key, row[key]) for key in SYSTEM if is_given(row.get(key))), ("", None))
    if system is not None and not isinstance(system, str):
        raise rules.wrong_type(f'"{key}"', "a text", system)
    for turns in conversations if system is not None else ():
        if turns and turns[0]["role"] == "system":
            notes.append(rules.unused(f"{key!r} beside a turn of role system is not used"))
        else:
            turns.insert(0, {"role": "system", "content": system})
    for key in UNUSED_COLUMNS:
        if is_given(row.get(key)):
            notes.append(rules.unused(f"{key!r} of a row is not used"))
    for key in sorted(row.keys() - {*SLIPS, *UNUSED_COLUMNS}):
        if near := get_close_matches(key, SLIPS, n=1, cutoff=0.87):
            notes.append(rules.unused(f"{key!r} of a row is not used; did you mean {near[0]}?"))
    given = row.get("meta")
    meta = given if isinstance(given, dict) else {}
    if row.get("weight") is not None:
        meta = meta | {"weight": _number(row["weight"], '"weight"')}
    return Draft(
        conversations=conversations,
        media=media,
        shared=shared,
        id=row.get("id"),
        dataset=row.get("dataset"),
        meta=meta,
        notes=notes,
    )


# Turns


def _turns(turns: object, what: str, notes: list[Note]) -> list[dict]:
    found = enumerate(_list(turns, what), start=1)
    return [_turn(turn, index, notes) for index, turn in found]


def _turn(turn: object, index: int, notes: list[Note]) -> dict:
    turn = _object(turn, f"turn {index}")
    role = turn["role"] if turn.get("role") is not None else turn.get("from")
    content = turn["content"] if turn.get("content") is not None else turn.get("value")
    what = f"the content of turn {index}"
    if isinstance(content, list):
        content = [_part(part, what, notes) for part in content]
    elif isinstance(content, dict):
        content = [_part(content, what, notes)]
    elif not isinstance(content, str):
        raise rules.wrong_type(what, "a text or a list of parts", content)
    for key in sorted(map(str, turn.keys() - TURN_KEYS - LABELS)):
        if is_given(turn.get(key)):
            near = did_you_mean(key, TURN_KEYS)
            notes.append(rules.unused(f"{key!r} of turn {index} is not used{near}"))
    made = {"role": role, "content": content}
    return made if _learned(turn, index) else made | {"loss": False}


def _stripped(turns: list[dict]) -> list[dict]:
    """The turns with the edges of what a person says stripped, as the official trainer does."""
    for turn in turns:
        if turn["role"] in ("human", "user") and isinstance(turn["content"], str):
            turn["content"] = turn["content"].strip()
    return turns


def _learned(turn: dict, index: int) -> bool:
    """Whether "loss", swift's "loss_scale" or OpenAI's "weight" leaves the turn to be learned."""
    keys = ("loss", "loss_scale", "weight")
    loss = next((turn[key] for key in keys if turn.get(key) is not None), None)
    if loss is None or isinstance(loss, bool):
        return loss is not False
    if not isinstance(loss, int | float):
        raise rules.wrong_type(f'"loss" of turn {index}', "true or false", loss)
    return loss != 0


def _part(part: Any, what: str, notes: list[Note]) -> dict:
    """A text part, a medium, or the placeholder of one."""
    try:
        return reader.read_part(part, lambda sentence: notes.append(rules.unused(sentence)))
    except ValueError as error:
        raise rules.refused(what, error) from None


# Media


def _media(row: dict, notes: list[Note]) -> list[dict]:
    """The media that a row lists, in the order media, images, videos, audios."""
    media = []
    for index, medium in enumerate(_list(row.get("media") or [], '"media"'), start=1):
        part = _part(_object(medium, f"medium {index}"), f"medium {index}", notes)
        if part["type"] not in KINDS or part["type"] not in part:
            raise rules.wrong_type(f'"path" of medium {index}', "a path", medium.get("path"))
        media.append(part)
    options = {key: row[key] for key in ROW_OPTIONS if is_given(row.get(key))}
    for kind in KINDS:
        for key in (kind, kind + "s"):
            for source in _sources(kind, row.get(key)):
                media.append(_column(kind, key, source, options, notes))
    return media


def _column(kind: str, key: str, source: object, options: dict, notes: list[Note]) -> dict:
    """A medium of a column, with what the row says of its videos."""
    if not isinstance(source, str | bytes | dict | list):
        raise rules.wrong_type(f'"{key}"', "a path, or a list of them", source)
    is_list = isinstance(source, list)
    beside = {
        key: value
        for key, value in options.items()
        if is_list or key not in ("sample_fps", "times", "timestamps")
    }
    return _part(
        {"type": kind, kind: source} | (beside if kind == "video" else {}), f'"{key}"', notes
    )


def _sources(kind: str, value: object) -> Iterator[object]:
    """The sources in a column: one, or a list of them; a list of pictures is one video."""
    if not is_given(value):
        return
    if not isinstance(value, list) or (kind == "video" and _is_frames(value)):
        yield value
    else:
        yield from (source for source in value if is_given(source))


def _is_frames(sources: list) -> bool:
    """Whether these files are the frames of one video; a single one may be an animation."""
    return len(sources) > 1 and all(
        isinstance(source, str) and source.lower().endswith(PICTURES) for source in sources
    )


# Types


def _list(value: object, what: str) -> list:
    if not isinstance(value, list):
        raise rules.wrong_type(what, "a list", value)
    return value


def _object(value: object, what: str) -> dict:
    if not isinstance(value, dict):
        raise rules.wrong_type(what, "an object", value)
    return value


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rules.wrong_type(what, "a number", value)
    if not abs(value) <= reader.LARGEST:
        raise BadSample("E102", f"{what} must be a number of reasonable size.")
    return value
