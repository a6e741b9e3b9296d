"""How an answer is made: what the pruner removes and how tokens are chosen, with all defaults.

The page, notebooks, the terminal and training take their defaults from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vl3.arguments import choice, number, whole

COLDEST = 1e-5  # temperature: logits divided by less leave the range of their format
PruneMode = Literal["official", "rlt", "last_kept"]  # see vl3.vision.prune
PruneSide = Literal["earlier", "later"]  # which of two alike patches stays


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneSettings:
    """How DiffFP decides; see vl3.vision.prune. The defaults are those of the released models.

    Raises: ValueError in one sentence for a number or name that it does not take.
    """

    mode: PruneMode = "official"
    threshold: float = 0.1
    min_tokens: int = 1
    keep: PruneSide = "earlier"

    def __post_init__(self) -> None:
        found = {
            "mode": choice("mode", self.mode, get_args(PruneMode)),
            "threshold": number("threshold", self.threshold, low=0),
            "min_tokens": whole("min_tokens", self.min_tokens, low=0),
            "keep": choice("keep", self.keep, get_args(PruneSide)),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How tokens are chosen. temperature 0 is greedy and ignores top_p and seed.

    A temperature below COLDEST is 0, whose answer it would give. Numbers may be of any kind.
    Raises: ValueError in one sentence for what is no number or out of range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        temperature = number("temperature", self.temperature, low=0)
        found = {
            "max_new_tokens": whole("max_new_tokens", self.max_new_tokens, low=1),
            "temperature": temperature if temperature >= COLDEST else 0.0,
            "top_p": number("top_p", self.top_p, above=0, high=1),
            "repetition_penalty": number(
                "repetition_penalty", self.repetition_penalty, low=0.01, high=100
            ),
            "seed": whole("seed", self.seed, low=-(2**63), high=2**64 - 1),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
