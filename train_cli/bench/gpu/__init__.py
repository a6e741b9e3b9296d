"""bench --gpu: everything that waits for a GPU, in one run of a few minutes.

Steps (steps.py) run one after the other, each in a process of its own (runner.py, child.py); what
they find is a line of a file as soon as it is known (record.py), and a page afterwards (page.py).
Neither Gradio nor jsonargparse is imported on the way, nor PyAV before a step that needs it.
"""

from __future__ import annotations

import argparse
import math
import os

from train_cli.exits import FAILED, OK, fail


def command(chosen: argparse.Namespace) -> int:
    """bench with --gpu."""
    from train_cli.bench.gpu import page, record
    from train_cli.bench.gpu.steps import STEPS

    if chosen.clips or chosen.rounds is not None:
        fail("--gpu measures no clips and chooses its own rounds; leave --clips and --rounds out")
    minutes = 8.0 if chosen.minutes is None else chosen.minutes
    if not (minutes > 0 and math.isfinite(minutes)):
        fail(f"--minutes is above 0 - got {minutes:g}")
    known = {step.name: step for step in STEPS}
    given = [name.strip() for name in chosen.only.split(",")] if chosen.only else known
    names = list(dict.fromkeys(given))
    for name in names:
        if name not in known:
            fail(f"no step {name!r}; choose {', '.join(known)}")
    if chosen.decide:
        _check_decidable(chosen)
    if chosen.source is not None and (chosen.json or chosen.tiny or chosen.only):
        fail("--from reads what was measured; leave --json, --tiny and --only to a run")
    try:
        if chosen.markdown:
            chosen.markdown.open("a").close()  # or it would be known when all is measured
        if chosen.source is not None:
            lines = [line for path in chosen.source for line in record.read(path)]
            print(page.tables(record.steps(lines)))
            code = OK
        else:
            code, lines = _measured([known[name] for name in names], minutes, chosen)
        if chosen.markdown:
            page.write(lines, chosen.markdown)
        if chosen.decide:
            _decide(lines)
    except (ValueError, OSError) as error:
        fail(error)
    return code


def _check_decidable(chosen: argparse.Namespace) -> None:
    from vl3.bundled import IS_WHEEL

    if IS_WHEEL:
        fail("--decide writes kernels/ of a checkout, and this vl3 is an installed package")
    if chosen.tiny:
        fail("--decide takes the figures of a GPU, and --tiny has none; leave one of them out")


def _measured(steps: list, minutes: float, chosen: argparse.Namespace) -> tuple[int, list[dict]]:
    """The exit code, and the lines of the run."""
    if chosen.tiny:  # before torch and Triton are imported, which read them once
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.setdefault("TRITON_INTERPRET", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from train_cli.bench.gpu.machine import described, refusal

    if not chosen.tiny and (why := refusal()):
        fail(why, FAILED)
    from train_cli.bench.gpu import page, record, runner

    kept = record.Record(chosen.json)
    about = described(chosen.tiny, minutes)
    kept.add(run=about)
    print(page.machine(about), flush=True)
    device = "cpu" if chosen.tiny else "cuda"
    ended = runner.run(steps, minutes, kept, device, chosen.tiny, spawn=not chosen.tiny)
    done = [name for name, end in ended.items() if end.how == record.DONE]
    bad = [
        name
        for name, end in ended.items()
        if end.wrong or end.how not in (record.DONE, record.SKIPPED)
    ]
    print(
        f"{len(done)} of {len(ended)} steps are done"
        + (f"; look at {', '.join(bad)}" if bad else "")
        + (f"; the figures are in {chosen.json}" if chosen.json else "")
    )
    return FAILED if bad or not done else OK, kept.lines


def _decide(lines: list[dict]) -> None:
    """Writes which kernels `auto` takes: the table that vl3.ops reads, and that of the README."""
    from train_cli.bench.gpu import kernels, record
    from vl3.bundled import KERNELS
    from vl3.kernels import measured

    found = kernels.decisions(record.steps(lines))
    if any(line["run"].get("tiny") for line in lines if "run" in line):
        raise ValueError("these are figures of --tiny, which say nothing of a GPU")
    measured.write(found, measured.TABLE)
    measured.table.cache_clear()
    kernels.write(measured.table(), KERNELS / "README.md")
    for name, one in found.items():
        print(f"{name}: {'the kernel' if one.wins else 'plain torch'} ({one})")
    if not found:
        print("no kernel was timed, so all stays as it is")
