"""What a kernel says of itself in the table of README.md."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What the table in README.md says of an operation, beside its gain."""

    formula: str
    shapes: str
    called_by: str
    agrees: str
