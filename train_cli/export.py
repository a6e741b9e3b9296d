"""Write a run, a checkpoint or any model as one folder that needs nothing else.

    python -m train_cli export runs/mine mine --to native --dtype bfloat16
    python -m train_cli export runs/mine_lora mine --to own --merge-adapters

--to own is read by this program, official has the tensor names of the released checkpoints, native
loads in transformers as VideoLlama3ForConditionalGeneration. What the model says to a bundled clip
is compared before and after; a result that differs is not kept, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from train_cli.exits import FAILED, OK, USAGE, fail


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "source", metavar="RUN_OR_CHECKPOINT", help="run folder (its last checkpoint) or any model"
    )
    parser.add_argument("folder", metavar="DST", type=Path, help="new or empty folder")
    parser.add_argument(
        "--to",
        required=True,
        choices=("own", "native", "official"),
        help="who reads the folder: this program, transformers, the official code",
    )
    parser.add_argument(
        "--merge-adapters", action="store_true", help="fold adapters into the base they train on"
    )
    parser.add_argument("--adapter", metavar="PATH", help="run or folder of an adapter to merge")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="number format of the weights (default: that of the base)",
    )
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(chosen: argparse.Namespace) -> int:
    if chosen.folder.is_file():
        fail(f"{chosen.folder} is a file; name a new or empty folder")
    from transformers.utils import logging

    from vl3.weights import merge
    from vl3.weights.adapters import display_name, is_adapter
    from vl3.weights.hub import resolve

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        folder = resolve(chosen.source, offline=chosen.offline)
        if (chosen.adapter or is_adapter(folder)) and not chosen.merge_adapters:
            fail(f"{display_name(folder)} comes with an adapter; add --merge-adapters", USAGE)
        written = merge.export_checked(
            chosen.source,
            chosen.folder,
            chosen.to,
            dtype=chosen.dtype,
            adapter=chosen.adapter,
            offline=chosen.offline,
        )
    except (merge.Differs, MemoryError) as error:
        fail(str(error) or "the weights do not fit into memory in float32", FAILED)
    except (ValueError, OSError, ImportError) as error:
        fail(error, USAGE)
    if chosen.json:
        print(json.dumps(asdict(written), indent=2, ensure_ascii=False))
        return OK
    for line in (*written.notes, *map(str, written.checks)):
        print(line)
    print(f"{written.folder}: {written.layout} layout, {written.dtype}")
    return OK
