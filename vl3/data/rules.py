"""What is wrong with a sample, in one sentence each; every rule has a code.

E: the sample cannot be learned from and is left out; W: it was mended or deserves a look. The
sentences come without their place; the caller puts "train.jsonl:17: " in front.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from vl3.arguments import did_you_mean
from vl3.data.records import BadSample

RULES = {
    "E101": "not valid JSON",
    "E102": "unknown format or a value of the wrong type",
    "E103": "unknown role",
    "E104": "nothing to learn from",
    "E105": "empty answer",
    "E110": "tags and media differ in number",
    "W111": "media without a tag, put in front",
    "W112": "turns before the first question or after the last answer dropped",
    "E113": "media tag inside an answer",
    "E114": "both image and video set",
    "W115": "a key that is not used",
    "W116": "letters of a media tag in a text",
    "E120": "file missing",
    "E121": "file cannot be decoded",
    "E122": "picture too thin",
    "E123": "start and end out of range",
    "W124": "more frames than max_frames",
    "W125": "not read whole, or times estimated",
    "E130": "longer than max_tokens",
    "W131": "visual tokens reduced to the budget",
    "E140": "times not in order",
    "W150": "duplicate",
    "W160": "answer points outside the medium",
}


ROWS = ("messages", "conversations", "conversation", "message_lists", "completion")
# What other tools call a question and its answer.
PAIRS = (
    ("instruction", "output"),
    ("query", "response"),
    ("question", "answer"),
    ("prompt", "response"),
    ("prompt", "chosen"),
    ("input", "output"),
)


class Note(NamedTuple):
    """A warning about a sample that stays."""

    code: str
    message: str


def not_json(reason: str, column: int) -> BadSample:
    sentence = f"not valid JSON ({reason} at column {column}). Each line must be one JSON object."
    return BadSample("E101", sentence)


def unknown_format(row: dict) -> BadSample:
    keys = [shown(key, 40) for key in list(row)[:12]]
    pair = next((pair for pair in PAIRS if all(key in row for key in pair)), None)
    instead = ""
    if pair is not None:
        instead = f' Write "prompt" for "{pair[0]}" and "completion" for "{pair[1]}".'
    elif slip := next(filter(None, (did_you_mean(key, ROWS) for key in row)), ""):
        instead = f" D{slip[3:]}"
    return BadSample(
        "E102",
        'cannot tell the format; expected one of "messages", "conversations", '
        f'"prompt"+"completion", "stream". Found keys: {", ".join(keys) or "none"}.{instead}',
    )


def other_format(found: str, expected: str) -> BadSample:
    return BadSample(
        "E102", f'this is a row of format "{found}" in a file of "{expected}"; split the file.'
    )


def wrong_type(what: str, expected: str, value: object) -> BadSample:
    return BadSample("E102", f"{what} must be {expected} - got {_brief(value)}.")


def unknown_role(turn: int, role: object) -> BadSample:
    name = role if isinstance(role, str) else json.dumps(None if role is None else str(role))
    return BadSample(
        "E103",
        f'turn {turn} has role "{shown(name, 40)}"; use system, user/human or assistant/gpt.',
    )


def nothing_to_learn(roles: Iterable[str]) -> BadSample:
    roles = list(roles)
    if not roles:
        return BadSample("E104", "nothing to learn from: there are no turns.")
    return BadSample("E104", f'nothing to learn from: the last turn is "{roles[-1]}".')


def nothing_learned() -> BadSample:
    return BadSample("E104", 'nothing to learn from: every assistant turn has "loss" false.')


def empty_answer(turn: int) -> BadSample:
    return BadSample("E105", f"assistant turn {turn} is empty.")


def tag_count(kind: str, tags: int, media: int) -> BadSample:
    return BadSample(
        "E110",
        f"{tags} <{kind}> {_plural('tag', tags)} but {media} {_plural(kind, media)} listed. "
        "Add the path or remove the tag.",
    )


def different_media() -> BadSample:
    return BadSample("E110", "its conversations are not about the same media.")


def frame_count(frames: int, times: int) -> BadSample:
    return BadSample(
        "E110", f"{frames} frames but {times} times listed. Give one time in seconds per frame."
    )


def no_tag(kind: str) -> Note:
    return Note(
        "W111",
        f"no <{kind}> tag; put in front of the first user turn (as the official trainer does).",
    )


def dropped_turns(count: int) -> Note:
    return Note("W112", f"dropped {count} leading assistant turn(s).")


def dropped_tail(count: int) -> Note:
    return Note("W112", f"dropped {count} {_plural('turn', count)} after the last answer.")


def unused(sentence: str) -> Note:
    return Note("W115", _ended(sentence))


def refused(where: str, error: ValueError, code: str = "E102") -> BadSample:
    """For what the reader of messages refuses."""
    return BadSample(code, _ended(f"{where}: {error}" if where else str(error)))


def _ended(sentence: str) -> str:
    sentence = shown(sentence)
    return sentence if sentence.endswith(("?", "…")) else f"{sentence.rstrip('.')}."


def letters(kind: str, count: int) -> Note:
    return Note(
        "W116",
        f"{count} <{kind}> in the text of a part {'is' if count == 1 else 'are'} read as letters; "
        "a part of its own stands for a medium.",
    )


def doubled(kind: str, count: int) -> Note:
    return Note(
        "W116",
        f"{count} <{kind}> in a text beside as many parts of type {kind}; the letters were taken "
        "out.",
    )


def tag_in_answer(tag: str, turn: int) -> BadSample:
    return BadSample(
        "E113", f'"{tag}" inside the answer of turn {turn}; answers must not hold media tags.'
    )


def image_and_video() -> BadSample:
    return BadSample(
        "E114", 'both "image" and "video" set; use "media" (canonical) for mixed samples.'
    )


def not_found(kind: str, path: str, media_root: str) -> BadSample:
    slashes = " It has backslashes, as on Windows; write / instead." if "\\" in path else ""
    return BadSample(
        "E120", f"{kind} not found: {shown(path)} (media_root={shown(media_root)}).{slashes}"
    )


def no_file(path: str, found: os.stat_result) -> BadSample:
    """For what is there and no ordinary file with something in it."""
    what = "is empty (0 bytes)"
    if not stat.S_ISREG(found.st_mode):
        what = "is a folder" if stat.S_ISDIR(found.st_mode) else "is a device or pipe"
    return BadSample("E121", f"{shown(path)} {what}; give the path of a picture or video.")


def web_address(url: str) -> BadSample:
    return BadSample(
        "E120",
        f"{shown(url)} is a web address; only files and data: URLs are read, so download it and "
        "give the path.",
    )


def no_sound(path: str) -> BadSample:
    return BadSample(
        "E121", f"{shown(path)}: sound is not read by this model; take the audio out of the sample."
    )


def undecodable(path: str, reason: str) -> BadSample:
    return BadSample("E121", f"{shown(path)}: 0 decodable frames ({reason.rstrip('.')}).")


def too_thin(kind: str, width_px: int, height_px: int, least_px: int) -> BadSample:
    return BadSample(
        "E122",
        f"{kind} {width_px}×{height_px} is too thin; smallest side must be ≥ {least_px} px.",
    )


def empty_range(start: float, end: float, duration_s: float | None) -> BadSample:
    lasts = "" if duration_s is None else f"; video lasts {duration_s:.1f} s"
    return BadSample("E123", f"clip {start:.1f}–{end:.1f} s is empty{lasts}.")


def out_of_range(start: float, end: float, duration_s: float) -> BadSample:
    return BadSample(
        "E123",
        f"clip {start:.1f}–{end:.1f} s is out of range; video lasts {duration_s:.1f} s.",
    )


def many_frames(seconds: float, fps: float, frames: int, most: int) -> Note:
    return Note(
        "W124",
        f"{seconds:.0f} s at {fps:g} fps = {frames} frames; {most} will be sampled uniformly.",
    )


def many_pictures(frames: int, most: int) -> Note:
    return Note("W124", f"{frames} frames listed; {most} will be sampled uniformly.")


def too_long(tokens: int, visual: int, most: int) -> BadSample:
    lower = "lower media.visual_tokens" if visual else "shorten its text"
    return BadSample(
        "E130",
        f"{number(tokens)} tokens ({number(visual)} visual) > {number(most)}; "
        f"{lower} or raise batch.max_tokens.",
    )


def as_read(medium: str, sentence: str) -> Note:
    return Note("W125", _ended(f"{medium}: {sentence}"))


def reduced(wanted: int, visual: int) -> Note:
    return Note("W131", f"visual tokens {number(wanted)} → {number(visual)}.")


def not_ascending(what: str, index: int, time_s: float, before_s: float) -> BadSample:
    return BadSample(
        "E140", f"{what} {index} at {time_s:.1f} s comes after one at {before_s:.1f} s."
    )


def outside_clip(index: int, time_s: float, start: float, end: float) -> BadSample:
    return BadSample(
        "E140", f"message {index} at {time_s:.1f} s is outside the clip ({start:.1f}–{end:.1f} s)."
    )


def duplicate(of: str) -> Note:
    return Note("W150", f"duplicate of {of}.")


def time_beyond(kind: str, time_s: float, duration_s: float) -> Note:
    return Note("W160", f"{kind} {time_s:.1f} s beyond the video ({duration_s:.1f} s).")


def box_beyond(box: str) -> Note:
    return Note("W160", f"box {shown(box)} beyond 0-1000.")


def number(count: int) -> str:
    """21 030: groups of three, as the sentences write large counts."""
    return f"{count:,}".replace(",", " ")


def shown(text: str, most: int = 300) -> str:
    """A text from a file as a sentence may show it: printable and not too long."""
    text = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return text if len(text) <= most else text[:most] + "…"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"


def _brief(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
        int: "a number",
        float: "a number",
    }
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return shown(repr(value), 30) if abs(value) < 1e30 else "a number without end"
    return names.get(type(value), f"a {type(value).__name__}")
