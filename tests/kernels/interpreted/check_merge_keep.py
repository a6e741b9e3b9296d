"""Merging and keeping fused: the same features and gradients, whatever is kept and how often."""

import pytest
import torch
from vl3.kernels.merge_keep import merge_keep

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# (tokens, merge) of each clip: pairs, single patches, all kinds in a row, nothing
CASES = [
    ((5, 2),),
    ((7, 1),),
    ((3, 1), (4, 2), (2, 3), (2, 4)),
    ((2, 2), (0, 1), (3, 2)),
    ((0, 2),),
]
KEEPS = ("all", "some", "none", "repeated")
# float32: four values added in another order. float16: one rounding at the end here; torch's
# backward pass adds the slots of a token in float16.
ROUNDING = {
    torch.float32: {"atol": 1e-6, "rtol": 1e-6},
    torch.float16: {"atol": 4e-3, "rtol": 2e-3},
}


def case(clips, keep, kind, width=40):
    noise = torch.Generator().manual_seed(len(clips) + width)
    tokens = sum(count for count, _ in clips)
    patches = sum(count * m * m for count, m in clips)
    x_ND = torch.randn(patches, width, generator=noise).to(kind)
    if keep == "all":
        return x_ND, None
    if keep == "repeated":
        return x_ND, torch.randint(0, max(tokens, 1), (9 if tokens else 0,), generator=noise)
    return x_ND, torch.rand(tokens, generator=noise) > (0.5 if keep == "some" else 2)


def fused(x_ND, clips, keep):
    keep = keep if keep is None else keep.to(DEVICE)
    return merge_keep(x_ND.to(DEVICE), clips, keep, fused=True)


def assert_close(expected, found, kind):
    torch.testing.assert_close(found.cpu(), expected, **ROUNDING[kind])


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("clips", CASES)
def test_forward_and_backward_agree(clips, keep, kind):
    x_ND, mask = case(clips, keep, kind)
    here, there = (x_ND.clone().requires_grad_() for _ in range(2))
    expected, found = merge_keep(here, clips, mask), fused(there, clips, mask)
    assert expected.dtype == found.dtype
    assert_close(expected, found, kind)
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0)).to(kind)
    (expected,) = torch.autograd.grad(expected, here, grad)
    (found,) = torch.autograd.grad(found, there, grad.to(found.device))
    assert_close(expected, found, kind)


def test_widths_beyond_one_program():
    x_ND, mask = case(((3, 2),), "some", torch.float32, width=2050)
    assert_close(merge_keep(x_ND, ((3, 2),), mask), fused(x_ND, ((3, 2),), mask), torch.float32)


def test_gradients_are_the_same_bits_every_time():
    x_ND, keep = case(((5, 2),), "repeated", torch.float32)
    leaf = x_ND.requires_grad_()
    grads = [torch.autograd.grad(fused(leaf, ((5, 2),), keep).sin().sum(), leaf) for _ in "ab"]
    assert torch.equal(grads[0][0], grads[1][0])


def test_clips_and_masks_that_do_not_fit_are_refused():
    x_ND, _ = case(((5, 2),), "all", torch.float32)
    with pytest.raises(ValueError, match="16 patches"):
        fused(x_ND, ((4, 2),), None)
    with pytest.raises(ValueError, match="4 tokens"):
        fused(x_ND, ((5, 2),), torch.ones(4, dtype=torch.bool))


def test_another_feature_and_another_token_are_seen():
    x_ND, keep = case(CASES[2], "some", torch.float32)
    expected = merge_keep(x_ND, CASES[2], keep)
    token = int(keep.nonzero()[0, 0])
    changed = x_ND.clone()
    changed[: 3 + 4 * 4] += 1e-4
    with pytest.raises(AssertionError):
        assert_close(expected, fused(changed, CASES[2], keep), torch.float32)
    keep[token], keep[int((~keep).nonzero()[0, 0])] = False, True
    with pytest.raises(AssertionError):
        assert_close(expected, fused(x_ND, CASES[2], keep), torch.float32)
