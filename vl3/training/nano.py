"""Trains nano, the bundled toy model, from nothing: sight, then images, short clips, clips.

    python -m vl3.training.nano --out runs/nano --minutes 45

Production model, prompt and pruner at small size, on scenes drawn as they are needed; no scene is
ever seen twice, so the share of answers right during training is an honest score. The run saves
its state every minute and goes on from there when started again with the same --out.

On Linux, MALLOC_MMAP_MAX_=0 and MALLOC_TRIM_THRESHOLD_=34359738368 in the environment keep freed
memory at hand; a step then takes about a quarter less time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch.nn import functional as F

from vl3.config import nano
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.prompt import IGNORE, IMAGE_TOKEN
from vl3.settings import ProcessorSettings
from vl3.training.batch import IMAGE_MERGE, VIDEO_MERGE, Batch, Remembered, collate, random_sample
from vl3.training.muon import Muon
from vl3.training.sight import draw_lesson, lesson_loss, readout
from vl3.training.tokenizer import CONTEXT_TOKENS, train_tokenizer, world_text
from vl3.training.world import Level

log = logging.getLogger("vl3.training.nano")

FIRST_FAMILIES = {"colour": 1.0, "shape": 1.5, "caption": 0.7, "exist": 0.6, "about": 0.02}
IMAGE_FAMILIES = {
    "colour": 1.5,
    "shape": 1.5,
    "count": 1.5,
    "exist": 1.5,
    "yesno": 0.7,
    "caption": 0.7,
    "absent": 0.2,
    "digit": 1.0,
    "about": 0.05,
}
CLIP_FAMILIES = {
    "colour": 1.2,
    "shape": 1.2,
    "count": 1.2,
    "exist": 1.2,
    "order": 1.6,
    "when": 1.3,
    "direction": 1.5,
    "yesno": 0.8,
    "caption": 0.6,
    "absent": 0.15,
    "digit": 0.6,
    "about": 0.05,
}
# From 62 %: answers of one word, which people ask for first; colours of named shapes need most.
SHORT_FAMILIES = {
    "colour": 5.0,
    "count": 2.5,
    "shape": 1.2,
    "exist": 1.2,
    "order": 0.8,
    "when": 0.4,
    "yesno": 0.4,
    "direction": 0.2,
    "caption": 0.2,
    "absent": 0.1,
}
# From 84 %: what is still worst by then.
LAST_FAMILIES = {
    "count": 4.0,
    "order": 2.5,
    "colour": 1.5,
    "when": 1.2,
    "exist": 1.0,
    "shape": 0.8,
    "caption": 0.6,
    "yesno": 0.4,
    "direction": 0.3,
    "absent": 0.2,
}


def _still(families: dict[str, float]) -> dict[str, float]:
    """The families that an image has too."""
    return {name: weight for name, weight in families.items() if name in IMAGE_FAMILIES}


FRAME_TOKENS = 16  # 112 x 112 pixels: every picture is shown at the size of the training scenes
SQUARE = ((112, 112),)
FRAME_SIZES = (*SQUARE * 5, (112, 140), (112, 168), (140, 112), (168, 112))


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the run, up to `until` (share of the run): what its batches hold.

    sight: lessons for the encoder alone, see vl3.training.sight; jitter_px as in Level.
    images: share of batches that are images; seconds: shortest and longest clip of the others.
    """

    name: str
    until: float
    images: float = 1.0
    sight: bool = False
    jitter_px: float | None = None
    seconds: tuple[int, int] = (2, 2)
    sprites: tuple[int, int] = (1, 3)
    sizes_px: tuple[tuple[int, int], ...] = SQUARE
    image_sprites: tuple[int, int] = (1, 4)
    image_families: dict[str, float] = field(default_factory=lambda: dict(IMAGE_FAMILIES))
    clip_families: dict[str, float] = field(default_factory=lambda: dict(CLIP_FAMILIES))
    questions: int = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a run, apart from the speed of the machine."""

    minutes: float = 66.0
    seed: int = 1
    images_per_batch: int = 24
    frames_per_batch: int = 84
    matrix_lr: float = 1.2e-2
    other_lr: float = 2.5e-3
    weight_decay: float = 0.02
    warmup_steps: int = 30
    decay_from: float = 0.45
    unpruned: float = 0.1
    shaky: float = 0.2
    rescaled: float = 0.15
    digits: float = 0.12
    tokenizer_scenes: int = 6000
    phases: tuple[Phase, ...] = field(
        default=(
            Phase("sight on the lattice", 0.035, sight=True, jitter_px=0.0),
            Phase("sight near the lattice", 0.06, sight=True, jitter_px=4.0),
            Phase("sight", 0.10, sight=True),
            Phase(
                "one shape", 0.14, image_sprites=(1, 1), image_families=FIRST_FAMILIES, questions=4
            ),
            Phase("images", 0.27),
            Phase("short clips", 0.42, 0.15, seconds=(2, 6), sprites=(1, 2)),
            Phase("clips", 0.62, 0.10, seconds=(3, 10)),
            Phase(
                "short answers",
                0.84,
                0.50,
                seconds=(3, 9),
                image_families=_still(SHORT_FAMILIES),
                clip_families=SHORT_FAMILIES,
            ),
            Phase(
                "what is worst",
                0.97,
                0.30,
                seconds=(3, 10),
                image_families=_still(LAST_FAMILIES),
                clip_families=LAST_FAMILIES,
            ),
            Phase(
                "long clips",
                1.0,
                0.30,
                seconds=(4, 16),
                sizes_px=FRAME_SIZES,
                image_families=_still(LAST_FAMILIES),
                clip_families=LAST_FAMILIES,
            ),
        )
    )


def build(recipe: Recipe) -> tuple[VL3ForConditionalGeneration, VL3Processor]:
    """An untrained nano and its processor, with a tokenizer trained on the toy world's text."""
    tokenizer = train_tokenizer(world_text(recipe.seed, recipe.tokenizer_scenes))
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    settings = ProcessorSettings(
        image_merge=IMAGE_MERGE,
        video_merge=VIDEO_MERGE,
        min_tokens=FRAME_TOKENS,
        frame_tokens=FRAME_TOKENS,
        budget_tokens=CONTEXT_TOKENS // 2,
        system_prompt=False,
    )
    processor = VL3Processor(tokenizer, settings, image_token_id=image_token_id)
    torch.manual_seed(recipe.seed)
    config = nano(vocab_size=64 * -(-len(tokenizer) // 64), image_token_id=image_token_id)
    model = VL3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, processor


def phase_at(recipe: Recipe, progress: float) -> Phase:
    """The phase a run is in after that share of its time."""
    return next(phase for phase in recipe.phases if progress <= phase.until)


def draw_batch(recipe: Recipe, tokens: Remembered, step: int, progress: float) -> Batch:
    """The batch of a step, decided by the seed, the step and the phase alone."""
    rng = random.Random(f"{recipe.seed} {step}")
    phase = phase_at(recipe, progress)
    pruned = rng.random() >= recipe.unpruned
    noisy = 0.0 if pruned else 0.6
    imperfect = {
        "digits": recipe.digits,
        "shaky": recipe.shaky,
        "noisy": noisy,
        "rescaled": recipe.rescaled,
    }
    size_px = rng.choice(phase.sizes_px)
    if rng.random() < phase.images:
        families, count, seconds = phase.image_families, recipe.images_per_batch, 0
        sprites = phase.image_sprites
    else:
        seconds = rng.randint(*phase.seconds)
        families, count = phase.clip_families, max(1, recipe.frames_per_batch // max(3, seconds))
        sprites = phase.sprites
    level = Level(seconds=(seconds, seconds), sprites=sprites, sizes_px=(size_px,), **imperfect)
    questions = phase.questions
    samples = [random_sample(rng, level, families, tokens, questions, pruned) for _ in range(count)]
    return collate(samples, tokens.pad_token_id)


def answer_logits(model: VL3ForConditionalGeneration, batch: Batch) -> torch.Tensor:
    """Logits of the answers' tokens, in reading order: [answer tokens, vocabulary]."""
    grids_thw = [(grid.frames, grid.rows, grid.cols) for grid in batch.grids]
    x_MD = model.encode_vision(batch.pixels_NP, grids_thw, [grid.merge for grid in batch.grids])
    visual_KE = model.project(x_MD[batch.source_K])
    embeds = model.splice(batch.ids_BL, model.get_input_embeddings()(batch.ids_BL), visual_KE)
    hidden = model.language.model(
        inputs_embeds=embeds,
        attention_mask=batch.blocked_B1LL,
        position_ids=batch.positions_BL,
        use_cache=False,
    ).last_hidden_state
    return model.get_output_embeddings()(hidden[:, :-1][batch.labels_BL[:, 1:] != IGNORE])


def answers_right(logits: torch.Tensor, batch: Batch) -> list[tuple[str, bool]]:
    """Family of each answer of the batch and whether greedy decoding gives it letter by letter."""
    learned = batch.labels_BL != IGNORE
    wrong = logits.argmax(dim=-1) != batch.labels_BL[learned]
    bad = set(batch.answers_BL[learned][wrong].tolist())
    return [(family, number not in bad) for number, family in enumerate(batch.families)]


def optimizers(
    model: VL3ForConditionalGeneration, layer: torch.nn.Linear, recipe: Recipe
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks and the connector, AdamW for everything else."""
    matrices, others = [], list(layer.parameters())
    for name, param in model.named_parameters():
        is_matrix = param.ndim == 2 and "embed" not in name
        (matrices if is_matrix else others).append(param)
    return [
        Muon(matrices, lr=recipe.matrix_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def lr_factor(recipe: Recipe, step: int, progress: float) -> float:
    """Share of the full learning rate: a short warm-up, flat, then straight down to 2 %."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    left = (1 - progress) / (1 - recipe.decay_from)
    return warm * max(0.02, min(1.0, left))


class Run:
    """A training run in a folder: model, optimizers, and how far it has come."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.model, self.processor = build(recipe)
        self.tokens = Remembered(self.processor.tokenizer)
        self.readout = readout(self.model.config.vision_config.hidden_size)
        self.optimizers = optimizers(self.model, self.readout, recipe)
        self.step, self.elapsed_s, self.cpu_s = 0, 0.0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if (out / "state.pt").is_file():
            self._load()

    @property
    def progress(self) -> float:
        return min(1.0, self.elapsed_s / (60 * self.recipe.minutes))

    def train_step(self) -> dict:
        """One update; returns loss, learning-rate factor and (family, right) of the answers."""
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        factor = lr_factor(self.recipe, self.step, self.progress)
        for optimizer, lr in zip(
            self.optimizers, (self.recipe.matrix_lr, self.recipe.other_lr), strict=True
        ):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
        loss, right = self._look() if phase_at(self.recipe, self.progress).sight else self._read()
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss.item()} at step {self.step}; lower matrix_lr or other_lr"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.elapsed_s += time.perf_counter() - started_s
        self.cpu_s += time.process_time() - started_cpu_s
        return {"loss": loss.item(), "lr_factor": factor, "right": right}

    def _look(self) -> tuple[torch.Tensor, list[tuple[str, bool]]]:
        """Loss and score of a lesson in sight."""
        rng = random.Random(f"{self.recipe.seed} sight {self.step}")
        jitter_px = phase_at(self.recipe, self.progress).jitter_px
        level = Level(seconds=(0, 0), sprites=(2, 4), jitter_px=jitter_px)
        lesson = draw_lesson(rng, level, self.recipe.images_per_batch)
        return lesson_loss(self.model, self.readout, lesson)

    def _read(self) -> tuple[torch.Tensor, list[tuple[str, bool]]]:
        """Loss and score of a batch of questions."""
        batch = draw_batch(self.recipe, self.tokens, self.step, self.progress)
        logits = answer_logits(self.model, batch)
        loss = F.cross_entropy(logits, batch.labels_BL[batch.labels_BL != IGNORE])
        return loss, answers_right(logits.detach(), batch)

    def save(self) -> None:
        """Writes the state of the run; a crash in between leaves the old state whole."""
        state = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "cpu_s": self.cpu_s,
            "model": self.model.state_dict(),
            "readout": self.readout.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, self.out / "state.tmp")
        os.replace(self.out / "state.tmp", self.out / "state.pt")

    def _load(self) -> None:
        state = torch.load(self.out / "state.pt", weights_only=True)
        changed = {
            key: (value, asdict(self.recipe)[key])
            for key, value in state["recipe"].items()
            if asdict(self.recipe)[key] != value
        }
        if changed:
            raise ValueError(
                f"the run in {self.out} was started with another recipe (then, now): {changed}; "
                "choose another --out or the same options"
            )
        self.step, self.elapsed_s, self.cpu_s = state["step"], state["elapsed_s"], state["cpu_s"]
        self.model.load_state_dict(state["model"])
        self.readout.load_state_dict(state["readout"])
        for optimizer, values in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)

    def export(self, folder: Path) -> None:
        """Writes a checkpoint for vl3.load: float16 weights, tokenizer, processor settings."""
        folder.mkdir(parents=True, exist_ok=True)
        half = VL3ForConditionalGeneration(self.model.config)
        half.load_state_dict(self.model.state_dict())
        half.generation_config = self.model.generation_config
        half.half().save_pretrained(folder)
        self.processor.save_pretrained(folder)


def train(recipe: Recipe, out: Path) -> Run:
    """The finished run; its checkpoint is in out/model, its log in out/metrics.jsonl."""
    run = Run(recipe, out)
    log.info("%d parameters", sum(p.numel() for p in run.model.parameters()))
    window: list[dict] = []
    logged_s = saved_s = time.monotonic()
    while run.progress < 1.0:
        window.append(run.train_step())
        now_s = time.monotonic()
        if now_s - logged_s > 15 or run.progress >= 1.0:
            report(run, window, now_s - logged_s)
            window, logged_s = [], now_s
        if now_s - saved_s > 60:
            run.save()
            saved_s = now_s
    run.save()
    run.export(out / "model")
    return run


def report(run: Run, window: list[dict], seconds: float) -> None:
    """Logs a line and appends the same figures to metrics.jsonl."""
    tally: dict[str, list[bool]] = {}
    for entry in window:
        for family, right in entry["right"]:
            tally.setdefault(family, []).append(right)
    shares = {family: round(sum(hits) / len(hits), 3) for family, hits in sorted(tally.items())}
    figures = {
        "step": run.step,
        "minutes": round(run.elapsed_s / 60, 2),
        "cpu_minutes": round(run.cpu_s / 60, 2),
        "loss": round(sum(entry["loss"] for entry in window) / len(window), 4),
        "lr_factor": round(window[-1]["lr_factor"], 4),
        "steps_per_s": round(len(window) / seconds, 3),
        "right": shares,
    }
    with (run.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")
    left_min = run.recipe.minutes - run.elapsed_s / 60
    shown = " ".join(f"{family} {100 * share:.0f}" for family, share in shares.items())
    log.info(
        "step %d  loss %.3f  %.2f steps/s  %.1f min left  right %%: %s",
        run.step, figures["loss"], figures["steps_per_s"], left_min, shown,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vl3.training.nano", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True,
                        help="folder of the run; a run found there is continued")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=Recipe().minutes,
                        help="wall-clock minutes of training, over which curriculum and learning "
                        "rate are spread (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=Recipe().seed,
                        help="decides weights and scenes (default: %(default)s)")  # fmt: skip
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    recipe = replace(Recipe(), minutes=options.minutes, seed=options.seed)
    run = train(recipe, options.out)
    log.info("done after %.1f min; checkpoint in %s", run.elapsed_s / 60, options.out / "model")


if __name__ == "__main__":
    main()
