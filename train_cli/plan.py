"""Say what a training run will do and need, and whether it fits.

    plan --config stage4_video                        for this machine
    plan --config stage4_video --memory 24GB          for a GPU with 24 GB
    plan --config qlora --start.model DAMO-NLP-SG/VideoLLaMA3-7B --data.own.path clips.jsonl

Nothing is loaded and nothing runs: figures come from the recipe, from config.json and, where they
are at hand, from the data. Exit code 4: it will not fit, and what to lower.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

from train_cli.config import RecipeParser
from train_cli.exits import BAD_DATA, OK, TOO_BIG, fail
from train_cli.model_sizes import or_unknown, sizes
from vl3.training.ready import folder as run_folder
from vl3.training.ready import nearest_folder
from vl3.training.recipe import Recipe, Source
from vl3.units import format_bytes as gb
from vl3.units import parse_memory
from vl3.weights.runs import checkpoints
from vl3.weights.whole import check_weights

Parser = RecipeParser
LOOKED_AT = 64  # samples of a data set that are measured
TFLOPS = 400  # the speed that one H100 reaches in training


def add_arguments(parser: RecipeParser) -> None:
    parser.add_argument("--memory", metavar="SIZE", help="memory of the device, e.g. 24GB")
    parser.add_argument(
        "--on",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="device that is planned for; --memory alone means a GPU",
    )
    parser.add_argument("--json", action="store_true", help="the plan as JSON")
    parser.add_argument("--quiet", action="store_true", help="the verdict only")


def run(chosen) -> int:
    """Exit code 0 when it fits, 4 when not, 2 when sizes cannot be known."""
    memory, on = getattr(chosen, "memory", None), getattr(chosen, "on", "auto")
    try:
        check_weights_of(chosen.recipe)
        limit = usable(memory) if memory else None
    except ValueError as error:
        fail(error)
    try:
        plan = make(chosen.recipe, on, limit)
    except ValueError as error:
        fail(error)
    if getattr(chosen, "json", False):
        print(json.dumps(as_json(plan), indent=2))
    elif not chosen.quiet:
        place = nearest_folder(run_folder(chosen.recipe))
        print(as_text(plan, place, shutil.disk_usage(place).free))
    refuse_misfit(plan)
    return OK


def make(recipe: Recipe, on: str = "auto", limit: float | None = None):
    """The plan (vl3.training.plan.Plan) of a recipe for a device with so many bytes to use.

    on: "auto", "cpu" or "cuda"; limit: None for what the device has
    Raises: UnknownSizes; ValueError for settings that do not go with the model; SystemExit for data
    that cannot be read.
    """
    from vl3.training.plan import machine_for, make_plan

    config = sizes(recipe)
    device, bfloat16, has = describe_device(on, limit)
    machine = machine_for(recipe, config, device, bfloat16)
    processor = local_processor(recipe)
    looked = [look(source, recipe, processor) for source in recipe.data]
    scenes = remembered(recipe, processor) if recipe.remember else None
    return make_plan(recipe, config, machine, looked, has, scenes)


def refuse_misfit(plan) -> None:
    """Ends the command with exit code 4 where the plan does not fit, and says what to lower."""
    if not plan.fits:
        where = "GPU" if plan.machine.device == "cuda" else "CPU"
        fail(
            f"needs {gb(plan.peak_bytes)}, but the {where} has {gb(plan.limit_bytes)} to use; "
            f"lower {plan.lower[0]}, then {plan.lower[1]}, or use more GPUs with FSDP",
            TOO_BIG,
        )


def check_weights_of(recipe: Recipe) -> None:
    """Raises: ValueError for start weights that lie here and are not whole."""
    for name in (recipe.start.model, recipe.start.vision, recipe.start.language):
        if name and (folder := Path(name).expanduser()).is_dir():
            whole = checkpoints(folder)
            check_weights(whole[-1] if whole else folder)


def usable(size: str) -> float:
    """Bytes of a size like 24GB, less what a GPU's driver takes; ends the command with a sentence
    for what is no size."""
    try:
        whole = parse_memory(size)
    except ValueError as error:
        fail(f"--memory: {error}")
    from vl3.inference.memory import USABLE

    return whole * USABLE


def describe_device(on: str, limit: float | None) -> tuple[str, bool, float]:
    """Kind of device, whether it is at home in bfloat16, bytes that a run may use there."""
    import psutil
    import torch

    from vl3.inference.memory import USABLE
    from vl3.weights.number_format import bfloat16_time

    if on == "cuda" or (on == "auto" and (limit is not None or torch.cuda.is_available())):
        if limit is None and not torch.cuda.is_available():
            fail("no GPU is seen by torch; say how large it is with --memory 24GB")
        here = torch.cuda.is_available()
        native = torch.cuda.is_bf16_supported() if here else True
        return "cuda", native, limit or torch.cuda.mem_get_info()[1] * USABLE
    return "cpu", bfloat16_time() <= 1, limit or float(psutil.virtual_memory().available)


# The data


def local_processor(recipe: Recipe):
    """The processor that samples are measured with; None where its tokenizer is not at hand."""
    from vl3.bundled import MODELS, NANO
    from vl3.processor import VL3Processor
    from vl3.toyworld.tokenizer import add_sound_words
    from vl3.training.setup import settings_for
    from vl3.weights.assemble import joined_by
    from vl3.weights.ears import read_ear, with_ear
    from vl3.weights.hub import resolve

    folder = NANO if recipe.start.nano else Path(recipe.start.model or "").expanduser()
    if recipe.start.model in MODELS or (recipe.start.model and folder.is_dir()):
        folder = or_unknown(lambda: resolve(folder, offline=True))  # of a run, its last checkpoint
    if not (folder / "tokenizer.json").is_file():
        return None
    processor = VL3Processor.from_pretrained(folder)
    if recipe.start.ear and recipe.nano.sound_words:
        add_sound_words(processor.tokenizer)
    if recipe.start.ear:
        processor = or_unknown(lambda: with_ear(processor, read_ear(recipe.start.ear)))
    if recipe.start.connector:
        processor.settings = joined_by(processor.settings, recipe.start.connector)
    processor.settings = settings_for(recipe, processor)
    return processor


def look(source: Source, recipe: Recipe, processor=None):
    """What is known of a data set; some samples are measured, nothing is decoded."""
    from vl3.training.plan import Looked

    picture = 0
    if source.world is not None:
        picture = max(high * wide for high, wide in source.world.sizes_px) // 14**2
    here = source.world is not None or is_here(source.path)
    if processor is None or not here:
        count = count_samples(source, recipe) if here and source.path else None
        why = "whose files are not here"
        if here:
            why = f"since the tokenizer of {start_name(recipe)} is not here"
        elif source.path.startswith("hf://"):
            why = "which a plan does not download"
        return Looked(
            name=source.name,
            samples=source.samples or count,
            lines=count,
            picture=picture,
            unseen=why,
        )
    length, found, left = _measured(source, recipe, processor)
    seen = _mean(source.name, source.samples or length, found)
    return dataclasses.replace(
        seen,
        lines=length,
        picture=max(picture, seen.picture),
        left=left,
        unseen="of which no sample that was looked at can be learned from",
    )


def remembered(recipe: Recipe, processor=None):
    """The scenes of a step on which the model is held to what it said, as nano's processor cuts
    them where the model's own is not here."""
    from vl3.bundled import NANO
    from vl3.processor import VL3Processor
    from vl3.training import remember
    from vl3.training.samples import measure
    from vl3.training.setup import settings_for

    if processor is None:
        processor = VL3Processor.from_pretrained(NANO)
        processor.settings = settings_for(recipe, processor)
    scenes = remember.scenes(str(recipe.seed), LOOKED_AT // 4)
    found = [measure(scene, processor, recipe.media.visual_tokens) for scene in scenes]
    return _mean("remembered", recipe.remember, found)


def _mean(name: str, samples: int | None, found: list):
    """What is known of a data set (vl3.training.plan.Looked) after some samples were measured."""
    from vl3.training.plan import Looked

    count = max(1, len(found))
    return Looked(
        name=name,
        samples=samples,
        seen=len(found),
        tokens=sum(size.tokens for size in found) / count,
        patches=sum(size.patches for size in found) / count,
        sound=sum(size.sound for size in found) / count,
        pieces=sum(size.pieces for size in found) / count,
        longest=max((size.tokens for size in found), default=0),
        picture=max((size.picture for size in found), default=0),
        pairs=(
            sum(size.tokens**2 for size in found) / count,
            sum(size.patches * size.picture for size in found) / count,
        ),
    )


def is_here(path: str) -> bool:
    """Whether a data set lies on this machine."""
    place = Path(path).expanduser()
    return any(place.parent.glob(place.name)) if "*" in place.name else place.exists()


def start_name(recipe: Recipe) -> str:
    """The model whose tokenizer a recipe takes."""
    return str(recipe.start.model or recipe.start.language or "nano")


def count_samples(source: Source, recipe: Recipe) -> int:
    """Samples of a data set that lies here, whatever its format."""
    from vl3.training.sources import open_source

    try:
        return len(open_source(source, recipe.seed))
    except (OSError, ValueError, ImportError) as error:
        fail(error, BAD_DATA)


def _measured(source: Source, recipe: Recipe, processor) -> tuple[int | None, list, int]:
    """Number of samples, None for an endless world; the sizes of some, spread over all; and how
    many of those looked at training leaves out."""
    from vl3.data.records import BadSample
    from vl3.training.samples import measure
    from vl3.training.sources import open_source
    from vl3.video import VideoError

    try:
        opened = open_source(source, recipe.seed)
    except (OSError, ValueError, ImportError) as error:
        fail(error, BAD_DATA)
    length = None if source.world else len(opened)
    stride = max(1, (length or LOOKED_AT) // LOOKED_AT)
    found, left, most = [], 0, recipe.batch.max_tokens
    for index in range(0, length or LOOKED_AT, stride):
        try:
            size = measure(opened[index], processor, recipe.media.visual_tokens)
        except (BadSample, VideoError):
            left += 1
            continue
        # Pruning, where it is on, may bring a sample down to its words.
        least = size.tokens - size.visual * (processor.settings.prune is not None)
        if least > most and (recipe.batch.overlong == "skip" or size.visual > most):
            left += 1
        else:
            found.append(dataclasses.replace(size, tokens=min(size.tokens, most)))
    return length, found, left


# How it is shown


def many(number: float | None) -> str:
    """12.3 M and the like; "unknown" for None."""
    if number is None:
        return "unknown"
    for unit, size in (("G", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:,.0f}"


def cpu_speed() -> float:
    """Floating-point operations a second of this CPU, the best of what it multiplies in 0.2 s:
    other work beside it may come and go."""
    import time

    import torch

    side, best_s, began_s = 256, math.inf, time.perf_counter()
    matrix = torch.ones(side, side)
    while (started_s := time.perf_counter()) < began_s + 0.2:
        matrix @ matrix
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * side**3 / best_s


def _times(times: float) -> str:
    return "once" if round(times, 2) == 1 else f"{float(f'{times:.3g}'):,g} times"


def as_json(plan) -> dict:
    extra = {"peak_bytes": plan.peak_bytes, "fits": plan.fits}
    return dataclasses.asdict(plan) | extra


def as_text(plan, place: Path, free: float) -> str:
    """The plan as tables.

    place: the folder that is there where the run will be; free: bytes on its disk
    """
    lines = [
        f"{plan.name}: {many(plan.steps)} steps, {many(plan.samples)} samples, "
        f"{many(plan.tokens)} tokens",
        *(
            f"{name}: {lines:,} line{'s' * (lines != 1)}, each seen {_times(times)}"
            for name, lines, times in plan.repeats
        ),
        "",
        *_modules(plan),
        "",
        *_memory(plan),
        *_arithmetic(plan),
        *_disk(plan, place, free),
        *(f"warning: {warning}" for warning in plan.warnings),
        *(f"note: {note}" for note in plan.assumed),
    ]
    return "\n".join(lines)


def _modules(plan) -> list[str]:
    wide = max(12, *(len(row.name) + 2 for row in plan.modules))
    lines = [f"{'module':<{wide}}{'parameters':>12}{'trainable':>12}{'rate':>10}  weights"]
    for row in plan.modules:
        rate = f"{row.rate:g}" if row.rate else "frozen"
        lines.append(
            f"{row.name:<{wide}}{many(row.parameters):>12}{many(row.trainable):>12}"
            f"{rate:>10}  {row.dtype}"
        )
    return lines


def _memory(plan) -> list[str]:
    kind, shape = "float32" if plan.machine.compute_bytes == 4 else "bfloat16", plan.shape
    pieces = f", {shape.pieces:,} pieces of sound" if shape.pieces else ""
    lines = [
        f"memory on one {plan.machine.device}, {kind} arithmetic, largest pass "
        f"{shape.tokens:,} tokens and {shape.patches:,} patches{pieces}, longest sample "
        f"{shape.row:,} tokens",
    ]
    lines += [f"  {name:<24}{gb(size):>10}" for name, size in plan.memory.items() if size >= 5e5]
    lines.append(f"  {'peak':<24}{gb(plan.peak_bytes):>10}")
    if plan.limit_bytes is not None:
        lines.append(f"  {'usable':<24}{gb(plan.limit_bytes):>10}")
    return lines


def _arithmetic(plan) -> list[str]:
    if not plan.flops:
        return []
    if plan.machine.device == "cuda":
        hours = plan.flops / (TFLOPS * 1e12) / 3600
        least = "" if plan.measured else "at least "
        return [
            "",
            f"arithmetic: {least}{plan.flops / 1e18:,.2f} EFLOP, {least}{hours:,.1f} hours at "
            f"{TFLOPS} TFLOP/s (about one H100)",
        ]
    speed = cpu_speed()
    return [
        "",
        f"arithmetic: {plan.flops / 1e12:,.0f} TFLOP, at least "
        f"{plan.flops / speed / 60:,.1f} minutes on this CPU, which multiplies at "
        f"{speed / 1e9:,.0f} GFLOP/s",
    ]


def _disk(plan, place: Path, free: float) -> list[str]:
    each, keep = plan.disk["weights"] + plan.disk["optimizer"], plan.disk["checkpoints"]
    frames = f", {gb(plan.disk['frames'])} of frames" if plan.disk["frames"] else ""
    lines = [
        f"disk: {gb(keep)} for checkpoints of {gb(each)} (weights {gb(plan.disk['weights'])}, "
        f"optimizer {gb(plan.disk['optimizer'])}){frames}; an export takes "
        f"{gb(plan.disk['export'])}; {gb(free)} are free in {place}"
    ]
    if free < keep + plan.disk["frames"]:
        lines.append("warning: the disk is too small for that; lower keep, or choose another --out")
    return lines
