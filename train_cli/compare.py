"""Say whether a run learned as another did, or from which step on it did not.

    python -m train_cli compare runs/mine runs/other
    python -m train_cli compare runs/mine reference.jsonl

The second is the reference: its noise makes the band (vl3/training/compare.py says how). The exit
code is 0 within the band and 1 where the runs diverged.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from train_cli.exits import FAILED, OK, USAGE, fail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run_dir", metavar="RUN", type=Path, help="run folder or metrics.jsonl")
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        type=Path,
        help="run folder or metrics.jsonl to measure it against",
    )
    parser.add_argument("--json", action="store_true", help="verdict, curves and tables as JSON")


def run(chosen: argparse.Namespace) -> int:
    from vl3.training import compare

    try:
        ours, theirs = compare.read(chosen.run_dir), compare.read(chosen.reference)
        verdict = compare.compare(ours, theirs)
    except (ValueError, OSError) as error:
        fail(error, USAGE)
    words = compare.sentence(ours, theirs, verdict)
    if chosen.json:
        report = {"sentence": words, **asdict(verdict), "tables": compare.tables(ours, theirs)}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(words)
        _print_tables(ours, theirs)
    return OK if verdict.diverged is None else FAILED


def _print_tables(ours, theirs) -> None:
    from vl3.training import compare

    for title, rows in compare.tables(ours, theirs).items():
        print(f"\n{title:<32}{ours.name:>16}{theirs.name:>16}")
        for name, one, other in rows:
            print(f"  {name:<30}{_figure(one):>16}{_figure(other):>16}")


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3f}"
