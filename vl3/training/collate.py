"""Samples to one forward pass: several in a row, none of which sees another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vl3.audio.ear import ear_class
from vl3.data.quarantine import Bad
from vl3.families.settings import ProcessorSettings
from vl3.prompt import IGNORE
from vl3.training.samples import Sample
from vl3.values import Grid


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """One forward pass, as keyword arguments of the model, and what its learned tokens belong to.

    inputs: see vl3.model; answers_K - number of the answer of each learned token in reading order;
    owners - (data set, family) of each answer; targets - see Sample, of all slots in reading order,
    IGNORE for samples that have none
    """

    inputs: dict[str, torch.Tensor]
    answers_K: torch.Tensor
    owners: tuple[tuple[str, str], ...]
    ids: tuple[str, ...]
    targets: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def learned(self) -> int:
        return len(self.answers_K)

    @property
    def tokens(self) -> int:
        """Language tokens without padding."""
        return int((self.inputs["sample_BL"] >= 0).sum())


BLANK = Grid(frames=1, rows=1, cols=1, merge=1)


def collate(
    samples: Sequence[Sample],
    pad_id: int,
    patch_values: int,
    blank: Grid = BLANK,
    silence: dict[str, torch.Tensor] | None = None,
) -> MicroBatch:
    """The samples packed into as few rows as hold them, each as long as the longest sample.

    Without any picture an empty one goes in, of which no token is used: processes that share the
    vision encoder's gradients must all run it. So does silence where nothing is heard.
    blank: the grid of that picture, as of ProcessorSettings; silence: as silence_of gives it
    """
    rows = pack(samples) or [[]]
    B, L = len(rows), max([1, *(len(sample.ids_L) for sample in samples)])
    ids, labels = torch.full((B, L), pad_id), torch.full((B, L), IGNORE)
    positions = torch.zeros(B, L, dtype=torch.long)
    sample_BL, branch_BL = torch.full((B, L), -1), torch.zeros(B, L, dtype=torch.long)
    answers, pixels, sources, targets, sounds = [], [], [], [], []
    owners: list[tuple[str, str]] = []
    grids: list[Grid] = []
    tokens = number = 0
    for row, members in enumerate(rows):
        end = 0
        for sample in members:
            part = slice(end, end + len(sample.ids_L))
            end = part.stop
            ids[row, part], labels[row, part] = sample.ids_L, sample.labels_L
            positions[row, part], branch_BL[row, part] = sample.positions_L, sample.branch_L
            sample_BL[row, part] = number
            number += 1
            numbers, own = number_answers(sample, len(owners))
            answers.append(numbers)
            owners.extend(own)
            if sample.grids:
                pixels.append(sample.pixels_NP)
                grids.extend(sample.grids)
                sources.append(sample.source_K + tokens)
                targets.append(sample.targets)
                tokens += sum(grid.num_tokens for grid in sample.grids)
            if sample.sound:
                sounds.append(sample.sound)
    if not pixels:
        pixels = [torch.zeros(blank.num_patches, patch_values, dtype=torch.uint8)]
        grids, sources = [blank], [torch.empty(0).long()]
    inputs = {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions,
        "sample_BL": sample_BL,
        "branch_BL": branch_BL,
        **join_pictures(pixels, grids, sources),
        **join_sounds(sounds or ([silence] if silence else [])),
    }
    names = tuple(sample.id for row in rows for sample in row)
    numbers = torch.cat(answers) if answers else torch.empty(0).long()
    return MicroBatch(inputs, numbers, tuple(owners), names, _targets(targets, sources))


def silence_of(settings: ProcessorSettings) -> dict[str, torch.Tensor] | None:
    """A shortest sound of which no token is used; None for a model without an ear."""
    if settings.sound is None:
        return None
    ear = settings.sound.ear
    kind = ear_class(ear)
    samples_S = np.zeros(kind.form(ear).step_samples, np.float32)
    return {
        "input_features": kind.bank(ear, samples_S)[None],
        "feature_lengths": torch.tensor([len(samples_S)]),
        "sound_pieces": torch.tensor([1]),
        "sound_pools": torch.tensor([0]),
    }


def join_pictures(
    pixels: Sequence[torch.Tensor], grids: Sequence[Grid], sources: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What the model takes of the pictures of several samples, one after the other."""
    return {
        "pixel_values": torch.cat([*pixels]),
        "grid_thw": torch.tensor([[grid.frames, grid.rows, grid.cols] for grid in grids]),
        "merge_sizes": torch.tensor([grid.merge for grid in grids]),
        "keep_mask": torch.cat([*sources]),
    }


def join_sounds(sounds: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What the model takes of the sounds of several samples, one after the other; none: nothing."""
    if not sounds:
        return {}
    banks = [bank_AZ for each in sounds for bank_AZ in each["input_features"]]
    found = {"input_features": torch.nn.utils.rnn.pad_sequence(banks, batch_first=True)}
    for name in ("feature_lengths", "sound_pieces", "sound_pools"):
        found[name] = torch.cat([each[name] for each in sounds])
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The passes of one step that this process runs, and what could not be read.

    cut: samples whose end was left out
    """

    passes: tuple[MicroBatch, ...]
    bad: tuple[Bad, ...]
    cut: int = 0

    @property
    def learned(self) -> int:
        return sum(part.learned for part in self.passes)


class StepCollator:
    """Samples of a step to its passes: the collate function of the data loader."""

    def __init__(
        self, pad_id: int, patch_values: int, blank: Grid = BLANK, silence: dict | None = None
    ) -> None:
        self.pad_id, self.patch_values, self.blank = pad_id, patch_values, blank
        self.silence = silence

    def __call__(self, items: list) -> Step:
        passes: dict[int, list] = {}
        bad, cut = [], 0
        for number, item in items:
            members = passes.setdefault(number, [])
            if isinstance(item, Bad):
                bad.append(item)
            elif item is not None:
                members.append(item)
                cut += item.is_cut
        ready = [
            collate(passes[number], self.pad_id, self.patch_values, self.blank, self.silence)
            for number in sorted(passes)
        ]
        return Step(tuple(ready), tuple(bad), cut)


def _targets(targets: Sequence[dict[str, torch.Tensor]], sources) -> dict[str, torch.Tensor]:
    """By name, the targets of all slots; nothing is known of samples without any."""
    facts = {name: known_KF.shape[1] for each in targets for name, known_KF in each.items()}
    return {
        name: torch.cat(
            [
                each[name] if name in each else torch.full((len(source_K), count), IGNORE)
                for each, source_K in zip(targets, sources)
            ]
        )
        for name, count in facts.items()
    }


def pack(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Rows of samples: the longest first, each into the first row with room (first fit)."""
    longest = max([0, *(len(sample.ids_L) for sample in samples)])
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.ids_L)):
        length = len(sample.ids_L)
        row = next((i for i, left in enumerate(room) if left >= length), None)
        if row is None:
            rows.append([])
            room.append(longest)
            row = len(rows) - 1
        rows[row].append(sample)
        room[row] -= length
    return rows


def number_answers(sample: Sample, first: int) -> tuple[torch.Tensor, list[tuple[str, str]]]:
    """first, first + 1, ... for the learned tokens of each stretch; whose answers these are."""
    learned = sample.labels_L != IGNORE
    begins = learned.clone()
    begins[1:] &= ~learned[:-1]
    numbers = (begins.cumsum(0) - 1 + first)[learned]
    count = int(begins.sum())
    families = sample.families or (sample.dataset,) * count
    return numbers, [(sample.dataset, family) for family in families[:count]]


def attention_mask(
    sample_BL: torch.Tensor, branch_BL: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Additive mask: a token sees earlier ones of its own branch and of its sample's prefix.

    Shapes: returns [B, 1, L, L], 0 or the dtype's lowest number
    """
    L = sample_BL.shape[1]
    own = sample_BL[:, :, None] == sample_BL[:, None, :]
    reached = (branch_BL[:, :, None] == branch_BL[:, None, :]) | (branch_BL[:, None, :] == 0)
    seen = own & reached & torch.ones(L, L, dtype=torch.bool, device=own.device).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=own.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
