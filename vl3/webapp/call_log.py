"""What the server logs of a call that failed."""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path
from types import SimpleNamespace

from gradio import queueing, routes

from vl3.bundled import PACKAGE


def log_briefly() -> None:
    """What goes wrong in a call enters the log without a word of the caller's.

    gradio prints the whole error, message included, of each call that does not fit its handlers.
    """
    for module in (queueing, routes):
        quiet = SimpleNamespace(print_exc=lambda: _print_where(*sys.exc_info()))
        module.traceback = quiet  # type: ignore[attr-defined]  # what it imports, not its own
    logging.getLogger("uvicorn.error").addFilter(_told)


def _told(record: logging.LogRecord) -> bool:
    """Whether the server shall log the record itself: not one that holds an error."""
    if record.exc_info:
        _print_where(*record.exc_info)
    return not record.exc_info


def _print_where(kind: type, error: BaseException, trace) -> None:
    while error.__cause__:  # what a person was told, raised from what went wrong
        error = error.__cause__
        kind, trace = type(error), error.__traceback__
    frames = traceback.extract_tb(trace)
    if not any(Path(frame.filename).is_relative_to(PACKAGE) for frame in frames):
        print(f"A call that the page does not make was refused: {kind.__name__}.", file=sys.stderr)
        return
    lines = "".join(traceback.format_list(frames))
    print(f"A call failed: {kind.__name__}\n{lines}", file=sys.stderr, end="")
