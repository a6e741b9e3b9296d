"""Train a recipe.

    python -m train_cli run --config nano_stage4
    python -m train_cli run --config stage4_video --config lora --data.general_video.path mine.jsonl

Checkpoints, metrics.jsonl, quarantine.jsonl and samples/ are written into the folder of the run
(--out), which is then a model: python app.py --model RUN_DIR. Ctrl-C ends the run with a checkpoint
of the last whole step; `resume` goes on. Several GPUs: torchrun --nproc-per-node N -m train_cli run
... What will not fit into memory by its `plan` is not begun (exit code 4).
"""

from __future__ import annotations

import os
import sys
from logging import INFO, StreamHandler, getLogger
from pathlib import Path

from train_cli.config import RecipeParser
from train_cli.exits import BAD_DATA, FAILED, OK, TOO_BIG, USAGE, fail
from vl3.arguments import whole
from vl3.training.ready import check_ready

Parser = RecipeParser


def add_arguments(parser: RecipeParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="plan only, train nothing")
    parser.add_argument("--until", type=int, help="stop after this step, with a checkpoint")
    parser.add_argument(
        "--anyway", action="store_true", help="train even what the plan says will not fit"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(chosen) -> int:
    if chosen.dry_run:
        from train_cli.plan import run as plan

        return plan(chosen)
    try:
        check_until(chosen.until)
        check_ready(chosen.recipe)
    except (ValueError, OSError) as error:
        fail(error)
    if not chosen.anyway:
        check_memory(chosen.recipe)
    from vl3.training import run as runs

    return train(
        lambda **options: runs.run(chosen.recipe, until=chosen.until, **options), chosen.quiet
    )


def check_until(step: int | None) -> None:
    """Raises: ValueError for what is no step."""
    if step is not None:
        whole("--until", step, low=1)


def check_memory(recipe) -> None:
    """Ends the command with exit code 4 where a plan from measured samples does not fit.

    Of several processes a plan knows nothing, and of unknown sizes neither: these are let through.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    from train_cli.model_sizes import UnknownSizes
    from train_cli.plan import make, refuse_misfit

    try:
        plan = make(recipe)
    except UnknownSizes:
        return
    except ValueError as error:
        fail(error)
    if plan.measured:
        refuse_misfit(plan)


def train(begin, quiet: bool) -> int:
    """Trains with a progress bar; says where the result is, or in a sentence why there is none.

    begin: run or resume of vl3.training.run, given callbacks and stop
    """
    code, last = trained(begin, quiet)
    if code == OK:
        print(last, file=sys.stdout)
    elif os.environ.get("RANK", "0") == "0":
        step = last.name.rpartition("-")[2]
        print(
            f"stopped after step {step}; python -m train_cli resume {last.parent} goes on",
            file=sys.stderr,
        )
    return code


def trained(begin, quiet: bool) -> tuple[int, Path]:
    """As train; the exit code, which is not 0 where a signal ended it, and the last checkpoint."""
    import torch
    from transformers.utils import logging

    from train_cli.progress import Progress
    from vl3.training.left_out import TooManyBad
    from vl3.training.saving import CannotSave
    from vl3.training.stop import Stop
    from vl3.training.trainer import NotFinite

    if not quiet:
        log = getLogger("vl3")
        log.setLevel(INFO)
        log.addHandler(StreamHandler())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    stop = Stop()
    try:
        last = begin(callbacks=(Progress(quiet),), stop=stop)
    except TooManyBad as error:
        fail(error, BAD_DATA)
    except torch.cuda.OutOfMemoryError as error:
        fail(
            f"the GPU ran out of memory ({str(error).splitlines()[0]}); lower batch.tokens, "
            "batch.patches or media.visual_tokens, or train an adapter (--config lora)",
            TOO_BIG,
        )
    except (CannotSave, NotFinite) as error:
        fail(error, FAILED)
    except (ValueError, OSError, ImportError) as error:
        fail(error, USAGE)
    return (128 + stop.signal if stop.signal else OK), last
