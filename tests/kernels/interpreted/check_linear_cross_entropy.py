"""Head and cross-entropy fused: the same losses, hits and gradients, however the work is cut."""

import pytest
import torch
from vl3.kernels.linear_cross_entropy import fused, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# tokens, vocabulary, width: one of each, beyond a tile in every direction, no token at all
SHAPES = [(1, 1, 1), (70, 300, 100), (3, 513, 64), (65, 40, 16), (0, 20, 8)]
# float32: sums in another order. float16: the reference rounds every logit to it (2^-11 of up to
# 6) and its gradients of logits again.
ROUNDING = {
    torch.float32: {"atol": 1e-5, "rtol": 1e-5},
    torch.float16: {"atol": 8e-3, "rtol": 4e-3},
}


def case(shape, kind):
    tokens, vocabulary, width = shape
    noise = torch.Generator().manual_seed(tokens + vocabulary)
    hidden_KE = torch.randn(tokens, width, generator=noise).to(kind)
    weight_VE = (torch.randn(vocabulary, width, generator=noise) * 0.2).to(kind)
    likely_K = (hidden_KE.float() @ weight_VE.float().T).argmax(dim=-1)
    labels_K = torch.randint(0, vocabulary, (tokens,), generator=noise)
    labels_K[::2] = likely_K[::2]  # half of them right
    return hidden_KE, weight_VE, labels_K, torch.randn(tokens, generator=noise)


def plain(hidden_KE, weight_VE, labels_K):
    return reference.linear_cross_entropy(hidden_KE, lambda x: x @ weight_VE.T, labels_K)


def kernel(hidden_KE, weight_VE, labels_K):
    moved = (part.to(DEVICE) for part in (hidden_KE, weight_VE, labels_K))
    return fused.linear_cross_entropy(*moved)


def with_gradients(side, hidden_KE, weight_VE, labels_K, grad_K):
    """Losses, gradients of hidden states and weight; hits."""
    leaves = hidden_KE.clone().requires_grad_(), weight_VE.clone().requires_grad_()
    losses_K, right_K = side(*leaves, labels_K)
    grads = torch.autograd.grad(losses_K, leaves, grad_K.to(losses_K.device))
    return [part.detach().cpu() for part in (losses_K, *grads)], right_K.cpu()


def assert_close(expected, found, kind):
    for here, there in zip(expected, found):
        torch.testing.assert_close(there, here, **ROUNDING[kind])


@pytest.mark.parametrize("kind", ROUNDING)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", ["as it is", "finely"])
def test_losses_hits_and_gradients_agree(shape, kind, cut, monkeypatch):
    if cut == "finely":  # few tiles to a program backwards, few programs forwards
        monkeypatch.setattr(fused, "SLICE_VALUES", 1)
        monkeypatch.setattr(fused, "PROGRAMS", 2)
    given = case(shape, kind)
    (expected, right_K), (found, hit_K) = (with_gradients(side, *given) for side in (plain, kernel))
    assert_close(expected, found, kind)
    logits_KV = given[0].float() @ given[1].float().T
    if shape[1] > 1:
        first, second = logits_KV.topk(2, dim=-1).values.unbind(-1)
        clear_K = first - second > ROUNDING[kind]["atol"]
        assert torch.equal(right_K[clear_K], hit_K[clear_K])
    if shape[0] > 1:
        assert 0 < hit_K.sum() < len(hit_K)


def test_of_equal_logits_the_first_is_the_likeliest():
    hidden_KE, weight_VE = torch.ones(2, 4), torch.ones(300, 4)
    labels_K = torch.tensor([0, 299])
    assert plain(hidden_KE, weight_VE, labels_K)[1].tolist() == [True, False]
    assert kernel(hidden_KE, weight_VE, labels_K)[1].tolist() == [True, False]


def test_large_logits_do_not_overflow():
    hidden_KE, weight_VE, labels_K, grad_K = case((3, 200, 8), torch.float32)
    given = hidden_KE * 300, weight_VE, labels_K, grad_K
    (expected, _), (found, _) = (with_gradients(side, *given) for side in (plain, kernel))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    assert expected[0].max() > 100


@pytest.mark.parametrize("learned", [0, 1])
def test_only_one_of_both_learns(learned):
    """As with adapters, where the head stands still, or a probe, where all else does."""
    hidden_KE, weight_VE, labels_K, grad_K = case(SHAPES[1], torch.float32)
    expected, _ = with_gradients(plain, hidden_KE, weight_VE, labels_K, grad_K)
    leaves = [hidden_KE.clone(), weight_VE.clone()]
    leaves[learned].requires_grad_()
    losses_K, _ = kernel(*leaves, labels_K)
    (found,) = torch.autograd.grad(losses_K, leaves[learned], grad_K.to(losses_K.device))
    assert_close([expected[1 + learned]], [found.cpu()], torch.float32)


def test_a_label_that_is_no_word_is_no_number():
    hidden_KE, weight_VE, _, _ = case((3, 40, 8), torch.float32)
    losses_K, right_K = kernel(hidden_KE, weight_VE, torch.tensor([1, 40, -100]))
    assert losses_K.isnan().tolist() == [False, True, True]
    assert not right_K[1:].any()


def test_types_that_differ_are_refused():
    hidden_KE, weight_VE, labels_K, _ = case((3, 40, 8), torch.float32)
    with pytest.raises(ValueError, match="float16"):
        kernel(hidden_KE.half(), weight_VE, labels_K)


def test_another_label_and_another_weight_are_seen():
    given = case(SHAPES[1], torch.float32)
    expected, _ = with_gradients(plain, *given)
    given[1][17, 3] += 1e-2
    with pytest.raises(AssertionError):
        assert_close(expected, with_gradients(kernel, *given)[0], torch.float32)
    given[1][17, 3] -= 1e-2
    given[2][5] = (given[2][5] + 1) % 300
    with pytest.raises(AssertionError):
        assert_close(expected, with_gradients(kernel, *given)[0], torch.float32)
