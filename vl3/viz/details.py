"""What an answer was made of, and the code that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vl3.values import Ledger, Reply
from vl3.viz import words
from vl3.viz.conversation import Attachment, Turn, messages


def ledger_rows(ledger: Ledger) -> list[tuple[str, str]]:
    """Where tokens and time of a reply went, as pairs of name and value."""
    answer_s = max(ledger.total_s - ledger.first_token_s, 0.0)
    return [
        ("Frames", words.count(ledger.frames)),
        ("Visual tokens before pruning", words.count(ledger.visual_tokens)),
        ("Visual tokens kept", _share(ledger.kept_tokens, ledger.visual_tokens)),
        ("Prompt tokens", words.count(ledger.prompt_tokens)),
        ("Prompt tokens reused", words.count(ledger.reused_tokens)),
        ("New tokens", words.count(ledger.new_tokens)),
        ("Clips encoded", words.count(ledger.encoded_clips)),
        ("Clips reused", words.count(ledger.reused_clips)),
        ("Reading frames", f"{ledger.decode_s:.2f} s"),
        ("Encoding", f"{ledger.encode_s:.2f} s"),
        ("Until the first token", f"{ledger.first_token_s:.2f} s"),
        ("Answering after it", f"{answer_s:.2f} s · {ledger.tokens_per_s:.1f} tokens/s"),
        ("Total", f"{ledger.total_s:.2f} s"),
        ("Peak memory", words.memory(ledger.peak_memory_bytes)),
    ]


def _share(part: int, whole: int) -> str:
    if not whole:
        return words.count(part)
    return f"{words.count(part)} ({100 * part / whole:.0f} %)"


def blocks(turns: Sequence[Turn], turn: Turn, card: Mapping, system: str = "") -> list[dict]:
    """Settings, prompt and code of an answered turn, as titled texts."""
    settings = turn.reply.settings
    code = python_code(turns, turn, card, settings, system)
    return [
        {"title": "Settings", "text": settings_json(turn.reply)},
        {"title": "Prompt", "text": turn.reply.prompt},
        {"title": "Python", "text": code},
        {"title": "Command line", "text": shell_code(turn, card, settings, system)},
    ]


def settings_json(reply: Reply) -> str:
    """The settings of a reply as JSON."""
    return json.dumps(reply.settings, indent=2, ensure_ascii=False, default=str)


def python_code(
    turns: Sequence[Turn], turn: Turn, card: Mapping, settings: Mapping, system: str = ""
) -> str:
    """A script that gives the same answer with `import vl3`; media by file name."""
    named = messages([_named(item) for item in turns], _named(turn), system)
    arguments = [f"    {key}={value!r}," for key, value in settings.items()]
    return "\n".join(
        [
            "import vl3",
            "",
            f"studio = vl3.load({_load_arguments(card)})",
            f"messages = {_literal(named)}",
            "reply = studio.reply(",
            "    messages,",
            *arguments,
            ")",
            "print(reply.text)",
            "",
        ]
    )


def shell_code(turn: Turn, card: Mapping, settings: Mapping, system: str = "") -> str:
    """A command that asks the same single question; earlier turns are not part of it."""
    words_ = ["python", "-m", "train_cli", "chat"]
    for key in ("quantize", "adapter"):
        if card[key]:
            words_ += [f"--{key}", str(card[key])]
    if not card["is_nano"]:
        words_ += ["--model", str(card["path"])]
    for item in turn.attachments:
        words_ += _media_flags(item)
    for key, value in settings.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            words_ += [f"--{key.replace('_', '-')}", f"{value}"]
    if system.strip():
        words_ += ["--system", system]
    return shlex.join([*words_, "--question", turn.question])


def _media_flags(item: Attachment) -> list[str]:
    if item.is_image:
        return ["--image", item.name]
    flags = ["--video", item.name]
    chosen = {"fps": item.fps, "max-frames": item.max_frames}
    chosen |= {"start": item.start_s, "end": item.end_s}
    for key, value in chosen.items():
        if value is not None:
            flags += [f"--{key}", f"{value:g}"]
    return flags


def _load_arguments(card: Mapping) -> str:
    arguments = [] if card["is_nano"] else [repr(str(card["path"]))]
    arguments += [f"{key}={card[key]!r}" for key in ("quantize", "adapter") if card[key]]
    return ", ".join(arguments)


def _named(turn: Turn) -> Turn:
    """The turn with file names where it had paths: they are the server's, not the reader's."""
    items = tuple(replace(item, path=item.name) for item in turn.attachments)
    return replace(turn, attachments=items)


def _literal(value: list) -> str:
    """The list as Python source, one message a line."""
    return "[\n" + "".join(f"    {item!r},\n" for item in value) + "]"
