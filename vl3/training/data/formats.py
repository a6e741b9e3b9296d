"""Rows of the known file formats, each brought into one form. Pure functions, no file is touched.

The form (`Draft`): talks whose turns have role and content, and the media that tags and
placeholders stand for. A content is a text, in which <image> and <video> are tags, or a list of
parts; text of a part is taken literally, a part {"type": "image"} without a source stands for the
next medium listed. Roles are not checked here.

    messages        canonical, Hugging Face, OpenAI, swift: "messages" or "message_lists"
    conversations   LLaVA, VideoLLaMA 2 and 3, ShareGPT: "conversations" of from and value
    completion      TRL: "prompt" and "completion", texts or messages
    stream          VideoLLaMA 3 streams: "stream": true, "conversation" of role, content, time
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vl3.training.data import rules
from vl3.training.data.records import BadSample

STREAM_FRAMES = 400  # official STREAM_MAX_FRAMES
STREAM_FPS = 1.0
KINDS = ("image", "video", "audio")
OPTIONS = ("start", "end", "fps", "max_frames")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif")
SOURCES = ("path", "url", "bytes")


@dataclass(kw_only=True)
class Draft:
    """A row in one form, its media not looked for yet.

    talks: turns {"role", "content", "loss"}; a content is a text or a list of text parts and media
    media: {"type", "path" or "frames" with "times", and of OPTIONS what is given}; a path is a
           text, bytes, or an object with bytes or path
    shared: whether the talks are about the same media, which then stand in front of each
    """

    talks: list[list[dict]]
    media: list[dict]
    shared: bool = False
    id: object = None
    dataset: object = None
    meta: dict = field(default_factory=dict)


def messages(row: dict) -> Draft:
    """Canonical rows, Hugging Face and OpenAI messages, swift; also several talks about one clip.

    Source: TRL and transformers chat templates (parts with type), ms-swift (columns, loss),
            Molmo2 (message_lists).
    """
    if row.get("message_lists") is None:
        return _draft(row, [_turns(row.get("messages"), '"messages"')], _media(row))
    lists = _list(row["message_lists"], '"message_lists"')
    talks = [_turns(turns, '"message_lists"') for turns in lists]
    return _draft(row, talks, _media(row), shared=True)


def conversations(row: dict) -> Draft:
    """LLaVA and VideoLLaMA rows; ShareGPT rows with plural columns.

    A tag <image> that stands for a video, as in LLaVA-Video, is read as <video>.
    Raises: BadSample E114 where image and video are both set.
    Source: VideoLLaMA3 train.py (_convert_normal), LLaMA-Factory (columns).
    """
    if _given(row.get("image")) and _given(row.get("video")):
        raise rules.image_and_video()
    turns = _turns(row.get("conversations"), '"conversations"')
    media = _media(row)
    kinds = {medium["type"] for medium in media}
    texts = [turn["content"] for turn in turns if isinstance(turn["content"], str)]
    if kinds == {"video"} and not any("<video>" in text for text in texts):
        for turn in turns:
            if turn["role"] in ("human", "user") and isinstance(turn["content"], str):
                turn["content"] = turn["content"].replace("<image>", "<video>")
    return _draft(row, [turns], media)


def completion(row: dict) -> Draft:
    """TRL rows: what is asked is not learned, the completion is. Source: TRL SFTTrainer."""
    asked, answered = row.get("prompt"), row.get("completion")
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    if isinstance(answered, str):
        answered = [{"role": "assistant", "content": answered}]
    before = [turn | {"loss": False} for turn in _turns(asked, '"prompt"')]
    return _draft(row, [before + _turns(answered, '"completion"')], _media(row))


def stream(row: dict) -> Draft:
    """Rows of a watched stream: a turn of role stream for every frame, messages at their times.

    Frames are taken at start_time, start_time + 1/fps, ... ("fps" of the row, else 1) up to the
    time of each message, at most STREAM_FRAMES; messages after the last frame are left out.
    Raises: BadSample E140 for times that are not ascending or outside the clip.
    Source: VideoLLaMA3 train.py (_convert_stream). Difference: time stamps are those of the file,
            the official ones count from start_time and never reach the prompt.
    """
    path = row.get("video")
    path = path[0] if isinstance(path, list) and len(path) == 1 else path
    if not isinstance(path, str | dict | bytes):
        raise rules.wrong_type('"video" of a stream', "one path", path)
    start = _number(row.get("start_time", 0.0), '"start_time"')
    end = _number(row.get("end_time"), '"end_time"')
    fps = STREAM_FPS if row.get("fps") is None else _number(row["fps"], '"fps"')
    if fps <= 0:
        raise rules.wrong_type('"fps"', "above 0", fps)
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
            frame = {"type": "video", "path": path, "start": now, "end": now + 1 / fps,
                     "fps": fps, "max_frames": 1}  # fmt: skip
            turns.append({"role": "stream", "content": [frame]})
            shown += 1
        if shown == STREAM_FRAMES and start + shown / fps <= time_s:
            break
        turns.append(_turn(message, index))
    return _draft(row, [turns], [])


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
    parts = [part for turn in turns if isinstance(turn.get("content"), list)
             for part in turn["content"] if isinstance(part, dict)]  # fmt: skip
    if any(part.get("type") in ("image_url", "video_url") for part in parts):
        return "openai"
    if row.get("media") is not None:
        return "canonical"
    if parts:
        return "hf"
    columns = any(row.get(kind) is not None or row.get(kind + "s") is not None for kind in KINDS)
    return "swift" if columns else "canonical"


def _draft(row: dict, talks: list[list[dict]], media: list[dict], shared: bool = False) -> Draft:
    system = row.get("system")
    if isinstance(system, str) and system:
        for turns in talks:
            if not turns or turns[0]["role"] != "system":
                turns.insert(0, {"role": "system", "content": system})
    meta = row.get("meta") if isinstance(row.get("meta"), dict) else {}
    if row.get("weight") is not None:
        meta = meta | {"weight": _number(row["weight"], '"weight"')}
    return Draft(talks=talks, media=media, shared=shared, id=row.get("id"),
                 dataset=row.get("dataset"), meta=meta)  # fmt: skip


# Turns


def _turns(turns: object, what: str) -> list[dict]:
    return [_turn(turn, index) for index, turn in enumerate(_list(turns, what), start=1)]


def _turn(turn: object, index: int) -> dict:
    turn = _object(turn, f"turn {index}")
    role = turn["role"] if turn.get("role") is not None else turn.get("from")
    content = turn["content"] if turn.get("content") is not None else turn.get("value")
    what = f"the content of turn {index}"
    if isinstance(content, list):
        content = [_part(part, what) for part in content]
    elif isinstance(content, dict):
        content = [_part(content, what)]
    elif not isinstance(content, str):
        raise rules.wrong_type(what, "a text or a list of parts", content)
    made = {"role": role, "content": content}
    return made if _learned(turn, index) else made | {"loss": False}


def _learned(turn: dict, index: int) -> bool:
    """Whether "loss" or swift's "loss_scale" leaves the turn to be learned."""
    loss = turn["loss"] if turn.get("loss") is not None else turn.get("loss_scale")
    if loss is None or isinstance(loss, bool):
        return loss is not False
    if not isinstance(loss, int | float):
        raise rules.wrong_type(f'"loss" of turn {index}', "true or false", loss)
    return loss != 0


def _part(part: object, what: str) -> dict:
    """A text part, a medium, or the placeholder of one."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    part = _object(part, f"a part in {what}")
    kind = part.get("type") or next((k for k in ("text", *KINDS) if part.get(k) is not None), None)
    if kind == "text":
        if not isinstance(part.get("text"), str):
            raise rules.wrong_type(f'"text" of a part in {what}', "a text", part.get("text"))
        return {"type": "text", "text": part["text"]}
    if kind in ("image_url", "video_url", "audio_url"):
        source = part.get(kind)
        source = source.get("url") if isinstance(source, dict) else source
        if source is None:
            raise rules.wrong_type(f'"{kind}" in {what}', "an address", source)
        return _medium(kind.removesuffix("_url"), source, part)
    if kind in KINDS:
        source = next(
            (part[k] for k in (kind, *SOURCES, "frames") if part.get(k) is not None), None
        )
        return {"type": kind} if source is None else _medium(kind, source, part)
    name = rules.shown(str(kind), 40)
    raise BadSample("E102", f'{what} has a part of type "{name}"; use text, image or video.')


# Media


def _media(row: dict) -> list[dict]:
    """The media that a row lists, in the order media, images, videos, audios."""
    media = []
    for index, medium in enumerate(_list(row.get("media") or [], '"media"'), start=1):
        medium = _object(medium, f"medium {index}")
        kind = medium.get("type")
        if kind not in KINDS:
            raise rules.wrong_type(f'"type" of medium {index}', "image, video or audio", kind)
        source = next((medium[key] for key in (*SOURCES, "frames") if medium.get(key)), None)
        if source is None:
            raise rules.wrong_type(f'"path" of medium {index}', "a path", medium.get("path"))
        media.append(_medium(kind, source, medium))
    for kind in KINDS:
        for key in (kind, kind + "s"):
            media += (_medium(kind, source, row) for source in _sources(kind, row.get(key)))
    return media


def _sources(kind: str, value: object) -> Iterator[object]:
    """The sources in a column: one, or a list of them; a list of pictures is one video."""
    if not _given(value):
        return
    if not isinstance(value, list) or (kind == "video" and _is_frames(value)):
        yield value
    else:
        yield from (source for source in value if _given(source))


def _is_frames(sources: list) -> bool:
    """Whether these files are the frames of one video; a single one may be an animation."""
    return len(sources) > 1 and all(
        isinstance(source, str) and source.lower().endswith(PICTURES) for source in sources
    )


def _medium(kind: str, source: object, options: dict) -> dict:
    """A medium with those of OPTIONS that are given; a list of pictures has frames and times."""
    medium: dict = {"type": kind}
    if isinstance(source, list):
        if kind != "video" or not source:
            raise rules.wrong_type(f"the source of {kind}", "one path", source)
        medium["frames"] = source
        times = options["times"] if options.get("times") is not None else options.get("timestamps")
        if times is not None:
            times = [_number(time, "a frame's time") for time in _list(times, '"times"')]
            medium["times"] = times
    elif isinstance(source, str | dict | bytes):
        medium["path"] = source
    else:
        raise rules.wrong_type(f"the source of {kind}", "a path", source)
    if kind != "video":
        return medium
    for key in OPTIONS:
        if options.get(key) is not None:
            medium[key] = _number(options[key], f'"{key}"')
    if medium.get("fps", 1) <= 0:
        raise rules.wrong_type('"fps"', "above 0", medium["fps"])
    if "max_frames" in medium:
        if medium["max_frames"] < 1:
            raise rules.wrong_type('"max_frames"', "at least 1", medium["max_frames"])
        medium["max_frames"] = int(medium["max_frames"])
    return medium


# Types


def _given(value: object) -> bool:
    """Whether a column is set; readers of tables fill absent ones with null or nothing."""
    return value is not None and value != "" and value != []


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
    if abs(value) > 1e15 or not math.isfinite(value):
        raise BadSample("E102", f"{what} must be a number of reasonable size.")
    return value
