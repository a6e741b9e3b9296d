"""What a model's name says before torch is there: the folder it names, or why it names none."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vl3.arguments import choice, shown
from vl3.bundled import MODELS
from vl3.weights.runs import checkpoints

EXAMPLE = "DAMO-NLP-SG/VideoLLaMA3-2B"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ADAPTER_FILE = "adapter_config.json"
NANO_EARS = ("nano-whisper", "nano-beats")  # small ones without training (vl3.weights.ears)


def local(name: str | Path) -> Path | None:
    """The folder of that name, of a training run its last checkpoint; None for a hub id.

    "assets/nano" and "assets/nano-av" are the bundled models wherever the caller stands.

    Raises: ValueError in one sentence for what is neither.
    """
    if not isinstance(name, str | Path) or not str(name).strip() or "\0" in str(name):
        raise ValueError(
            f"a model is a checkpoint folder or a hub id like {EXAMPLE} - got {shown(name)}"
        )
    folder = _folder(name)
    if folder is not None and folder.is_dir():
        written = checkpoints(folder)
        return written[-1] if written else folder
    if folder is not None and folder.is_file():
        raise ValueError(
            f"{folder.name} is a file; give the folder of a checkpoint, which holds config.json, "
            "weights and a tokenizer"
        )
    if not HUB_ID.fullmatch(str(name)):
        raise ValueError(
            f"no folder {shown(str(name))}; give a checkpoint folder or a hub id like {EXAMPLE}"
        )
    return None


def local_ear(name: str) -> Path | None:
    """BEATs' file or the folder of Whisper of that name; None for a hub id and for NANO_EARS.

    Raises: ValueError in one sentence for what is neither.
    """
    if name in NANO_EARS:
        return None
    file = os.path.expanduser(name)
    if os.path.isfile(file):
        return Path(file)
    try:
        return local(name)
    except ValueError:
        raise ValueError(
            f"an ear is BEATs' .pt file, a folder or hub id of Whisper, {' or '.join(NANO_EARS)} - "
            f"got {shown(name)}"
        ) from None


def check(model: str | None, adapter: str | None, device: str, dtype: str) -> None:
    """Raises ValueError for what cannot be loaded whatever this machine has, in one sentence."""
    choice("dtype", dtype, DTYPES)
    if not DEVICE.fullmatch(device):
        raise ValueError(f"device is auto, cpu, cuda, cuda:1 or mps - got {shown(device)}")
    folder = None if model is None else local(model)
    if folder is not None and not _holds(folder, "config.json", ADAPTER_FILE):
        raise ValueError(
            f"{folder.name or folder} has no config.json; give the folder of a checkpoint, of an "
            "adapter or of a training run"
        )
    folder = None if adapter is None else local(adapter)
    if folder is not None and not _holds(folder, ADAPTER_FILE):
        raise ValueError(
            f"{folder.name or folder} has no {ADAPTER_FILE}; give the folder of an adapter"
        )


def _holds(folder: Path, *names: str) -> bool:
    return any((folder / name).is_file() for name in names)


def _folder(name: str | Path) -> Path | None:
    """The path, with ~ for the home folder; None for what no file system can be asked for."""
    try:
        folder = Path(name).expanduser()
        is_there = folder.is_dir()
    except (OSError, RuntimeError):  # a name that is too long, an unknown user's home
        return None
    return folder if is_there else MODELS.get(str(name), folder)
