"""Say what this machine has, what is missing, and what will run on it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys

import psutil
import torch

from vl3.bundled import MODELS, PAGE_COMMAND
from vl3.inference.memory import KINDS, USABLE
from vl3.studio import estimate
from vl3.units import format_bytes
from vl3.weights.load import count_parameters, pick_device
from vl3.weights.number_format import pick_dtype, suited
from vl3.weights.sizes import RELEASED, sizes_of

NEEDED = (
    "torch",
    "transformers",
    "gradio",
    "av",
    "pillow",
    "numpy",
    "safetensors",
    "accelerate",
    "huggingface_hub",
    "psutil",
)
OPTIONAL = {
    "bitsandbytes": "4- and 8-bit weights (--quantize)",
    "peft": "adapters (--adapter)",
}
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(_chosen: argparse.Namespace) -> int:
    """Exit code 0 when the app will start, 1 when something it needs is missing."""
    print(
        f"Python          {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    missing = [name for name in NEEDED if not _version(name)]
    for name in (*NEEDED, *OPTIONAL):
        use = f"  ({OPTIONAL[name]})" if name in OPTIONAL else ""
        print(f"{name:<16}{_version(name) or 'not installed'}{use}")
    free = _device()
    disk = shutil.disk_usage(os.getcwd()).free / GIB
    print(f"disk            {disk:.0f} GiB free here")
    gone = [str(f) for f in MODELS.values() if not (f / "model.safetensors").is_file()]
    found = "not found: " + ", ".join(gone) if gone else ", ".join(MODELS)
    print(f"bundled models  {found}")
    for line in _fits(free):
        print(line)
    if missing or sys.version_info < (3, 11):
        need = f"pip install {' '.join(missing)}" if missing else "Python 3.11 or newer"
        print(f"verdict         not ready: {need}")
        return 1
    print(f"verdict         ready: {PAGE_COMMAND}")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> float:
    """Prints the device that "auto" takes; its free memory in bytes."""
    ram = psutil.virtual_memory()
    cores = os.cpu_count()
    print(
        f"CPU             {cores} cores, {ram.available / GIB:.1f} of "
        f"{ram.total / GIB:.1f} GiB memory free"
    )
    device = pick_device("auto")
    if device.type != "cuda":
        print(f"device          {device.type} (no CUDA device seen by torch)")
        return ram.available
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    print(f"device          {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return free * USABLE


def _fits(free_bytes: float) -> list[str]:
    """One line per released model: what an answer takes, by quantization, and whether it fits."""
    lines, device = [], pick_device("auto")
    for size in RELEASED:
        name, verdicts = f"DAMO-NLP-SG/VideoLLaMA3-{size}", []
        parameters = count_parameters(sizes_of(name))
        for kind in KINDS:
            fit = estimate(name, quantize=kind)
            verdict = "fits" if fit.need.total < free_bytes else "does not fit"
            plain = str(pick_dtype("auto", device, parameters)).removeprefix("torch.")
            verdicts.append(f"{kind or plain} {format_bytes(fit.need.total)} {verdict}")
        lines.append(f"VideoLLaMA3-{size}  {', '.join(verdicts)}")
        lines.append(f"{'':<16}{suited(device, parameters)}")
    about = f"an answer about {fit.budget_tokens:,} visual tokens; --memory auto chooses"
    lines.append(f"{'':<16}({about})")
    return lines
