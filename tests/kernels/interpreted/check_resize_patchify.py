"""Resizing fused: PIL's bits at every size, as frames and as patches in block order."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from vl3.kernels.resize_patchify import fused, resize, resize_patchify

from vl3.values import Grid
from vl3.vision import patchify

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# frames, height, width, and height and width after: larger, smaller by no whole number, one side
# unchanged, both, sides of a pixel, several programs a side, higher than a hundred times the width,
# no frames
SIZES = [
    ((2, 5, 7), (12, 18)),
    ((3, 23, 31), (9, 14)),
    ((2, 9, 12), (9, 30)),
    ((2, 25, 6), (14, 6)),
    ((2, 4, 6), (4, 6)),
    ((1, 1, 1), (3, 4)),
    ((2, 7, 5), (1, 1)),
    ((1, 1, 40), (20, 1)),
    ((1, 30, 50), (21, 45)),
    ((1, 203, 2), (180, 5)),
    ((0, 4, 4), (2, 2)),
]
# rows, cols, patch, merge of 2 frames
GRIDS = [(2, 4, 3, 2), (3, 3, 4, 3), (3, 2, 5, 1), (1, 1, 14, 1), (4, 2, 1, 2)]


def pixels(shape, seed=0) -> torch.Tensor:
    """Noise; half of it black and white, where the filter overshoots and is clipped."""
    noise = torch.Generator().manual_seed(seed)
    frames_TYX3 = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=noise)
    frames_TYX3[..., shape[2] // 2 :, :] = (frames_TYX3[..., shape[2] // 2 :, :] > 127) * 255
    return frames_TYX3


def assert_equal(expected, found):
    assert found.dtype == torch.uint8
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_frames_have_the_bits_of_pil(shape, size):
    frames_TYX3 = pixels(shape)
    expected = [
        np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BICUBIC))
        for frame in frames_TYX3.numpy()
    ]
    expected = torch.tensor(np.array(expected).reshape(shape[0], *size, 3))
    assert_equal(expected, resize(frames_TYX3, size))
    assert_equal(expected, resize(frames_TYX3.to(DEVICE), size, fused=True))


@pytest.mark.parametrize("grid", GRIDS)
def test_patches_are_those_of_the_resized_frames(grid):
    rows, cols, patch, merge = grid
    frames_TYX3 = pixels((2, 17, 11))
    expected = resize_patchify(frames_TYX3, *grid)
    assert_equal(expected, resize_patchify(frames_TYX3.to(DEVICE), *grid, fused=True))
    resized = resize(frames_TYX3, (rows * patch, cols * patch))
    assert_equal(patchify(resized, Grid(frames=2, rows=rows, cols=cols, merge=merge)), expected)


def test_frames_in_another_memory_order():
    turned = pixels((2, 9, 6)).transpose(1, 2).flip(1)[:, :, ::2]
    assert not turned.is_contiguous()
    assert_equal(resize(turned, (4, 8)), resize(turned.to(DEVICE), (4, 8), fused=True))


def test_weights_of_many_sizes():
    """Without a launch, for it takes long: a line of black and white levels, added up in torch."""
    chosen = random.Random(0)
    for _ in range(120):
        before, after = (chosen.randint(1, chosen.choice((9, 1000))) for _ in "ab")
        line = pixels((1, 1, before), seed=before)
        first_O, weight_KO = fused._weights(before, after, torch.device("cpu"))
        read_KO = first_O + torch.arange(len(weight_KO))[:, None]
        terms_KO3 = line[0, 0][read_KO].long() * weight_KO[..., None]
        assert terms_KO3.abs().sum(0).max() < 2**31 - 2**21, "whatever the order, it fits int32"
        levels = ((terms_KO3.sum(0) + 2**21) >> 22).clamp(0, 255)
        assert_equal(resize(line, (1, after))[0, 0], levels.to(torch.uint8))


def test_one_level_and_one_weight_are_seen(monkeypatch):
    frames_TYX3 = pixels((1, 8, 9))
    expected = resize(frames_TYX3, (8, 5))
    changed = frames_TYX3.clone()
    changed[0, 3, 1, 1] ^= 8  # not among the black and white ones
    with pytest.raises(AssertionError):
        assert_equal(expected, resize(changed.to(DEVICE), (8, 5), fused=True))
    weights = fused._weights

    def rounded(before, after, device):
        first_O, weight_KO = weights(before, after, device)
        return first_O, weight_KO >> 12 << 12  # ten bits behind the point in place of 22

    monkeypatch.setattr(fused, "_weights", rounded)
    with pytest.raises(AssertionError):
        assert_equal(expected, resize(frames_TYX3.to(DEVICE), (8, 5), fused=True))
