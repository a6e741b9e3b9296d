"""transformers' Trainer with our data order, passes, loss and checkpoints.

A step is one optimizer update over `batch.samples` samples. It is cut into forward passes that fit
both budgets; the loss is the sum over all learned tokens of the step divided by their number, over
all processes, so that neither passes nor processes change it.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback

from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.training import evaluate, optim
from vl3.training.auxiliary import AuxiliaryLoss
from vl3.training.collate import MicroBatch, Step, StepCollator, attention_mask, silence_of
from vl3.training.frames import FrameCache
from vl3.training.left_out import QUARANTINE, LeftOut, TooManyBad
from vl3.training.metrics import RunningMetrics
from vl3.training.order import order_of
from vl3.training.recipe import Recipe, learns_to_hear
from vl3.training.saving import base_of, cannot_save, load_weights, save_weights
from vl3.training.setup import arguments
from vl3.training.sources import Samples, Steps, open_source, parts
from vl3.training.stop import Stop, Stopped
from vl3.weights.runs import RUN_FILE, checkpoints

PARTIAL = "partial"
FIRST_SAMPLES = 10_000  # of a data set: over so many, or all, the share of bad ones is taken


class NothingLearned(ValueError):
    """A step had no token to learn from."""


class NotFinite(FloatingPointError):
    """The loss became infinite or not a number."""


class VL3Trainer(Trainer):
    """One run of a recipe in a folder."""

    def __init__(
        self,
        model: VL3ForConditionalGeneration,
        processor: VL3Processor,
        recipe: Recipe,
        out: Path,
        steps: int | None = None,
        callbacks: list[TrainerCallback] | None = None,
        stop: Stop | None = None,
        losses: Sequence[AuxiliaryLoss] = (),
    ) -> None:
        self.recipe, self.out, self.processor = recipe, out, processor
        self.stop, self.losses = stop or Stop(), losses
        self.base = base_of(recipe)
        self.rates = optim.rates_for(recipe, model.config.text_config.hidden_size)
        opened = [open_source(source, recipe.seed) for source in recipe.data]
        self.order = order_of(recipe, parts(recipe.data, opened))
        self.left_out = LeftOut(out / QUARANTINE)
        self.total_steps = recipe.steps or self.order.steps(recipe.epochs, recipe.least_steps)
        kept_bytes = int(recipe.media.cache_gb * 1e9)
        cache = FrameCache(out / "frames", kept_bytes) if kept_bytes else None
        self.samples = Samples(opened, processor, recipe, cache, losses)
        seed = f"{recipe.seed} held out"
        asked = recipe.evaluate.sources if recipe.evaluate.every else []
        self.held = evaluate.held_out([open_source(s, seed) for s in asked], recipe.evaluate)
        self.tally = RunningMetrics()
        device = next(model.parameters()).device
        super().__init__(
            model=model,
            args=arguments(recipe, out, min(steps or self.total_steps, self.total_steps), device),
            data_collator=cast(Any, StepCollator)(
                processor.tokenizer.pad_token_id or 0,
                3 * processor.settings.patch**2,
                processor.settings.blank,
                # of a frozen ear nobody waits for gradients
                silence_of(processor.settings) if learns_to_hear(recipe) else None,
            ),
            train_dataset=self.samples,
            eval_dataset=self.held,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    # data

    def get_train_dataloader(self) -> DataLoader:
        """Steps from where the run stands; nothing is read again or skipped over."""
        sampler = Steps(
            self.order,
            self.samples,
            self.recipe,
            self.total_steps,
            self.first_step,
            self.args.process_index,
            self.args.world_size,
        )
        own = torch.Generator().manual_seed(self.recipe.seed)  # the global one is the model's
        # A forked worker that frees a decoder of this process waits for threads it does not have.
        gc.collect()
        gc.freeze()
        return DataLoader(
            self.samples,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            generator=own,
            num_workers=self.recipe.workers,
        )

    first_step = 0

    def train(  # type: ignore[override]  # no trials, and paths as well
        self, resume_from_checkpoint: str | Path | None = None, **kwargs
    ):
        """Trains; from a checkpoint folder, at the step where it was written."""
        if resume_from_checkpoint is not None:
            run = json.loads(Path(resume_from_checkpoint, RUN_FILE).read_text(encoding="utf-8"))
            self.first_step, self.left_out.cut = run["step"], run.get("cut", 0)
            self.left_out.remember()
            resume_from_checkpoint = str(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        except Stopped:
            self._end_early()

    def _end_early(self) -> None:
        """Ends the run at the last whole step, as if the one that was begun had never been."""
        self.model.zero_grad(set_to_none=True)
        if self._random is not None:
            setters = (torch.set_rng_state, torch.cuda.set_rng_state)
            for set_state, state in zip(setters, self._random):
                set_state(state)
        if not (self.out / f"checkpoint-{self.state.global_step}" / RUN_FILE).is_file():
            self._save_checkpoint(self.model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
        self.is_in_train = False

    _random: list[torch.Tensor] | None = None  # states of the generators before a step

    def _agree_to_go_on(self) -> None:
        """Raises Stopped in all processes where one of them was asked to end the run."""

        def largest(value: torch.Tensor) -> torch.Tensor:
            value = value.to(self.args.device)
            if self.args.world_size > 1:
                torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
            return value

        self.stop.agree(largest)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        started = time.perf_counter()
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.tally.wait_s += time.perf_counter() - started
        return batches

    def floating_point_ops(self, inputs) -> int:
        return 0  # transformers counts them from tensors that a Step does not have

    def _get_num_items_in_batch(self, batch_samples, device):
        return None  # counted in training_step, over all passes and processes

    # one step

    def training_step(  # type: ignore[override]  # all passes of a step at once
        self, model, inputs: Step, num_items_in_batch=None
    ) -> torch.Tensor:
        """Forward and backward of all passes of the step; the mean loss of the learned tokens."""
        model.train()
        self._random = [torch.get_rng_state()]
        if self.args.device.type == "cuda":
            self._random.append(torch.cuda.get_rng_state())
        self._agree_to_go_on()
        self._leave_out(inputs)
        learned = self._over_processes(torch.tensor(float(inputs.learned)))
        if not learned.item():
            raise NothingLearned(self._why_nothing())
        processes = self.args.world_size
        reads_states = any(loss.reads_states for loss in self.losses)
        total = torch.zeros((), device=self.args.device)
        for number, part in enumerate(inputs.passes):
            if number:
                self._agree_to_go_on()
            last = number == len(inputs.passes) - 1
            with (
                self._gradients_stay(model, last),
                self.compute_loss_context_manager(),
            ):
                output = model(
                    **self._inputs(part),
                    use_cache=False,
                    skip_logits=True,
                    output_hidden_states=reads_states or None,
                    num_items_in_batch=max(1.0, learned.item()) / processes,
                )
                if not torch.isfinite(output.loss):
                    raise self._not_finite(part, output)
                beside = self._beside(model, part, output)
                self.accelerator.backward(output.loss + beside / len(inputs.passes))
            total += output.loss.detach()
            self.tally.add(part, output.losses_K, output.right_K)
        self._learn_beside(model)
        self._random = None
        return total

    def _beside(self, model, part: MicroBatch, output) -> torch.Tensor | float:
        """The auxiliary losses of a pass, weighted."""
        model = self.accelerator.unwrap_model(model)
        total: torch.Tensor | float = 0.0
        for loss in self.losses:
            if found := loss.of_pass(model, part, output):
                self.tally.add_auxiliary([found])
                total += loss.weight * cast(torch.Tensor, sum(found.values()))
        return total

    def _learn_beside(self, model) -> None:
        """Backward of the auxiliary losses of a step."""
        model = self.accelerator.unwrap_model(model)
        with self.compute_loss_context_manager():
            for loss in self.losses:
                groups = []
                for found in loss.of_step(model, self.state.global_step):
                    total = cast(torch.Tensor, sum(found.values()))
                    self.accelerator.backward(loss.weight * total)
                    groups.append(found)
                self.tally.add_auxiliary(groups)

    def _why_nothing(self) -> str:
        step, names = self.state.global_step, self.samples.names
        why = "; ".join(self.left_out.sentences()) or (
            f"the samples of {', '.join(names)} have no answer to learn"
        )
        return f"step {step} has no token to learn from: {why}; run validate to see every row"

    def _inputs(self, part: MicroBatch) -> dict[str, torch.Tensor]:
        """The pass on the device, with its attention mask."""
        ready = {name: tensor.to(self.args.device) for name, tensor in part.inputs.items()}
        sample_BL, branch_BL = ready.pop("sample_BL"), ready.pop("branch_BL")
        bfloat16 = self.args.bf16
        dtype = torch.bfloat16 if bfloat16 else torch.float32
        return ready | {"attention_mask": attention_mask(sample_BL, branch_BL, dtype)}

    def _over_processes(self, value: torch.Tensor) -> torch.Tensor:
        value = value.to(self.args.device)
        return self.accelerator.reduce(value, "sum") if self.args.world_size > 1 else value

    def _gradients_stay(self, model, last: bool):
        """Gradients are exchanged between processes once a step, after its last pass."""
        return nullcontext() if last else self.accelerator.no_sync(model)

    def _not_finite(self, part: MicroBatch, output) -> NotFinite:
        file = self.out / f"not_finite_step_{self.state.global_step}.json"
        losses = output.losses_K.float().cpu()
        owners = [part.owners[number] for number in part.answers_K[~losses.isfinite()].tolist()]
        named = {"step": self.state.global_step, "samples": part.ids, "answers": owners}
        file.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
        return NotFinite(
            f"the loss became {output.loss.item()} at step {self.state.global_step} on "
            f"{', '.join(part.ids[:5])}{' ...' if len(part.ids) > 5 else ''} (all in {file.name}); "
            "lower the rates or look at these samples"
        )

    def _leave_out(self, step: Step) -> None:
        """Counts and names what could not be read; stops above the recipe's share of a data set."""
        bad, cut = self._over_processes(torch.tensor([len(step.bad), step.cut])).tolist()
        self.left_out.cut += cut
        if not bad:
            return
        found = gather_object(list(step.bad)) if self.args.world_size > 1 else step.bad
        self.left_out.add(found, write=self.args.should_save)
        for name in {entry.dataset for entry in found}:
            count, length = self.left_out.unreadable(name), self._known(name)
            if count > max(self.recipe.max_bad * length, 1):
                raise TooManyBad(
                    f"{count} of {length} samples of {name!r} could not be read, more than max_bad "
                    f"{self.recipe.max_bad:g} allows; see {self.left_out.file}, or run validate"
                )

    def _known(self, name: str) -> int:
        """Samples of a data set over which the share of bad ones is taken."""
        number = [source.name for source in self.recipe.data].index(name)
        part = self.order.parts[number]
        steps = self.state.global_step + 1
        seen = self.order.seen(number, steps)
        known = max(seen, FIRST_SAMPLES)
        return known if part.length is None else min(known, part.length)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval") -> dict:
        """Answers to held-out questions, in samples/ and as shares of right ones."""
        model = self.accelerator.unwrap_model(self.model)
        longest = self.recipe.evaluate.max_new_tokens
        answered = evaluate.answer(
            model, self.processor, self.held, longest, between=self._agree_to_go_on
        )
        if self.args.should_save:
            name = f"step_{self.state.global_step}.jsonl"
            evaluate.write(answered, self.out / "samples" / name)
        figures = evaluate.figures(answered)
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, figures
        )
        return figures

    # optimizer, schedule, log

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = optim.optimizer(model or self.model, self.rates, self.recipe.optim)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> LambdaLR:
        if self.lr_scheduler is None:

            def factor(step: int) -> float:
                return optim.factor(self.recipe.optim, step, self.total_steps)

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The states of a checkpoint, with the rates of the recipe, which may have changed."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        rates, settings = self.rates, self.recipe.optim
        groups = self.optimizer.param_groups
        full = [optim.full_rate(group, rates, settings) for group in groups]
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        share = optim.factor(settings, scheduler.last_epoch, self.total_steps)
        scheduler.base_lrs = full
        for group, rate in zip(groups, full):
            group["initial_lr"], group["lr"] = rate, rate * share
            group["weight_decay"] = 0.0 if group["kind"] == "rest" else settings.weight_decay

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            for other in self._other_tallies():
                self.tally.merge(other)
            groups = self.optimizer.param_groups
            rates = {f"rate/{g['module']}/{g['kind']}": round(g["lr"], 9) for g in groups}
            logs = {**logs, **rates, **self.tally.figures(), "bad_samples": self.left_out.count}
            logs.pop("learning_rate", None)
            self.tally = RunningMetrics()
        super().log(logs, start_time)

    def _other_tallies(self) -> list[RunningMetrics]:
        every = gather_object([self.tally]) if self.args.world_size > 1 else [self.tally]
        return [tally for rank, tally in enumerate(every) if rank != self.args.process_index]

    # checkpoints

    def _get_output_dir(self, trial) -> str:
        return str(self.out / PARTIAL) if self._saving else str(self.out)

    _saving = False

    def _save_checkpoint(self, model, trial) -> None:
        """A whole checkpoint or none: written aside, then renamed; the last few are kept.

        Raises: CannotSave where the disk is full, and like reasons.
        """
        if self.args.should_save:
            shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(self.out / PARTIAL, ignore_errors=True)
            raise cannot_save(self.out, self.state.global_step, error) from error
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            name = f"checkpoint-{self.state.global_step}"
            partial, final = self.out / PARTIAL / name, self.out / name
            (partial / RUN_FILE).write_text(json.dumps(self._run(), indent=2) + "\n", "utf-8")
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
            for old in checkpoints(self.out)[: -self.recipe.keep]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _run(self) -> dict:
        return {
            "step": self.state.global_step,
            "steps": self.total_steps,
            "bad": self.left_out.count,
            "cut": self.left_out.cut,
            "recipe": asdict(self.recipe),
            "base": self.base,
            "versions": {"torch": torch.__version__},
        }

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Whole weights, also where FSDP spreads them; its own files are for resuming only."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)
            return
        whole = self.accelerator.get_state_dict(self.model)  # all processes take part
        if self.args.should_save:
            once = {name for name, _ in self.model.named_parameters()}  # tied weights have two
            self._save(output_dir, {name: whole[name] for name in whole if name in once})

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Everything that is needed to use the weights: model or adapter, tokenizer, settings."""
        model = self.accelerator.unwrap_model(self.model)
        save_weights(model, Path(output_dir), state_dict, adapted=self.recipe.adapter is not None)
        self.processor.save_pretrained(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """The trained weights, bit for bit, into the model."""
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        load_weights(cast(VL3ForConditionalGeneration, self.model), Path(resume_from_checkpoint))
