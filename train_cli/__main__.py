"""python -m train_cli COMMAND: one command per file of this folder.

A command is a module with add_arguments(parser) and run(chosen), which returns the exit code. Its
parser is argparse's, unless the module names another as `Parser`; commands that work on a recipe
name train_cli.config.RecipeParser and find the recipe in chosen.recipe.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from train_cli.exits import Parser

INTERRUPTED = 130  # the exit code of Ctrl-C

# The first line of help of each; a module is imported when its command is chosen, so that help and
# mistakes need not wait for torch.
COMMANDS = {
    "chat": "Ask about videos and images in a terminal.",
    "doctor": "Say what this machine has, what is missing, and what will run on it.",
    "demo": "Train a small model in minutes, offline, and ask it.",
    "recipes": "List, show, copy or choose the recipes that come with the package.",
    "validate": "Check data sets before training: formats, media, lengths.",
    "plan": "Say what a training run will do and need, and whether it fits.",
    "run": "Train a recipe.",
    "resume": "Go on with an interrupted run.",
    "bench": "Measure this project beside its peers.",
    "assemble": "Join an encoder and a language model, or give a model an ear.",
    "export": "Write a run or model as one folder, adapters merged, in any layout.",
    "ablate": "Train variants of a recipe with several seeds; a table of what they learned.",
    "compare": "Say whether two runs learned alike, or where they parted.",
}


def main(arguments: list[str] | None = None) -> int:
    chooser = Parser(
        prog="python -m train_cli",
        description="Chat with videos, check the machine, plan and run training.",
        epilog="\n".join(f"  {name:<10}{line}" for name, line in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chooser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    chooser.add_argument("arguments", nargs=argparse.REMAINDER, help="see COMMAND --help")
    given = chooser.parse_args(arguments)
    command = import_module(f"train_cli.{given.command}")
    parser = getattr(command, "Parser", Parser)(
        prog=f"{chooser.prog} {given.command}", description=command.__doc__
    )
    command.add_arguments(parser)
    chosen = parser.parse_args(given.arguments)
    try:
        return command.run(chosen)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
