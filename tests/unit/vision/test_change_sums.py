"""Sums of differences of levels by a product with ones: the bits of the plain sums."""

import pytest
import torch
from vl3.kernels.difffp import reference
from vl3.kernels.difffp.reference import change

EXTREMES = torch.tensor([0, 1, 127, 128, 129, 254, 255], dtype=torch.uint8)


@pytest.mark.parametrize(("frames", "tokens", "values"), [(1, 3, 12), (2, 1, 588), (9, 5, 2352)])
@pytest.mark.parametrize("at_once", [1, 2, 4, 100])
def test_changes_of_a_clip_are_those_of_its_pairs_of_frames(
    frames, tokens, values, at_once, monkeypatch
):
    monkeypatch.setattr(reference, "AT_ONCE_BYTES", at_once * tokens * values)
    noise = torch.Generator().manual_seed(frames)
    picked = torch.randint(len(EXTREMES), (frames, tokens, values), generator=noise)
    cells = EXTREMES[picked]
    cells[: frames // 2, 0] = 0  # from black to noise
    found, changed, counts = reference.difffp(cells, values, 100.0, "official")
    assert found[0].isinf().all()
    for index in range(1, frames):
        assert torch.equal(found[index], change(cells[index - 1], cells[index], values, "official"))
    assert torch.equal(counts, (found > 100.0).sum(dim=1, dtype=torch.int32))
    assert torch.equal(changed, found > 100.0)


def test_a_clip_without_tokens_or_frames_is_no_error():
    for shape in ((0, 4, 12), (3, 0, 12)):
        found, _, counts = reference.difffp(
            torch.zeros(shape, dtype=torch.uint8), 12, 0.1, "official"
        )
        assert found.shape == shape[:2]
        assert counts.shape == shape[:1]
