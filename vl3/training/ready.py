"""What would end a run before its first step, told at once: neither torch nor data are read."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path

from vl3.arguments import did_you_mean
from vl3.training.recipe import Recipe, Source
from vl3.weights.places import local_ear
from vl3.weights.runs import checkpoints
from vl3.weights.whole import check_weights

# Trackers of transformers, and the packages one of which each needs.
TRACKERS = {
    "azure_ml": ("azureml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def folder(recipe: Recipe) -> Path:
    """Where the run is kept."""
    return Path(recipe.out.format(name=recipe.name))


def check_ready(recipe: Recipe) -> None:
    """Whether a run of the recipe can begin, as far as files tell.

    Raises: ValueError, or FileExistsError for a folder that holds a run, one sentence.
    """
    check_out(folder(recipe))
    check_trackers(recipe)
    check_start(recipe)
    for source in recipe.data:
        check_source(source, f"data.{source.name}")
    for source in recipe.evaluate.sources:
        check_source(source, f"evaluate.sources, {source.name}")


def check_out(out: Path) -> None:
    """Raises: FileExistsError for the folder of a run, ValueError for one that takes no files."""
    if checkpoints(out):
        raise FileExistsError(f"{out} holds a run already; resume it, or choose another --out")
    check_writable(out)


def check_writable(out: Path) -> None:
    """Raises: ValueError where no file can be written into a folder, which need not be there."""
    nearest = nearest_folder(out)
    if not nearest.is_dir():
        raise ValueError(f"out is a folder - {nearest} is a file; choose another --out")
    try:
        with tempfile.TemporaryFile(dir=nearest) as probe:
            probe.write(b"0")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ValueError(
            f"{nearest} cannot be written to ({reason}); choose another --out"
        ) from None


def nearest_folder(out: Path) -> Path:
    """The path itself, or the deepest one above it that exists."""
    return next(path for path in (out, *out.absolute().parents) if path.exists())


def check_trackers(recipe: Recipe) -> None:
    """Raises: ValueError for a tracker that does not exist or whose package is missing."""
    for name in recipe.report_to:
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS)
            raise ValueError(f"report_to lists some of {', '.join(TRACKERS)} - got {name!r}{hint}")
        if not any(map(importlib.util.find_spec, TRACKERS[name])):
            raise ValueError(
                f"report_to: {name} needs a package that is not installed; pip install "
                f"{TRACKERS[name][0]}, or leave it out (metrics.jsonl is written always)"
            )


def check_start(recipe: Recipe) -> None:
    """Raises: ValueError for start weights that are not there or not whole."""
    if recipe.start.ear is not None:
        try:
            local_ear(recipe.start.ear)
        except ValueError as error:
            raise ValueError(f"start.ear: {error}") from None
    for setting in ("model", "vision", "language"):
        name = getattr(recipe.start, setting)
        if name is None:
            continue
        path = Path(name).expanduser()
        if path.is_dir():
            whole = checkpoints(path)
            check_weights(whole[-1] if whole else path)
        elif path.exists():
            raise ValueError(f"start.{setting} is a folder or a hub id - {name} is a file")
        elif name.startswith("runs/") or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
            raise ValueError(
                f"start.{setting}: there is no folder {name}; train it first, or give a "
                "checkpoint folder or a hub id like DAMO-NLP-SG/VideoLLaMA3-2B"
            )


def check_source(source: Source, name: str) -> None:
    """Raises: ValueError where the file of a data set is not there."""
    if source.path is None or source.path.startswith("hf://"):
        return
    path = Path(source.path).expanduser()
    found = any(path.parent.glob(path.name)) if "*" in path.name else path.exists()
    if not found:
        raise ValueError(f"there is no file {source.path}; --{name}.path says where it is")
    if source.media_root is not None and not Path(source.media_root).expanduser().is_dir():
        raise ValueError(
            f"there is no folder {source.media_root}; --{name}.media_root says where it is"
        )
