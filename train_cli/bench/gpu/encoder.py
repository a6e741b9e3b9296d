"""The released encoder with random weights on the device, beside transformers' own.

Random models for the other steps are made here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from train_cli.bench.gpu.record import Check, Row, Speed
from train_cli.bench.gpu.steps import Place
from train_cli.bench.gpu.timing import Ceilings, ceilings, timed_s
from vl3.config import VL3Config, nano, videollama3_2b
from vl3.families.native import NATIVE
from vl3.model import VL3ForConditionalGeneration
from vl3.values import Grid

FRAMES, ROWS, COLS = 180, 14, 24  # 640 x 360 under the whole budget: 15,120 tokens
TINY_GRID = (4, 4, 6)
BF16_ERROR, FP32_ERROR = 2e-2, 1e-5  # relative, of two orders of summation
WIDE_STD = 0.05  # of random weights: with 0.02 logits are so near that roundings decide


@contextmanager
def fresh_on(device: str, dtype: torch.dtype) -> Iterator[None]:
    """Within it modules are made on the device and in the format, weights drawn where they stay."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def random_model(config: VL3Config, place: Place) -> VL3ForConditionalGeneration:
    """A model of random weights on the device, bfloat16 but on a CPU."""
    config.text_config.initializer_range = WIDE_STD
    torch.manual_seed(0)
    with fresh_on(place.device, working_format(place)):
        return VL3ForConditionalGeneration(config).eval().requires_grad_(False)


def working_format(place: Place) -> torch.dtype:
    return torch.float32 if place.device == "cpu" else torch.bfloat16


def tiny_config() -> VL3Config:
    """nano's sizes with as many words as the random prompts of train_cli.bench.stages name."""
    return nano(vocab_size=4096, image_token_id=0)


@torch.no_grad()
def encoder(place: Place) -> Iterator[Row]:
    """Patches to features: ours, and transformers' own encoder with the same weights."""
    from transformers import AutoModel

    from vl3.families.parts import write_encoder

    config = tiny_config()
    if not place.tiny:
        config.vision_config = videollama3_2b().vision_config
    model = random_model(config, place)
    vision = {**write_encoder(config.vision_config), "model_type": "video_llama_3_vision"}
    kind = model.dtype
    with fresh_on(place.device, kind):
        stock = AutoModel.from_config(_config_of(vision), dtype=kind).eval()
    prefix = "model.vision_model."
    weights = {
        NATIVE.there(name).removeprefix(prefix): weight
        for name, weight in model.state_dict().items()
        if name.startswith("vision.")
    }
    stock.load_state_dict(weights, assign=True)
    frames, rows, cols = TINY_GRID if place.tiny else (FRAMES, ROWS, COLS)
    grid = Grid(frames=frames, rows=rows, cols=cols, merge=2)
    noise = torch.Generator().manual_seed(0)
    home = torch.randint(0, 256, (grid.num_patches, 588), generator=noise, dtype=torch.uint8)
    pixels, size = home.to(place.device), [frames, rows, cols]
    thw, merges = (torch.tensor(each, device=place.device) for each in ([size], [2]))

    def theirs() -> torch.Tensor:
        floats = (pixels.float() / 255 - 0.5) / 0.5
        return stock(floats, thw, merges).last_hidden_state

    tops = ceilings(place.device, place.tiny)
    yield from tops.rows()
    work = f"{frames} frames of {rows} x {cols} patches"
    error = _relative(model.encode_vision(pixels, [size], [2]), theirs())
    most = BF16_ERROR if kind == torch.bfloat16 else FP32_ERROR
    yield Check(work=work, ok=error <= most, said=f"features differ by {error:.0e}")
    sides = {
        "ours": lambda: model.encode_vision(pixels, [size], [2]),
        "ours, patches in the computer's memory": lambda: model.encode_vision(home, [size], [2]),
        "transformers, SDPA": theirs,
    }
    yield from beside(work, sides, place, encoder_flops(config.vision_config, grid), tops)


def _config_of(values: dict) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(values.pop("model_type"), **values)


def encoder_flops(config, grid: Grid) -> float:
    """Multiplications and additions of the encoder's products and of its attention in a frame."""
    width, inner = config.hidden_size, config.intermediate_size
    layer = 2 * (4 * width**2 + 2 * width * inner) + 4 * grid.patches_per_frame * width
    embedding = 2 * 3 * config.patch_size**2 * width
    return grid.num_patches * (config.num_hidden_layers * layer + embedding)


def beside(
    work: str,
    sides: dict[str, Callable[[], object]],
    place: Place,
    flops: float,
    tops: Ceilings,
) -> Iterator[Speed]:
    """A row for each side, with the share of the ceiling of products that it reaches."""
    first = None
    for side, call in sides.items():
        s = timed_s(call, place.device, *((1, 0) if place.tiny else ()))
        first = first or s[1]
        yield Speed(work=work, side=side, s=s, ratio=s[1] / first, share=flops / s[1] / tops.flops)


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())
