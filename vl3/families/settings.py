"""What turns media into visual tokens: settings that every family writes in its own words."""

from __future__ import annotations

from dataclasses import dataclass, field

from vl3.arguments import choice, number, shown, whole
from vl3.values import PruneSettings

CONFIG_FILE = "processor_config.json"
SAMPLINGS = ("exact", "official")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorSettings:
    """What turns media into visual tokens. Sizes in pixels per patch side, budgets in tokens.

    frame_tokens bounds each frame too, for models that were trained on small pictures only.
    """

    patch: int = 14
    image_merge: int = 1
    video_merge: int = 2
    min_tokens: int = 16
    budget_tokens: int = 16384
    frame_tokens: int | None = None
    fps: float = 1.0
    max_frames: int = 180
    sampling: str = "exact"
    system_prompt: bool = True  # chats start with the official system prompt
    prune: PruneSettings | None = field(default_factory=PruneSettings)

    def merge_of(self, kind: str) -> int:
        """How many patches a side make a token of an "image" or a "video"."""
        return self.image_merge if kind == "image" else self.video_merge

    def __post_init__(self) -> None:
        for name in (
            "patch",
            "image_merge",
            "video_merge",
            "min_tokens",
            "budget_tokens",
            "frame_tokens",
            "max_frames",
        ):
            if (given := getattr(self, name)) is not None or name != "frame_tokens":
                object.__setattr__(self, name, whole(name, given, low=1))
        object.__setattr__(self, "fps", number("fps", self.fps, above=0))
        choice("sampling", self.sampling, SAMPLINGS)
        if not isinstance(self.prune, PruneSettings | None):
            raise ValueError(f"prune is settings of the pruner, or none - got {shown(self.prune)}")
