"""The machine of a run on a GPU: card, driver, versions, and which sources ran."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from vl3.bundled import HOME, PACKAGE

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "av",
    "jsonargparse",
)
PATIENCE_S = 10  # with nvidia-smi
SOURCES = ("vl3", "train_cli", "kernels")


def refusal() -> str:
    """Why there is no GPU to measure on, in a sentence; empty where there is one."""
    import torch

    if torch.cuda.is_available():
        return ""
    built = "sees none" if torch.version.cuda else "is built without CUDA"
    return (
        f"no GPU: torch {torch.__version__} {built} here; --tiny rehearses every step on the CPU, "
        "and --from FILE takes the figures of an earlier run"
    )


def described(tiny: bool, minutes: float) -> dict:
    """What the figures depend on."""
    import torch

    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": sources(),
        "tiny": tiny,
        "minutes": minutes,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cuda": torch.version.cuda or "none",
    }
    if tiny:
        found |= {"card": "none, a CPU", "driver": "none", "memory_bytes": None}
    else:
        card = torch.cuda.get_device_properties(0)
        found |= {
            "card": card.name,
            "memory_bytes": card.total_memory,
            "capability": f"{card.major}.{card.minor}",
            "driver": _driver(),
        }
    return found | {name: _version(name) for name in PACKAGES}


def sources() -> str:
    """The commit, with a plus where files differ from it; without git a digest of the sources."""
    git = shutil.which("git")
    if git and (HOME / ".git").exists():
        ask = [git, "-C", str(HOME)]
        told = [
            subprocess.run([*ask, *words], capture_output=True, text=True, check=False)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
        if not any(one.returncode for one in told):
            return told[0].stdout.strip() + ("+" if told[1].stdout.strip() else "")
    return f"digest {_digest()}"


def _digest() -> str:
    found = hashlib.sha256()
    for top in SOURCES:
        folder = PACKAGE if top == "vl3" else HOME / top
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{top}/{path.relative_to(folder).as_posix()}\n".encode())
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    """As nvidia-smi names it, which may be absent."""
    program = shutil.which("nvidia-smi")
    if not program:
        return "unknown"
    ask = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return "unknown"
    return told.stdout.strip().splitlines()[0] if told.stdout.strip() else "unknown"
