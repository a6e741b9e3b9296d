"""What turns media into visual tokens: settings that every family writes in its own words."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from transformers import AutoConfig, PreTrainedConfig

from vl3.arguments import choice, number, shown, switch, whole
from vl3.connectors import connector_class
from vl3.settings import PruneSettings
from vl3.values import Grid, TokenGrid
from vl3.video.square import Square

CONFIG_FILE = "processor_config.json"
SAMPLINGS = ("exact", "official")
SOUND_TOKENS = 4096  # of a prompt at most: five and a half minutes at 12.5 a second
SOUND_ORDERS = ("interleave", "chunk", "append")


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundSettings:
    """What turns sound into tokens, for a model with an ear.

    ear: its sizes, a configuration or a dict that names its model_type
    hear: whether sounds, and the tracks of videos, are heard at all
    tokens: of all sounds of a prompt; where there are more, neighbours are joined
    order: where the sound of a video stands: "interleave" between the frames between which it is
    heard, "chunk" after the frames of each chunk_s seconds, "append" after the last frame
    """

    ear: PreTrainedConfig
    hear: bool = True
    tokens: int = SOUND_TOKENS
    order: str = "interleave"
    chunk_s: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.ear, dict):
            sizes = {key: value for key, value in self.ear.items() if key != "model_type"}
            ear = AutoConfig.for_model(str(self.ear.get("model_type")), **sizes)
            object.__setattr__(self, "ear", ear)
        object.__setattr__(self, "hear", switch("hear", self.hear))
        object.__setattr__(self, "tokens", whole("tokens of sound", self.tokens, low=1))
        choice("order of sound", self.order, SOUND_ORDERS)
        number("chunk_s", self.chunk_s, above=0, unit="seconds")

    @property
    def most_tokens(self) -> int:
        """Tokens of sound that a prompt may have."""
        return self.tokens if self.hear else 0

    def to_dict(self) -> dict:
        """Plain values, of which the same can be made again."""
        ear = self.ear.to_diff_dict() | {"model_type": self.ear.model_type}
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"ear": ear}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessorSettings:
    """What turns media into visual tokens. Sizes in pixels per patch side, budgets in tokens.

    budget_tokens and min_tokens count merged cells, each of which most connectors make a token of.
    frame_tokens bounds each frame too, for models that were trained on small pictures only.
    connector: that of the model, by name; it says which tokens a grid becomes
    sound: how sound is heard; None for a model without an ear
    square: the one size that an encoder of fixed size sees; None for any size
    spread: whether max_frames frames are taken of every video, each from the middle of one of so
    many equal pieces, whatever fps says, and a picture is shown so many times to a connector that
    joins frames
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
    connector: str = "mlp2x_gelu"
    sound: SoundSettings | None = None
    square: Square | None = None
    spread: bool = False

    @property
    def unpruned(self) -> str:
        """Why nothing is pruned with this model, in a sentence; empty where something can be."""
        if not connector_class(self.connector).mixes:
            return ""
        return (
            f"Nothing is pruned with this model: its connector ({self.connector}) joins "
            "neighbouring patches and frames, and every token needs all of its own."
        )

    @property
    def unrotated(self) -> str:
        """Why this model's positions have no angles, in a sentence; empty where they have."""
        if not self.square:
            return ""
        return (
            f"This model has no 2D-RoPE: its vision tower adds a learned vector to each of its "
            f"{self.side} x {self.side} places, so that there are no angles to draw."
        )

    @property
    def side(self) -> int:
        """Patches a side of the square that the encoder sees."""
        return self.square.seen_px // self.patch if self.square else 0

    def frames_of(self, asked: int | None = None) -> int:
        """Frames of each video where they are spread over it, as far as the budget goes.

        asked: in place of max_frames
        """
        most = asked or self.max_frames
        return min(most, max(1, self.budget_tokens // self.side**2)) if self.square else most

    def square_grid(self, frames: int, kind: str) -> Grid:
        """The grid of a clip, or of a picture, for an encoder of one fixed size."""
        is_repeated = self.spread and kind == "image" and connector_class(self.connector).mixes
        copies = self.frames_of() if is_repeated else 1
        return Grid(frames=frames, rows=self.side, cols=self.side, merge=1, copies=copies)

    @property
    def blank(self) -> Grid:
        """The smallest film that the model can see, of which nobody wants a token."""
        if self.square:
            return self.square_grid(2, "video")
        return Grid(frames=1, rows=1, cols=1, merge=1)

    def tokens_of(self, grid: Grid) -> TokenGrid:
        """The tokens of a clip of this grid, as the connector makes them."""
        return connector_class(self.connector).token_grid(grid)

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
        if isinstance(self.sound, dict):
            object.__setattr__(self, "sound", SoundSettings(**self.sound))
        if not isinstance(self.prune, PruneSettings | None):
            raise ValueError(f"prune is settings of the pruner, or none - got {shown(self.prune)}")
        switch("spread", self.spread)
        if not isinstance(self.square, Square | None):
            raise ValueError(f"square is a vl3.video.Square, or none - got {shown(self.square)}")
        if self.square and (
            self.square.seen_px % self.patch or self.image_merge * self.video_merge > 1
        ):
            raise ValueError(
                f"a square of {self.square.seen_px} pixels is whole patches of {self.patch}, "
                "image_merge and video_merge are 1 with it - got merges of "
                f"{self.image_merge} and {self.video_merge}"
            )
        if (why := self.unpruned) and self.prune is not None:
            raise ValueError(f"{why[0].lower()}{why[1:-1]}; leave prune out, or set it to None")
