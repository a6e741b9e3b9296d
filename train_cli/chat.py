"""Ask about videos and images in a terminal.

With a question, the answer goes to standard output and progress to standard error. Without one, a
conversation starts: type a question per line, /video FILE to add a video or image, /audio FILE to
add a sound, /new to start over, /quit (or Ctrl-D) to leave. Ctrl-C stops an answer.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import get_args

import vl3
from train_cli.exits import OK, USAGE, in_words
from vl3.arguments import number
from vl3.bundled import PAGE_MODEL
from vl3.settings import Decoding, PruneMode, PruneSide
from vl3.units import parse_memory
from vl3.values import Progress, Reply
from vl3.weights import places

COMMANDS = "/video FILE, /audio FILE, /new, /quit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("question", nargs="?", help="what to ask; without it, a conversation")
    _add_reading(parser)
    _add_decoding(parser)
    _add_loading(parser)
    parser.add_argument(
        "--details", action="store_true", help="tokens, times and memory at the end"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        help="checkpoint folder or hub id "
        f"(default: the bundled {PAGE_MODEL}, with --adapter assets/nano)",
    )
    parser.add_argument(
        "--video",
        action="append",
        default=[],
        metavar="FILE",
        help="video or image; may be repeated",
    )
    parser.add_argument(
        "--audio",
        action="append",
        default=[],
        metavar="FILE",
        help="sound, or the sound of a video, for a model with an ear; may be repeated",
    )
    parser.add_argument(
        "--no-sound", action="store_true", help="answer as if nothing could be heard"
    )
    parser.add_argument("--fps", type=float, help="frames per second to look at")
    parser.add_argument("--max-frames", type=int, help="at most this many frames")
    parser.add_argument("--start", type=float, metavar="S", help="from this second of the video")
    parser.add_argument("--end", type=float, metavar="S", help="to this second of the video")
    parser.add_argument("--budget-tokens", type=int, help="visual tokens before pruning")


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, help="longest answer")
    parser.add_argument("--temperature", type=float, help="0 is greedy (default)")
    parser.add_argument(
        "--top-p",
        type=float,
        help="draw from the likeliest tokens that make up this share",
    )
    parser.add_argument(
        "--repetition-penalty",
        type=float,
        help="above 1: what was said becomes less likely",
    )
    parser.add_argument("--seed", type=int, help="of what is drawn at random")
    parser.add_argument(
        "--prune",
        choices=("off", *get_args(PruneMode)),
        help="how repeated patches are removed (default: as the model was trained)",
    )
    parser.add_argument(
        "--prune-threshold",
        type=float,
        metavar="X",
        help="patches that change no more than this are removed",
    )
    parser.add_argument(
        "--prune-keep", choices=get_args(PruneSide), help="which of two alike patches stays"
    )
    parser.add_argument("--system", help="system prompt instead of the model's own")
    parser.set_defaults(**asdict(Decoding()))


def _add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantize",
        choices=("nf4", "int8", "nf4+int8"),
        help="4- or 8-bit language model; nf4+int8: and the rest in 8 bits",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the model may take, like 8GB, or auto for what is free: quantized as little as "
        "will do, then fewer visual tokens",
    )
    parser.add_argument("--adapter", metavar="FOLDER", help="peft adapter to apply")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument(
        "--features-gb",
        type=float,
        default=0.0,
        metavar="GB",
        help="keep so much of encoded videos on disk, so that none is encoded twice; default 0",
    )


def run(chosen: argparse.Namespace) -> int:
    """Exit code 0 after an answer, 2 for what a user can mend (one sentence on standard error)."""
    try:
        check(chosen)
        if not sys.stderr.isatty():
            from transformers.utils import logging

            logging.disable_progress_bar()
        studio = vl3.load(
            chosen.model or (None if chosen.adapter else PAGE_MODEL),
            device=chosen.device,
            dtype=chosen.dtype,
            quantize=chosen.quantize,
            adapter=chosen.adapter,
            offline=chosen.offline,
            memory=chosen.memory,
            features_gb=chosen.features_gb,
        )
        if note := studio.card["note"]:
            print(note, file=sys.stderr)
        if chosen.question is None:
            return _converse(studio, chosen)
        messages = [*_system(chosen), _turn(chosen.question, _files(chosen), chosen)]
        _answer(studio, messages, chosen)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"error: {in_words(error)}", file=sys.stderr)
        return USAGE
    return OK


def check(chosen: argparse.Namespace) -> None:
    """Raises ValueError for what is wrong whatever the model, before the imports that take long."""
    if chosen.question is not None and not chosen.question.strip():
        raise ValueError("there is no question; write one, or none at all for a conversation")
    for name, value in {"--fps": chosen.fps, "--start": chosen.start, "--end": chosen.end}.items():
        if value is not None:
            number(name, value, **{"above" if name == "--fps" else "low": 0})
    for kind, file in _files(chosen):
        if not file.strip():
            raise ValueError(f"--{kind} is a file - got ''")
    if chosen.memory not in (None, "auto"):
        parse_memory(chosen.memory)
    number("--features-gb", chosen.features_gb, low=0, unit="GB")
    places.check(chosen.model, chosen.adapter, chosen.device, chosen.dtype)


def _converse(studio, chosen: argparse.Namespace) -> int:
    commands = COMMANDS if studio.card["hears"] else COMMANDS.replace("/audio FILE, ", "")
    print(f"{studio.card['name']}: ask about the video; {commands}", file=sys.stderr)
    history, waiting = _system(chosen), _files(chosen)
    for line in _lines():
        if line in ("/quit", "/exit"):
            break
        if line == "/new":
            history, waiting = _system(chosen), _files(chosen)
        elif line.startswith(("/video ", "/audio ")):
            kind, _, file = line[1:].partition(" ")
            waiting.append((kind, file.strip()))
        elif line.startswith("/"):
            print(f"commands: {commands}", file=sys.stderr)
        else:
            asked = _turn(line, waiting, chosen)
            try:
                reply = _answer(studio, [*history, asked], chosen)
            except (ValueError, OSError) as error:
                print(f"error: {error}", file=sys.stderr)
                waiting = []
                continue
            history += [asked, {"role": "assistant", "content": reply.text}]
            waiting = []
    return 0


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if line:
            yield line


def _system(chosen: argparse.Namespace) -> list[dict]:
    return [{"role": "system", "content": chosen.system}] if chosen.system else []


def _files(chosen: argparse.Namespace) -> list[tuple[str, str]]:
    """Kind and path of what was named."""
    named = {"video": chosen.video, "audio": chosen.audio}
    return [(kind, file) for kind, files in named.items() for file in files]


def _turn(question: str, files: list[tuple[str, str]], chosen: argparse.Namespace) -> dict:
    options = {
        "fps": chosen.fps,
        "max_frames": chosen.max_frames,
        "start": chosen.start,
        "end": chosen.end,
    }
    options = {key: value for key, value in options.items() if value is not None}
    of_sound = {key: value for key, value in options.items() if key in ("start", "end")}
    given = {"video": options, "audio": of_sound}
    parts = [{"type": kind, kind: {"path": file, **given[kind]}} for kind, file in files]
    return {"role": "user", "content": [*parts, {"type": "text", "text": question}]}


def _prune(chosen: argparse.Namespace) -> dict | str | None:
    if chosen.prune == "off":
        return None
    given = {
        "mode": chosen.prune,
        "threshold": chosen.prune_threshold,
        "keep": chosen.prune_keep,
    }
    return {name: value for name, value in given.items() if value is not None} or "model"


def _answer(studio, messages: list[dict], chosen: argparse.Namespace) -> Reply:
    """Prints an answer as it comes; Ctrl-C stops it."""
    stop, reply, progress = threading.Event(), None, _Progress()
    stream = studio.stream(
        messages,
        **{each.name: getattr(chosen, each.name) for each in fields(Decoding)},
        budget_tokens=chosen.budget_tokens,
        prune=_prune(chosen),
        stop=stop,
        **({"sound": False} if chosen.no_sound else {}),
    )
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        for event in stream:
            if isinstance(event, Progress):
                progress.show(event)
            elif isinstance(event, str):
                progress.clear()
                print(event, end="", flush=True)
            else:
                reply = event
    finally:
        signal.signal(signal.SIGINT, before)
        progress.clear()
    print()
    stopped = [f"(stopped after {reply.ledger.new_tokens} tokens)"] if reply.stopped else []
    for note in (*stopped, *reply.notes):
        print(note, file=sys.stderr)
    if chosen.details:
        print(_details(reply), file=sys.stderr)
    return reply


class _Progress:
    """A line on standard error that is rewritten, where that is a terminal."""

    def __init__(self) -> None:
        self.width = 0

    def show(self, stage: Progress) -> None:
        if not sys.stderr.isatty():
            return
        line = f"{stage.name} {stage.done}/{stage.total}" if stage.total else stage.name
        print(f"\r{line:<{self.width}}", end="", file=sys.stderr, flush=True)
        self.width = max(self.width, len(line))

    def clear(self) -> None:
        if self.width:
            print("\r" + " " * self.width + "\r", end="", file=sys.stderr, flush=True)
            self.width = 0


def _details(reply: Reply) -> str:
    ledger = reply.ledger
    heard = f"{ledger.sound_tokens} tokens of sound; " if ledger.sound_tokens else ""
    return (
        f"{ledger.frames} frames, {ledger.visual_tokens} visual tokens, {ledger.kept_tokens} kept; "
        f"{heard}prompt {ledger.prompt_tokens} tokens ({ledger.reused_tokens} reused); "
        f"{ledger.new_tokens} new tokens at {ledger.tokens_per_s:.1f}/s, first after "
        f"{ledger.first_token_s:.2f} s; memory {ledger.peak_memory_bytes / 2**30:.2f} GiB"
    )
