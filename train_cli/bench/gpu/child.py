"""The process of one step: python -m train_cli.bench.gpu.child.

It imports what every step needs, waits for one line of JSON that says which step, and writes a line
of JSON for each row and one for its end. It ends with whoever started it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import threading
import traceback
from collections.abc import Generator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from train_cli.bench.gpu.record import DONE, FAILED, as_values
from train_cli.bench.gpu.steps import Place

TRACE_LETTERS = 3000
BEFORE_THE_END_S = 2


def outcome(function: str, place: Place) -> Generator[dict]:
    """Does a step: {"row": ...} for each row as it comes, at last {"ended": ..., "why": ...}.

    Whatever it raises is told there, and nothing is raised: the next step does not depend on it.
    """
    module, name, *words = function.split(":")
    try:
        for row in getattr(import_module(module), name)(place, *words):
            yield {"row": as_values(row)}
    except Exception as error:  # noqa: BLE001 - of whatever a card, a driver, a library may raise
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        yield {"ended": FAILED, "why": in_a_line(error), "trace": trace[-TRACE_LETTERS:]}
    else:
        yield {"ended": DONE, "why": ""}


def in_a_line(error: BaseException) -> str:
    """What an error says, on one line with its kind."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:400]


def main() -> None:
    # Libraries print what they like to standard output, which here is for rows alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warm_up()
    line = sys.stdin.readline()
    if not line:
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    order = json.loads(line)
    faulthandler.dump_traceback_later(max(1, order["limit_s"] - BEFORE_THE_END_S))
    place = Place(order["device"], order["tiny"], Path(order["folder"]))
    for values in outcome(order["function"], place):
        print(json.dumps(values), file=answers, flush=True)


def warm_up() -> None:
    """Imports what takes seconds, while another step still computes; no GPU is touched."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    import_module("vl3.studio" if find_spec("av") else "vl3.ops")


def _end_with_parent() -> None:
    sys.stdin.read()  # until it is closed
    os._exit(1)


if __name__ == "__main__":
    main()
