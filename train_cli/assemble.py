"""Put a model together: an encoder and a language model, or an ear for a model that hears nothing.

    assemble --vision google/siglip-so400m-patch14-384 --language Qwen/Qwen2.5-1.5B-Instruct mine
    assemble --ear openai/whisper-small runs/hears
    assemble --model DAMO-NLP-SG/VideoLLaMA3-2B --ear BEATs.pt --sound-order append mine

What joins two parts is new and has to be trained: --config stage1_vision_adaptation does it from
the parts themselves, --config ear1_align from a model with an ear. The result is a folder in this
program's own layout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from train_cli.exits import FAILED, OK, USAGE, fail

CONNECTOR = "mlp2x_gelu"
ORDERS = ("interleave", "chunk", "append")  # those of vl3.families.settings, without torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="DST", type=Path, help="new or empty folder")
    parser.add_argument("--vision", metavar="DIR_OR_ID", help="SigLIP, SigLIP-NaViT or a model")
    parser.add_argument("--language", metavar="DIR_OR_ID", help="any causal language model")
    parser.add_argument(
        "--connector", help=f"between the two, e.g. linear or mlp2x_gelu (default: {CONNECTOR})"
    )
    parser.add_argument(
        "--tower",
        action="store_true",
        help="CLIP or SigLIP keeps its one size, as in VideoLLaMA 2",
    )
    parser.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        help="a whole model in place of the two (default: the bundled nano)",
    )
    parser.add_argument(
        "--ear",
        metavar="PATH_OR_ID",
        help="BEATs' .pt file, a folder or hub id of Whisper; nano-whisper and nano-beats are "
        "small untrained ones",
    )
    parser.add_argument(
        "--audio-connector", metavar="NAME", help=f"between ear and model (default: {CONNECTOR})"
    )
    parser.add_argument(
        "--sound-order",
        choices=ORDERS,
        help="where a video's sound stands: between its frames (default), after each two seconds, "
        "or after the last frame",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="number format of the weights (default: that of the model, or language model)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is new (default: 0)")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="the sizes as JSON")


def run(chosen: argparse.Namespace) -> int:
    try:
        _check(chosen)
    except (ValueError, OSError) as error:
        fail(error)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        model, processor = _put_together(chosen)
        _say(f"writing {chosen.folder}")
        _write(model, processor, chosen.folder)
    except (ValueError, ImportError) as error:
        fail(error, USAGE)
    except (OSError, MemoryError) as error:
        fail(error if str(error) else "the weights do not fit into memory", FAILED)
    _tell(chosen.folder, chosen.json)
    return OK


def _check(chosen: argparse.Namespace) -> None:
    """Raises: ValueError or OSError for what cannot be done, before torch is imported."""
    from vl3.arguments import whole
    from vl3.weights.places import local, local_ear

    whole("--seed", chosen.seed, low=0, high=2**63 - 1)
    parts = chosen.vision, chosen.language
    if any(parts) and (chosen.model is not None or not all(parts)):
        raise ValueError("--vision and --language go together, and without --model")
    if not any(parts) and chosen.ear is None:
        raise ValueError("name --vision and --language, or an --ear for a model")
    if (chosen.connector or chosen.tower) and not any(parts):
        raise ValueError("--connector and --tower go with --vision and --language")
    if chosen.ear is None and (chosen.audio_connector or chosen.sound_order):
        raise ValueError("--audio-connector and --sound-order go with --ear")
    for name in ("model", "vision", "language"):
        if (given := getattr(chosen, name)) is not None:
            local(given)
    if chosen.ear is not None:
        local_ear(chosen.ear)
    folder = chosen.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; name a new or empty folder")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)


def _put_together(chosen: argparse.Namespace):
    """The model and its processor. Raises: ValueError."""
    import torch

    from vl3.weights.ears import add_ear, load_ear

    dtype = getattr(torch, chosen.dtype) if chosen.dtype else None
    connector = chosen.audio_connector or CONNECTOR
    ear = None
    if chosen.ear is not None:  # first: it is small, and what is wrong with it is told at once
        _say(f"reading the ear {chosen.ear}")
        ear = load_ear(chosen.ear, chosen.seed, offline=chosen.offline)
    model, processor = _joined(chosen, dtype) if chosen.vision else _whole(chosen, dtype)
    if ear is None:
        return model, processor
    order = chosen.sound_order or ORDERS[0]
    return model, add_ear(model, processor, ear, connector=connector, order=order, seed=chosen.seed)


def _joined(chosen: argparse.Namespace, dtype):
    """A vision encoder and a language model, as loaded."""
    from vl3 import families
    from vl3.weights.assemble import assemble
    from vl3.weights.hub import resolve

    vision, language = (
        resolve(name, offline=chosen.offline) for name in (chosen.vision, chosen.language)
    )
    _say(f"joining {vision.name} and {language.name}")
    return assemble(
        vision,
        language,
        connector=chosen.connector or CONNECTOR,
        tower=chosen.tower,
        dtype=dtype or _stored(families.read_language(language)),
        seed=chosen.seed,
    )


def _whole(chosen: argparse.Namespace, dtype):
    """A whole model, as loaded."""
    from vl3 import families
    from vl3.weights.adapters import display_name, is_adapter
    from vl3.weights.hub import resolve
    from vl3.weights.load import load

    folder = resolve(chosen.model, offline=chosen.offline)
    if is_adapter(folder):
        raise ValueError(
            f"{display_name(folder)} is an adapter; merge it first with export --merge-adapters"
        )
    _say(f"reading {display_name(folder)}")
    kind = dtype or _stored(families.read_config(folder))
    loaded = load(folder, device="cpu", dtype=kind, offline=chosen.offline)
    return loaded.model, loaded.processor


def _stored(config):
    """The number format of the weights of a configuration."""
    import torch

    kind = config.dtype or torch.float32
    return getattr(torch, kind) if isinstance(kind, str) else kind


def _write(model, processor, folder: Path) -> None:
    """The folder, whole or not at all."""
    from vl3.weights.export import export

    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        export(model, processor, partial)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _tell(folder: Path, as_json: bool) -> None:
    """The sizes of what was written, as the folder itself has them."""
    from train_cli.plan import many
    from vl3.units import format_bytes
    from vl3.weights.sizes import parts, sizes_of

    config = sizes_of(folder)
    found = {name: part.parameters for name, part in parts(config).items()}
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    dtype = str(config.dtype).removeprefix("torch.")
    if as_json:
        told = {"folder": str(folder), "dtype": dtype, "bytes": size, "parameters": found}
        print(json.dumps(told, indent=2))
        return
    for name, count in found.items():
        print(f"{name:<16}{many(count):>10} parameters")
    print(f"{folder}: {format_bytes(size)} in {dtype}")


def _say(what: str) -> None:
    print(what, file=sys.stderr)
