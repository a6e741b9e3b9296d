"""The memory that answering takes, and what fits a device; nothing is loaded.

Counted is the fullest moment of one answer about one video: weights, what stays (frames, features
of all visual tokens and of sound, keys and values) and what one piece of the clip, of its sound or
of the prompt needs while it is computed. The framework itself and a GPU's driver come on top.
vl3.training.memory counts what training takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import psutil
import torch

from vl3.arguments import choice
from vl3.audio.ear import ear_class
from vl3.config import VL3Config
from vl3.connectors import connector_class
from vl3.families import read_settings
from vl3.families.settings import SOUND_TOKENS, ProcessorSettings
from vl3.families.videollama2 import MAX_FRAMES
from vl3.inference.generation import PREFILL_TOKENS
from vl3.language.kv_cache import capacity_for
from vl3.units import format_bytes as gb
from vl3.units import parse_memory
from vl3.values import Grid
from vl3.vision import fit_grid
from vl3.vision.towers import is_tower, side
from vl3.visual_inputs import CHUNK_PATCHES
from vl3.weights.hub import resolve
from vl3.weights.load import count_parameters, pick_device
from vl3.weights.number_format import LARGE, pick_dtype
from vl3.weights.quantize.bnb import KINDS as QUANTIZED
from vl3.weights.quantize.int8_rows import SLICE_WEIGHTS
from vl3.weights.sizes import NF4_BYTES, parts, sizes_of, widths

# Real sizes take minutes on a CPU; squares of one size have few patches.
SMALL_PLAN: Any = {"max_frames": 8, "budget_tokens": 2048}
USABLE = 0.92  # of a GPU's memory: its driver and fragments take the rest
AT_ONCE = 4  # answers: with more each takes longer, and none of them ends sooner
TEXT_TOKENS = 1024  # of a question and its answer
# From the most exact to the smallest. int8 is not among them: its products are slow.
KINDS = (None, "nf4", "nf4+int8")
FEWEST_TOKENS = 1024  # visual tokens below which no video is worth asking about
TYPICAL = (180, 720, 1280)  # frames, height, width of a long video
MERGE = 2  # patches a side of the cells of a video
MIXING_TENSORS = 4  # of the width of a cell that a connector of neighbours holds at its fullest
PACKED_SCALE = 2 / 64  # bytes a weight that the 4-bit product of a CPU holds besides


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes at the fullest moment of an answer.

    weights: as loaded; kept: frames, features, prompt, keys and values; passing: what one piece
    needs while it is computed
    """

    weights: float
    kept: float
    passing: float

    @property
    def total(self) -> float:
        return self.weights + self.kept + self.passing


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """What a device can hold: the quantization, the visual tokens of a video, what they take.

    spare_bytes: what is left, for videos that were encoded before
    """

    quantize: str | None
    budget_tokens: int
    need: MemoryEstimate
    spare_bytes: float

    def __str__(self) -> str:
        kind = self.quantize or "not quantized"
        return f"{kind}, up to {self.budget_tokens:,} visual tokens, about {gb(self.need.total)}"


def need(
    config: VL3Config,
    *,
    quantize: str | None,
    device: str,
    itemsize: int,
    tokens: int,
    sound_tokens: int = SOUND_TOKENS,
) -> MemoryEstimate:
    """What one answer about a video of `tokens` merged cells takes, none of them pruned.

    device: "cpu", "cuda" or "mps"; itemsize: bytes of a number in the arithmetic, 4 or 2
    sound_tokens: of its track, beside those, for a model with an ear
    """
    vision, text = config.vision_config, widths(config)
    D, E = vision.hidden_size, text.hidden
    mixes, slots = connector_class(config.connector).mixes, visual_slots(config, tokens)
    heard, hearing = _hearing(config, device, itemsize, sound_tokens)
    slots += heard
    length = slots + TEXT_TOKENS
    # merged 2 x 2, as videos are; a tower of fixed size gives a cell for each
    patches = tokens * (1 if is_tower(config.vision_config) else MERGE**2)
    # Frames stay, and are cut into patches, in the computer's memory.
    pixels = patches * 3 * vision.patch_size**2 if device == "cpu" else 0
    features = tokens * D * itemsize + heard * _ear_width(config) * itemsize
    keys_values = capacity_for(length) * text.keys_values * itemsize

    piece = min(patches, CHUNK_PATCHES[device])
    seeing = (
        piece
        * itemsize
        * max(
            2 * vision.intermediate_size + 3 * D,  # an MLP before and after its activation
            8 * D,  # attention: input, q, k, v, what is rotated, the result
        )
        + features
        + pixels
    )  # all pieces are put together
    splicing = (3 * length + 2 * slots) * E * itemsize  # text, slots filled, connector
    if mixes:  # on all cells at once: what it reads, padded, and what it makes of them
        splicing += MIXING_TENSORS * tokens * max(D, E) * itemsize
    piece = min(length, PREFILL_TOKENS[device])
    reading = length * E * itemsize + max(
        piece * itemsize * ((1 + text.gates) * text.inner + 3 * E),
        2 * length * text.queries * itemsize  # keys and values repeated for every head
        + piece * (length * (1 + itemsize) + 4 * E * itemsize),  # mask
    )
    unpacked = _unpacked(config, quantize, device, itemsize)
    return MemoryEstimate(
        weights=weight_bytes(config, quantize, itemsize, device),
        kept=pixels + features + keys_values,
        passing=max(
            seeing - keys_values, hearing - keys_values, splicing - keys_values, reading + unpacked
        ),
    )


def _hearing(config: VL3Config, device: str, itemsize: int, sound_tokens: int) -> tuple[int, float]:
    """Tokens of sound, and bytes that a piece of it needs besides what stays; 0 without an ear."""
    if config.audio_config is None or not sound_tokens:
        return 0, 0.0
    ear = ear_class(config.audio_config)
    features = sound_tokens * _ear_width(config) * itemsize  # all pieces are put together
    return sound_tokens, ear.working_bytes(config.audio_config, itemsize, device) + features


def _ear_width(config: VL3Config) -> int:
    return getattr(config.audio_config, "width", 0)


def visual_slots(config: VL3Config, tokens: int) -> int:
    """The visual tokens that the language model reads of a long video of so many merged cells.

    Where a connector joins cells, as many as it makes of TYPICAL under that budget, or of as many
    squares of a tower.
    """
    if is_tower(config.vision_config):
        places = side(config.vision_config)
        frames = max(2, ceil(tokens / places**2))
        grid = Grid(frames=frames, rows=places, cols=places, merge=1)
    else:
        (grid,) = fit_grid([TYPICAL], [MERGE], tokens)
    made = connector_class(config.connector).token_grid(grid)
    return ceil(tokens * made.num_tokens / grid.num_tokens)


def usual_budget(config: VL3Config, small: Mapping | None = None) -> int:
    """Merged cells of a video that a model of these sizes is given where nobody says.

    small: max_frames and budget_tokens in place of the usual ones
    """
    if not is_tower(config.vision_config):
        return small["budget_tokens"] if small else ProcessorSettings().budget_tokens
    frames = small["max_frames"] if small else MAX_FRAMES
    return frames * side(config.vision_config) ** 2


def weight_bytes(
    config: VL3Config, quantize: str | None, itemsize: int, device: str = "cuda"
) -> float:
    """Bytes of a model's weights as vl3.load leaves them."""
    found = parts(config)
    language = sum(layer.weights for layer in found["language"].linears)
    rest = [layer for name in found if name != "language" for layer in found[name].linears]
    tables = sum(part.tables for part in found.values())
    rest_weights = sum(layer.weights for layer in rest) + tables
    others = sum(part.parameters for part in found.values()) - language - rest_weights
    each: float = itemsize
    each_rest = itemsize
    if quantize == "int8":
        each = 1
    elif quantize:
        each = NF4_BYTES + (PACKED_SCALE if device == "cpu" else 0)
        each_rest = 1 if quantize == "nf4+int8" else itemsize
    return language * each + rest_weights * each_rest + others * itemsize


def _unpacked(config: VL3Config, quantize: str | None, device: str, itemsize: int) -> float:
    """The largest weight that is brought back to the format of the arithmetic for a product.

    A head in 8 bits is, but on a CPU, where it is multiplied as it is.
    """
    if not quantize:
        return 0
    largest = max(layer.ins * layer.outs for layer in parts(config)["language"].linears)
    if quantize == "nf4+int8" and device != "cpu":
        text = config.text_config
        largest = max(largest, min(SLICE_WEIGHTS, text.vocab_size * text.hidden_size))
    return itemsize * largest


def fit(
    config: VL3Config,
    *,
    device: str,
    itemsize: int,
    budget_tokens: int,
    limit_bytes: float,
    kinds: Sequence[str | None] = KINDS,
    sound_tokens: int = SOUND_TOKENS,
) -> MemoryPlan:
    """What fits: all visual tokens, by the first of the kinds that will do, or else half as many.

    sound_tokens: as of need

    Raises: ValueError that says what the least would be.
    """
    tokens = budget_tokens
    while True:
        for kind in kinds:
            wanted = need(
                config,
                quantize=kind,
                device=device,
                itemsize=itemsize,
                tokens=tokens,
                sound_tokens=sound_tokens,
            )
            spare = limit_bytes - wanted.total
            found = MemoryPlan(quantize=kind, budget_tokens=tokens, need=wanted, spare_bytes=spare)
            if spare >= 0:
                return found
        if tokens // 2 < FEWEST_TOKENS:
            raise ValueError(
                f"{gb(limit_bytes)} are not enough for this model: the least is {found}; "
                "choose a smaller model or give it more memory"
            )
        tokens //= 2


def sound_budget(model: str | Path | None, config: VL3Config) -> int:
    """Tokens of sound that a prompt for a model of that name, and of these sizes, may have.

    Nothing is asked of a hub. Raises: vl3.families.layouts.LayoutError.
    """
    if config.audio_config is None:
        return 0
    folder = resolve(model, offline=True)
    sound = read_settings(folder, patch=config.vision_config.patch_size).sound
    return sound.most_tokens if sound else SOUND_TOKENS


def answers_at_once(plan: MemoryPlan, device: torch.device) -> int:
    """How many answers have room beside the loaded weights, 1 to AT_ONCE.

    Each has features and a key/value cache of its own; they compute by turns. In the memory that
    the model was given; in what is free now where it was given no bound.
    """
    spare = plan.spare_bytes
    if spare == float("inf"):
        spare = usable_bytes("auto", device) - plan.need.passing - plan.need.kept
    return min(AT_ONCE, 1 + max(0, int(spare // plan.need.kept)))


def usable_bytes(memory: str, device: torch.device) -> float:
    """Bytes that a model may take: of a size like 8GB, or "auto" for what the device has free.

    Raises: ValueError for what is no size.
    """
    share = 1 if device.type == "cpu" else USABLE
    if not isinstance(memory, str) or memory != "auto":
        return share * parse_memory(memory)
    if device.type == "cuda":
        return share * torch.cuda.mem_get_info(device)[0]
    return share * psutil.virtual_memory().available


def estimate(
    model=None, *, device="auto", dtype="auto", quantize=None, memory: str | None = None
) -> MemoryPlan:
    """What load would choose for this memory, and what an answer about a long video would take.

    Nothing is loaded and no hub is asked.
    Raises: vl3.families.layouts.LayoutError where the model's sizes are not known here, ValueError
    where it cannot be made to fit.
    """
    if quantize is not None:
        choice("quantize", quantize, QUANTIZED)
    config, target = sizes_of(model), pick_device(device)
    parameters = count_parameters(config)
    small = SMALL_PLAN if target.type == "cpu" and parameters >= LARGE else None
    return fit(
        config,
        device=target.type,
        itemsize=pick_dtype(dtype, target, parameters, quantize).itemsize,
        budget_tokens=usual_budget(config, small),
        limit_bytes=usable_bytes(memory, target) if memory is not None else float("inf"),
        kinds=(quantize,) if quantize or memory is None else KINDS,
        sound_tokens=sound_budget(model, config),
    )
