"""Orthogonalised momentum."""

import pytest
import torch

from vl3.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 20, 48), (2, 48, 20), (1, 16, 16)])
def test_orthogonal_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert values.min() > 0.5
    assert values.max() < 1.3


def test_muon_moves_along_the_orthogonal_direction():
    weight = torch.nn.Parameter(torch.zeros(6, 6))
    weight.grad = torch.diag(torch.arange(1.0, 7.0))
    Muon([weight], lr=0.1).step()
    moved = -weight.detach() / 0.1
    assert torch.diag(moved).min() > 0.5
    assert (moved - torch.diag(torch.diag(moved))).abs().max() < 1e-4


def test_muon_takes_a_patch_embedding_as_one_matrix():
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.zeros(8, 3, 2, 2))
    kernel.grad = torch.randn(8, 3, 2, 2)
    Muon([kernel], lr=0.1).step()
    values = torch.linalg.svdvals(kernel.detach().flatten(1) / 0.1)
    assert values.min() > 0.5
    assert values.max() < 1.3
