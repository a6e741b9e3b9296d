"""python -m train_cli COMMAND: one command per file of this folder."""

from __future__ import annotations

import argparse
import sys

from train_cli import chat, doctor

COMMANDS = {"chat": chat, "doctor": doctor}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m train_cli", description="Chat with videos in a terminal; check the machine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        first_line = command.__doc__.splitlines()[0]
        added = commands.add_parser(name, help=first_line, description=command.__doc__)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    chosen = parser.parse_args(arguments)
    return chosen.run(chosen)


if __name__ == "__main__":
    sys.exit(main())
