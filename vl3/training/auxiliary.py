"""Losses beside that of the answers, which the trainer adds without knowing what they teach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch

from vl3.data.records import Record
from vl3.model import VL3ForConditionalGeneration, VL3Output
from vl3.training.collate import MicroBatch
from vl3.values import Grid


class AuxiliaryLoss(Protocol):
    """A loss of some passes or of each step; what a class of it leaves out adds nothing.

    name: under which the targets of a sample are kept
    weight: of its losses beside the mean loss of the learned tokens
    reads_states: whether of_pass takes the hidden states of the language model
    """

    name: str
    weight: float
    reads_states: bool = False

    def targets(self, record: Record, grids: Sequence[Grid]) -> torch.Tensor | None:
        """What each visual token of a sample is to know; None: nothing.

        Shapes: returns [M, facts] int64 of all tokens before pruning, IGNORE where there is nothing
        """
        return None

    def of_pass(
        self, model: VL3ForConditionalGeneration, part: MicroBatch, output: VL3Output
    ) -> Mapping[str, torch.Tensor]:
        """Losses, by the name that the log has for them, of what the model made of a pass.

        part.targets[name] has a row for each visual slot, where any sample of the pass has targets.
        """
        return {}

    def of_step(
        self, model: VL3ForConditionalGeneration, step: int
    ) -> Iterator[Mapping[str, torch.Tensor]]:
        """Losses beside those of the passes; each group is learned from before the next is made."""
        yield from ()
