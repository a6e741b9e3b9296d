"""The memory of a training step: nothing is loaded, nothing runs.

It is counted tensor by tensor, as autograd keeps them: a linear layer keeps its
input when its weight learns, a product keeps both factors, a softmax its result. What is added is
what one backward pass holds besides: gradients on their way through the layer that needs most.
Assumed is what vl3.training does: whatever learns is float32, in bfloat16 runs its products are
computed in bfloat16; frozen weights have the format of the arithmetic; a pass is rows of samples
with at most batch.tokens language tokens; the loss takes CHUNK_TOKENS learned tokens at a time.
Not counted is what a few language models keep besides: GPT-2, with dropout and an activation of
several steps, took half as much again as is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from vl3.config import VL3Config
from vl3.model import CHUNK_PATCHES
from vl3.ops import CHUNK_TOKENS
from vl3.training.optim import rates_for
from vl3.training.ranges import MODULES
from vl3.training.recipe import Adapter, Recipe
from vl3.weights.sizes import NF4_BYTES, Linear, Widths, parts, widths

SMALL = 500_000_000  # parameters below which a CPU run computes attention weights openly


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The largest forward pass.

    row: tokens of a row of the language model; frame: patches of a picture, an attention island
    visual: merged tokens before pruning; learned: tokens of answers
    """

    tokens: int
    row: int
    visual: int
    patches: int
    frame: int
    learned: int


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


def largest_pass(recipe: Recipe, *, frame_patches: int | None = None) -> Shape:
    """The largest pass the recipe allows: both budgets full, one row as long as a sample may be.

    frame_patches: patches of one picture where they are known to be fewer than the budget allows
    """
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
    )


# What autograd keeps


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How a module takes part in a step: its weights learn, adapters do, or gradients pass only."""

    learns: bool
    adapter: Adapter | None
    machine: Machine

    def inputs(self, width: int, linears: int, *, cast: bool) -> float:
        """Bytes per token kept of what `linears` layers read, all of them the same tensor.

        cast: it is float32 and a bfloat16 run converts it, anew for each layer
        """
        size = self.machine.compute_bytes
        copies = linears if cast and size == 2 else 1
        kept = width * size * copies if self.learns else 0
        if self.adapter is None:
            return kept
        rank = linears * self.adapter.rank * size
        if not self.adapter.dropout:
            return kept + width * size * copies + rank
        # Each adapter drops other values. A CPU keeps the factors as float32, a GPU a byte each.
        mask = 1 if self.machine.device == "cuda" else 4
        return kept + linears * width * (mask + size) + rank

    def outputs(self, width: int) -> float:
        """Bytes per token kept of what linear layers give: DoRA scales two parts of it."""
        is_dora = self.adapter is not None and self.adapter.kind == "dora"
        return 2 * width * self.machine.compute_bytes if is_dora else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Bytes per token (or patch) of one block.

    attention, mlp: kept for the backward pass; passing: what that pass needs besides
    """

    attention: float
    mlp: float
    passing: float

    @property
    def kept(self) -> float:
        return self.attention + self.mlp


def vision_block(config, how: How, frame: int) -> Block:
    """One block of the vision encoder, per patch."""
    D, inner, size = config.hidden_size, config.intermediate_size, how.machine.compute_bytes
    heads = config.num_attention_heads
    norm = 4 * D + 8  # input, mean and deviation
    attention = (
        norm
        + how.inputs(D, 3, cast=True)
        + how.outputs(3 * D)
        + 3 * D * size  # q, k, v
        + attended(heads, frame, D, how)
        + how.outputs(D)
    )
    mlp = (
        norm
        + how.inputs(D, 1, cast=True)
        + how.outputs(inner)
        + inner * size  # what enters GELU
        + how.inputs(inner, 1, cast=False)
        + how.outputs(D)
    )
    return Block(
        attention=attention, mlp=mlp, passing=passing(heads, frame, D, inner, mlp, how.machine)
    )


def language_layer(found: Widths, heads: int, how: How, row: int) -> Block:
    """One layer of the language model, per token."""
    E, inner, size = found.hidden, found.inner, how.machine.compute_bytes
    width, narrow, gates = found.queries, found.keys, found.gates
    norm = 4 * E + (4 * E if how.learns else 0)  # input; before its scale, where that learns
    attention = (
        norm
        + how.inputs(E, 3, cast=True)
        + how.outputs(width + 2 * narrow)
        + 3 * width * size  # q, and k and v repeated for every query head
        + attended(heads, row, width, how)
        + how.outputs(E)
    )
    mlp = (
        norm
        + how.inputs(E, gates, cast=True)
        + how.outputs(gates * inner)
        + (2 * gates - 1) * inner * size  # gate before and after its activation, and up
        + how.inputs(inner, 1, cast=False)
        + how.outputs(E)
    )
    return Block(
        attention=attention, mlp=mlp, passing=passing(heads, row, E, inner, mlp, how.machine)
    )


def attended(heads: int, island: int, width: int, how: How) -> float:
    """Kept of the attention weights and of what they gather, which the output layer reads.

    Open weights are float32, with a bfloat16 copy in such a run. The fused kernel keeps its result,
    the very tensor that the output layer reads.
    """
    size = how.machine.compute_bytes
    read = how.inputs(width, 1, cast=False)
    if how.machine.eager:
        return heads * island * (4 if size == 4 else 6) + read
    return max(width * size, read)


def passing(heads: int, island: int, width: int, inner: int, mlp: float, machine: Machine) -> float:
    """Needed by the backward pass of one block besides what is kept.

    Either in the MLP: gradients of two factors and of their product; or, where attention weights
    are open, in the softmax: gradients of its result and of its input. By then the MLP is done and
    what it kept is free again.
    """
    size = machine.compute_bytes
    in_mlp = (3 * inner + 2 * width) * size
    in_softmax = 2 * heads * island * 4 + 4 * width * size - mlp if machine.eager else 0
    return max(in_mlp, in_softmax)


def gradient_flow(recipe: Recipe) -> dict[str, bool]:
    """Whether gradients are recorded in a module: it learns, or one before it does."""
    flows, before = {}, False
    for name in MODULES:
        adapted = recipe.adapter is not None and name in recipe.adapter.on
        before = before or bool(getattr(recipe.rates, name)) or adapted
        flows[name] = before
    return flows


def how_of(recipe: Recipe, name: str, machine: Machine) -> How:
    adapted = recipe.adapter is not None and name in recipe.adapter.on
    return How(
        learns=bool(getattr(recipe.rates, name)),
        adapter=recipe.adapter if adapted else None,
        machine=machine,
    )


# The table


def memory(recipe: Recipe, config: VL3Config, shape: Shape, machine: Machine) -> dict[str, float]:
    """Bytes of the fullest moment of a step by cause; their sum is the predicted peak.

    Weights, gradients, optimizer and kept activations stay; of the passing needs (the loss, the
    backward pass of a language layer, that of a vision block) the largest counts.
    """
    rows = module_rows(recipe, config, machine)
    trainable = sum(row.trainable for row in rows)
    vision, language, vision_work, language_work = _activations(recipe, config, shape, machine)
    text = config.text_config
    chunk = min(CHUNK_TOKENS, shape.learned)
    table = text.vocab_size * text.hidden_size * 4 if recipe.rates.language else 0
    # Normalised logits and two gradients of them, or one and the gradient of the output table.
    loss = max(3 * 4 * chunk * text.vocab_size, 4 * chunk * text.vocab_size + table)
    connector = _connector(recipe, config, shape, machine)
    mask = shape.tokens * shape.row * (machine.compute_bytes + 3)  # and the yes/no tables behind it
    pixels = 2 * shape.patches * config.vision_config.patch_values  # this pass and the next
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
    steady = found["weights"] + found["gradients"] + found["optimizer"]
    at_language = vision + connector + language + mask
    passing = {
        "loss of a slice": at_language + loss,
        "language backward": at_language + language_work,
        "vision backward": vision + vision_work,
        "optimizer step": _step_bytes(recipe, config, machine),
    }
    fullest = max(passing, key=lambda stage: passing[stage])
    found[fullest] = max(0.0, passing[fullest] - at_language)
    if fullest == "optimizer step":
        for name in list(found):
            if name.endswith(("activations", "mask")):
                found[name] = 0.0
        found[fullest] = passing[fullest]
    assert sum(found.values()) >= steady
    return found


def _activations(recipe, config, shape, machine) -> tuple[float, float, float, float]:
    """Kept by the vision encoder and by the language model, and the passing needs of each."""
    vision, text = config.vision_config, config.text_config
    D, E = vision.hidden_size, text.hidden_size
    how = how_of(recipe, "vision", machine)
    block = vision_block(vision, how, shape.frame)
    stream = D * (4 if how.learns else machine.compute_bytes)
    kept, passing = _through(
        vision.num_hidden_layers, block, stream, "vision" in recipe.checkpointing
    )
    # The pixels where the patch embedding learns, the last norm, the merged features.
    kept += vision.patch_values * machine.compute_bytes * how.learns + 4 * D + stream / 4
    see, see_passing = shape.patches * kept, shape.patches * passing
    if not gradient_flow(recipe)["vision"]:
        # A frozen encoder keeps nothing and takes a piece of the clip at a time; one block at a
        # time holds its widest tensors.
        piece = min(shape.patches, max(CHUNK_PATCHES[machine.device], shape.frame))
        inner, heads = vision.intermediate_size, vision.num_attention_heads
        open_weights = 2 * 4 * heads * shape.frame if machine.eager else 0
        widest = max(2 * inner, 4 * D) * machine.compute_bytes + open_weights
        see, see_passing = stream * shape.visual, piece * (2 * stream + widest)
    how = how_of(recipe, "language", machine)
    layer = language_layer(widths(config), text.num_attention_heads, how, shape.row)
    stream = E * (4 if how.learns else machine.compute_bytes)
    kept, passing = _through(
        text.num_hidden_layers, layer, stream, "language" in recipe.checkpointing
    )
    kept += 2 * 4 * E + stream  # the last norm, and the states that the loss reads
    return see, shape.tokens * kept, see_passing, shape.tokens * passing


def _through(layers: int, block: Block, stream: float, checkpointed: bool) -> tuple[float, float]:
    """Kept over all blocks and needed in passing, per token.

    A checkpointed block keeps its input; the whole block comes back while its gradients are made.
    """
    if checkpointed:
        return layers * stream, block.kept + block.passing
    return layers * block.kept, block.passing


def _connector(recipe, config, shape, machine) -> float:
    how, size = how_of(recipe, "connector", machine), machine.compute_bytes
    D, E = config.vision_config.hidden_size, config.text_config.hidden_size
    if not gradient_flow(recipe)["connector"]:
        return shape.visual * E * size
    depth = max(1, sum(layer.times for layer in parts(config)["connector"].linears))
    kept = how.inputs(D, 1, cast=True) + (depth - 1) * (E * size + how.inputs(E, 1, cast=False))
    return shape.visual * (kept + E * 4)


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
        part.tables or max(x.ins * x.outs for x in part.linears) for part in parts(config).values()
    )
    if recipe.optim.kind == "muon":
        stacks = [x.weights for part in parts(config).values() for x in part.linears]
        return 4.0 * (4 * min(max(stacks), matrices) + 2 * min(largest, rest))
    return 4.0 * (
        matrices + rest if machine.device == "cuda" else 2 * min(largest, matrices + rest)
    )
