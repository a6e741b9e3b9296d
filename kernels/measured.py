"""What was measured of the kernels on a GPU, which decides what runs: measured.json.

`python -m train_cli bench --gpu --decide` writes the file. While it is empty no kernel is taken.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("measured.json")
LEAST_GAIN = 1.10  # over the reference: less is not worth a second way to compute the same


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """An operation on a card.

    gains: how many times as fast as the reference, by workload
    targets: those of them that vl3 does; agrees: whether all outputs were those of the reference
    """

    device: str
    gains: dict[str, float]
    targets: tuple[str, ...]
    agrees: bool

    @property
    def wins(self) -> bool:
        """Whether the kernel is taken: it agrees, and gains enough on everything that vl3 does."""
        found = [self.gains[work] for work in self.targets]
        return self.agrees and bool(found) and min(found) >= LEAST_GAIN

    def __str__(self) -> str:
        each = "; ".join(f"{work} {gain:.2f} x" for work, gain in self.gains.items())
        return f"{self.device}: {each}"


@cache
def table() -> dict[str, Measured]:
    """What is known, by operation."""
    found = json.loads(TABLE.read_text("utf-8"))
    return {
        name: Measured(**{**one, "targets": tuple(one["targets"])}) for name, one in found.items()
    }


def winner(operation: str) -> str | None:
    """Where the kernel of this operation was measured to win, and by how much; None where not."""
    known = table().get(operation)
    return str(known) if known and known.wins else None


def write(found: dict[str, Measured], path: Path) -> None:
    """Puts what was measured into the table, in the place of what was known of these operations."""
    known = json.loads(path.read_text("utf-8"))
    known |= {name: asdict(one) for name, one in found.items()}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", "utf-8")
