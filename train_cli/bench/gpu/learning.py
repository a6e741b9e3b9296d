"""Training on a GPU: adapters of nano for five steps, and a step of the 2B beside its plan."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from math import isfinite
from pathlib import Path

import torch
from transformers.trainer_utils import SaveStrategy

from train_cli.bench.gpu.cards import checkpoint
from train_cli.bench.gpu.record import Check, Memory, Row, Skip
from train_cli.bench.gpu.smoke import NEW_TOKENS, asked, noise_clip
from train_cli.bench.gpu.steps import Place
from train_cli.bench.gpu.timing import once_s, peak_bytes, reserved, start_peak
from vl3.bundled import NANO
from vl3.config import videollama3_2b
from vl3.training import run as runs
from vl3.training.collate import MicroBatch
from vl3.training.memory import Shape
from vl3.training.memory import memory as needs
from vl3.training.plan import machine_for, make_plan
from vl3.training.recipe import Adapter, Batch, Media, Rates, Recipe, Source, Start, World
from vl3.training.setup import prepare
from vl3.training.trainer import VL3Trainer
from vl3.units import format_bytes

STEPS, UNTIL = 5, 3  # of a run, and where it is interrupted
MOST_APART = 2e-2  # of the first loss: a GPU adds up gradients in no fixed order, in bfloat16
# What of the shipped recipes decides memory: tests hold these to the files.
ADAPTER = Adapter(rank=32, alpha=64, dropout=0.0, width=1536, on=["connector", "language", "words"])
MEASURED_STEPS = 2  # the second has the optimizer's state beside it
SIDE_PX, SAMPLES = 336, 8  # of toy scenes that fill a pass: 144 tokens a frame


def adapters(place: Place) -> Iterator[Row]:
    """LoRA and QLoRA of nano: losses of a whole run and of an interrupted one, and an answer."""
    for name, quantize in (("LoRA", None), ("QLoRA", "nf4")):
        if quantize and find_spec("bitsandbytes") is None:
            yield Skip(work=name, why="bitsandbytes is not installed")
            continue
        recipe = _small_recipe(name.lower(), quantize, place)
        through = runs.run(recipe).parent
        parted = replace(recipe, out=f"{recipe.out} in two")
        halfway = runs.run(parted, until=UNTIL).parent
        last = runs.resume(halfway)
        expected, found = losses(through), losses(halfway)
        apart = max(abs(a - b) for a, b in zip(expected, found))
        yield Check(
            work=f"{name}, {STEPS} steps, interrupted after {UNTIL}",
            ok=len(expected) == len(found) == STEPS
            and apart <= MOST_APART * expected[0]
            and all(map(isfinite, found)),
            said=f"losses {expected[0]:.3f} to {expected[-1]:.3f}, apart by {apart:.0e}",
        )
        yield _adapted(name, last, place)


def _small_recipe(name: str, quantize: str | None, place: Place) -> Recipe:
    return Recipe(
        name=name,
        out=str(place.folder / name),
        start=Start(model=str(NANO), quantize=quantize),
        rates=Rates(adapter=1e-3),
        adapter=Adapter(rank=8, alpha=16, dropout=0.0, on=["language"]),
        data=[_toy(64, [2, 3])],
        batch=Batch(samples=4, tokens=2048, max_tokens=2048, patches=8192),
        steps=STEPS,
        save_every=UNTIL,
        log_every=1,
        workers=0 if place.tiny else 2,  # forked: they must not touch the card
    )


def _toy(samples: int, seconds: list[int], side_px: int = 112) -> Source:
    families = {"colour": 1.0, "count": 1.0, "caption": 1.0}
    world = World(seconds=seconds, families=families, sizes_px=[[side_px, side_px]])
    return Source(name="toy", samples=samples, world=world)


def losses(out: Path) -> list[float]:
    """The loss of each step of a run."""
    lines = (out / runs.METRICS).read_text("utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def _adapted(name: str, folder: Path, place: Place) -> Check:
    """The adapter of a run, loaded and asked."""
    import vl3

    studio = vl3.load(folder, device=place.device)
    reply = studio.reply(asked(noise_clip()), max_new_tokens=NEW_TOKENS)
    return Check(
        work=f"{name}, loaded and asked", ok=bool(reply.token_ids), said=repr(reply.text[:60])
    )


def memory(place: Place) -> Iterator[Row]:
    """Two optimizer steps of the 2B by each kind of training: the most held, and the plan."""
    for name, recipe in recipes(str(checkpoint(place))).items():
        if recipe.start.quantize and find_spec("bitsandbytes") is None:
            yield Skip(work=name, why="bitsandbytes is not installed")
            continue
        if place.device == "cuda" and (why := _too_large(recipe)):
            yield Skip(work=name, why=why)
            continue
        yield measured(name, recipe, place)


def recipes(model: str) -> dict[str, Recipe]:
    """The recipes whose memory is measured, on toy scenes that fill their passes."""
    data = [_toy(64, [8, 12], SIDE_PX)]
    shared = {"start": Start(model=model), "media": Media(prune=False), "data": data}
    own = {
        "stage 1": {"rates": Rates(vision=1e-5, connector=1e-3)},
        "stage 4": {"rates": Rates(vision=2e-6, connector=1e-5, language=1e-5)},
        "LoRA": {"rates": Rates(adapter=4e-4), "adapter": ADAPTER},
        "QLoRA": {
            "rates": Rates(adapter=4e-4),
            "adapter": ADAPTER,
            "start": Start(model=model, quantize="nf4"),
            "batch": Batch(samples=SAMPLES, tokens=8192, patches=24576, max_tokens=8192),
        },
    }
    return {
        name: Recipe(
            **{"name": name, "workers": 0, "batch": Batch(samples=SAMPLES), **shared, **settings}
        )
        for name, settings in own.items()
    }


def _too_large(recipe: Recipe) -> str:
    """Why a card cannot hold it, by the plan of its largest pass; empty where it can."""
    config = videollama3_2b()
    plan = make_plan(recipe, config, machine_for(recipe, config, "cuda", True), [])
    free = torch.cuda.mem_get_info()[0]
    if plan.peak_bytes <= free:
        return ""
    return f"{format_bytes(plan.peak_bytes)} are needed and {format_bytes(free)} are free"


class NotedTrainer(VL3Trainer):
    """The trainer, which notes the shapes of its passes."""

    def __init__(self, *given) -> None:
        self.shapes: list[Shape] = []
        super().__init__(*given)

    def _inputs(self, part: MicroBatch) -> dict[str, torch.Tensor]:
        rows, length = part.inputs["input_ids"].shape
        sizes_I3, merge_I = part.inputs["grid_thw"], part.inputs["merge_sizes"]
        self.shapes.append(
            Shape(
                tokens=rows * length,
                row=length,
                visual=int((sizes_I3.prod(dim=1) // merge_I**2).sum()),
                patches=len(part.inputs["pixel_values"]),
                frame=int(sizes_I3[:, 1:].prod(dim=1).max()),
                learned=part.learned,
            )
        )
        return super()._inputs(part)


def measured(name: str, recipe: Recipe, place: Place) -> Memory:
    """Steps of the real trainer, without a checkpoint at their end."""
    device = torch.device(place.device)
    if place.tiny:
        recipe = replace(recipe, data=[_toy(16, [2, 3])], batch=Batch(samples=2, tokens=2048))
    start_peak(place.device)  # the model before is gone
    model, processor = prepare(recipe, device)
    out = place.folder / name.replace(" ", "_")
    out.mkdir(exist_ok=True)
    trainer = NotedTrainer(model, processor, recipe, out, MEASURED_STEPS)
    trainer.args.save_strategy = SaveStrategy.NO
    start_peak(place.device)  # loading took more than what stays of it
    try:
        spent_s = once_s(trainer.train, place.device)
    finally:
        gc.unfreeze()  # what the trainer froze for its workers, of which the model is a part
    machine = machine_for(recipe, model.config, place.device, model.dtype == torch.bfloat16)
    tables = [needs(recipe, model.config, shape, machine) for shape in trainer.shapes]
    shapes = trainer.shapes
    largest = max(shapes, key=lambda shape: shape.tokens)
    return Memory(
        work=f"2B, {name}",
        estimate_bytes=max(sum(table.values()) for table in tables),
        peak_bytes=peak_bytes(place.device),
        said=f"{len(shapes)} passes of up to {largest.tokens:,} tokens and {largest.patches:,} "
        f"patches in {spent_s:.1f} s{reserved(place.device)}",
    )
