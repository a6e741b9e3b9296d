"""Rows from queries and keys: causal, shared keys, windows, rollout, sinks."""

import pytest
import torch

from vl3.interpret.attention_rows import (
    QK,
    frame_sinks,
    in_chunks,
    rollout,
    sinks,
    token_row,
    weights,
)


def random_qk(length=20, heads=4, key_heads=2, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(h, length, 8, generator=generator) for h in (heads, key_heads))
    return QK(q_HLC=q, k_HLC=k, scale=8**-0.5, **options)


def dense(qk, causal=True, window=None):
    """All rows by the definition, one head and one row at a time."""
    heads, length = qk.heads, qk.k_HLC.shape[1]
    full = torch.zeros(heads, length, length)
    for head in range(heads):
        key = qk.k_HLC[head * qk.k_HLC.shape[0] // heads]
        for row in range(length):
            first = 0 if window is None else max(0, row - window + 1)
            last = row + 1 if causal else length
            score = qk.q_HLC[head, row] @ key[first:last].T * qk.scale
            full[head, row, first:last] = score.softmax(-1)
    return full


@pytest.mark.parametrize(
    ("options", "key_heads"),
    [({}, 4), ({}, 2), ({}, 1), ({"window": 5}, 2), ({"causal": False}, 2)],
)
def test_rows_are_those_of_the_definition(options, key_heads):
    qk = random_qk(key_heads=key_heads, **options)
    expected = dense(qk, **options)
    row_Q = torch.tensor([3, 19, 3])
    got = weights(qk, row_Q, [2, 0])
    assert torch.allclose(got, expected[[2, 0]][:, row_Q], atol=1e-6)
    assert torch.allclose(got.sum(-1), torch.ones(2, 3))
    late = QK(q_HLC=qk.q_HLC[:, 3:], k_HLC=qk.k_HLC, scale=qk.scale, first=3, **options)
    assert torch.equal(weights(late, row_Q, [2, 0]), got)
    assert not torch.allclose(got, expected[[2, 0]][:, row_Q - 1], atol=1e-2)  # canary


def test_chunks_are_the_whole(monkeypatch):
    qk, row_Q = random_qk(), torch.arange(20)
    monkeypatch.setattr("vl3.interpret.attention_rows.CHUNK_BYTES", 3 * 4 * 4 * 20)
    parts = list(in_chunks(qk, row_Q))
    assert [len(row_Q[part]) for part, _ in parts] == [3] * 6 + [2]
    assert torch.allclose(torch.cat([w for _, w in parts], dim=1), weights(qk, row_Q))


def test_rollout_is_the_product_of_the_layers():
    layers = [random_qk(seed=seed) for seed in range(3)]
    product = torch.eye(20)
    for qk in layers:
        product = (dense(qk).mean(0) + torch.eye(20)) / 2 @ product
    got = rollout(layers, torch.tensor([19, 7]))
    assert torch.allclose(got, product[[19, 7]], atol=1e-6)
    assert torch.allclose(got.sum(-1), torch.ones(2))
    assert not torch.allclose(rollout(layers[::-1], torch.tensor([19, 7])), got, atol=1e-3)


def test_a_token_is_the_mean_of_its_patches_looking_at_sums_of_patches():
    qk = random_qk(causal=False)
    full = dense(qk, causal=False)
    got = token_row(qk, [2], 4, [3])
    expected = torch.stack([full[3, 8:12, c : c + 4].sum() / 4 for c in range(0, 20, 4)])
    assert torch.allclose(got, expected[None], atol=1e-6)


def test_a_sink_draws_whatever_the_word():
    weight_QK = torch.full((8, 40), 0.001)
    weight_QK[:, 7] = 0.2  # always
    weight_QK[:4, 11] = 0.4  # half of the words
    assert sinks(weight_QK).nonzero().flatten().tolist() == [7]
    assert not sinks(weight_QK[:2]).any()
    assert sinks(torch.zeros(5, 0)).shape == (0,)
    assert not sinks(torch.zeros(5, 3)).any()


def test_sinks_of_a_frame():
    qk = random_qk(length=64, causal=False)
    qk.q_HLC[:] = qk.q_HLC.abs()
    qk.k_HLC[:, 37] = 20
    assert frame_sinks([qk, qk], 4).nonzero().flatten().tolist() == [37 // 4]
