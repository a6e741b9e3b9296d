"""Attention rows from queries and keys, in float32, and what follows from rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike

CHUNK_BYTES = 64 << 20  # of attention weights at a time
SINK_TIMES = 5.0  # a sink draws this many times the mean of the visual tokens ...
SINK_WORDS = 0.75  # ... from at least this part of the words
MOST_PATCHES = 256  # that are asked where the sinks of a frame are
SINK_MIN_WORDS = 3  # fewer cannot tell "whatever the word" from one word's own aim


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class QK:
    """Queries and keys of one layer as they enter attention, positions already rotated in.

    Shapes: q_HLC - queries of the positions from `first` on
            k_HLC - keys of all positions; fewer heads than q where heads share keys
    causal: no position sees a later one; window: nor one this far back (None: all)
    leading: positions before the patches of a frame, such as a class token's
    """

    q_HLC: torch.Tensor
    k_HLC: torch.Tensor
    scale: float
    first: int = 0
    causal: bool = True
    window: int | None = None
    leading: int = 0

    @property
    def heads(self) -> int:
        return self.q_HLC.shape[0]

    @property
    def nbytes(self) -> int:
        return self.q_HLC.nbytes + self.k_HLC.nbytes


def weights(qk: QK, row_Q: torch.Tensor, heads: Sequence[int] | None = None) -> torch.Tensor:
    """Softmax rows of some positions and heads (None: all), recomputed in float32.

    Shapes: row_Q - positions, not before qk.first
            returns weight_HQL - float32; every row sums to 1
    """
    heads = range(qk.heads) if heads is None else heads
    sharing = qk.heads // qk.k_HLC.shape[0]
    key_LC = [k_LC.float() for k_LC in qk.k_HLC]
    score_HQL = torch.stack(
        [qk.q_HLC[head, row_Q - qk.first].float() @ key_LC[head // sharing].T for head in heads]
    )
    score_HQL *= qk.scale
    return score_HQL.masked_fill_(unseen(qk, row_Q), -torch.inf).softmax(dim=-1)


def unseen(qk: QK, row_Q: torch.Tensor) -> torch.Tensor:
    """Positions that a row may not look at, bool [Q, L]."""
    key_L = torch.arange(qk.k_HLC.shape[1], device=row_Q.device)
    hidden_QL = (key_L > row_Q[:, None]) & qk.causal
    if qk.window is not None:
        hidden_QL |= key_L <= row_Q[:, None] - qk.window
    return hidden_QL


def in_chunks(qk: QK, row_Q: torch.Tensor, heads: Sequence[int] | None = None) -> Iterator:
    """(slice of row_Q, its weight_HQL), with bounded memory."""
    count = qk.heads if heads is None else len(heads)
    step = max(1, CHUNK_BYTES // (4 * count * qk.k_HLC.shape[1]))
    for start in range(0, len(row_Q), step):
        part = slice(start, start + step)
        yield part, weights(qk, row_Q[part], heads)


def rollout(layers: Sequence[QK], row_Q: torch.Tensor) -> torch.Tensor:
    """Attention followed down through all layers, residual paths counted as half: [Q, L].

    Each layer is the mean of its heads and the identity; their product is taken row by row from
    the top, so that only Q rows and never an L x L matrix are held. Rows sum to 1.
    Source: Abnar and Zuidema, arXiv 2005.00928.
    Cost: all rows of all layers, quadratic in positions.
    """
    length = layers[0].k_HLC.shape[1]
    reached_QL = torch.nn.functional.one_hot(row_Q, length).float()
    # no row reaches a later position, so the later ones need no weights
    seen_R = torch.arange(int(row_Q.max()) + 1, device=row_Q.device)
    for qk in reversed(layers):
        below_QL = torch.zeros_like(reached_QL)
        for part, weight_HQL in in_chunks(qk, seen_R):
            below_QL += reached_QL[:, seen_R[part]] @ weight_HQL.mean(dim=0)
        reached_QL = (reached_QL + below_QL) / 2
    return reached_QL


def token_row(qk: QK, places: ArrayLike, per_cell: int, heads: Sequence[int]) -> torch.Tensor:
    """Where a token that stands for some merged cells of a frame looked there: [H, M] over cells.

    It is the mean of the rows of its patches; weights on patches are added to weights on cells.
    places: numbers of the cells; patches come in block order, per_cell of them a cell
    """
    cell_P = torch.as_tensor(places, device=qk.k_HLC.device)
    row_Q = (cell_P[:, None] * per_cell + torch.arange(per_cell, device=cell_P.device)).flatten()
    weight_HQN = weights(qk, row_Q + qk.leading, heads)[..., qk.leading :]
    return _by_token(weight_HQN, per_cell).mean(dim=1)


def frame_sinks(layers: Sequence[QK], per_token: int) -> torch.Tensor:
    """Sinks of the vision encoder in one frame, for patches spread over it: bool [M]."""
    leading = layers[0].leading
    length = layers[0].k_HLC.shape[1] - leading
    row_Q = torch.arange(0, length, -(-length // MOST_PATCHES), device=layers[0].k_HLC.device)
    weight_QM = torch.zeros(len(row_Q), length // per_token, device=row_Q.device)
    for qk in layers:
        for part, weight_HQN in in_chunks(qk, row_Q + leading):
            weight_QM[part] += _by_token(weight_HQN.mean(dim=0)[:, leading:], per_token)
    return sinks(weight_QM)


def _by_token(weight_N: torch.Tensor, per_token: int) -> torch.Tensor:
    return weight_N.unflatten(-1, (-1, per_token)).sum(dim=-1)


def sinks(weight_QK: torch.Tensor) -> torch.Tensor:
    """Visual tokens that draw attention whatever the word looks for: bool [K].

    A sink gets SINK_TIMES the mean of the visual tokens from SINK_WORDS of the words. With fewer
    than SINK_MIN_WORDS words nothing is called a sink. What an answer is about from its first word
    to its last looks the same from here: hiding sinks is for the eye, no proof of anything.
    Source: Kang et al., arXiv 2503.03321. Difference: they find sinks by massive activations in
    dimensions known for each model; this needs the rows alone.
    """
    if len(weight_QK) < SINK_MIN_WORDS or weight_QK.shape[1] == 0:
        return torch.zeros(weight_QK.shape[1], dtype=torch.bool, device=weight_QK.device)
    mean_Q1 = weight_QK.mean(dim=1, keepdim=True)
    drawn_K = (weight_QK > SINK_TIMES * mean_Q1).float().mean(dim=0)
    return drawn_K >= SINK_WORDS
