"""2D-RoPE fused: the same rotation, in place or recorded, and its inverse backwards."""

import pytest
import torch
from vl3.kernels.rope2d import rotate, turn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Runs of (frames, patches of one), heads, channels: one patch, two sizes in a row, the released
# model's 72 channels, a run of nothing.
CASES = [
    (((1, 1),), 1, 4),
    (((3, 7), (2, 12)), 3, 16),
    (((2, 20),), 2, 72),
    (((1, 17),), 1, 2),
    (((0, 4),), 2, 8),
]
# float16: both compute in float32 and round once; a sum that lies on the edge may round either way.
ROUNDING = {
    torch.float32: {"atol": 1e-6, "rtol": 1e-6},
    torch.float16: {"atol": 1e-6, "rtol": 1e-3},
}


def case(shape, kind):
    sizes, heads, channels = shape
    noise = torch.Generator().manual_seed(heads * channels)
    runs = tuple((t, n, torch.rand(n, channels // 2, generator=noise) * 30) for t, n in sizes)
    size = (sum(t * n for t, n in sizes), heads, channels)
    q, k, grad_q, grad_k = (torch.randn(size, generator=noise).to(kind) for _ in range(4))
    return q, k, runs, (grad_q, grad_k)


def fused(q, k, runs):
    moved = tuple((frames, length, angle.to(DEVICE)) for frames, length, angle in runs)
    return rotate(q.to(DEVICE), k.to(DEVICE), moved, fused=True)


def assert_close(expected, found, kind):
    for here, there in zip(expected, found):
        torch.testing.assert_close(there.cpu(), here, **ROUNDING[kind])


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("shape", CASES)
def test_forward_and_backward_agree(shape, kind):
    q, k, runs, grads = case(shape, kind)
    assert_close(rotate(q, k, runs), fused(q.clone(), k.clone(), runs), kind)
    sides = []
    for side in (rotate, fused):
        leaves = q.clone().requires_grad_(), k.clone().requires_grad_()
        turned = side(*leaves, runs)
        moved = [grad.to(part.device) for grad, part in zip(grads, turned)]
        sides.append(torch.autograd.grad(turned, leaves, moved))
        assert torch.equal(leaves[0].detach(), q), "what has a gradient is not written into"
    assert_close(*sides, kind)


def test_without_gradients_q_and_k_themselves_are_turned():
    q, k, runs, _ = case(CASES[1], torch.float32)
    q, k, runs = q.to(DEVICE), k.to(DEVICE), tuple((t, n, a.to(DEVICE)) for t, n, a in runs)
    turned = rotate(q, k, runs, fused=True)
    assert turned[0] is q
    assert turned[1] is k


def test_views_with_gaps_between_patches():
    q, k, runs, _ = case(CASES[1], torch.float32)
    packed = torch.cat([q.flatten(1), k.flatten(1)], dim=1)
    halves = [half.unflatten(1, q.shape[1:]) for half in packed.clone().chunk(2, dim=1)]
    assert not halves[0].is_contiguous()
    assert_close(rotate(q, k, runs), fused(*halves, runs), torch.float32)


def test_only_keys_learn():
    q, k, runs, (_, grad_k) = case(CASES[0], torch.float32)
    learned = k.clone().requires_grad_()
    turned = fused(q, learned, runs)[1]
    found = torch.autograd.grad(turned, learned, grad_k.to(turned.device))
    inverse = turn(grad_k, -runs[0][2])
    assert_close([inverse], found, torch.float32)


def test_backward_undoes_forward():
    q, k, runs, _ = case(CASES[2], torch.float32)
    leaf = q.clone().requires_grad_()
    turned, _ = fused(leaf, k, runs)
    assert_close([q], torch.autograd.grad(turned, leaf, turned.detach()), torch.float32)


def test_runs_that_do_not_fill_q_are_refused():
    q, k, runs, _ = case(CASES[1], torch.float32)
    with pytest.raises(ValueError, match="45 patches"):
        fused(q[:-1], k[:-1], runs)


def test_one_angle_and_one_channel_are_seen():
    q, k, runs, _ = case(CASES[1], torch.float32)
    expected = rotate(q, k, runs)
    runs[1][2][3, 2] += 1e-3
    with pytest.raises(AssertionError):
        assert_close(expected, fused(q.clone(), k.clone(), runs), torch.float32)
    runs[1][2][3, 2] -= 1e-3
    k[0, 0, 0] += 1e-3
    with pytest.raises(AssertionError):
        assert_close(expected, fused(q.clone(), k.clone(), runs), torch.float32)
