"""What a training run will do and need, said before it starts: steps, tokens, memory, arithmetic.

Everything comes from the recipe, the sizes of the model and, where the data lie at hand, a look at
some samples; nothing is loaded and nothing runs. Memory is counted in vl3.training.memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import cast

from vl3.audio.ear import ear_class
from vl3.config import VL3Config
from vl3.training.memory import (
    SMALL,
    Machine,
    ModuleRow,
    Shape,
    gradient_flow,
    heard_pieces,
    largest_pass,
    memory,
    module_rows,
    parts,
    state_bytes,
)
from vl3.training.recipe import Recipe
from vl3.weights.sizes import widths as language_widths

ASSUMED_TOKENS = 2048  # of a sample, where there is no data to look at
FEW_STEPS = 50
MOST_FILLED = 0.05  # share of an epoch that may be repeated without a word
ASSUMED_PATCHES_PER_TOKEN = 2  # between pictures (1, 4 when merged) and text
ASSUMED_PICTURE = 1024  # patches of a picture, which attend to each other


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """What is known of one data set.

    samples: how many an epoch takes, None where neither the recipe nor a file says
    lines: how many there are; None where that is unknown, and for a world, which has no end
    tokens, patches, sound, pieces: mean of a sample (of sound: its tokens, and pieces for the ear);
    longest: tokens of the longest one; all from `seen` samples
    pairs: pairs of tokens that attend to each other in a mean sample, in the language model and in
    the vision encoder
    left: how many of the samples looked at are left out in training; the others are `seen`
    unseen: why no sample was measured, as the end of a sentence
    """

    name: str
    samples: int | None
    lines: int | None = None
    seen: int = 0
    tokens: float = 0.0
    patches: float = 0.0
    sound: float = 0.0
    pieces: float = 0.0
    longest: int = 0
    picture: int = 0
    pairs: tuple[float, float] = (0.0, 0.0)
    left: int = 0
    unseen: str = "whose files are not here"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A run in figures.

    memory: bytes by cause at the fullest moment; limit_bytes: what the device has
    disk: bytes of a checkpoint's weights and of its optimizer's state, of all checkpoints at the
    fullest moment, of kept frames and of an export in the format of the arithmetic
    assumed: what was not looked up but taken for granted, as sentences
    repeats: (data set, its lines, how often the run sees each) where the lines are known
    warnings: why little may be learned, as sentences
    measured: whether samples of every data set were measured; if not, they count as long as allowed
    """

    name: str
    machine: Machine
    steps: int | None
    samples: int | None
    tokens: float | None
    flops: float | None
    modules: tuple[ModuleRow, ...]
    shape: Shape
    memory: dict[str, float]
    disk: dict[str, float]
    limit_bytes: float | None
    lower: tuple[str, ...]
    repeats: tuple[tuple[str, int, float], ...]
    warnings: tuple[str, ...]
    assumed: tuple[str, ...]
    measured: bool

    @property
    def peak_bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.limit_bytes is None or self.peak_bytes <= self.limit_bytes


def machine_for(recipe: Recipe, config: VL3Config, device: str, bfloat16: bool) -> Machine:
    """The device with the format that "auto" takes there.

    bfloat16: whether the device is at home in it
    """
    use = bfloat16 if recipe.dtype == "auto" else recipe.dtype == "bfloat16"
    small = sum(part.parameters for part in parts(config).values()) < SMALL
    return Machine(device=device, compute_bytes=2 if use else 4, eager=small and device == "cpu")


def make_plan(
    recipe: Recipe,
    config: VL3Config,
    machine: Machine,
    looked: Sequence[Looked],
    limit_bytes: float | None = None,
    remembered: Looked | None = None,
) -> Plan:
    """The plan of a recipe for a model of these sizes on that machine.

    remembered: the scenes of a step on which the model is held to what it said, if there are any
    """
    looked = taken(recipe, looked)
    known = [one.samples for one in looked if one.samples is not None]
    epoch = sum(known) if len(known) == len(looked) else None
    steps = recipe.steps or (
        epoch and max(ceil(round(recipe.epochs * epoch) / recipe.batch.samples), recipe.least_steps)
    )
    samples = steps and steps * recipe.batch.samples
    mean_tokens, mean_patches = _means(looked)
    shape = _shape(recipe, config, looked)
    found = memory(recipe, config, shape, machine)
    flops = samples and samples * step_flops(
        recipe, config, mean_tokens, mean_patches, _mean_pairs(looked), heard=_mean_heard(looked)
    )
    if flops and remembered:
        scene = recipe, config, remembered.tokens, remembered.patches, remembered.pairs
        seen = cast(int, steps) * cast(int, remembered.samples)
        flops += seen * (step_flops(*scene) + step_flops(*scene, backward=False))
    return Plan(
        name=recipe.name,
        machine=machine,
        steps=steps,
        samples=samples,
        tokens=samples and samples * mean_tokens,
        flops=flops,
        modules=tuple(module_rows(recipe, config, machine)),
        shape=shape,
        memory=found,
        disk=disk(recipe, config, machine),
        limit_bytes=limit_bytes,
        lower=tuple(what_to_lower(recipe, found)),
        repeats=tuple(repeats(samples, epoch, looked)),
        warnings=tuple(warnings(recipe, steps, looked)),
        assumed=tuple(_assumed(looked)),
        measured=bool(looked) and all(one.seen for one in looked),
    )


def taken(recipe: Recipe, looked: Sequence[Looked]) -> list[Looked]:
    """The data sets with the samples that an epoch takes where steps have parts: all of the first
    part, and of the others what stands beside them; unknown where one of them is."""
    shares = recipe.batch.parts
    if not shares:
        return list(looked)
    by_part = {
        name: [one.samples for one, source in zip(looked, recipe.data) if source.part == name]
        for name in shares
    }
    if any(None in counts for counts in by_part.values()):
        return [replace(one, samples=None) for one in looked]
    totals = {name: sum(map(int, filter(None, counts))) for name, counts in by_part.items()}
    first = next(iter(shares))
    found = []
    for one, source in zip(looked, recipe.data):
        part = cast(str, source.part)
        beside = totals[first] * shares[part] / shares[first]
        found.append(replace(one, samples=round(cast(int, one.samples) * beside / totals[part])))
    return found


def repeats(
    samples: int | None, epoch: int | None, looked: Sequence[Looked]
) -> list[tuple[str, int, float]]:
    """(data set, its lines, how often a run of so many samples sees each of them)."""
    if not samples or not epoch:
        return []
    return [
        (one.name, one.lines, samples / epoch * one.samples / one.lines)
        for one in looked
        if one.lines and one.samples
    ]


def warnings(recipe: Recipe, steps: int | None, looked: Sequence[Looked]) -> list[str]:
    """Why little may be learned of the data: few steps, or steps filled up with repeats."""
    found = []
    if steps and steps < FEW_STEPS:
        found.append(
            f"{steps} step{'s are' if steps > 1 else ' is'} few: after less than {FEW_STEPS} a "
            "model has hardly changed; lower batch.samples, or raise epochs, steps or least_steps"
        )
    lines = sum(one.samples or 0 for one in looked)
    batch = recipe.batch.samples
    if lines and all(one.samples for one in looked) and batch > lines:
        found.append(
            f"a step of {batch} samples holds "
            f"{'the only line' if lines == 1 else f'each of the {lines} lines'} "
            f"{batch / lines:.3g} times; lower batch.samples to {lines} or less"
        )
    elif lines and steps and not recipe.steps and steps > recipe.least_steps:
        filled = steps * batch - round(recipe.epochs * lines)
        if filled > MOST_FILLED * lines:
            found.append(
                f"the last step is filled up with {filled} repeated lines, because batch.samples "
                f"{batch} does not divide {round(recipe.epochs * lines)}"
            )
    for one in looked:
        if one.lines and one.samples and one.samples > one.lines:
            found.append(
                f"an epoch takes {one.samples} samples of {one.name}, which has {one.lines}: each "
                f"comes {one.samples / one.lines:.3g} times (data.{one.name}.samples)"
            )
    return found


def _means(looked: Sequence[Looked]) -> tuple[float, float]:
    """Tokens and patches of a mean sample of the mix, assumed where nothing was seen."""
    taken = tokens = patches = 0.0
    for one in looked:
        weight = one.samples or 1
        taken += weight
        tokens += weight * (one.tokens if one.seen else ASSUMED_TOKENS)
        patches += weight * (
            one.patches if one.seen else ASSUMED_TOKENS * ASSUMED_PATCHES_PER_TOKEN
        )
    return (tokens / taken, patches / taken) if taken else (0.0, 0.0)


def _mean_pairs(looked: Sequence[Looked]) -> tuple[float, float]:
    """Pairs of tokens that attend to each other in a mean sample of the mix."""
    assumed = (ASSUMED_TOKENS**2, ASSUMED_TOKENS * ASSUMED_PATCHES_PER_TOKEN * ASSUMED_PICTURE)
    weights = [one.samples or 1 for one in looked]
    pairs = [one.pairs if one.seen else assumed for one in looked]
    total = max(1, sum(weights))
    own, other = (
        sum(weight * pair[which] for weight, pair in zip(weights, pairs)) / total
        for which in (0, 1)
    )
    return own, other


def _mean_heard(looked: Sequence[Looked]) -> tuple[float, float]:
    """Tokens of sound and pieces for the ear of a mean sample of the mix; none are assumed."""
    weights = [one.samples or 1 for one in looked]
    total = max(1, sum(weights))
    sound, pieces = (
        sum(weight * getattr(one, name) for weight, one in zip(weights, looked)) / total
        for name in ("sound", "pieces")
    )
    return sound, pieces


def disk(recipe: Recipe, config: VL3Config, machine: Machine) -> dict[str, float]:
    """Bytes that a run writes; one checkpoint more than are kept lies there while it is written."""
    trained = sum(row.trainable for row in module_rows(recipe, config, machine))
    every = sum(part.parameters for part in parts(config).values())
    whole = sum(
        part.parameters * (4 if getattr(recipe.rates, name) else machine.compute_bytes)
        for name, part in parts(config).items()
    )
    weights = 4.0 * trained if recipe.adapter else float(whole)
    state = state_bytes(recipe, config)
    return {
        "weights": weights,
        "optimizer": state,
        "checkpoints": (recipe.keep + 1) * (weights + state),
        "frames": recipe.media.cache_gb * 1e9,
        "export": float(machine.compute_bytes * every),
    }


def _assumed(looked: Sequence[Looked]) -> list[str]:
    unknown = [one.name for one in looked if one.samples is None]
    notes = []
    for why in dict.fromkeys(one.unseen for one in looked if not one.seen):
        names = ", ".join(one.name for one in looked if not one.seen and one.unseen == why)
        notes.append(
            f"tokens are a guess of {ASSUMED_TOKENS} a sample for {names}, {why}; a video may have "
            "many times more, so tokens and hours are the least to expect"
        )
    if unknown:
        notes.append(
            f"how many samples {', '.join(unknown)} has is unknown: data.{unknown[0]}.samples says "
            "so where no file is here"
        )
    notes += [
        f"{one.left} of {one.left + one.seen} samples of {one.name} that were looked at are left "
        "out in training (over-long or unreadable; validate names them) and count for nothing here"
        for one in looked
        if one.left
    ]
    return notes


def _shape(recipe: Recipe, config: VL3Config, looked: Sequence[Looked]) -> Shape:
    """The largest pass; with every data set seen, its rows are as long as the longest sample."""
    picture = max((one.picture for one in looked), default=0)
    shape = largest_pass(recipe, config, frame_patches=picture or None)
    if not looked or not all(one.seen for one in looked):
        return shape
    row = min(recipe.batch.max_tokens, max(one.longest for one in looked))
    samples = sum(one.samples or recipe.batch.samples for one in looked)
    most = row * min(samples, recipe.batch.samples)  # a step holds no more
    tokens = min(shape.tokens, max(row, recipe.batch.tokens), most)
    mean_tokens, mean_patches = _means(looked)
    patches = min(shape.patches, ceil(1.2 * tokens * mean_patches / mean_tokens))
    pieces = min(shape.pieces, ceil(1.2 * tokens * _mean_heard(looked)[1] / mean_tokens))
    return Shape(
        tokens=tokens,
        row=row,
        visual=min(tokens, shape.visual),
        patches=patches,
        frame=shape.frame,
        learned=shape.learned,
        **(heard_pieces(config, pieces) if pieces else {}),
    )


def step_flops(
    recipe: Recipe,
    config: VL3Config,
    tokens: float,
    patches: float,
    pairs: tuple[float, float] = (0.0, 0.0),
    backward: bool = True,
    heard: tuple[float, float] = (0.0, 0.0),
) -> float:
    """Floating-point operations of one sample: 2 per weight and token forward, as many again for
    the gradient of each input and of each learning weight, and once more where it is recomputed.

    backward: False for a pass without gradients
    pairs: of tokens that attend to each other in the language model, and in the vision encoder;
    each takes 4 per channel and layer (a weight, what it gathers), and twice that backward
    heard: tokens of sound and pieces of it, each of which the ear takes as a whole one
    """
    vision, text = config.vision_config, config.text_config
    widths = {"vision": vision.hidden_size, "language": language_widths(config).queries}
    layers = {"vision": vision.num_hidden_layers, "language": text.num_hidden_layers}
    seen = {"vision": pairs[1], "language": pairs[0]}
    counts = {"vision": patches, "connector": tokens, "language": tokens}
    if (ear := config.audio_config) is not None:
        sizes = ear_class(ear).sizes(ear)
        widths["ear"], layers["ear"] = sizes.width, sizes.layers
        counts |= {"ear": heard[1] * sizes.positions, "audio_connector": heard[0]}
        seen["ear"] = heard[1] * sizes.positions**2
    total = 0.0
    flows = {name: backward and flow for name, flow in gradient_flow(recipe).items()}
    for name, part in parts(config).items():
        learns = bool(getattr(recipe.rates, name))
        passes = 1 + flows[name] * (1 + learns + (name in recipe.checkpointing))
        count = counts[name]
        met = part.active + sum(layer.weights for layer in part.linears)
        total += 2 * passes * count * met
        if name in seen:
            attended = 1 + flows[name] * (2 + (name in recipe.checkpointing))
            total += 4 * attended * seen[name] * widths[name] * layers[name]
    return total


def what_to_lower(recipe: Recipe, found: dict[str, float]) -> list[str]:
    """Settings that would make the run smaller, the one with most effect first."""
    learning = found["gradients"] + found["optimizer"]
    weights = found["weights"]
    steady = learning + weights + found["pixels"]
    others = sum(found.values()) - steady
    wishes = {
        "batch.tokens, batch.max_tokens and media.visual_tokens": others,
        "batch.patches": found["vision activations"],
    }
    if "ear activations" in found:
        wishes["batch.pieces"] = found["ear activations"]
    blocks = ("vision", "language", "ear") if "ear activations" in found else ("vision", "language")
    idle = [name for name in blocks if name not in recipe.checkpointing]
    if idle:
        wishes[f"checkpointing (add {' and '.join(idle)})"] = others * 0.9
    if recipe.adapter is None:
        wishes["what trains (merge --config lora)"] = learning
    elif recipe.start.quantize is None:
        wishes["the language model's weights (--config qlora)"] = weights
    else:
        wishes["adapter.rank"] = learning
    return [name for name, _ in sorted(wishes.items(), key=lambda item: -item[1])]
