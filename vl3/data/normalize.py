"""Drafts to records: roles, tags and media brought together, by the rules; and records to rows."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vl3.data import rules
from vl3.data.files import Files
from vl3.data.formats import Draft
from vl3.data.records import Record
from vl3.data.rules import Note
from vl3.messages import keys, reader
from vl3.messages.keys import KINDS
from vl3.messages.media import MAX_PICTURES, clip_of_pictures, pictures_taken
from vl3.video import VideoError, schedule

ROLES = keys.ROLES | {"human": "user", "gpt": "assistant"}
TAG = re.compile("(<image>|<video>)")
OPTIONS = ("start", "end", "fps", "max_frames", "num_frames", "mode")


def to_record(draft: Draft, *, id: str, dataset: str, files: Files) -> tuple[Record, list[Note]]:
    """The record of a draft, and what was mended on the way.

    Raises: BadSample.
    """
    notes = list(draft.notes)
    conversations = [_checked(turns, notes) for turns in draft.conversations]
    if draft.shared:
        conversations = _in_front(conversations, draft.media)
    else:
        conversations = [_placed(turns, draft.media, notes) for turns in conversations]
    conversations = [_answered(turns, notes) for turns in conversations]
    if not conversations:
        raise rules.nothing_to_learn([])
    found = {id_: _found(medium, files, notes) for id_, medium in _media_of(conversations).items()}
    record = Record(
        id=str(draft.id)[:200] if isinstance(draft.id, str | int) and draft.id != "" else id,
        dataset=draft.dataset if isinstance(draft.dataset, str) and draft.dataset else dataset,
        conversations=tuple([_message(turn, found) for turn in turns] for turns in conversations),
        meta=draft.meta,
    )
    return record, list(dict.fromkeys(notes))


# Turns


def _checked(turns: list[dict], notes: list[Note]) -> list[dict]:
    """The turns with known roles and answers to learn from, without leading answers."""
    checked = []
    for index, turn in enumerate(turns, start=1):
        role = ROLES.get(turn["role"]) if isinstance(turn["role"], str) else None
        if role is None:
            raise rules.unknown_role(index, turn["role"])
        if role == "assistant":
            _check_answer(turn["content"], index)
        checked.append(turn | {"role": role})
    roles = [turn["role"] for turn in checked]
    leading = next((i for i, role in enumerate(roles) if role != "assistant"), len(roles))
    if leading:
        notes.append(rules.dropped_turns(leading))
    if "assistant" not in roles[leading:]:
        raise rules.nothing_to_learn(roles[leading:])
    answers = [turn for turn in checked[leading:] if turn["role"] == "assistant"]
    if not any(turn.get("loss", True) for turn in answers):
        raise rules.nothing_learned()
    return checked[leading:]


def _answered(turns: list[dict], notes: list[Note]) -> list[dict]:
    """The turns up to the last answer: what comes after it is not learned."""
    last = max(i for i, turn in enumerate(turns, start=1) if turn["role"] == "assistant")
    if last < len(turns):
        notes.append(rules.dropped_tail(len(turns) - last))
    return turns[:last]


def _check_answer(content: str | list, index: int) -> None:
    parts = [content] if isinstance(content, str) else content
    texts = [part if isinstance(part, str) else part.get("text", "") for part in parts]
    for part, text in zip(parts, texts):
        if isinstance(part, dict) and part["type"] != "text":
            raise rules.tag_in_answer(f"<{part['type']}>", index)
        if tag := TAG.search(text):
            raise rules.tag_in_answer(tag[0], index)
    if not "".join(texts).strip():
        raise rules.empty_answer(index)


# Tags


def _placed(turns: list[dict], media: Sequence[dict], notes: list[Note]) -> list[dict]:
    """The turns with each tag or placeholder replaced by the next medium of its kind."""
    parted = [
        not isinstance(turn["content"], str) and turn["role"] != "assistant" for turn in turns
    ]
    turns = [turn | {"content": _split(turn)} for turn in turns]
    listed = Counter(medium["type"] for medium in media)
    for kind in KINDS:
        _read_letters(
            kind,
            [t for t, is_parted in zip(turns, parted) if is_parted],
            turns,
            listed[kind],
            notes,
        )
    tags = Counter(part["type"] for turn in turns for part in turn["content"] if _is_empty(part))
    in_front = []
    for kind in KINDS:
        if listed[kind] and not tags[kind]:
            in_front += [medium for medium in media if medium["type"] == kind]
            notes.append(rules.no_tag(kind))
        elif tags[kind] != listed[kind]:
            raise rules.tag_count(kind, tags[kind], listed[kind])
    waiting = {kind: iter([m for m in media if m["type"] == kind]) for kind in tags}
    for turn in turns:
        turn["content"] = [
            next(waiting[part["type"]]) if _is_empty(part) else part for part in turn["content"]
        ]
    return _with_front(turns, in_front)


def _read_letters(
    kind: str, parted: list[dict], turns: list[dict], listed: int, notes: list[Note]
) -> None:
    """Makes of <image> or <video> in the text of a part what the row can only mean by it.

    A tag where as many media are listed and no placeholder is; a slip where as many placeholders
    are; letters where neither is so.
    """
    tag = f"<{kind}>"
    found = sum(
        part["text"].count(tag)
        for turn in parted
        for part in turn["content"]
        if part["type"] == "text"
    )
    if not found:
        return
    places = sum(
        _is_empty(part) and part["type"] == kind for turn in turns for part in turn["content"]
    )
    if found != listed or places not in (0, found):
        notes.append(rules.letters(kind, found))
        return
    for turn in parted:
        turn["content"] = [
            piece for part in turn["content"] for piece in _tagged(part, tag, is_slip=places > 0)
        ]
    if places:
        notes.append(rules.doubled(kind, found))


def _tagged(part: dict, tag: str, is_slip: bool) -> list[dict]:
    """The part, split at the tags in its text; where they are a slip they are taken out."""
    if part["type"] != "text" or tag not in part["text"]:
        return [part]
    pieces = _pieces(part["text"], re.compile(f"({tag})"))
    return [piece for piece in pieces if piece["type"] == "text"] if is_slip else pieces


def _in_front(conversations: list[list[dict]], media: list[dict]) -> list[list[dict]]:
    """Conversations with all media in front of the first user turn, wherever their tags stood."""
    conversations = [
        [turn | {"content": _split(turn)} for turn in turns] for turns in conversations
    ]
    inline = [
        [part for turn in turns for part in turn["content"] if _is_source(part)]
        for turns in conversations
    ]
    if any(parts != inline[0] for parts in inline):
        raise rules.different_media()
    media = media + (inline[0] if inline else [])
    listed = Counter(medium["type"] for medium in media)
    for turns in conversations:
        tags = Counter(p["type"] for turn in turns for p in turn["content"] if p["type"] != "text")
        for kind, count in tags.items():
            if count != listed[kind]:
                raise rules.tag_count(kind, count, listed[kind])
        for turn in turns:
            turn["content"] = [part for part in turn["content"] if part["type"] == "text"]
    return [_with_front(turns, media) for turns in conversations]


def _with_front(turns: list[dict], media: list[dict]) -> list[dict]:
    if not media:
        return turns
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), None)
    if first is None:
        first = next(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
        turns.insert(first, {"role": "user", "content": []})
    turns[first]["content"] = [*media, *turns[first]["content"]]
    return turns


def _split(turn: dict) -> list[dict]:
    """The content as parts; of a text with tags these become placeholders, edges are stripped.

    Source: VideoLLaMA3 train.py (_convert_normal) strips what stands between tags.
    """
    content = turn["content"]
    if not isinstance(content, str):
        return content
    if turn["role"] == "assistant" or not TAG.search(content):
        return [{"type": "text", "text": content}]
    return _pieces(content, TAG)


def _pieces(text: str, tag: re.Pattern) -> list[dict]:
    """The text between tags, its edges stripped, and a placeholder for each of them."""
    parts = []
    for piece in tag.split(text):
        if tag.fullmatch(piece):
            parts.append({"type": piece[1:-1]})
        elif piece.strip():
            parts.append({"type": "text", "text": piece.strip()})
    return parts


def _is_source(part: dict) -> bool:
    return part["type"] != "text" and part["type"] in part


def _is_empty(part: dict) -> bool:
    return part["type"] != "text" and not _is_source(part)


# Media


def _media_of(conversations: Iterable[list[dict]]) -> dict[int, dict]:
    parts = (part for turns in conversations for turn in turns for part in turn["content"])
    return {id(part): part for part in parts if _is_source(part)}


def _found(medium: dict, files: Files, notes: list[Note]) -> dict:
    """The part of a message that reads this medium."""
    kind = medium["type"]
    source = medium[kind]
    if kind == "audio":
        ranged = {key: medium[key] for key in ("start", "end") if key in medium}
        found = files.find(kind, source) if isinstance(source, str) else source
        return {"type": kind, kind: found} | ranged
    if isinstance(source, list):
        return _frame_list(medium, files, notes)
    path = files.find(kind, source)
    if kind == "image":
        return {"type": kind, kind: path} | {k: medium[k] for k in ("timestamp",) if k in medium}
    options = {key: medium[key] for key in OPTIONS if key in medium}
    if "start" in options or "end" in options:
        _check_range(path, options)
    return {"type": kind, kind: {"path": path, **options} if options else path}


def _check_range(path: str, options: dict) -> None:
    start, end = options.get("start", 0.0), options.get("end")
    if start < 0 or (end is not None and end <= start):
        try:
            duration_s = schedule(path).duration_s
        except VideoError:
            duration_s = None
        raise rules.empty_range(start, start if end is None else end, duration_s)


def _frame_list(medium: dict, files: Files, notes: list[Note]) -> dict:
    """A video that is given as a list of pictures, read at once; all take the first one's size."""
    sources = medium["video"]
    times = reader.listed_times(medium, len(sources))
    if len(times) != len(sources):
        raise rules.frame_count(len(sources), len(times))
    for index in range(1, len(times)):
        if times[index] <= times[index - 1]:
            raise rules.not_ascending("frame", index + 1, times[index], times[index - 1])
    try:
        taken, times_s = pictures_taken(medium, len(sources))
    except ValueError as error:
        raise rules.refused("", error, "E123") from None
    if len(taken) < len(sources):
        notes.append(rules.many_pictures(len(sources), len(taken)))
    paths = [files.find("image", sources[index]) for index in taken]
    try:
        clip = clip_of_pictures(paths, times_s)
    except VideoError as error:
        raise rules.undecodable(f"a list of {len(paths)} pictures", str(error)) from None
    listed = {"frames": paths, "times": list(times_s)}
    return {"type": "video", "video": clip, "metadata": listed}


def _message(turn: dict, found: dict[int, dict]) -> dict:
    """A turn as the processor takes it; a content of one text is that text."""
    parts = [found.get(id(part), part) for part in turn["content"]]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    plain = len(texts) == len(parts) and (len(parts) < 2 or turn["role"] == "assistant")
    message = {"role": turn["role"], "content": "".join(texts) if plain else parts}
    if turn["role"] == "assistant" and not turn.get("loss", True):
        message["loss"] = False
    return message


# Records to rows


def to_row(record: Record, root: Path, inside: Path) -> dict:
    """The record as a canonical row, its paths relative to root where they lie in it.

    Files in the folder `inside`, taken out of an archive, are written as data URLs.
    """
    row: dict[str, Any] = {"id": record.id, "dataset": record.dataset}
    (conversation, *others) = record.conversations
    listed = [_listed(part, root, inside) for part in media_parts(conversation)]
    if others:
        row["message_lists"] = [
            [_turn_row(turn, None) for turn in conversation]
            for conversation in record.conversations
        ]
    elif _has_letters(conversation):  # beside a placeholder they would be taken for its tag
        places, listed = iter(listed), []
        row["messages"] = [_turn_row(turn, places) for turn in conversation]
    else:
        places = iter([{"type": medium["type"]} for medium in listed])
        row["messages"] = [_turn_row(turn, places) for turn in conversation]
    if listed:
        row["media"] = listed
    meta = dict(record.meta)
    if "weight" in meta:
        row["weight"] = meta.pop("weight")
    return row | {"meta": meta} if meta else row


def media_parts(conversation: list[dict]) -> list[dict]:
    """The media of a conversation, in order."""
    contents = [turn["content"] for turn in conversation if not isinstance(turn["content"], str)]
    return [part for content in contents for part in content if part["type"] != "text"]


def _has_letters(conversation: list[dict]) -> bool:
    contents = [turn["content"] for turn in conversation if not isinstance(turn["content"], str)]
    parts = [part for content in contents for part in content if part["type"] == "text"]
    return any(TAG.search(part["text"]) for part in parts)


def _turn_row(turn: dict, media: Any) -> dict:
    """The turn as a row has it, with the next of media where it shows one; None: without media."""
    content = turn["content"]
    if isinstance(content, str) and TAG.search(content):
        content = [{"type": "text", "text": content}]  # a text that is no tag
    elif not isinstance(content, str):
        content = [
            part if part["type"] == "text" else next(media)
            for part in content
            if part["type"] == "text" or media is not None
        ]
    return turn | {"content": content}


def _listed(part: dict, root: Path, inside: Path) -> dict:
    kind = part["type"]
    if "metadata" in part:
        listed = part["metadata"]
        paths = [_written(Path(path), root, inside) for path in listed["frames"]]
        most = {"max_frames": len(paths)} if len(paths) > MAX_PICTURES else {}
        return {"type": kind} | listed | {"frames": paths} | most
    source = part[kind]
    options = source if isinstance(source, dict) else {"path": source}
    written = {"path": _written(Path(options["path"]), root, inside)}
    when = {key: part[key] for key in ("timestamp",) if key in part}
    return {"type": kind} | options | written | when


def _written(path: Path, root: Path, inside: Path) -> str:
    if path.is_relative_to(inside):
        return (
            "data:application/octet-stream;base64," + base64.b64encode(path.read_bytes()).decode()
        )
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def question(record: Record) -> str:
    """The first question of a record; with its media it tells duplicates."""
    contents = (turn["content"] for turn in record.conversations[0] if turn["role"] == "user")
    content = next(contents, "")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def sources(record: Record) -> list[str]:
    """What the media of a record are read from, in order."""
    parts = media_parts(record.conversations[0])
    return [repr(part.get("metadata", part[part["type"]])) for part in parts]
