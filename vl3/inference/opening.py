"""How media are opened for an answer: by what model, with what is kept, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vl3.inference.engine import never
from vl3.values import Progress

OnStage = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFingerprint:
    """Fingerprints of vision encoder, ear and whole model; None where code of a caller takes part
    in it, and for an ear that is not there."""

    encoder: str | None
    model: str | None
    ear: str | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """How a clip or a sound is opened.

    now: what the model is; reuse: whether what is kept, here and on disk, may be used and added to
    on disk; on_stage: is told of progress, outside of the engine's turns; stopped: whether to end
    """

    now: ModelFingerprint
    reuse: bool = True
    on_stage: OnStage = lambda stage: None
    stopped: Callable[[], bool] = never
