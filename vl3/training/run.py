"""Runs a recipe in a folder, and goes on with one that was interrupted."""

from __future__ import annotations

import atexit
import gc
import json
import logging
from dataclasses import replace
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from vl3.data.preview import preview
from vl3.data.records import BadSample
from vl3.training.changes import check_changes, last_run, steps_left
from vl3.training.left_out import QUARANTINE
from vl3.training.plan import Looked, taken, warnings
from vl3.training.ready import check_ready, check_trackers, check_writable, folder
from vl3.training.recipe import Recipe
from vl3.training.recorded import read
from vl3.training.setup import auxiliary_losses, prepare
from vl3.training.stop import Stop
from vl3.training.trainer import VL3Trainer
from vl3.video import VideoError
from vl3.weights.load import pick_device
from vl3.weights.runs import checkpoints

METRICS = "metrics.jsonl"
FIRST = "first_sample.txt"

log = logging.getLogger("vl3.training.run")


class Metrics(TrainerCallback):
    """Appends every line of the log to metrics.jsonl."""

    def __init__(self, out: Path) -> None:
        self.file = out / METRICS

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if state.is_world_process_zero and logs:
            line = json.dumps({"step": state.global_step, **logs})
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def run(
    recipe: Recipe,
    *,
    until: int | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
    stop: Stop | None = None,
) -> Path:
    """Trains from the start; the folder of the last checkpoint.

    until: stop after this step, as if interrupted there
    stop: tells afterwards whether a signal ended the run, and which
    Raises: FileExistsError when the folder holds a run already, ValueError for what cannot begin.
    """
    check_ready(recipe)
    out = folder(recipe)
    return _train(recipe, out, None, until, callbacks, stop)


def resume(
    out: Path,
    *,
    recipe: Recipe | None = None,
    until: int | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
    stop: Stop | None = None,
) -> Path:
    """Goes on with the run in a folder from its last whole checkpoint, which is returned at once
    where no step is left.

    recipe: that of the run with what may change on the way (vl3.training.changes) changed
    until, stop: see run
    Raises: FileNotFoundError when there is no checkpoint, ValueError for a change that may not be.
    """
    last, written = last_run(out)
    before = replace(read(written["recipe"]), out=str(out))
    recipe = before if recipe is None else replace(recipe, out=str(out))
    check_changes(before, recipe, out)
    check_writable(out)
    check_trackers(recipe)
    if steps_left(before, recipe, written) == 0:
        log.warning(
            f"{out} is finished already: {written['step']} of {written['steps']} steps are done; "
            "more --steps or --epochs go on"
        )
        return last
    if until is not None and until <= written["step"]:
        log.warning(f"{out} is at step {written['step']} already, so --until {until} is behind it")
        return last
    return _train(recipe, out, last, until, callbacks, stop)


def _train(recipe: Recipe, out: Path, checkpoint: Path | None, until, callbacks, stop) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    model, processor = prepare(recipe, pick_device("auto"), fresh=checkpoint is None)
    own = [Metrics(out), *callbacks]
    losses = auxiliary_losses(recipe, processor)
    trainer = VL3Trainer(model, processor, recipe, out, until, own, stop, losses)
    if torch.distributed.is_initialized():
        # What connects the processes has threads, which else may abort one at its end (gloo).
        atexit.register(_leave_group)
    if trainer.args.should_save:
        looked = [
            Looked(name=source.name, samples=part.taken, lines=part.length)
            for source, part in zip(recipe.data, trainer.order.parts)
        ]
        for warning in warnings(recipe, trainer.total_steps, taken(recipe, looked)):
            log.warning("warning: %s", warning)
    if checkpoint is None and trainer.args.should_save:
        for old in (METRICS, QUARANTINE):  # of a run that ended before its first checkpoint
            (out / old).unlink(missing_ok=True)
        (out / FIRST).write_text(first_sample(trainer), encoding="utf-8")
        log.info("the first sample, as the model reads it, is in %s", out / FIRST)
    try:
        with trainer.stop:
            trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        gc.unfreeze()  # what the trainer froze for its workers may go now
        if trainer.args.should_save:
            for sentence in trainer.left_out.sentences():
                log.warning(sentence)
            log.info(last_right(trainer.state.log_history))
    return checkpoints(out)[-1]


def _leave_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def last_right(logged: list[dict]) -> str:
    """Shares of the answers that greedy decoding got right in the last logged steps, in words."""
    shares = [
        {name: share for name, share in line.items() if name.startswith("right/")}
        for line in logged
    ]
    last: dict = next(filter(None, reversed(shares)), {})
    said = ", ".join(f"{name.removeprefix('right/')} {share:.0%}" for name, share in last.items())
    return f"answers right letter by letter in the last logged steps: {said or 'none asked'}"


def first_sample(trainer: VL3Trainer) -> str:
    """The first sample of the run in words: its tokens, with the learned ones in [[ ]]."""
    data, index = trainer.order.step(0)[0]
    try:
        record = trainer.samples.opened[data][index]
        seen = preview(record, record.id, trainer.processor, trainer.recipe.media.visual_tokens)
    except (BadSample, VideoError) as error:
        return f"{error}\n"
    conversations = []
    for conversation in seen.conversations:
        text = "".join(
            f"<{'audio' if piece.heard else 'image'} x {piece.count}>"
            if piece.visual or piece.heard
            else f"[[{piece.text}]]"
            if piece.learned
            else piece.text
            for piece in conversation
        )
        conversations.append(text.replace("]][[", ""))
    head = f"{seen.id} of {seen.dataset}: {seen.tokens} tokens, {seen.learned} of them learned"
    return "\n\n".join([head, *conversations]) + "\n"
