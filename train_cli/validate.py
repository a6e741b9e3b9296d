"""Check data sets before training: formats, media, lengths, every rule with the line it concerns.

Reads JSONL and JSON in the formats of LLaVA, VideoLLaMA, ShareGPT, swift, Hugging Face, OpenAI and
TRL, WebDataset shards and Hugging Face data sets. Media are measured from their headers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from train_cli.exits import BAD_DATA, OK, USAGE
from vl3.data.checks import MAX_TOKENS, VISUAL_TOKENS, Outcome
from vl3.data.formats import FORMATS
from vl3.data.html_report import html_report
from vl3.data.normalize import to_row
from vl3.data.preview import Preview, preview
from vl3.data.quarantine import Bad, quarantine
from vl3.data.readers import Records, open_records
from vl3.data.report import Report, check, histogram
from vl3.data.rules import RULES, as_read, number
from vl3.processor import VL3Processor
from vl3.video import VideoError
from vl3.weights.hub import resolve

SHOWN = 12  # samples on the page
BAR = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "exit code: 0 all samples are good, 2 wrong usage, 3 bad samples, 1 else"
    parser.add_argument("data", nargs="+", metavar="DATA", help="file, shards, folder or hf://name")
    parser.add_argument("--model", help="whose tokenizer and sizes count (default: bundled nano)")
    parser.add_argument(
        "--media-root",
        metavar="DIR",
        help="where relative media paths begin (default: the folder of each file)",
    )
    parser.add_argument("--format", choices=list(FORMATS), help="instead of telling it by the keys")
    parser.add_argument(
        "--sample", type=int, metavar="N", help="check N samples of each data set, evenly spread"
    )
    parser.add_argument(
        "--visual-tokens",
        type=int,
        default=VISUAL_TOKENS,
        metavar="N",
        help="budget of a sample (default: %(default)s)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=MAX_TOKENS,
        metavar="N",
        help="longest sample (default: %(default)s)",
    )
    parser.add_argument(
        "--html", metavar="OUT.html", help="write a page that shows samples as the model sees them"
    )
    parser.add_argument(
        "--fix", metavar="OUT.jsonl", help="write the good samples, mended, in the canonical format"
    )
    parser.add_argument("--quarantine", metavar="OUT.jsonl", help="write a line per bad sample")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(chosen: argparse.Namespace) -> int:
    """Exit code 0 for good data, 2 for what the caller can mend, 3 for bad data."""
    try:
        _check_usage(chosen)
        opened = [_open(path, name, chosen) for path, name in _named(chosen.data)]
        processor = VL3Processor.from_pretrained(
            resolve(chosen.model, offline=os.environ.get("HF_HUB_OFFLINE") == "1")
        )
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_DATA if isinstance(error, _BadFileError) else USAGE
    report, pages, written = Report(strict=chosen.strict), _Pages(chosen, opened), _Fixed(chosen)
    with (
        written,
        tqdm(
            total=sum(len(_indices(records, chosen)) for records in opened),
            unit=" samples",
            disable=True if chosen.quiet or chosen.json else None,
            leave=False,
        ) as progress,
    ):
        for records in opened:

            def seen(outcome: Outcome, records: Records = records) -> None:
                progress.update()
                pages.add(outcome)
                written.add(outcome, records)
                if chosen.quarantine and outcome.error is not None:
                    quarantine(Path(chosen.quarantine), [_bad(outcome)])

            check(
                records,
                processor,
                indices=_indices(records, chosen),
                visual_tokens=chosen.visual_tokens,
                max_tokens=chosen.max_tokens,
                on_sample=seen,
                report=report,
            )
    if chosen.html:
        files = [Path(path).name for path in chosen.data]
        page = html_report(
            report,
            pages.views(processor, report),
            files=files,
            model=Path(chosen.model or "nano").name,
        )
        Path(chosen.html).write_text(page, encoding="utf-8")
    if chosen.json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    elif not chosen.quiet:
        print("\n".join([*_lines(report), *written.lines(), *_verdict(report, chosen)]))
    return BAD_DATA if report.total_bad else OK


def _bad(outcome: Outcome) -> Bad:
    return Bad(
        dataset=outcome.dataset,
        index=outcome.index,
        id=outcome.place,
        code=outcome.error.code,
        message=str(outcome.error),
    )


class _BadFileError(ValueError):
    """The data are at fault and not how the command was called."""


def _check_usage(chosen: argparse.Namespace) -> None:
    for name in ("sample", "visual_tokens", "max_tokens"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is at least 1 - got {value}")
    for name in ("html", "fix", "quarantine"):
        path = getattr(chosen, name)
        if path and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--{name}: there is no folder {Path(path).parent}")
    for name in ("fix", "quarantine"):
        path = getattr(chosen, name)
        if path and os.path.exists(path):
            raise ValueError(f"--{name}: {path} exists already; choose another name")
    if chosen.media_root and not Path(chosen.media_root).expanduser().is_dir():
        raise ValueError(f"--media-root: there is no folder {chosen.media_root}")
    if chosen.html and any(Path(chosen.html).absolute() == Path(p).absolute() for p in chosen.data):
        raise ValueError("--html would overwrite the data; choose another name")
    for name in ("html", "fix", "quarantine"):
        if path := getattr(chosen, name):
            _check_writable(f"--{name}", Path(path))


def _check_writable(option: str, path: Path) -> None:
    """Raises: ValueError before the data are read for a file that could not be written after."""
    try:
        is_new = not os.path.exists(path)
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ValueError(f"{option}: {path} cannot be written: {reason}") from None


def _named(paths: list[str]) -> Iterator[tuple[str, str]]:
    """Each path with the name of its data set: the file's, or the whole path where two agree."""
    stems = [Path(path).stem for path in paths]
    return ((path, stem if stems.count(stem) == 1 else path) for path, stem in zip(paths, stems))


def _open(path: str, name: str, chosen: argparse.Namespace) -> Records:
    try:
        return open_records(path, name=name, format=chosen.format, media_root=chosen.media_root)
    except ValueError as error:
        raise _BadFileError(str(error)) from None


def _indices(records: Records, chosen: argparse.Namespace) -> range | list[int]:
    count = len(records)
    if chosen.sample is None or chosen.sample >= count:
        return range(count)
    return [number * count // chosen.sample for number in range(chosen.sample)]


class _Pages:
    """Picks samples for the page, evenly spread over all that are good."""

    def __init__(self, chosen: argparse.Namespace, opened: list[Records]) -> None:
        self.wanted = SHOWN if chosen.html else 0
        self.visual_tokens = chosen.visual_tokens
        self.total = sum(len(_indices(records, chosen)) for records in opened)
        self.seen, self.picked = 0, []

    def add(self, outcome: Outcome) -> None:
        due = len(self.picked) * self.total <= self.seen * self.wanted
        if due and outcome.error is None and len(self.picked) < self.wanted:
            self.picked.append(outcome)
        self.seen += 1

    def views(self, processor: VL3Processor, report: Report) -> list[Preview]:
        """The samples decoded; the report is told what their headers did not say."""
        made = []
        for outcome in self.picked:
            try:
                shown = preview(outcome.record, outcome.place, processor, self.visual_tokens)
            except VideoError as error:
                report.note(outcome.dataset, [as_read(outcome.place, str(error))])
                continue
            made.append(shown)
            told = [
                as_read(f"{outcome.place}: {look.file}", note)
                for look in shown.media
                for note in look.notes
            ]
            known = {note.message for note in outcome.notes}
            report.note(outcome.dataset, [note for note in told if note.message not in known])
        return made


class _Fixed:
    """The file of good samples; owns it."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.path = Path(chosen.fix).absolute() if chosen.fix else None
        root = chosen.media_root or (self.path.parent if self.path else ".")
        self.root = Path(root).expanduser().absolute()
        self.count, self.file = 0, None

    def __enter__(self) -> _Fixed:
        if self.path is not None:
            self.file = self.path.open("x", encoding="utf-8")
        return self

    def __exit__(self, *_exception) -> None:
        if self.file is not None:
            self.file.close()

    def add(self, outcome: Outcome, records: Records) -> None:
        """Writes a sample without errors that is not a duplicate."""
        doubled = any(note.code == "W150" for note in outcome.notes)
        if self.file is None or outcome.error is not None or doubled:
            return
        row = to_row(outcome.record, self.root, records.spool.folder)
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.count += 1

    def lines(self) -> list[str]:
        return [f"{self.path.name}: {_samples(self.count)} written"] if self.path else []


def _samples(count: int) -> str:
    return f"{number(count)} sample{'' if count == 1 else 's'}"


def _lines(report: Report) -> list[str]:
    """The report for a terminal."""
    lines = []
    for name, count in report.samples.items():
        lines.append(f"{name}: {_samples(count)}, {number(report.bad[name])} bad")
        for (of, code), found in sorted(report.codes.items()):
            if of == name:
                lines.append(f"  {code}  {RULES[code]:<42}{number(found):>10}")
    lines.append(
        f"media: {number(report.images)} images, {number(report.videos)} videos "
        f"({report.seconds / 60:.1f} min), {number(report.unreadable)} samples unreadable"
    )
    for name, total, digits in (
        ("text", report.text_tokens, report.text),
        ("visual", report.visual_tokens, report.visual),
    ):
        lines.append(f"{name} tokens: {number(total)}")
        lines += _bars(histogram(digits))
    if report.longest:
        lines.append("longest samples:")
        lines += (
            f"  {number(tokens):>8} tokens ({number(visual)} visual)  {place}"
            for tokens, visual, place in sorted(report.longest, reverse=True)
        )
    if report.first:
        lines.append("first of each kind:")
        lines += (
            f"  {code}  {text}" for code in sorted(report.first) for text in report.first[code]
        )
    return lines


def _bars(stretches: list[tuple[int, int, int]]) -> Iterator[str]:
    most = max((count for _, _, count in stretches), default=1)
    for low, high, count in stretches:
        bar = "█" * round(BAR * count / most) or ("▏" if count else "")
        yield f"  {low:>6}-{high:<6} {bar} {number(count)}"


def _verdict(report: Report, chosen: argparse.Namespace) -> list[str]:
    if not report.total_bad:
        return ["all samples can be learned from"]
    hint = "" if chosen.fix else "; --fix FILE writes the good ones"
    kind = "have errors or warnings" if chosen.strict else "cannot be learned from"
    return [f"{number(report.total_bad)} of {_samples(report.total)} {kind}{hint}"]
