"""The figures of runs on a GPU as lines, as tables, and as docs/gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from train_cli.bench.gpu import record
from train_cli.bench.gpu.record import Step
from train_cli.bench.gpu.steps import STEPS
from train_cli.bench.page import HAND, table

VERSIONS = ("python", "torch", "cuda", "triton", "transformers", "accelerate", "peft")
BESIDE = ("bitsandbytes", "av", "jsonargparse")

NOTHING = """\
**Nothing of this has been run.** No machine with a GPU has run this project: its five Triton
kernels, the CUDA side of model, engine, quantization and training, a cache of fixed size under a
CUDA graph, and the memory that is estimated for cards are written, and rehearsed on a CPU as far as
that goes. There is no figure here yet, and `VL3_KERNELS=auto` takes no kernel."""

HOW = """\
## How it is run

    python -m train_cli bench --gpu --minutes 8 --json gpu.jsonl
    python -m train_cli bench --gpu --from gpu.jsonl --markdown docs/gpu.md --decide

The first command prints the card, its driver and all versions, and then does the steps below, those
of most value first. Each has a process of its own and a deadline; it is ended with all that it
started when it is late, and what it found until then is kept. A step that fails is written down
with its reason, and the next one begins. Every figure is a line of the file as soon as it is known,
so a run that is cut off leaves what it has; a second run goes on in the same file, and the last
word on each step counts. `--only STEP,STEP` does some of them. Exit code 1 says that a step failed
or was late, or that a check does not hold.

The second command, which needs no GPU, writes this page, and with `--decide` puts what the kernels
gained into `kernels/measured.json`, by which `VL3_KERNELS=auto` takes the winners, and into the
table of [kernels](../kernels/README.md).

Needed are Linux, Python 3.11 or newer, torch 2.11 or newer with CUDA, triton, transformers 5.17 or
newer, accelerate, psutil, PyYAML, xxhash, Pillow and safetensors. PyAV, bitsandbytes and peft may
be missing: steps that need them say so and are skipped, without PyAV all but the kernels. Neither
Gradio nor jsonargparse is imported. On a machine that reaches no index, wheels are brought along:

    pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels av bitsandbytes
    python -m pip install --no-index --no-deps wheels/*.whl

The recorded checkpoints of the first step are looked for in `shared/` beside the checkout or in it.

    python -m train_cli bench --gpu --tiny --json rehearsal.jsonl

goes through every step on a CPU, on the smallest inputs, in one process, the kernels under Triton's
interpreter: its times say nothing. The slow tests do that, so that none of this rots."""

WRITTEN = """\
# On a GPU

Written by `python -m train_cli bench --gpu --from FILE --markdown docs/gpu.md`."""
REHEARSAL = "A rehearsal on a CPU: none of its times says anything."
RULE = """\
## Decisions

A kernel is taken where its outputs agree and it is 10 % faster on all that vl3 does."""


def in_words(row: dict) -> str:
    """A row on one line, for the screen."""
    kind = row["kind"]
    if kind == "check":
        return f"  {'holds' if row['ok'] else 'DOES NOT HOLD'}  {row['work']}: {row['said']}"
    if kind == "skip":
        return f"  left out  {row['work']}: {row['why']}"
    if kind == "rate":
        return f"  {row['work']}: {row['per_s']:.4g} {row['unit']}"
    if kind == "memory":
        return (
            f"  {row['work']}: {_gb(row['estimate_bytes'])} estimated, {_gb(row['peak_bytes'])} "
            f"at most{_cap(row)}; {row['said']}"
        )
    if kind == "kernel":
        return f"  {row['work']}, {row['side']}: {row['ms'][1]:.4g} ms, {row['gain']:.2f} x"
    share = "" if row["share"] is None else f", {row['share']:.1%} of the ceiling"
    said = f"; {row['said']}" if row["said"] else ""
    return (
        f"  {row['work']}, {row['side']}: {1e3 * row['s'][1]:.4g} ms, {row['ratio']:.2f} of the "
        f"first{share}{said}"
    )


def _gb(size_bytes: float | None) -> str:
    return "not counted" if size_bytes is None else f"{size_bytes / 1e9:.2f} GB"


def _cap(row: dict) -> str:
    return "" if row["cap_gb"] is None else f", {row['cap_gb']:g} GB allowed"


def _checks(rows: list[dict]) -> list[list[str]]:
    return [["check", "holds", "what was seen"]] + [
        [row["work"], "yes" if row["ok"] else "**no**", row["said"]] for row in rows
    ]


def _skips(rows: list[dict]) -> list[list[str]]:
    return [["left out", "why"]] + [[row["work"], row["why"]] for row in rows]


def _rates(rows: list[dict]) -> list[list[str]]:
    return [["ceiling, measured", "a second"]] + [
        [row["work"], f"{row['per_s']:.4g} {row['unit']}"] for row in rows
    ]


def _speeds(rows: list[dict]) -> list[list[str]]:
    head = ["work", "side", "ms", "p20 - p80", "x the first", "of the ceiling", "besides"]
    return [head] + [
        [
            row["work"],
            row["side"],
            f"{1e3 * row['s'][1]:.4g}",
            f"{1e3 * row['s'][0]:.4g} - {1e3 * row['s'][2]:.4g}",
            f"{row['ratio']:.2f}",
            "-" if row["share"] is None else f"{row['share']:.0%}",
            row["said"],
        ]
        for row in rows
    ]


def _memories(rows: list[dict]) -> list[list[str]]:
    head = ["work", "capped at, GB", "estimate, GB", "most held, GB", "held / estimate", "besides"]
    return [head] + [
        [
            row["work"],
            "-" if row["cap_gb"] is None else f"{row['cap_gb']:g}",
            f"{row['estimate_bytes'] / 1e9:.2f}",
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e9:.2f}",
            "-"
            if row["peak_bytes"] is None
            else f"{row['peak_bytes'] / row['estimate_bytes']:.2f}",
            row["said"],
        ]
        for row in rows
    ]


def _kernels(rows: list[dict]) -> list[list[str]]:
    head = ["work", "side", "us", "p20 - p80", "x reference", "of the ceiling", "memory, MB"]
    return [head] + [
        [
            row["work"],
            row["side"],
            f"{1e3 * row['ms'][1]:.4g}",
            f"{1e3 * row['ms'][0]:.4g} - {1e3 * row['ms'][2]:.4g}",
            f"{row['gain']:.2f}",
            f"{row['share']:.0%}",
            "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.1f}",
        ]
        for row in rows
    ]


TABLES: dict[str, Callable[[list[dict]], list[list[str]]]] = {
    "rate": _rates,
    "check": _checks,
    "speed": _speeds,
    "kernel": _kernels,
    "memory": _memories,
    "skip": _skips,
}


def tables(steps: dict[str, Step]) -> str:
    """What is known of each step, in their order."""
    parts = []
    for step in STEPS:
        known = steps.get(step.name)
        if known is None:
            continue
        parts.append(f"## {step.name.capitalize()}: {step.about}")
        if known.ended != record.DONE:
            parts.append(_escaped(f"{known.ended.capitalize()}: {known.why or 'no end is known'}."))
        for kind, rows_of in TABLES.items():
            rows = [row for row in known.rows if row["kind"] == kind]
            if rows:
                lines = [[_escaped(cell) for cell in line] for line in rows_of(rows)]
                parts.append(table(lambda lines: lines, lines))
    return "\n\n".join(parts)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def _plan() -> str:
    """The table of what is done, before anything was."""
    lines = [["step", "what", "about, s", "ended after, s", "needs"]]
    for step in STEPS:
        needs = ", ".join(step.needs) or "-"
        lines.append(
            [f"`{step.name}`", step.about, f"{step.about_s:g}", f"{step.limit_s:g}", needs]
        )
    return table(lambda lines: lines, lines)


def _outcomes(steps: dict[str, Step]) -> str:
    lines = [["step", "ended", "s", "checks that hold", "run"]]
    for step in STEPS:
        known = steps.get(step.name)
        if known is None:
            lines.append([f"`{step.name}`", "not begun", "-", "-", "-"])
            continue
        checks = [row["ok"] for row in known.rows if row["kind"] == "check"]
        lines.append(
            [
                f"`{step.name}`",
                known.ended,
                "-" if known.s is None else f"{known.s:.0f}",
                f"{sum(checks)} of {len(checks)}" if checks else "-",
                f"{known.run.get('date', '-')}, {str(known.run.get('commit', '-'))[:12]}",
            ]
        )
    return table(lambda lines: lines, lines)


def _decided(steps: dict[str, Step]) -> str:
    from train_cli.bench.gpu.kernels import OPERATIONS, decisions

    found = decisions(steps)
    lines = [["operation", "`auto` takes", "smallest gain on what vl3 does", "outputs"]]
    for name in OPERATIONS:
        known = found.get(name)
        if known is None:
            lines.append([f"`{name}`", "plain torch", "not measured", "-"])
            continue
        gains = [known.gains[work] for work in known.targets]
        lines.append(
            [
                f"`{name}`",
                "the kernel" if known.wins else "plain torch",
                f"{min(gains):.2f} x" if gains else "not measured",
                "agree" if known.agrees else "**differ**",
            ]
        )
    return table(lambda lines: lines, lines)


def machine(run: dict) -> str:
    """The card and what it ran with, as the first lines of a run say it."""
    versions = ", ".join(f"{name} {run.get(name)}" for name in VERSIONS)
    beside = ", ".join(f"{name} {run.get(name)}" for name in BESIDE)
    return "\n".join(
        [
            f"card: {run.get('card')}, {_gb(run.get('memory_bytes'))}, driver {run.get('driver')}",
            f"versions: {versions}",
            f"may be missing: {beside}",
            f"sources: {run.get('commit')}; {run.get('date')}",
        ]
    )


def written(lines: Sequence[dict]) -> str:
    """The page, of the lines of one or several runs, or of none."""
    if not lines:
        return f"{WRITTEN}\n\n{NOTHING}\n\n{HOW}\n\n## What it does\n\n{_plan()}\n"
    steps = record.steps(lines)
    run = next(line["run"] for line in reversed(lines) if "run" in line)
    return "\n\n".join(
        [
            *([WRITTEN, REHEARSAL] if run.get("tiny") else [WRITTEN]),
            "\n".join(f"- {line}" for line in machine(run).splitlines()),
            _outcomes(steps),
            f"{RULE}\n\n{_decided(steps)}",
            tables(steps),
            HOW,
            f"## What it does\n\n{_plan()}\n",
        ]
    )


def write(lines: Sequence[dict], path: Path) -> None:
    """The page; what stands in the file after the line HAND stays."""
    kept = ""
    if path.exists():
        _, _, kept = path.read_text(encoding="utf-8").partition(HAND)
    text = written(lines)
    path.write_text(f"{text}\n{HAND}{kept}" if kept else text, encoding="utf-8")
