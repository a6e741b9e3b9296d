"""Go on with an interrupted run, exactly where its last whole checkpoint was written.

    python -m train_cli resume runs/nano_stage4
    python -m train_cli resume runs/mine --steps 400 --rates.adapter 1e-4 --workers 4

Rates and their schedule, clip, steps, workers, paths of data and everything that is only written or
kept may change on the way; other settings are refused by name.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from train_cli.config import ConfigError, RecipeParser
from train_cli.exits import USAGE, fail
from train_cli.run import check_until, train
from vl3.training.changes import check_changes, last_run
from vl3.training.ready import check_source, check_trackers, check_writable
from vl3.training.recorded import read


class Parser(RecipeParser):
    """A recipe parser that begins with the recipe of the run in the folder named first."""

    def parse_args(self, arguments: list[str]) -> argparse.Namespace:
        if not arguments or arguments[0] in ("-h", "--help"):
            if arguments:
                return super().parse_args(arguments)
            fail("name the folder of the run: python -m train_cli resume RUN_DIR")
        run_dir = Path(arguments[0]).expanduser()
        if arguments[0].startswith("-"):
            fail(f"the folder of the run comes first, before {arguments[0]}")
        try:
            _, written = last_run(run_dir)
        except (OSError, ValueError) as error:
            fail(error)
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(written["recipe"], file)
            file.flush()
            chosen = super().parse_args(["--config", file.name, *arguments[1:]])
        chosen.run_dir, chosen.before = run_dir, read(written["recipe"])
        return chosen


def add_arguments(parser: RecipeParser) -> None:
    parser.add_argument("--until", type=int, help="stop after this step, with a checkpoint")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(chosen) -> int:
    try:
        check_until(chosen.until)
        check_changes(chosen.before, chosen.recipe, chosen.run_dir)
        check_writable(chosen.run_dir)
        check_trackers(chosen.recipe)
        for source in chosen.recipe.data:
            check_source(source, f"data.{source.name}")
    except (ValueError, ConfigError) as error:
        fail(error, USAGE)
    from vl3.training import run as runs

    return train(
        lambda **options: runs.resume(
            chosen.run_dir, recipe=chosen.recipe, until=chosen.until, **options
        ),
        chosen.quiet,
    )
