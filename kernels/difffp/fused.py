"""DiffFP in one pass over the pixels: change, mask and counts from one read of every frame.

Has run under Triton's interpreter only, never on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .reference import IMAGENET_STD, LEVELS_PER_UNIT, Mode

# Frames that one program walks through. It reads the frame before its first one again, so eight
# cost an eighth more reading and give eight times fewer, longer programs than one would.
FRAMES = 8


def difffp(
    cells_TMP: torch.Tensor, patch_values: int, threshold: float, mode: Mode
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See reference.difffp: same shapes, for uint8 the same bits.

    Floats are added up in another order than torch's, in float32: the change is equal within
    rounding, the mask wherever the change is not that close to the threshold.
    """
    frames, tokens, values = cells_TMP.shape
    cells_TMP, device = cells_TMP.contiguous(), cells_TMP.device
    change_TM = torch.empty(frames, tokens, dtype=torch.float32, device=device)
    changed_TM = torch.empty(frames, tokens, dtype=torch.bool, device=device)
    count_T = torch.zeros(frames, dtype=torch.int32, device=device)
    if not change_TM.numel():
        return change_TM, changed_TM, count_T
    levels = cells_TMP.dtype == torch.uint8
    if mode == "rlt":
        scale = 1 / 255 if levels else LEVELS_PER_UNIT / 255
    else:
        scale = 255 / LEVELS_PER_UNIT if levels else 255.0
    # Only last_kept needs what happened in all frames before.
    steps = frames if mode == "last_kept" else min(frames, FRAMES)
    block = triton.next_power_of_2(values)
    with torch.cuda.device_of(cells_TMP):  # a launch goes to the current device otherwise
        _difffp[tokens, triton.cdiv(frames, steps)](
            cells_TMP,
            change_TM,
            changed_TM.view(torch.uint8),
            count_T,
            frames,
            tokens,
            values,
            patch_values,
            float(threshold),
            scale,
            float(values),
            *IMAGENET_STD,
            STEPS=steps,
            LEVELS=levels,
            BY_CHANNEL=mode == "rlt",
            AGAINST_KEPT=mode == "last_kept",
            BLOCK=block,
            num_warps=4 if block <= 2048 else 8,
        )
    return change_TM, changed_TM, count_T


@triton.jit
def _difffp(
    cells_TMP,
    change_TM,
    changed_TM,
    count_T,
    frames,
    tokens,
    values,
    patch_values,
    threshold,
    scale,
    divisor,
    red,
    green,
    blue,
    STEPS: tl.constexpr,
    LEVELS: tl.constexpr,
    BY_CHANNEL: tl.constexpr,
    AGAINST_KEPT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One token in STEPS frames. The cell it is compared with stays in registers."""
    token = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * STEPS
    p = tl.arange(0, BLOCK)
    inside = p < values
    channel = (p % patch_values) // (patch_values // 3)
    # Masked loads give 0 on both sides, so what lies outside of the cell never differs.
    before = tl.load(
        cells_TMP + (tl.maximum(first - 1, 0) * tokens + token) * values + p, inside, 0
    ).to(tl.int32 if LEVELS else tl.float32)
    for t in range(first, tl.minimum(first + STEPS, frames)):
        place = t * tokens + token
        now = tl.load(cells_TMP + place * values + p, inside, 0).to(before.dtype)
        difference = tl.abs(now - before)
        if BY_CHANNEL:
            red_sum = tl.sum(tl.where(channel == 0, difference, 0)).to(tl.float32)
            green_sum = tl.sum(tl.where(channel == 1, difference, 0)).to(tl.float32)
            blue_sum = tl.sum(tl.where(channel == 2, difference, 0)).to(tl.float32)
            # div_rn everywhere: a plain division may be off by two units in the last place.
            total = tl.div_rn(red_sum, red) + tl.div_rn(green_sum, green)
            total += tl.div_rn(blue_sum, blue)
        else:
            total = tl.sum(difference).to(tl.float32)
        change = tl.div_rn(total * scale, divisor)
        change = tl.where(t == 0, float("inf"), change)
        kept = change > threshold
        tl.store(change_TM + place, change)
        tl.store(changed_TM + place, kept.to(tl.uint8))
        tl.atomic_add(count_T + t, kept.to(tl.int32))
        before = tl.where(kept, now, before) if AGAINST_KEPT else now
