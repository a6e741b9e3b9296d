"""What DiffFP measures, in plain torch. This is the definition; fused.py must agree with it.

Three ways to measure the change of a token, a merged cell of merge x merge patches:

    official    255 * mean |difference| of pixels normalised to [-1, 1], against the previous frame
    rlt         mean |difference| of ImageNet-normalised pixels, against the previous frame
    last_kept   as official, but against the last version of the cell that changed enough

Pixels as uint8 levels are added up as integers, so every order of adding gives the same bits.
"""

from __future__ import annotations

from typing import Literal

import torch

Mode = Literal["official", "rlt", "last_kept"]

IMAGENET_STD = (0.229, 0.224, 0.225)
LEVELS_PER_UNIT = 127.5  # pixels normalised to [-1, 1] with mean = std = 0.5


def difffp(
    cells_TMP: torch.Tensor, patch_values: int, threshold: float, mode: Mode
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Change of every token, whether it exceeds the threshold, and how many of each frame do.

    Shapes: cells_TMP - frames of merged cells in block order, uint8 levels or normalised floats;
                        P is a multiple of patch_values, the values of one patch
            returns change_TM float32, infinity in the first frame; changed_TM bool; count_T int32
    """
    if mode == "official" and cells_TMP.dtype == torch.uint8:
        change_TM = _level_changes(cells_TMP)
    else:
        change_TM = torch.full(cells_TMP.shape[:2], torch.inf, device=cells_TMP.device)
        against_MP = cells_TMP[:1].squeeze(0)  # the first frame, if there is any
        for index in range(1, len(cells_TMP)):
            frame_MP = cells_TMP[index]
            change_TM[index] = change(against_MP, frame_MP, patch_values, mode)
            if mode == "last_kept":
                kept = change_TM[index, :, None] > threshold
                against_MP = torch.where(kept, frame_MP, against_MP)
            else:
                against_MP = frame_MP
    changed_TM = change_TM > threshold
    return change_TM, changed_TM, changed_TM.sum(dim=1, dtype=torch.int32)


def change(
    reference_MP: torch.Tensor, current_MP: torch.Tensor, patch_values: int, mode: Mode
) -> torch.Tensor:
    """Distance of every token between two versions of a frame, in the unit of the mode.

    Shapes: reference_MP, current_MP - merged cells in block order, uint8 levels or normalised
            returns change_M - float32
    """
    difference = _absolute(reference_MP, current_MP)
    if mode == "rlt":
        tokens, values = difference.shape
        by_channel = difference.view(tokens, values // patch_values, 3, patch_values // 3)
        return _in_deviations(by_channel, values)
    if difference.dtype == torch.uint8:
        total = difference.sum(dim=-1, dtype=torch.int32)
        return _in_levels(total, difference.shape[-1])
    return (difference.mean(dim=-1) * 255).float()


def _absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.dtype == torch.uint8:  # unsigned numbers wrap around when subtracted the wrong way
        return torch.maximum(a, b) - torch.minimum(a, b)
    return (a - b).abs()


def _level_changes(cells_TMP: torch.Tensor) -> torch.Tensor:
    """Official distance of every cell of uint8 levels to the frame before: change_TM, float32."""
    if cells_TMP.device.type == "cpu" and cells_TMP.numel():
        totals_TM = _sums_on_cpu(cells_TMP)
    else:
        totals_TM = torch.zeros(cells_TMP.shape[:2], dtype=torch.int32, device=cells_TMP.device)
        for index in range(1, len(cells_TMP)):
            difference = _absolute(cells_TMP[index - 1], cells_TMP[index])
            torch.sum(difference, dim=-1, dtype=torch.int32, out=totals_TM[index])
    changes_TM = _in_levels(totals_TM, cells_TMP.shape[-1])
    changes_TM[:1] = torch.inf
    return changes_TM


AT_ONCE_BYTES = 1_600_000  # of frames: they stay in the processor's cache, and few calls are made


def _sums_on_cpu(cells_TMP: torch.Tensor) -> torch.Tensor:
    """Sums of |differences| of every cell to the frame before, [T, M] int32, 0 in the first.

    |a - b| = 2 max(a, b) - a - b, so one maximum and sums of bytes are enough. A product of int8
    with ones adds bytes many times as fast as torch.sum; levels less 128 fit into int8, and the
    128 cancel out.
    """
    frames, tokens, values = cells_TMP.shape
    step = max(1, min(frames - 1, AT_ONCE_BYTES // (tokens * values)))
    ones_P1 = torch.ones(values, 1, dtype=torch.int8)
    # The frame before, the frames of this step, and the larger of each and the one before it.
    room_FMP = torch.zeros(2 * step + 1, tokens, values, dtype=torch.int8)
    totals_TM = torch.zeros(frames, tokens, dtype=torch.int32)
    _less_128(cells_TMP[:1], room_FMP[:1])
    for start in range(1, frames, step):
        count = min(step, frames - start)
        before, now = room_FMP[:count], room_FMP[1 : count + 1]
        larger = room_FMP[step + 1 :][:count]
        _less_128(cells_TMP[start : start + count], now)
        torch.maximum(before, now, out=larger)
        sums_FM = torch._int_mm(room_FMP.view(-1, values), ones_P1).view(-1, tokens)
        own, of_larger = sums_FM[: count + 1], sums_FM[step + 1 :][:count]
        totals_TM[start : start + count] = 2 * of_larger - own[:-1] - own[1:]
        room_FMP[0] = room_FMP[count]
    return totals_TM


def _less_128(levels: torch.Tensor, out: torch.Tensor) -> None:
    """uint8 levels as int8, 128 less each: the uppermost bit turned over."""
    torch.bitwise_xor(levels, 128, out=out.view(torch.uint8))


def _in_levels(total: torch.Tensor, values: int) -> torch.Tensor:
    """Sums of differences of levels over so many values in the official unit."""
    return total.float() * (255 / LEVELS_PER_UNIT) / values


def _in_deviations(by_channel: torch.Tensor, values: int) -> torch.Tensor:
    """Differences [M, patches, 3, values of a channel] in standard deviations of ImageNet.

    Levels are added up as integers, channel by channel, and divided afterwards.
    """
    levels = by_channel.dtype == torch.uint8
    kind = torch.int32 if levels else torch.float32
    red_M, green_M, blue_M = by_channel.sum(dim=(1, 3), dtype=kind).float().unbind(-1)
    red, green, blue = IMAGENET_STD
    total_M = red_M / red + green_M / green + blue_M / blue
    return total_M * (1 / 255 if levels else LEVELS_PER_UNIT / 255) / values
