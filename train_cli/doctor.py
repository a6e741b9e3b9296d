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

from vl3.config import videollama3_2b, videollama3_7b
from vl3.weights.hub import BUNDLED
from vl3.weights.load import count_parameters, pick_device

NEEDED = ("torch", "transformers", "gradio", "av", "pillow", "numpy", "safetensors", "accelerate",
          "huggingface_hub", "psutil")  # fmt: skip
OPTIONAL = {
    "bitsandbytes": "4- and 8-bit weights (--quantize)",
    "peft": "adapters (--adapter)",
}
GIB = 2**30
WORKING_SPACE = 1.25  # of the weights: activations, caches, the framework itself


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
    nano = (BUNDLED / "model.safetensors").is_file()
    print(f"nano            {'bundled' if nano else 'not found: ' + str(BUNDLED)}")
    for line in _fits(free):
        print(line)
    if missing or sys.version_info < (3, 11):
        need = f"pip install {' '.join(missing)}" if missing else "Python 3.11 or newer"
        print(f"verdict         not ready: {need}")
        return 1
    print("verdict         ready: python app.py")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> float:
    """Prints the device that "auto" takes; its free memory in bytes."""
    memory = psutil.virtual_memory()
    cores = os.cpu_count()
    print(f"CPU             {cores} cores, {memory.available / GIB:.1f} of "
          f"{memory.total / GIB:.1f} GiB memory free")  # fmt: skip
    device = pick_device("auto")
    if device.type != "cuda":
        print(f"device          {device.type} (no CUDA device seen by torch)")
        return memory.available
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    print(f"device          {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free")
    return free


def _fits(free_bytes: float) -> list[str]:
    """One line per released model: what its weights need in 16 and in 4 bits, and whether it fits.

    In 4 bits the linears of the language model take about half a byte per weight and 5 % for
    their scales; everything else stays at two bytes.
    """
    lines = []
    for name, config in (("2B", videollama3_2b()), ("7B", videollama3_7b())):
        text = config.text_config
        whole = count_parameters(config)
        per_layer = text.hidden_size * (
            text.hidden_size * 2
            + 2 * text.hidden_size * text.num_key_value_heads // text.num_attention_heads
            + 3 * text.intermediate_size
        )
        linears = per_layer * text.num_hidden_layers
        sizes = {"16-bit": 2 * whole, "4-bit": 2 * (whole - linears) + 0.525 * linears}
        verdicts = []
        for kind, size in sizes.items():
            fits = "fits" if size * WORKING_SPACE < free_bytes else "does not fit"
            verdicts.append(f"{kind} {size / GIB:.1f} GiB {fits}")
        lines.append(f"VideoLLaMA3-{name}  {', '.join(verdicts)} (weights; frames come on top)")
    return lines
