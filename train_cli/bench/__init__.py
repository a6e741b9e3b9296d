"""Measure this project beside its peers, stage by stage, in one run on the same weights and data.

    python -m train_cli bench                       all groups, about half an hour
    python -m train_cli bench --only decode,mask    some of them
    python -m train_cli bench --only 2b,7b          whole random models: hours, 20 GB of disk
    python -m train_cli bench --clips DIR/*.mp4     with files of your own too
    python -m train_cli bench --json FILE           keep the figures
    python -m train_cli bench --markdown FILE       and write them as a page
    python -m train_cli bench --from A B --markdown FILE  a page of figures kept earlier
    python -m train_cli bench --gpu --json FILE     all that needs a GPU, in eight minutes
    python -m train_cli bench --gpu --from FILE --markdown docs/gpu.md --decide
                                                    its page, and which fused kernels are taken

Outputs are compared before anything is timed; where they differ there is no figure but an error.
One thread computes. Absolute times mean little on a shared machine: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from train_cli.exits import FAILED, OK, fail

GROUPS = {
    "probe": "headers and plan of a file, beside decoding it",
    "decode": "frames at native size, one a second",
    "long": "the same from an hour of video",
    "preprocess": "resize and patches",
    "mask": "which tokens are pruned",
    "front": "file to patches and mask, and its memory",
    "encode": "patches to features",
    "prefill": "prompt to first token, growing shares pruned",
    "answer": "token by token",
    "question": "a second question, with the prefix kept",
    "sound": "a first question about a clip with its sound, beside the same without",
    "nf4": "weights rounded to 4 bits, a linear layer of them, and their bytes",
    "training": "forward and backward of a training step",
    "scaling": "time and memory from 8 to 180 frames",
    "2b": "whole answers at the 2B's sizes, memory beside the estimate",
    "7b": "whole answers at the 7B's sizes, memory beside the estimate",
}
ON_REQUEST = ("2b", "7b")  # minutes to hours, and gigabytes of random weights on disk
GENERATED = ("motion", "camera", "portrait", "slides", "mix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from train_cli.bench.gpu.steps import STEPS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    steps = {step.name: f"{step.about}, {step.about_s:g} s" for step in STEPS}
    parser.epilog = "\n".join(
        f"{title}:\n" + "\n".join(f"  {name:<12}{line}" for name, line in lines.items())
        for title, lines in (("groups", GROUPS), ("steps of --gpu", steps))
    )
    parser.add_argument("--gpu", action="store_true", help="the steps that need a GPU")
    parser.add_argument("--minutes", type=float, help="with --gpu: how long it may take (8)")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="some groups, or steps, only")
    parser.add_argument("--clips", nargs="+", type=Path, default=[], help="further video files")
    parser.add_argument("--rounds", type=int, help="times each side is measured (5)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures there; with --gpu, add them"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write them as a page there")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="JSON",
        nargs="*",
        help="measure nothing: take the figures of these files, later ones before earlier ones; "
        "with --gpu of none at all, for the page of what was never run",
    )
    parser.add_argument(
        "--decide",
        action="store_true",
        help="with --gpu: let VL3_KERNELS=auto take the kernels that won, kernels/measured.json",
    )
    parser.add_argument("--tiny", action="store_true", help="smallest inputs: does it all run?")


def run(chosen: argparse.Namespace) -> int:
    for file in (chosen.json, chosen.markdown):
        if file is not None and not file.absolute().parent.is_dir():
            fail(f"there is no folder {file.parent}; make it first")
    if chosen.gpu:
        from train_cli.bench import gpu

        return gpu.command(chosen)
    if chosen.minutes is not None or chosen.decide:
        fail(f"{'--decide' if chosen.decide else '--minutes'} goes with --gpu")
    return _on_this_computer(chosen)


def _on_this_computer(chosen: argparse.Namespace) -> int:
    from train_cli.bench import page
    from train_cli.bench.measure import Mismatch, say

    names = chosen.only.split(",") if chosen.only else [n for n in GROUPS if n not in ON_REQUEST]
    unknown = [name for name in names if name not in GROUPS]
    rounds = 5 if chosen.rounds is None else chosen.rounds
    if unknown or rounds < 1:
        say(
            f"no group {unknown[0]!r}; choose {', '.join(GROUPS)}"
            if unknown
            else f"--rounds is 1 or more - got {rounds}"
        )
        return FAILED
    for clip in chosen.clips:
        if not clip.is_file():
            fail(f"there is no file {clip}; name clips with --clips")
    try:
        if chosen.source is None:
            figures = measured(names, chosen.clips, rounds, chosen.tiny, chosen.json)
        elif chosen.source:
            figures = merged([_figures(path) for path in chosen.source])
        else:
            fail("--from takes the files that bench --json wrote; name one")
    except (ValueError, OSError) as error:
        fail(error)
    except Mismatch as error:
        say(f"Outputs differ, so nothing was compared: {error}")
        return FAILED
    if chosen.json:
        save(figures, chosen.json)
    if chosen.markdown:
        page.write(figures, chosen.markdown)
    print(page.tables(figures))
    return OK


def save(figures: dict, path: Path) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measured(
    names: list[str], clips: list[Path], rounds: int, tiny: bool, path: Path | None = None
) -> dict:
    """Figures of the groups: {"machine": ..., "rounds": ..., "groups": {name: [row, ...]}}.

    path: where to save them after each group, so that a run that is cut off leaves something
    """
    import torch
    from transformers.utils import logging

    from train_cli.bench import page

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    figures = {"machine": page.machine(), "rounds": rounds, "tiny": tiny, "groups": {}}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            steps = _steps(Path(folder), clips, rounds, tiny)
            for name in names:
                figures["groups"][name] = [asdict(row) for row in steps[name]()]
                if path:
                    save(figures, path)
    finally:
        torch.set_num_threads(before)
    return figures


def _steps(folder: Path, clips: list[Path], rounds: int, tiny: bool) -> dict[str, Callable]:
    from functools import cache

    from train_cli.bench import clips as generated
    from train_cli.bench import (
        files,
        hearing,
        models,
        quantized,
        scaling,
        stages,
        training,
        whole,
    )
    from train_cli.bench.measure import say

    sizes = models.TINY if tiny else models.Sizes()
    small = (models.TINY,) if tiny else ()

    @cache
    def all_clips() -> tuple[Path, ...]:
        say("making clips")
        made = GENERATED[:1] if tiny else GENERATED
        return (*clips, *(generated.write(name, folder, 2 if tiny else None) for name in made))

    def long() -> list:
        say("making an hour of video, a minute or two")
        return files.decode([generated.write("hour", folder, 4 if tiny else None)], rounds)

    def front() -> list:
        memory = [] if tiny else files.front_memory(all_clips()[-1])
        return [*files.front(all_clips(), rounds), *memory]

    return {
        "probe": lambda: files.probe(all_clips(), rounds),
        "decode": lambda: files.decode(all_clips(), rounds),
        "long": long,
        "preprocess": lambda: files.preprocess(all_clips(), rounds),
        "mask": lambda: files.mask(all_clips(), rounds, 6 if tiny else 180),
        "front": front,
        "encode": lambda: stages.encode(sizes, rounds),
        "prefill": lambda: stages.prefill(sizes, rounds),
        "answer": lambda: stages.decode(sizes, rounds),
        "question": lambda: stages.second_question(sizes, rounds),
        "sound": lambda: hearing.first_token(all_clips(), folder, rounds, *small),
        "nf4": lambda: quantized.nf4(rounds, *((64, 128, None) if tiny else ())),
        "training": lambda: training.training(rounds, *((1, 56, 1) if tiny else ())),
        "scaling": lambda: (
            scaling.scaling(rounds, (2, 4, 6), memory=False) if tiny else scaling.scaling(rounds)
        ),
        "2b": lambda: whole.answers(folder / "2b", "2B", tiny),
        "7b": lambda: whole.answers(folder / "7b", "7B", tiny),
    }


def _figures(path: Path) -> dict:
    """What --json wrote. Raises: ValueError in one sentence, OSError."""
    try:
        figures = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} holds no figures: {error}") from error
    if not isinstance(figures, dict) or not {"machine", "groups"} <= figures.keys():
        raise ValueError(f"{path} holds no figures; give a file that bench --json wrote")
    return figures


def merged(runs: list[dict]) -> dict:
    """One set of figures of several runs; a later run's group takes the place of an earlier's.

    Raises: ValueError for runs of different machines.
    """
    machines = {json.dumps(run["machine"], sort_keys=True) for run in runs}
    if len(machines) > 1:
        raise ValueError("these files were measured on different machines or versions")
    groups = {name: rows for run in runs for name, rows in run["groups"].items()}
    ordered = {name: groups[name] for name in GROUPS if name in groups}
    return {**runs[-1], "groups": ordered}
