"""2D-RoPE: norms stay, scores depend on the offset only, rows and columns have their halves."""

import torch

from vl3.values import Grid
from vl3.vision import rope2d


def test_rotation_keeps_norms():
    x_NHC = torch.randn(24, 3, 16, generator=torch.Generator().manual_seed(0))
    grid = Grid(frames=1, rows=4, cols=6, merge=2)
    turned = rope2d.rotate(x_NHC, rope2d.angles(rope2d.positions(grid), 16))
    assert torch.allclose(turned.norm(dim=-1), x_NHC.norm(dim=-1), atol=1e-5)
    assert not torch.allclose(turned, x_NHC, atol=1e-2)


def test_a_score_depends_on_the_offset_only():
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 16, generator=generator) for _ in range(2))

    def score(from_row, from_col, to_row, to_col):
        at = torch.tensor([[from_row, from_col], [to_row, to_col]])
        angle = rope2d.angles(at, 16)
        return (rope2d.rotate(q, angle[:1]) * rope2d.rotate(k, angle[1:])).sum()

    assert torch.allclose(score(0, 0, 2, 5), score(7, 11, 9, 16), atol=1e-5)
    assert not torch.allclose(score(0, 0, 2, 5), score(0, 0, 5, 2), atol=1e-3)


def test_row_angles_come_first_and_start_at_one_radian_per_patch():
    angle_NR = rope2d.angles(torch.tensor([[3, 0], [0, 3]]), 16)
    assert angle_NR.shape == (2, 8)
    assert angle_NR[0, 0] == 3
    assert angle_NR[0, 4:].abs().sum() == 0
    assert torch.equal(angle_NR[0, :4], angle_NR[1, 4:])
