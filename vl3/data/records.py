"""One training sample as it is read, before any picture is decoded or text tokenized."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class BadSample(ValueError):
    """A sample that cannot be learned from.

    code: the rule it breaks, E101 ... (vl3.data.checks lists them)
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Conversations about the same media.

    id: as in the file, else file:line
    dataset: name of the data set it counts for
    conversations: each as vl3.VL3Processor takes it: messages with role and content,
           a content being text or a list of parts: {"type": "video", "video": path or Clip or
           {"path", "start", "end", "fps", "max_frames"}}, {"type": "image", "image": path},
           {"type": "text", "text"}. Paths are resolved. Several (shared-prefix lists) hold
           the same media parts, all of them in the first turn, and are learned apart from each
           other with the media encoded once. An assistant's message with "loss": False is not
           learned.
    families: how each answer, in order, is counted in logs; empty: by dataset
    truth: what is known of the media beyond the answers; auxiliary losses of training read it
    """

    id: str
    dataset: str
    conversations: tuple[list[dict], ...]
    families: tuple[str, ...] = ()
    truth: Any = None
    meta: dict = field(default_factory=dict)
