"""The figures as tables, on the screen and as docs/performance.md."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from train_cli.bench import GROUPS

PACKAGES = ("torch", "transformers", "av", "pillow", "numpy", "bitsandbytes", "torchcodec")
HAND = "<!-- by hand -->"  # what follows this line of a page is kept as it is

NOT_MEASURED = """\
## What was not measured

Anything on a GPU ([what is prepared](gpu.md)). The released weights: all are random. The depth of
the released models and more than one thread, but for the groups 2b and 7b: elsewhere widths are
theirs and layers few. Machines with other instruction sets or operating systems. transformers'
video processor where torchvision is absent, torchcodec and ffmpeg where they are, and any other
peer without a row."""


def machine() -> dict[str, str]:
    """What the figures depend on."""
    import torch

    found = {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"


def tables(figures: dict) -> str:
    """One table a group."""
    parts = []
    for name, rows in figures["groups"].items():
        parts.append(f"## {name.capitalize()}: {GROUPS[name]}")
        compared = [row for row in rows if "ratio" in row]
        memory = [row for row in rows if "side" in row]
        points = [row for row in rows if "frames" in row]
        weights = [row for row in rows if "part" in row]
        answers = [row for row in rows if "card_gb" in row]
        kinds = (
            (_compared, compared),
            (_memory, memory),
            (_points, points),
            (_weights, weights),
            (_answers, answers),
        )
        found = [table(kind, lines) for kind, lines in kinds if lines]
        parts += found or ["Nothing could be measured here: what it needs is not installed."]
    return "\n\n".join(parts)


def table(kind, rows: list[dict]) -> str:
    head, *lines = kind(rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _compared(rows: list[dict]) -> list[list[str]]:
    head = ["work", "beside", "ours, CPU s", "theirs, CPU s", "ratio", "p20 - p80", "outputs"]
    return [head] + [
        [
            row["work"],
            row["peer"],
            _s(row["ours_s"][1]),
            _s(row["theirs_s"][1]),
            f"{row['ratio'][1]:.2f}",
            f"{row['ratio'][0]:.2f} - {row['ratio'][2]:.2f}",
            row["check"],
        ]
        for row in rows
    ]


def _memory(rows: list[dict]) -> list[list[str]]:
    return [["work", "side", "memory above the start, MB"]] + [
        [row["work"], row["side"], _mb(row["peak_bytes"])] for row in rows
    ]


def _points(rows: list[dict]) -> list[list[str]]:
    head = ["frames", "CPU s", "over a straight line", "memory, MB", "over a straight line"]
    return [head] + [
        [
            str(row["frames"]),
            _s(row["cpu_s"]),
            f"{row['time_over_line']:.2f}",
            _mb(row["peak_bytes"]),
            "-" if row["memory_over_line"] is None else f"{row['memory_over_line']:.2f}",
        ]
        for row in rows
    ]


def _weights(rows: list[dict]) -> list[list[str]]:
    head = ["weights of the 2B model", "16 bits, MB", "nf4, MB", "share", "nf4+int8, MB", "share"]
    return [head] + [
        [
            row["part"],
            _mb(whole := row["bytes_16bit"]),
            _mb(row["bytes_nf4"]),
            f"{row['bytes_nf4'] / whole:.2f}",
            _mb(row["bytes_small"]),
            f"{row['bytes_small'] / whole:.2f}",
        ]
        for row in rows
    ]


def _answers(rows: list[dict]) -> list[list[str]]:
    head = [
        "model",
        "weights, GB",
        "capped at, GB",
        "estimate, GB",
        "most held, GB",
        "visual tokens",
        "wall s: loading",
        "encoding",
        "to the first token",
        "tokens a second",
    ]
    return [head] + [
        [
            f"{row['model']}, {row['quantize'] or 'bfloat16'}",
            f"{row['weights_bytes'] / 1e9:.2f}",
            str(row["card_gb"]),
            f"{row['estimate_bytes'] / 1e9:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
            f"{row['tokens']:,} of {row['frames_seen']} frames",
            f"{row['load_s']:.0f}",
            f"{row['encode_s']:.0f}",
            f"{row['first_token_s']:.0f}",
            f"{row['tokens_per_s']:.1f}",
        ]
        for row in rows
    ]


def write(figures: dict, path: Path) -> None:
    """The page; what stands in the file after the line HAND stays."""
    kept = ""
    if path.exists():
        _, _, kept = path.read_text(encoding="utf-8").partition(HAND)
    about = "\n".join(f"- {name}: {value}" for name, value in figures["machine"].items())
    intro = f"""\
# Measured

Written by `python -m train_cli bench --markdown docs/performance.md`. Both sides of a row run by
turns in one process, {figures["rounds"]} times after one that is not counted, on one thread; their
outputs are compared first. CPU seconds (user and system, of all threads and children) and the ratio
are medians; above 1, ours takes less. The machine is shared: read the ratios, not the times.

{about}"""
    text = "\n\n".join([intro, tables(figures), NOT_MEASURED + _left_out(figures)])
    path.write_text(f"{text}\n\n{HAND}{kept or chr(10)}", encoding="utf-8")


def _left_out(figures: dict) -> str:
    """A sentence on the groups that this page has no figures of."""
    names = [name for name in GROUPS if name not in figures["groups"]]
    return f"\n\nGroups left out of this page: {', '.join(names)}." if names else ""


def _s(seconds: float) -> str:
    return f"{seconds:.3g}"


def _mb(size: int | None) -> str:
    return "not told" if size is None else f"{size / 1e6:.1f}"
