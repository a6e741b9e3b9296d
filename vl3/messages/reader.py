"""Messages as people write them, brought into one form; nothing else reads messages.

One form, whatever the peer it was written for (transformers, Qwen-VL, the official VideoLLaMA3,
OpenAI, rows of an Arrow table with a null for every absent key):

    {"role": "system" | "user" | "assistant" | "stream", "content": text or [part, ...]}
    {"type": "text", "text"}
    {"type": "image", "image": source, "timestamp"}
    {"type": "video", "video": source, and of VIDEO_OPTIONS what is given}
    {"type": "audio", "audio": source, "start", "end"}

A source is a path, a file: or data: URL, bytes, a picture, an array or tensor, a Clip or, of a
video, a list of pictures; of sound a path, a URL, bytes, a Sound or (samples, rate). A part without
one stands for a medium that is known elsewhere. Reading
what has been read gives the same again. Every key is used or refused: nothing that was written is
dropped without a word. No file is touched here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

from vl3.arguments import choice, did_you_mean, number, shown, switch, whole
from vl3.messages.keys import (
    ANY_SOURCES,
    AS_HERE,
    ELSEWHERE,
    FRAME_TIMES,
    KINDS,
    LABELS,
    MEANT,
    OPTIONS,
    OWN_SOURCES,
    ROLES,
    TYPES,
    WAVES,
)

LARGEST = 1e15  # of a number in a message: beyond it arithmetic on times is not exact
FASTEST_FPS = 1000

Unused = Callable[[str], None]


class Read(list):
    """Messages in the one form, which need not be read again."""


def refuse(sentence: str) -> None:
    """What is done about a key that is not used, unless the caller says otherwise."""
    raise ValueError(sentence)


def is_given(value: object) -> bool:
    """Whether a key is set; tables fill absent ones with null, NaN or nothing."""
    if isinstance(value, str | bytes | list | tuple | dict):
        return bool(value)
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def read(messages: Sequence[dict], unused: Unused = refuse) -> Read:
    """The messages in the one form.

    unused: told of each key that is not used, in a sentence; the default refuses it
    Raises: ValueError in one sentence, with the numbers of the message and the part.
    """
    if isinstance(messages, Read):
        return messages
    if isinstance(messages, str | bytes | dict) or not isinstance(messages, Sequence):
        raise ValueError(
            'messages are a list of {"role": "user", "content": text or parts} - got '
            f"{shown(messages)}"
        )
    found = Read()
    for index, message in enumerate(messages, start=1):
        with _within("message", index):
            found.append(_message(message, unused))
    return found


def conversations(messages: Sequence[dict] | Sequence[Sequence[dict]]) -> list[Sequence[dict]]:
    """A batch as its conversations; one conversation as a batch of one.

    Raises: ValueError in one sentence for what is neither.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise ValueError(
            'messages are a list of {"role": "user", "content": text or parts}, or a list of '
            f"such lists - got {shown(messages)}"
        )
    if not messages:
        raise ValueError("there are no messages; give a question in a message of a user")
    is_batch = not isinstance(messages[0], dict | str)
    for place, conversation in enumerate(messages if is_batch else (), start=1):
        if not isinstance(conversation, Sequence) or not conversation:
            raise ValueError(
                f"conversation {place} is a list of at least one message - got "
                f"{shown(conversation)}"
            )
    return cast(list, list(messages) if is_batch else [messages])


def read_part(part: str | dict, unused: Unused = refuse) -> dict:
    """A part of a message in the one form. Raises: ValueError."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text":
        return _text(part, part, unused)  # the most frequent one, at once
    if not isinstance(part, dict):
        raise ValueError(f'a part is a text or a dict like {{"type": "image"}} - got {shown(part)}')
    given = {str(key): value for key, value in part.items() if is_given(value)}
    kind = _kind(part, given)
    if kind == "text":
        return _text(part, given, unused)
    source, rest = _source(kind, given)
    found = _options(kind, rest, unused)
    return {"type": kind} | ({} if source is None else {kind: source}) | found


def frame_times(part: dict, count: int) -> list[float]:
    """Seconds of the frames of a video part that lists them: its timestamps, or by its rate.

    Raises: ValueError for another number of times, or times that do not ascend.
    """
    times = listed_times(part, count)
    if len(times) != count:
        raise ValueError(f"{count} frames but {len(times)} timestamps; give one for each frame")
    if any(after <= before for before, after in pairwise(times)):
        raise ValueError("the timestamps of the frames do not ascend; list frames in their order")
    return times


def listed_times(part: dict, count: int) -> list[float]:
    """As frame_times, unchecked."""
    if "timestamps" in part:
        return part["timestamps"]
    rate = part.get("sample_fps", part.get("fps", 1.0))
    return [index / rate for index in range(count)]


# Messages


class _within:
    """Puts where it was in front of the sentence of a ValueError."""

    def __init__(self, what: str, index: int) -> None:
        self.what, self.index = what, index

    def __enter__(self) -> None: ...

    def __exit__(self, _kind, error: BaseException | None, _trace) -> None:
        if isinstance(error, ValueError):
            raise ValueError(f"{self.what} {self.index}: {error}") from None


def _message(message: object, unused: Unused) -> dict:
    if not isinstance(message, dict):
        raise ValueError(f'a message is {{"role": ..., "content": ...}} - got {shown(message)}')
    if not is_given(message.get("role")) and "from" in message:
        raise ValueError(
            'written as LLaVA does (from, value); write {"role": "user", "content": [{"type": '
            '"video", "video": path}, {"type": "text", "text": ...}]}'
        )
    found = {"role": _role(message.get("role")), "content": _content(message, unused)}
    loss = message.get("loss")
    if loss is not None and not isinstance(loss, bool):
        raise ValueError(f"loss is True or False - got {shown(loss)}")
    for key in message.keys() - {"role", "content", "loss"} - LABELS:
        if is_given(message[key]):
            near = did_you_mean(key, ("role", "content"))
            unused(f"{_named(key)} of a message is not used{near}")
    return found | ({"loss": False} if loss is False else {})


def _role(role: object) -> str:
    if isinstance(role, str) and role in ROLES:
        return ROLES[role]
    if isinstance(role, str) and role in MEANT:
        raise ValueError(f"role is one of {', '.join(ROLES)} - got {role!r}; write {MEANT[role]!r}")
    return choice("role", role, ROLES)


def _content(message: dict, unused: Unused) -> str | list[dict]:
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list | tuple):
        slip = next(
            (
                key
                for key in message
                if key not in ("role", "content") and did_you_mean(key, ("content",))
            ),
            None,
        )
        near = f" and {slip!r}; did you mean content?" if slip and content is None else ""
        raise ValueError(f"content is a text or a list of parts - got {shown(content)}{near}")
    parts = []
    for index, part in enumerate(content, start=1):
        with _within("part", index):
            parts.append(read_part(part, unused))
    return parts


# Parts


def _kind(part: dict, given: dict) -> str:
    """text, image, video or audio: by the type, or by the only such key."""
    kind = part.get("type")
    if is_given(kind):
        if isinstance(kind, str) and kind in TYPES:
            return TYPES[kind]
        near = did_you_mean(kind, TYPES)
        raise ValueError(f"a part is of type text, image, video or audio - got {shown(kind)}{near}")
    found = [k for k in KINDS if any(key in given for key in OWN_SOURCES[k])]
    if "text" in given or (not found and isinstance(part.get("text"), str)):
        found.append("text")
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"one part holds {' and '.join(found)}; write a part for each")
    near = next(filter(None, (did_you_mean(key, (*TYPES, "type")) for key in given)), "")
    raise ValueError(
        f"a part says its type, text, image, video or audio - got {_keys(given)}{near}"
    )


def _text(part: dict, given: dict, unused: Unused) -> dict:
    text = part.get("text")
    if isinstance(text, dict):  # {"text": {"value": ...}} of OpenAI's assistants
        text = text.get("value")
    if not isinstance(text, str):
        raise ValueError(f'a text part has its words under "text" - got {_keys(given)}')
    for key in given.keys() - {"type", "text"} - LABELS:
        if any(key in keys for keys in OWN_SOURCES.values()):
            raise ValueError(f"one part holds text and {key}; write a part for each")
        unused(f"{_named(key)} beside a text is not used")
    return {"type": "text", "text": text}


def _source(kind: str, given: dict) -> tuple[object, dict]:
    """The source of a medium and what stands beside it, options inside a dict among it."""
    rest = {key: value for key, value in given.items() if key != "type"}
    for other in (*KINDS, "text"):
        key = next((k for k in OWN_SOURCES.get(other, ("text",)) if k in rest), None)
        if other != kind and key is not None:
            raise ValueError(f"one part of type {kind} holds {key}; write a part for each")
    source = _taken(kind, rest)
    if isinstance(source, dict):
        inner = {str(key): value for key, value in source.items() if is_given(value)}
        inner.pop("type", None)
        source = _taken(kind, inner)
        if source is None or isinstance(source, dict):
            names = (*OWN_SOURCES[kind], *ANY_SOURCES)
            near = next(filter(None, (did_you_mean(key, names) for key in inner)), "")
            raise ValueError(
                f"{_a(kind)} given as a dict has its path under path - got {_keys(inner)}{near}"
            )
        rest = _joined(inner, rest)
    if kind == "audio":
        source = _wave(source, rest)
    elif isinstance(source, list | tuple):
        source = _listed(kind, list(source), rest)
    if kind == "video":
        _check_times(source, rest)
    return source, rest


def _taken(kind: str, rest: dict) -> object:
    """Takes the source out of the keys; bytes before the name that a table keeps beside them."""
    names = (*OWN_SOURCES[kind], *ANY_SOURCES, *(WAVES if kind == "audio" else ()))
    keys = [key for key in names if key in rest]
    content = [key for key in ("bytes", "array") if key in keys]
    if "path" in keys and len(content) == 1 and len(keys) == 2:
        keys = [*content, "path"]
    elif len(keys) > 1:
        raise ValueError(f"{_a(kind)} has one source - got {', '.join(keys)}")
    sources = [rest.pop(key) for key in keys]
    if keys in (["base64"], ["data"]):
        return f"data:;base64,{sources[0]}" if isinstance(sources[0], str) else sources[0]
    return sources[0] if sources else None


def _wave(source: object, rest: dict) -> object:
    """The source of a sound; samples with their rate, which a file says itself."""
    rates = [rest.pop(key) for key in ("sampling_rate", "rate") if key in rest]
    rest.pop("format", None)  # of OpenAI's: files say it themselves
    if isinstance(source, list | tuple) and len(source) == 2 and hasattr(source[0], "ndim"):
        source, rate = source
        rates.append(rate)
    if not hasattr(source, "ndim"):
        if rates and source is not None:
            raise ValueError("a file says its own sampling_rate; leave it out")
        if isinstance(source, list | tuple):
            raise ValueError(
                f"samples of sound are an array with its rate, (samples, 16000) - got "
                f"{shown(source)}"
            )
        return source
    if len(rates) != 1:
        raise ValueError("samples come with one rate: (samples, 16000), or sampling_rate")
    return source, number("sampling_rate", rates[0], above=0, unit="samples a second")


def _joined(inner: dict, outer: dict) -> dict:
    """The options inside and beside a source; both may not say the same thing differently."""
    for key in inner.keys() & outer.keys():
        if inner[key] is not outer[key] and shown(inner[key]) != shown(outer[key]):
            raise ValueError(f"{key} is given twice: {shown(inner[key])} and {shown(outer[key])}")
    return outer | inner


def _listed(kind: str, sources: list, rest: dict) -> object:
    """The sources of a list: the frames of a video; a list of one without times is that one."""
    sources = [_taken(kind, dict(s)) if isinstance(s, dict) else s for s in sources]
    is_file = len(sources) == 1 and isinstance(sources[0], str | bytes | os.PathLike)
    if len(sources) == 1 and (kind != "video" or (is_file and not rest.keys() & FRAME_TIMES)):
        return sources[0]
    if kind != "video":
        raise ValueError(f"{_a(kind)} part holds one {kind} - got {len(sources)}; write one each")
    return sources


def _check_times(source: object, rest: dict) -> None:
    """Raises: ValueError where times of frames are given for a source that has its own."""
    has_frames = source is None or isinstance(source, list) or getattr(source, "ndim", 0) == 4
    if not has_frames and (key := next((key for key in rest if key in FRAME_TIMES), None)):
        raise ValueError(
            f"{key} belongs to a list of frames; a video that is a file has its own times: use "
            "fps, num_frames, start and end"
        )


def _options(kind: str, rest: dict, unused: Unused) -> dict:
    """What is said about a medium, under one name each, as numbers."""
    found: dict = {}
    for key, value in rest.items():
        name = OPTIONS[kind].get(key)
        if name is not None:
            value = _value(name, key, value)
            if found.setdefault(name, value) != value:
                raise ValueError(f"{key} is given twice: {found[name]} and {value}")
        elif key in ELSEWHERE:
            if not (isinstance(value, str) and value in AS_HERE.get(key, ())):
                unused(f"{_named(key)} beside {_a(kind)} is not used: {ELSEWHERE[key]}")
        elif key not in LABELS:
            near = did_you_mean(key, (*OPTIONS[kind], *OWN_SOURCES[kind]))
            known = f"; used are {', '.join(dict.fromkeys(OPTIONS[kind].values()))}"
            unused(f"{_named(key)} beside {_a(kind)} is not used{near or known}")
    if "num_frames" in found and "fps" in found and "timestamps" not in found:
        raise ValueError(
            "num_frames and fps both say how many frames are taken; leave one of them out"
        )
    return found


def _value(name: str, key: str, value: object) -> object:
    """The value of an option. Raises: ValueError under the name that was written."""
    if name in ("fps", "sample_fps"):
        return number(key, value, above=0, high=FASTEST_FPS)
    if name in ("max_frames", "num_frames"):
        return whole(key, value, low=1)
    if name == "mode":
        return choice(key, value, ("exact", "official"))
    if name == "sound":
        return switch(key, value)
    if name == "timestamps":
        times = _times(key, value)
        if all(type(each) is float and abs(each) <= LARGEST for each in times):
            return times
        return [_seconds(f"each of {key}", each) for each in times]
    if name == "timestamp" and isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    return _seconds(key, value, **({"above": 0} if name == "end" else {"low": 0}))


def _seconds(key: str, value: object, **bounds) -> float:
    found = number(key, value, unit="seconds", **bounds)
    if abs(found) > LARGEST:
        raise ValueError(f"{key} is too large a number of seconds - got {shown(value)}")
    return found


def _times(key: str, value: object) -> list:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} is a list of seconds, one for each frame - got {shown(value)}")
    return list(value)


# Words


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _named(key: object) -> str:
    return shown(str(key))


def _keys(given: dict) -> str:
    names = [_named(key) for key in given if key != "type"][:8]
    return f"the keys {', '.join(names)}" if names else "no other key"
