"""What an answer was made of, and the code that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import cast

from vl3.audio.notes import described
from vl3.bundled import PAGE_MODEL
from vl3.settings import Decoding
from vl3.units import format_bytes
from vl3.values import Ledger, Reply
from vl3.webapp import text_format
from vl3.webapp.conversation import Turn, context, messages

# The arguments of Studio.reply that a person may have changed, as they are when left alone.
MEDIA: dict[str, object] = {"budget_tokens": None, "prune": None, "sound": True}
DEFAULTS: dict[str, object] = {**asdict(Decoding()), **MEDIA}


def rows(turn: Turn) -> list[tuple[str, str]]:
    """What an answered turn was made of and by: the rows of its ledger below its model."""
    by = [("Model", text_format.model(turn.card))] if turn.card else []
    reply = cast(Reply, turn.reply)
    tracks = [seen.sound.track for seen in reply.seen if seen.sound and seen.sound.track]
    stored = [("Sound", described(track)) for track in tracks]
    return [*by, *stored, *ledger_rows(reply.ledger)]


def ledger_rows(ledger: Ledger) -> list[tuple[str, str]]:
    """Where tokens and time of a reply went, as pairs of name and value."""
    answer_s = max(ledger.total_s - ledger.first_token_s, 0.0)
    heard = [("Tokens of sound", text_format.count(ledger.sound_tokens))]
    heard = heard if ledger.sound_tokens else []
    return [
        ("Frames", text_format.count(ledger.frames)),
        ("Visual tokens before pruning", text_format.count(ledger.visual_tokens)),
        ("Visual tokens kept", _share(ledger.kept_tokens, ledger.visual_tokens)),
        *heard,
        ("Prompt tokens", text_format.count(ledger.prompt_tokens)),
        ("Prompt tokens reused", text_format.count(ledger.reused_tokens)),
        ("New tokens", text_format.count(ledger.new_tokens)),
        ("Clips encoded", text_format.count(ledger.encoded_clips)),
        ("Clips reused", text_format.count(ledger.reused_clips)),
        ("Reading frames", f"{ledger.decode_s:.2f} s"),
        ("Encoding", f"{ledger.encode_s:.2f} s"),
        *([("Hearing", f"{ledger.hear_s:.2f} s")] if ledger.sound_tokens else []),
        ("Until the first token", f"{ledger.first_token_s:.2f} s"),
        ("Answering after it", f"{answer_s:.2f} s · {ledger.tokens_per_s:.1f} tokens/s"),
        ("Total", f"{ledger.total_s:.2f} s"),
        ("Peak memory", format_bytes(ledger.peak_memory_bytes)),
    ]


def _share(part: int, whole: int) -> str:
    if not whole:
        return text_format.count(part)
    return f"{text_format.count(part)} ({100 * part / whole:.0f} %)"


def blocks(turns: Sequence[Turn], turn: Turn, card: Mapping, prune: Mapping | None) -> list[dict]:
    """Settings and code of an answered turn, as titled texts. prune: the model's own."""
    reply = cast(Reply, turn.reply)
    chosen = {
        name: value
        for name, value in reply.settings.items()
        if name in DEFAULTS and value != {**DEFAULTS, **card["defaults"], "prune": prune}[name]
    }
    return [
        {"title": "Settings", "text": settings_json(reply)},
        {"title": "Python", "text": python_code(turns, turn, card, chosen)},
        {"title": "Command line", "text": shell_code(turns, turn, card, chosen)},
    ]


def settings_json(reply: Reply) -> str:
    """The settings of a reply as JSON."""
    return json.dumps(reply.settings, indent=2, ensure_ascii=False, default=str)


def python_code(turns: Sequence[Turn], turn: Turn, card: Mapping, settings: Mapping) -> str:
    """A script that gives the same answer with `import vl3`; media by file name."""
    named = messages([_named(item) for item in turns], _named(turn), turn.system)
    arguments = "".join(f", {key}={value!r}" for key, value in settings.items())
    return "\n".join(
        [
            "import vl3",
            "",
            f"studio = vl3.load({_load_arguments(card)})",
            *_literal(named),
            f"reply = studio.reply(messages{arguments})",
            "print(reply.text)",
            "",
        ]
    )


def _literal(rows: list[dict]) -> list[str]:
    """The messages as Python source, one part a line."""
    lines = ["messages = ["]
    for row in rows:
        if isinstance(row["content"], str):
            lines.append(f"    {row!r},")
            continue
        parts = [f"        {part!r}," for part in row["content"]]
        lines += [f"    {{'role': {row['role']!r}, 'content': [", *parts, "    ]},"]
    return [*lines, "]"]


def shell_code(turns: Sequence[Turn], turn: Turn, card: Mapping, settings: Mapping) -> str:
    """A command that asks the question about the same media.

    Earlier questions are not part of it; they are in the Python.
    """
    command = ["python", "-m", "train_cli", "chat", turn.question]
    if card["path"] != PAGE_MODEL or card["adapter"]:
        command += ["--model", str(card["path"])]
    command += _flags({name: card[name] for name in ("quantize", "adapter") if card[name]})
    so_far = [item for old in (*context(turns), turn) for item in old.attachments]
    media = turn.attachments if turn.fresh else so_far
    for item in media:
        command += ["--audio" if item.kind == "audio" else "--video", item.name]
    timed = [item for item in media if item.kind != "image"]
    if timed:
        last = timed[-1]
        command += _flags({"fps": last.fps, "max_frames": last.max_frames})
        command += _flags({"start": last.start_s, "end": last.end_s})
    chosen = {name: value for name, value in settings.items() if name not in ("prune", "sound")}
    command += _flags(chosen) + (["--no-sound"] if settings.get("sound") is False else [])
    command += _prune_flags(settings.get("prune", "model"))
    return shlex.join(command + _flags({"system": turn.system.strip() or None}))


def _prune_flags(prune: Mapping | str | None) -> list[str]:
    if isinstance(prune, Mapping):
        flags = {"prune": prune.get("mode"), "prune_threshold": prune.get("threshold")}
        return _flags(flags | {"prune_keep": prune.get("keep")})
    return ["--prune", "off"] if prune is None else []


def _flags(values: Mapping) -> list[str]:
    flags = []
    for name, value in values.items():
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            flags += [f"--{name.replace('_', '-')}", shown]
    return flags


def _load_arguments(card: Mapping) -> str:
    arguments = [] if card["is_nano"] else [repr(str(card["path"]))]
    arguments += [f"{key}={card[key]!r}" for key in ("quantize", "adapter") if card[key]]
    return ", ".join(arguments)


def _named(turn: Turn) -> Turn:
    """The turn with file names where it had paths: they are the server's, not the reader's."""
    items = tuple(replace(item, path=item.name) for item in turn.attachments)
    return replace(turn, attachments=items)
