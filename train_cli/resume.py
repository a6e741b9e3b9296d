"""Go on with an interrupted run, exactly where its last whole checkpoint was written.

python -m train_cli resume runs/nano_stage4
"""

from __future__ import annotations

from pathlib import Path

from train_cli.run import train


def add_arguments(parser) -> None:
    parser.add_argument("run_dir", type=Path, help="folder of the run")
    parser.add_argument("--until", type=int, help="stop after this step, with a checkpoint")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(chosen) -> int:
    from vl3.training import run as runs

    return train(
        lambda callbacks: runs.resume(chosen.run_dir, until=chosen.until, callbacks=callbacks),
        chosen.quiet,
    )
