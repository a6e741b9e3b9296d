"""Positions: the encoder's own tensors, what rotation promises, where tokens move in a prompt."""

import base64

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vl3 import prompt
from vl3.values import Grid
from vl3.vision.rope2d import angles, frequencies, rotate
from vl3.vision.rope2d import positions as patch_positions
from vl3.viz import positions

CHANNELS = 72


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.mark.parametrize(("rows", "cols", "merge"), [(18, 32, 2), (32, 6, 2), (5, 3, 1), (9, 6, 3)])
def test_the_view_shows_the_encoders_own_tensors(rows, cols, merge):
    grid = Grid(frames=2, rows=rows, cols=cols, merge=merge)
    data = positions.data(grid, CHANNELS)
    own = angles(patch_positions(grid), CHANNELS).numpy()
    order = unpacked(data["order"], "<u2").reshape(-1, 2)
    row_RF = unpacked(data["row_angles"], "<f4").reshape(rows, -1)
    col_CF = unpacked(data["col_angles"], "<f4").reshape(cols, -1)
    assert np.array_equal(np.hstack([row_RF[order[:, 0]], col_CF[order[:, 1]]]), own)
    step = frequencies(CHANNELS).numpy()
    assert np.array_equal(unpacked(data["frequencies"], "<f4"), step)
    assert len(step) == row_RF.shape[1] == col_CF.shape[1] == 18
    assert positions.wavelengths(CHANNELS) * step == pytest.approx(np.full(18, 2 * np.pi))


def test_block_order_keeps_the_patches_of_a_token_together():
    grid = Grid(frames=1, rows=4, cols=6, merge=2)
    order = unpacked(positions.data(grid, CHANNELS)["order"], "<u2").reshape(-1, 2).tolist()
    assert order[:8] == [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]]


@given(seed=st.integers(0, 1000))
def test_rotation_keeps_norms_and_scores_know_offsets_only(seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(0, 40, (2, 2), generator=generator)
    shift = torch.randint(0, 40, (2,), generator=generator)
    x = torch.randn(2, 16, CHANNELS, generator=generator)  # sixteen heads: no score fits by chance
    here = rotate(x, angles(places, CHANNELS))
    there = rotate(x, angles(places + shift, CHANNELS))
    assert torch.allclose(here.norm(dim=-1), x.norm(dim=-1), rtol=1e-5)
    scores = [(pair[0] * pair[1]).sum(dim=-1) for pair in (here, there)]
    assert torch.allclose(*scores, atol=1e-3)
    elsewhere = rotate(x, angles(places + torch.tensor([[0, 0], [3, 1]]), CHANNELS))  # the canary
    assert not torch.allclose(scores[0], (elsewhere[0] * elsewhere[1]).sum(dim=-1), atol=1e-3)


def test_similarity_is_the_score_of_equal_patches():
    grid = Grid(frames=1, rows=6, cols=4, merge=2)
    angle = angles(patch_positions(grid), CHANNELS)
    rotated = rotate(torch.ones(grid.num_patches, 1, CHANNELS), angle)[:, 0]
    for patch in (0, 7, 23):
        similarity = positions.similarity(angle, patch)
        assert similarity[patch] == 1
        assert torch.allclose(similarity, rotated @ rotated[patch] / CHANNELS, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_positions_before_and_after_pruning_are_those_of_two_prompts(tokenizer, data):
    frames, tokens = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    kept = data.draw(st.lists(st.booleans(), min_size=frames * tokens, max_size=frames * tokens))
    keep_M = np.array(kept)
    times_s = [0.7 * index for index in range(frames)]
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look: "},
                {"type": "video", "num_frames": frames, "timestamps": times_s},
                {"type": "text", "text": "What?"},
            ],
        },
    ]
    ids = prompt.SlotIds(image=1, video=1)

    def spans(counts):
        return prompt.render(messages, tokenizer, ids, counts).spans

    grid = Grid(frames=frames, rows=tokens, cols=1, merge=1)
    after_spans = spans(keep_M.reshape(frames, tokens).sum(axis=1).tolist())
    before, after = positions.language(after_spans, keep_M, grid)
    whole = [first + i for first, slots in spans([tokens] * frames) for i in range(slots)]
    left = [first + i for first, slots in after_spans for i in range(slots)]
    assert before.tolist() == whole
    assert after[keep_M].tolist() == left
    assert (after[~keep_M] == positions.NO_POSITION).all()
    shown = positions.data(grid, CHANNELS, spans=after_spans, keep_M=keep_M)["language"]
    assert unpacked(shown["before"], "<i4").tolist() == whole
    assert unpacked(shown["after"], "<i4").tolist() == after.tolist()


def test_spans_of_another_mask_are_refused():
    grid = Grid(frames=2, rows=2, cols=2, merge=2)
    with pytest.raises(ValueError, match=r"hold 2 slots.*keeps 1 tokens"):
        positions.language([(3, 1), (8, 1)], np.array([True, False]), grid)
