"""What a training run leaves in its folder, told without loading anything."""

from __future__ import annotations

from pathlib import Path

RUN_FILE = "vl3_run.json"  # written last into each checkpoint


def checkpoints(run: Path) -> list[Path]:
    """The whole checkpoints in the folder of a training run, oldest first."""
    found = [path.parent for path in run.glob(f"checkpoint-*/{RUN_FILE}")]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
