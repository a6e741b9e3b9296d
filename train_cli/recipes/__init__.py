"""List, show, copy or choose the recipes that come with the package.

recipes list                         names and what each trains
recipes show stage4_video            the file, comments and all
recipes show nano_curriculum:letters a phase of a curriculum, as a recipe of its own
recipes copy stage4_video mine.yaml  a copy to change
recipes which                        three questions, one command line to run
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from train_cli.config import BUNDLED, ConfigError, bundled, find_phase, read_recipe, to_yaml
from train_cli.exits import OK, fail
from vl3.arguments import number

RELEASED = {"2b": "DAMO-NLP-SG/VideoLLaMA3-2B", "7b": "DAMO-NLP-SG/VideoLLaMA3-7B"}

# GB that one GPU needs by `plan`, for the whole model in training and for adapters.
FULL_GB = {"2b": 52, "7b": 193}
LORA_GB = {"2b": 12, "7b": 32}

QUESTIONS = {
    "goal": (
        "What do you want? own: teach a released model my data; paper: repeat the four stages",
        ("own", "paper"),
    ),
    "memory_gb": ("How much memory has one of your GPUs, in GB? (0: no GPU)", None),
    "size": ("Which model?", ("2b", "7b")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="names and what each trains")
    listing.add_argument("--json", action="store_true", help="as JSON")
    show = actions.add_parser("show", help="one file, comments and all")
    show.add_argument("name", help="bundled recipe or file")
    copy = actions.add_parser("copy", help="a copy to change")
    copy.add_argument("name", help="bundled recipe or file")
    copy.add_argument("to", type=Path, help="file or folder")
    which = actions.add_parser("which", help="three questions, one command line to run")
    which.add_argument("--goal", choices=QUESTIONS["goal"][1], help=QUESTIONS["goal"][0])
    which.add_argument(
        "--memory-gb", type=float, dest="memory_gb", metavar="GB", help=QUESTIONS["memory_gb"][0]
    )
    which.add_argument("--size", choices=QUESTIONS["size"][1], help=QUESTIONS["size"][0])
    which.add_argument("--json", action="store_true", help="as JSON")


def run(chosen: argparse.Namespace) -> int:
    try:
        return {"list": _list, "show": _show, "copy": _copy, "which": _which}[chosen.action](chosen)
    except (ConfigError, OSError) as error:
        fail(error)


def summaries() -> dict[str, str]:
    """The first comment line of every bundled recipe."""
    return {
        name: (BUNDLED / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for name in bundled()
    }


def _list(chosen: argparse.Namespace) -> int:
    found = summaries()
    if chosen.json:
        print(json.dumps(found, indent=2))
        return OK
    width = max(map(len, found))
    for name, line in found.items():
        print(f"{name:<{width}}  {line}")
    return OK


def _show(chosen: argparse.Namespace) -> int:
    print(_text(chosen.name), end="")
    return OK


def _text(name: str) -> str:
    """A recipe as its file has it; a phase of a curriculum with all settings."""
    file, phase = find_phase(name)
    if phase:
        return to_yaml(read_recipe(["--config", name]))
    return file.read_text(encoding="utf-8")


def _copy(chosen: argparse.Namespace) -> int:
    text, (source, phase) = _text(chosen.name), find_phase(chosen.name)
    name = f"{source.stem}_{phase}.yaml" if phase else source.name
    target = chosen.to / name if chosen.to.is_dir() else chosen.to
    if target.exists():
        fail(f"{target} exists already; choose another name")
    if not target.absolute().parent.is_dir():
        fail(f"there is no folder {target.parent}; make it first")
    target.write_text(text, encoding="utf-8")
    print(f"{target}: change it, then run python -m train_cli plan --config {target}")
    return OK


def _which(chosen: argparse.Namespace) -> int:
    answers = {name: getattr(chosen, name) for name in QUESTIONS}
    for name, (question, choices) in QUESTIONS.items():
        if answers[name] is None:
            answers[name] = _ask(name, question, choices)
    try:
        number("--memory-gb", answers["memory_gb"], low=0, unit="GB")
    except ValueError as error:
        fail(error)
    command, why = choose(**answers)
    if chosen.json:
        print(json.dumps({"command": command, "why": why}))
    else:
        print(f"{command}\n{why}")
    return OK


def _ask(name: str, question: str, choices: tuple[str, ...] | None) -> str | float:
    """One answer from the terminal.

    Raises: ConfigError where the input ends, or is not one of the choices or a number.
    """
    shown = f"{question} [{'/'.join(choices)}] " if choices else f"{question} "
    print(shown, end="", file=sys.stderr, flush=True)
    text = sys.stdin.readline().strip().lower()
    if choices and text in choices:
        return text
    if not choices and text.replace(".", "", 1).isdigit():
        return float(text)
    option = f"--{name.replace('_', '-')}"
    expected = " or ".join(choices) if choices else "a number"
    raise ConfigError(f"got {text!r}, expected {expected}; or give {option} on the command line")


def choose(goal: str, memory_gb: float, size: str) -> tuple[str, str]:
    """The command line for a wish and a machine, and why."""
    twin = "" if size == "2b" else ",7b"
    if goal == "paper":
        return (
            f"python -m train_cli plan --config stage1_vision_adaptation{twin}",
            "The stages build on each other: stage1_vision_adaptation, stage2_alignment, "
            f"stage3_multitask, stage4_video{' (each with ,7b)' if twin else ''}; the 7B starts "
            "from the encoder of the trained 2B. Set the paths of the data sets first; plan says "
            "what each needs.",
        )
    own = f"--start.model {RELEASED[size]} --data.own.path clips.jsonl"
    full, lora = FULL_GB[size], LORA_GB[size]
    if memory_gb >= full:
        return (
            f"python -m train_cli run --config stage4_video{twin} --data '[]' {own}",
            f"{memory_gb:g} GB hold the whole model while it trains (about {full} GB); stage 4 is "
            "the one for videos.",
        )
    if memory_gb >= lora:
        return (
            f"python -m train_cli run --config lora {own}",
            f"{memory_gb:g} GB hold the frozen model and adapters (about {lora} GB), not the whole "
            f"model in training (about {full} GB).",
        )
    return (
        f"python -m train_cli run --config qlora {own}",
        "Adapters on a 4-bit language model need least; "
        + ("without a GPU it runs, slowly." if memory_gb == 0 else "`plan` says how much."),
    )
