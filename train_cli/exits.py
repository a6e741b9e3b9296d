"""How a command ends: its exit code, and one sentence on standard error.

Nothing but Python's own library is imported, so that a command can say what is missing.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

# Exit codes of every command.
OK, FAILED, USAGE, BAD_DATA, TOO_BIG = 0, 1, 2, 3, 4


def fail(message: object, code: int = USAGE) -> NoReturn:
    """Ends the command with one sentence on standard error."""
    print(f"error: {in_words(message)}", file=sys.stderr)
    raise SystemExit(code)


def in_words(message: object) -> str:
    """What is said of it on one line, of a file without the number of the error."""
    if isinstance(message, OSError) and message.strerror:
        named = f"{message.filename}: " if message.filename else ""
        return f"{named}{message.strerror[0].lower()}{message.strerror[1:]}"
    return " ".join(str(message).split())


class Parser(argparse.ArgumentParser):
    """argparse's, which says what is wrong in one line and leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")
