"""DiffFP fused: the same bits for levels, the same decisions for floats."""

import pytest
import torch
from vl3.kernels.difffp import difffp

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Near the change of a cell by two levels, the mean of what `cells` adds.
THRESHOLDS = {"official": 3.9, "rlt": 0.034, "last_kept": 4.0}
MODES = tuple(THRESHOLDS)
# frames, tokens, merge, patch: one frame, odd sizes, merge 1, more frames than a program walks
# through, nothing
SHAPES = [
    (1, 3, 1, 2),
    (5, 3, 2, 14),
    (9, 4, 2, 2),
    (17, 2, 1, 14),
    (2, 1, 3, 5),
    (0, 3, 1, 2),
    (3, 0, 1, 2),
]


def cells(frames, tokens, merge, patch) -> torch.Tensor:
    """uint8 cells that differ by a few levels, in two fifths of all places."""
    noise = torch.Generator().manual_seed(frames + tokens)
    size = (frames, tokens, merge**2 * 3 * patch**2)
    base = torch.randint(0, 256, (1, *size[1:]), generator=noise)
    shaky = torch.rand(frames, tokens, 1, generator=noise) > 0.6
    more = torch.randint(0, 5, size, generator=noise) * shaky
    return (base + more).clamp(0, 255).to(torch.uint8)


def both(cells_TMP, patch, threshold, mode):
    expected = difffp(cells_TMP, 3 * patch**2, threshold, mode)
    found = difffp(cells_TMP.to(DEVICE), 3 * patch**2, threshold, mode, fused=True)
    return expected, tuple(part.cpu() for part in found)


def assert_equal(expected, found):
    for here, there in zip(expected, found):
        assert here.dtype == there.dtype
        assert torch.equal(here, there)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_levels_give_the_same_bits(shape, mode):
    expected, found = both(cells(*shape), shape[3], THRESHOLDS[mode], mode)
    assert_equal(expected, found)
    if shape[0] > 4 and shape[1]:
        share = expected[1][1:].float().mean()
        assert 0 < share < 1, "both decisions occur"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_floats_agree_within_rounding(mode, kind):
    """float16 differences are rounded by torch one by one (2^-11), here not before the end."""
    for shape in SHAPES:
        pixels = ((cells(*shape).float() / 255 - 0.5) / 0.5).to(kind)
        expected, found = both(pixels, shape[3], THRESHOLDS[mode], mode)
        rounding = 1e-5 if kind is torch.float32 else 5e-3
        assert torch.allclose(expected[0], found[0], rtol=rounding)
        far = (expected[0] / THRESHOLDS[mode] - 1).abs() > rounding
        assert torch.equal(expected[1][far], found[1][far])
        assert torch.equal(found[2], found[1].sum(dim=1, dtype=torch.int32))


@pytest.mark.parametrize("mode", MODES)
def test_a_threshold_that_a_change_just_reaches_does_not_keep(mode):
    pixels = cells(4, 3, 2, 2)
    reached = both(pixels, 2, 0.0, mode)[0][0][2].max().item()
    assert_equal(*both(pixels, 2, reached, mode))
    assert_equal(*both(pixels, 2, float("inf"), mode))


def test_frames_in_another_memory_order():
    assert_equal(*both(cells(5, 3, 2, 2).flip(0), 2, 1.0, "official"))
    spread = cells(5, 6, 2, 2)[:, ::2]
    assert not spread.is_contiguous()
    assert_equal(*both(spread, 2, 4.0, "last_kept"))


def test_one_level_in_one_value_is_seen():
    pixels = cells(3, 2, 2, 14)
    expected, _ = both(pixels, 14, 1.0, "official")
    pixels[1, 1, 7] ^= 1
    _, found = both(pixels, 14, 1.0, "official")
    with pytest.raises(AssertionError):
        assert_equal(expected, found)


@pytest.mark.parametrize("mode", MODES)
def test_another_threshold_is_seen(mode):
    pixels = cells(9, 4, 2, 2)
    expected, _ = both(pixels, 2, THRESHOLDS[mode], mode)
    _, found = both(pixels, 2, 0.0, mode)
    with pytest.raises(AssertionError):
        assert_equal(expected, found)
