"""The memory of a training step: nothing is loaded, nothing runs.

What autograd keeps is counted on the model itself (vl3.training.activations). What is added is what
one backward pass holds besides: gradients on their way through the layer that needs most.
Assumed is what vl3.training does: whatever learns is float32, in bfloat16 runs its products are
computed in bfloat16; frozen weights have the format of the arithmetic; a pass is rows of samples
with at most batch.tokens language tokens; the loss takes CHUNK_TOKENS learned tokens at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from transformers import PreTrainedConfig

from vl3.audio.ear import ear_class
from vl3.config import VL3Config
from vl3.ops import CHUNK_TOKENS
from vl3.sound_inputs import PIECES_AT_ONCE
from vl3.training.activations import Kept, kept_of_pass
from vl3.training.optim import rates_for
from vl3.training.ranges import HEARING, SEEING
from vl3.training.recipe import Adapter, Recipe
from vl3.visual_inputs import CHUNK_PATCHES
from vl3.weights.sizes import NF4_BYTES, Linear, parts, widths

SMALL = 500_000_000  # parameters below which a CPU run computes attention weights openly


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The largest forward pass.

    row: tokens of a row of the language model; frame: patches of a picture, an attention island
    visual: merged tokens before pruning; learned: tokens of answers
    pieces: of sound, as the ear takes them; sound: its tokens, before neighbours are joined
    """

    tokens: int
    row: int
    visual: int
    patches: int
    frame: int
    learned: int
    pieces: int = 0
    sound: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What computes, and how.

    compute_bytes: 4 for float32, 2 for bfloat16; eager: attention weights are stored openly
    """

    device: str
    compute_bytes: int
    eager: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleRow:
    """One line of the table of modules; dtype names the format of its weights."""

    name: str
    parameters: int
    trainable: int
    rate: float | None
    dtype: str


# Sizes


def module_rows(recipe: Recipe, config: VL3Config, machine: Machine) -> list[ModuleRow]:
    """Modules with parameters, rate and format; adapters are a line of their own."""
    frozen = "float32" if machine.compute_bytes == 4 else "bfloat16"
    rows = []
    for name, part in parts(config).items():
        rate = getattr(recipe.rates, name)
        quantized = recipe.start.quantize if name == "language" else None
        dtype = "float32" if rate else f"{quantized} and {frozen}" if quantized else frozen
        trainable = part.parameters if rate else 0
        rows.append(
            ModuleRow(
                name=name, parameters=part.parameters, trainable=trainable, rate=rate, dtype=dtype
            )
        )
    if adapter := recipe.adapter:
        adapted = sum(low_rank(layer, adapter) for layer in adapted_linears(recipe, config))
        rate = rates_for(recipe, config.text_config.hidden_size).adapter
        rows.append(
            ModuleRow(
                name="adapter", parameters=adapted, trainable=adapted, rate=rate, dtype="float32"
            )
        )
    return rows


def adapted_linears(recipe: Recipe, config: VL3Config) -> list[Linear]:
    """The linear layers that have adapters."""
    if recipe.adapter is None:
        return []
    text, modules = config.text_config, parts(config)
    head = Linear(ins=text.hidden_size, outs=text.vocab_size, bias=False)
    found = [modules[name].linears for name in recipe.adapter.on if name in modules]
    return [layer for linears in found for layer in linears] + (
        [head] if "words" in recipe.adapter.on else []
    )


def low_rank(layer: Linear, adapter: Adapter) -> int:
    """Parameters that an adapter adds to linear layers; DoRA has a magnitude for each output."""
    magnitude = layer.outs if adapter.kind == "dora" else 0
    return layer.times * (adapter.rank * (layer.ins + layer.outs) + magnitude)


def largest_pass(
    recipe: Recipe, config: VL3Config | None = None, *, frame_patches: int | None = None
) -> Shape:
    """The largest pass the recipe allows: all budgets full, one row as long as a sample may be.

    config: of the model, which may have an ear
    frame_patches: patches of one picture where they are known to be fewer than the budget allows
    """
    hears = (
        config is not None and config.audio_config is not None and recipe.media.sound is not False
    )
    batch, media = recipe.batch, recipe.media
    merge = max(media.image_merge or 1, media.video_merge or 2)
    longest = min(media.visual_tokens, batch.max_tokens) * merge**2
    tokens, patches = max(batch.tokens, batch.max_tokens), max(batch.patches, longest)
    patches = min(patches, tokens * merge**2)
    return Shape(
        tokens=tokens,
        row=batch.max_tokens,
        visual=min(tokens, patches),
        patches=patches,
        frame=frame_patches or min(longest, patches),
        learned=tokens,
        **(heard_pieces(config, batch.pieces) if config is not None and hears else {}),
    )


def heard_pieces(config: VL3Config, pieces: int) -> dict[str, int]:
    """Pieces and sound of a Shape: so many whole pieces, and the tokens that the ear makes."""
    ear = cast(PreTrainedConfig, config.audio_config)
    form = ear_class(ear).form(ear)
    return {"pieces": pieces, "sound": pieces * form.steps * form.bands}


# A step


def passing(
    heads: int, island: int, width: int, inner: int, behind: float, machine: Machine
) -> float:
    """Bytes per token that the backward pass of one layer needs besides what is kept.

    Either in the MLP: gradients of two factors and of their product; or, where attention weights
    are open, in the softmax: gradients of its result and of its input. By then what was kept behind
    it is free again.
    """
    size = machine.compute_bytes
    in_mlp = (3 * inner + 2 * width) * size
    in_softmax = 2 * heads * island * 4 + 4 * width * size - behind if machine.eager else 0
    return max(in_mlp, in_softmax)


def gradient_flow(recipe: Recipe) -> dict[str, bool]:
    """Whether gradients are recorded in a module: it learns, or one before it does."""
    flows: dict[str, bool] = {}
    before = False
    adapted = recipe.adapter.on if recipe.adapter else ()
    for name in HEARING:
        learns = bool(getattr(recipe.rates, name)) or name in adapted
        flows[name] = learns or any(flows.values())
    for name in SEEING:
        before = before or bool(getattr(recipe.rates, name)) or name in adapted
        flows[name] = before or (name == "language" and flows["audio_connector"])
    return flows


# The table


def memory(recipe: Recipe, config: VL3Config, shape: Shape, machine: Machine) -> dict[str, float]:
    """Bytes of the fullest moment of a step by cause; their sum is the predicted peak.

    Weights, gradients, optimizer and kept activations stay; of the passing needs (the loss, the
    backward pass of a language layer, that of a vision block) the largest counts.
    """
    rows = module_rows(recipe, config, machine)
    trainable = sum(row.trainable for row in rows)
    kept = kept_of_pass(recipe, config, shape, machine)
    vision, connector, language, vision_work, language_work = _activations(
        recipe, config, shape, machine, kept
    )
    ear, ear_work = _ear_activations(recipe, config, shape, machine, kept)
    text = config.text_config
    chunk = min(CHUNK_TOKENS, shape.learned)
    table = text.vocab_size * text.hidden_size * 4 if recipe.rates.language else 0
    # Normalised logits and two gradients of them, or one and the gradient of the output table.
    loss = max(3 * 4 * chunk * text.vocab_size, 4 * chunk * text.vocab_size + table)
    mask = shape.tokens * shape.row * (machine.compute_bytes + 3)  # and the yes/no tables behind it
    pixels = 2 * shape.patches * 3 * config.vision_config.patch_size**2  # this pass and the next
    found = {
        "weights": sum(_weight_bytes(recipe, config, machine).values()),
        "gradients": 4.0 * trainable,
        "optimizer": state_bytes(recipe, config),
        "pixels": pixels,
        "vision activations": vision,
        "connector activations": connector,
        "language activations": language,
        "attention mask": mask,
    }
    if shape.pieces:
        held = (
            2 * shape.pieces
        )  # this pass and the next; on a CPU all of the step, a piece a sample
        held = max(held, recipe.batch.samples) if machine.device == "cpu" else held
        found["filter banks"] = 4 * held * _bank_numbers(config)
        found["ear activations"] = ear
    steady = found["weights"] + found["gradients"] + found["optimizer"]
    at_language = vision + connector + ear + language + mask
    passing = {
        "loss of a slice": at_language + loss,
        "language backward": at_language + language_work,
        "vision backward": vision + vision_work,
        "optimizer step": _step_bytes(recipe, config, machine),
    }
    if shape.pieces:
        passing["ear backward"] = vision + connector + ear + ear_work
    fullest = max(passing, key=lambda stage: passing[stage])
    found[fullest] = max(0.0, passing[fullest] - at_language)
    if fullest == "optimizer step":
        for name in list(found):
            if name.endswith(("activations", "mask")):
                found[name] = 0.0
        found[fullest] = passing[fullest]
    assert sum(found.values()) >= steady
    return found


def _ear_activations(recipe, config, shape, machine, kept) -> tuple[float, float]:
    """Kept by ear and its connector; what a layer of the ear needs besides. 0 without sound.

    A frozen ear takes some pieces at a time.
    """
    if not shape.pieces:
        return 0.0, 0.0
    kind, flows = ear_class(config.audio_config), gradient_flow(recipe)
    sizes, size = kind.sizes(config.audio_config), machine.compute_bytes
    positions = shape.pieces * sizes.positions
    if flows["ear"]:
        behind = kept["ear"].behind / positions
        as_it_attends = replace(machine, eager=machine.eager or sizes.biased)
        passes = positions * passing(
            sizes.heads, sizes.positions, sizes.width, sizes.inner, behind, as_it_attends
        )
        hear, hear_passing = _through(
            sizes.layers, kept["ear"], passes, "ear" in recipe.checkpointing
        )
    else:
        open_weights = 2 * 4 * sizes.heads * sizes.positions if machine.eager else 0
        hear = float(shape.sound * sizes.width * size)
        at_once = min(shape.pieces, PIECES_AT_ONCE)
        each = kind.working_bytes(config.audio_config, size, machine.device)
        hear_passing = at_once * (each + sizes.positions * open_weights)
    # What the connector gives is held until the language model is done.
    given = 4 if flows["audio_connector"] else size
    around = kept["audio_connector"].around + shape.sound * config.text_config.hidden_size * given
    return hear + around, hear_passing


def _bank_numbers(config: VL3Config) -> int:
    """Numbers of the filter bank of one whole piece, in float32."""
    ear = cast(PreTrainedConfig, config.audio_config)
    kind = ear_class(ear)
    form = kind.form(ear)
    samples = np.zeros(form.piece_samples + form.overhang, np.float32)
    return kind.bank(ear, samples).numel()


def _activations(recipe, config, shape, machine, kept) -> tuple[float, float, float, float, float]:
    """Kept by encoder, connector and language model; what the backward pass of a layer of encoder
    and language model needs besides."""
    vision, text, flows = config.vision_config, config.text_config, gradient_flow(recipe)
    D, E, heads = vision.hidden_size, text.hidden_size, vision.num_attention_heads
    inner, size = vision.intermediate_size, machine.compute_bytes
    if flows["vision"]:
        behind = kept["vision"].behind / max(1, shape.patches)
        passes = shape.patches * passing(heads, shape.frame, D, inner, behind, machine)
        again = "vision" in recipe.checkpointing
        see, see_passing = _through(vision.num_hidden_layers, kept["vision"], passes, again)
    else:
        # A frozen encoder keeps nothing and takes a piece of the clip at a time; one block at a
        # time holds its widest tensors.
        piece = min(shape.patches, max(CHUNK_PATCHES[machine.device], shape.frame))
        open_weights = 2 * 4 * heads * shape.frame if machine.eager else 0
        widest = max(2 * inner, 4 * D) * size + open_weights
        see, see_passing = D * size * shape.visual, piece * (2 * D * size + widest)
    # What the connector gives is held until the language model is done.
    connector = kept["connector"].around + shape.visual * E * (4 if flows["connector"] else size)
    heads, inner = text.num_attention_heads, widths(config).inner
    behind = kept["language"].behind / shape.tokens
    passes = shape.tokens * passing(heads, shape.row, E, inner, behind, machine)
    again = "language" in recipe.checkpointing
    say, say_passing = _through(text.num_hidden_layers, kept["language"], passes, again)
    say += kept["language"].stream  # the states that the loss reads
    return see, connector, say, see_passing, say_passing


def _through(layers: int, kept: Kept, passing: float, checkpointed: bool) -> tuple[float, float]:
    """Kept over all layers, and needed in passing.

    A checkpointed layer keeps its input; the whole layer comes back while its gradients are made.
    """
    if checkpointed:
        return kept.around + layers * kept.stream, kept.layer + passing
    return kept.around + kept.first + (layers - 1) * kept.layer, passing


def _weight_bytes(recipe: Recipe, config: VL3Config, machine: Machine) -> dict[str, float]:
    """Weights by module; in bfloat16 runs what learns has a bfloat16 copy while a pass runs."""
    found = {}
    for name, part in parts(config).items():
        learns = getattr(recipe.rates, name)
        each = (4 if machine.compute_bytes == 4 else 6) if learns else machine.compute_bytes
        found[name] = float(part.parameters * each)
        if name == "language" and recipe.start.quantize:
            weights = sum(layer.weights for layer in part.linears)
            packed = NF4_BYTES if recipe.start.quantize == "nf4" else 1
            found[name] = (part.parameters - weights) * each + weights * packed
            # One layer at a time is unpacked for its product.
            found[name] += machine.compute_bytes * max(x.ins * x.outs for x in part.linears)
    if recipe.adapter:
        linears = adapted_linears(recipe, config)
        found["adapter"] = 4.0 * sum(low_rank(layer, recipe.adapter) for layer in linears)
        if recipe.adapter.kind == "dora":
            # The weight with its change, twice, to measure its columns.
            found["adapter"] += 3 * 4 * max(layer.ins * layer.outs for layer in linears)
    return found


def _matrices_and_rest(recipe: Recipe, config: VL3Config) -> tuple[int, int]:
    """Trainable parameters in weight matrices, which Muon takes, and the others."""
    matrices = rest = 0
    for name, part in parts(config).items():
        if getattr(recipe.rates, name):
            inside = part.experts + sum(layer.weights for layer in part.linears)
            matrices, rest = matrices + inside, rest + part.parameters - inside
    adapter = cast(Adapter, recipe.adapter)  # without one no layer is adapted
    adapted = sum(low_rank(layer, adapter) for layer in adapted_linears(recipe, config))
    return matrices + adapted, rest


def state_bytes(recipe: Recipe, config: VL3Config) -> float:
    """AdamW keeps two numbers per parameter, Muon one per number of a matrix."""
    matrices, rest = _matrices_and_rest(recipe, config)
    return 4.0 * (matrices + 2 * rest) if recipe.optim.kind == "muon" else 8.0 * (matrices + rest)


def _step_bytes(recipe: Recipe, config: VL3Config, machine: Machine) -> float:
    """Passing needs of the optimizer's step.

    On a GPU, AdamW updates all parameters at once through one list as large as they are; on a CPU
    one after the other. Muon stacks the matrices of one shape and holds about four such stacks.
    """
    matrices, rest = _matrices_and_rest(recipe, config)
    largest = max(
        max([part.tables, *(x.ins * x.outs for x in part.linears)])
        for part in parts(config).values()
    )
    if recipe.optim.kind == "muon":
        stacks = [x.weights for part in parts(config).values() for x in part.linears]
        return 4.0 * (4 * min(max(stacks), matrices) + 2 * min(largest, rest))
    return 4.0 * (
        matrices + rest if machine.device == "cuda" else 2 * min(largest, matrices + rest)
    )
