"""The values that cross a border between parts: small, frozen, without behaviour of their own.

A decoded clip, the grid its patches form, the patches, which tokens the pruner keeps, what a reply
was made of. Nothing here knows a model, a file format or a user interface.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from vl3.arguments import instance, items, number, whole
from vl3.sound import Sound as Sound
from vl3.sound import SoundContext as SoundContext
from vl3.sound import SoundTokens as SoundTokens
from vl3.sound import SoundTrack as SoundTrack

if TYPE_CHECKING:
    import torch

IGNORE = -100  # the label of a token that is not learned


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clip:
    """Frames with the times at which they are shown; an image is a clip of one frame without time.

    Shapes: frames_TYX3 - uint8 RGB, upright (rotation and EXIF orientation already applied)
            times_s - one presentation time per frame, seconds from the start of the source;
                      None for a still image
    notes: what a person must know of how the source was read, one sentence each
    """

    frames_TYX3: np.ndarray
    times_s: tuple[float, ...] | None
    source: str
    lost_frames: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        instance("frames_TYX3 of a clip", self.frames_TYX3, np.ndarray, "a NumPy array")
        shape, kind = self.frames_TYX3.shape, self.frames_TYX3.dtype
        if len(shape) != 4 or shape[-1] != 3 or shape[0] < 1 or kind != np.uint8:
            raise ValueError(
                "a clip needs uint8 frames of shape (frames, height, width, 3) - got "
                f"{kind} {shape}"
            )
        if self.times_s is None:
            if shape[0] != 1:
                raise ValueError(
                    f"{shape[0]} frames without times; pass times_s, one presentation time in "
                    "seconds per frame"
                )
            return
        times_s = items("times_s of a clip", self.times_s, "a list of seconds, or None")
        if len(times_s) != shape[0]:
            raise ValueError(f"{shape[0]} frames but {len(times_s)} times in times_s")
        for time_s in times_s:
            number("each of times_s", time_s, unit="seconds")

    @property
    def kind(self) -> str:
        """Either "image", which has no times, or "video"."""
        return "image" if self.times_s is None else "video"

    @property
    def is_image(self) -> bool:
        """Whether the kind is "image", for scripts that ask."""
        return self.kind == "image"

    def __len__(self) -> int:
        return self.frames_TYX3.shape[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Patches of one clip or image: frames x rows x cols, merged merge x merge into tokens.

    copies: how often the connector sees a picture, one after the other, of a model that takes
    pictures as films that stand still; everything else here counts the picture once
    """

    frames: int
    rows: int
    cols: int
    merge: int
    copies: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "rows", "cols", "merge", "copies"):
            whole(f"{name} of a grid", getattr(self, name), low=1)
        if self.copies > 1 and self.frames > 1:
            raise ValueError(
                f"a picture is shown several times, a film is not - got {self.frames} frames and "
                f"{self.copies} copies"
            )
        if self.rows % self.merge or self.cols % self.merge:
            raise ValueError(
                f"a grid of {self.rows} x {self.cols} patches cannot be merged "
                f"{self.merge} x {self.merge}; choose sizes with vl3.vision.fit_grid"
            )

    @property
    def patches_per_frame(self) -> int:
        return self.rows * self.cols

    @property
    def num_patches(self) -> int:
        return self.frames * self.rows * self.cols

    @property
    def tokens_per_frame(self) -> int:
        return self.rows * self.cols // self.merge**2

    @property
    def num_tokens(self) -> int:
        return self.frames * self.tokens_per_frame

    @property
    def token_rows(self) -> int:
        return self.rows // self.merge

    @property
    def token_cols(self) -> int:
        return self.cols // self.merge


Span = tuple[int, int]  # first and end, the end outside


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenGrid:
    """The visual tokens that a connector makes of one clip, and what each of them stands for.

    They are steps x rows x cols, in this order. Every step stands for some frames, every row and
    column for some rows and columns of merged cells. Here two frames and 2 x 2 cells each, of 5
    frames of 3 x 4 cells:

        frames ((0, 2), (2, 4), (4, 5))    rows ((0, 2), (2, 3))    cols ((0, 2), (2, 4))

    grid: the merged cells that they are made of
    frames, rows, cols: spans in ascending order, of which no two share anything; a span without
    length is of tokens that stand for padding alone
    depth: tokens that a step has at each place, one layer of rows x cols behind the other; more
    than one of a picture that is shown several times
    """

    grid: Grid
    frames: tuple[Span, ...]
    rows: tuple[Span, ...]
    cols: tuple[Span, ...]
    depth: int = 1

    def __post_init__(self) -> None:
        sizes = {
            "frames": self.grid.frames,
            "rows": self.grid.token_rows,
            "cols": self.grid.token_cols,
        }
        for name, size in sizes.items():
            edges = [edge for span in getattr(self, name) for edge in span]
            if not edges or edges != sorted(edges) or edges[0] < 0 or edges[-1] > size:
                raise ValueError(
                    f"{name} of a token grid are spans (first, end) within 0 to {size}, each after "
                    f"the one before - got {getattr(self, name)}"
                )

    @classmethod
    def of_cells(cls, grid: Grid) -> TokenGrid:
        """A token for each merged cell of each frame."""
        sizes = (grid.frames, grid.token_rows, grid.token_cols)
        frames, rows, cols = (tuple((i, i + 1) for i in range(size)) for size in sizes)
        return cls(grid=grid, frames=frames, rows=rows, cols=cols)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.frames), len(self.rows), len(self.cols)

    @property
    def tokens_per_step(self) -> int:
        return self.depth * len(self.rows) * len(self.cols)

    @property
    def num_tokens(self) -> int:
        """Visual tokens before pruning."""
        return len(self.frames) * self.tokens_per_step


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Patches:
    """Flattened patches of one or more clips, packed one after the other.

    Shapes: pixels_NP - uint8 grey levels 0..255 (or float32 already normalised to about -1..1),
                        block order (see vl3.vision.patchify), each patch channel -> row -> column
            grids - one Grid per clip or image; their patches add up to N
    """

    pixels_NP: torch.Tensor
    grids: tuple[Grid, ...]

    def __post_init__(self) -> None:
        from torch import Tensor

        instance("pixels_NP of patches", self.pixels_NP, Tensor, "a tensor")
        grids = items("grids of patches", self.grids, "a tuple of vl3.values.Grid")
        for grid in grids:
            instance("each of grids", grid, Grid, "a vl3.values.Grid")
        expected = sum(grid.num_patches for grid in grids)
        if self.pixels_NP.ndim != 2 or self.pixels_NP.shape[0] != expected:
            raise ValueError(
                f"pixels of shape {tuple(self.pixels_NP.shape)} do not fill grids of "
                f"{expected} patches"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Keep:
    """Which merged tokens the language model sees, and how much each of them had changed.

    Shapes: keep_M - bool, True where the token is kept
            change_M - float32, the pruner's distance of every token, in the unit of its mode;
                       infinity where a token had nothing to be compared with (always kept)
            placeholder_M - bool, True where a token below the threshold was kept only so that its
                            frame has min_tokens tokens
    """

    keep_M: torch.Tensor
    change_M: torch.Tensor
    placeholder_M: torch.Tensor
    grids: tuple[Grid, ...]
    mode: str
    threshold: float

    @property
    def kept_per_frame(self) -> list[list[int]]:
        """Kept tokens of every frame of every clip."""
        counts, start = [], 0
        for grid in self.grids:
            frames = self.keep_M[start : start + grid.num_tokens].view(grid.frames, -1)
            counts.append(frames.sum(dim=1).tolist())
            start += grid.num_tokens
        return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a clip will cost, known from its container before a frame is decoded.

    tokens: what the connector makes of the grid; None where each merged cell is a token
    sound_tokens: of what is heard of it
    notes: what a person must know of its times before the run, one sentence each
    """

    source: str
    times_s: tuple[float, ...] | None
    height_px: int
    width_px: int
    grid: Grid
    duration_s: float | None
    notes: tuple[str, ...] = ()
    tokens: TokenGrid | None = None
    sound_tokens: int = 0

    @property
    def num_frames(self) -> int:
        return self.grid.frames

    @property
    def num_tokens(self) -> int:
        """Visual tokens before pruning."""
        return (self.tokens or self.grid).num_tokens

    @property
    def spacing_s(self) -> float | None:
        """Mean distance between two frames in seconds; None for one frame or an image."""
        if self.times_s is None or len(self.times_s) < 2:
            return None
        return (self.times_s[-1] - self.times_s[0]) / (len(self.times_s) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundPlan:
    """What a sound by itself will cost; beside Plan, with the same questions answered.

    tokens: on the clip's clock; start_s: of the sound there
    notes: what a person must know of it before the run, one sentence each
    """

    source: str
    tokens: SoundTokens
    duration_s: float
    start_s: float = 0.0
    notes: tuple[str, ...] = ()

    times_s = None  # it has no frames, and none of their tokens
    num_frames = num_tokens = 0

    @property
    def sound_tokens(self) -> int:
        return self.tokens.num_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """Where tokens and time of one reply went. Counts in tokens, times in seconds.

    decode_s, encode_s, hear_s: of clips and sounds that were not in memory yet; prune_s: of all
    prefill_s: from the finished prompt to the first token; first_token_s: from the very start
    """

    frames: int = 0
    visual_tokens: int = 0
    kept_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    new_tokens: int = 0
    decode_s: float = 0.0
    encode_s: float = 0.0
    prune_s: float = 0.0
    prefill_s: float = 0.0
    encoded_clips: int = 0
    reused_clips: int = 0
    sound_tokens: int = 0
    hear_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    peak_memory_bytes: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Speed of the answer after its first token."""
        rest = self.total_s - self.first_token_s
        return (self.new_tokens - 1) / rest if self.new_tokens > 1 and rest > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class VisualContext:
    """What the language model saw of one clip or image: of each step's tokens, how many.

    A step of tokens stands for a frame, or for the frames that a connector joins.

    times_s: of each frame; None for an image
    frames: (first, end) of each step; None where every frame is a step of its own
    first_slots: where in the prompt the slots of each step begin; empty where there is no prompt
    key: by which a studio finds the encoded clip again while it keeps it
    keep_bits: the pruner's mask over all merged cells, as numpy.packbits packs it
    sound: what it heard of it, None for nothing; a sound by itself has no steps
    """

    times_s: tuple[float, ...] | None
    tokens_per_step: int
    kept_per_step: tuple[int, ...]
    frames: tuple[Span, ...] | None = None
    first_slots: tuple[int, ...] = ()
    key: str = ""
    keep_bits: bytes = field(default=b"", repr=False)
    sound: SoundContext | None = None

    @property
    def num_tokens(self) -> int:
        """Visual tokens before pruning."""
        return self.tokens_per_step * len(self.kept_per_step)

    @property
    def kept_tokens(self) -> int:
        return sum(self.kept_per_step)

    def keep_M(self, cells: int) -> np.ndarray:
        """The pruner's mask over the merged cells, which are so many: bool [cells]."""
        bits = np.frombuffer(self.keep_bits, np.uint8)
        return np.unpackbits(bits, count=cells).astype(bool)

    @property
    def spans(self) -> tuple[Span, ...]:
        """The frames that each step stands for, (first, end)."""
        return self.frames or tuple((i, i + 1) for i in range(len(self.kept_per_step)))

    @property
    def tokens_per_frame(self) -> int:
        """Visual tokens of each frame's step before pruning."""
        return self.tokens_per_step

    @property
    def kept_per_frame(self) -> tuple[int, ...]:
        """For each frame the kept tokens of its step, which several frames may share."""
        counts = zip(self.spans, self.kept_per_step)
        return tuple(kept for (first, end), kept in counts for _ in range(first, end))


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSegment:
    """A stretch of a prompt as the model read it.

    kind: "text"; "special", a token of the chat template; "slots", the visual tokens of a frame;
    "sound", what is heard until the next one
    text: what a tokenizer writes; empty for slots
    clip, frame: of slots, by their numbers; time_s: of a frame of a video
    frames: for how many frames the slots stand, from that one on
    """

    kind: str
    text: str
    tokens: int
    clip: int | None = None
    frame: int | None = None
    time_s: float | None = None
    frames: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A finished (or stopped) answer and everything needed to reproduce it.

    seen: one entry for each clip or image of the prompt, in its order
    prompt_ids: the prompt as the model read it, one slot per kept visual token
    model: fingerprint of the weights that gave it; empty where code of a caller took part
    """

    text: str
    token_ids: tuple[int, ...]
    prompt: str
    settings: dict
    ledger: Ledger
    stopped: bool = False
    truncated: bool = False
    notes: tuple[str, ...] = field(default=())
    seen: tuple[VisualContext, ...] = field(default=())
    prompt_ids: tuple[int, ...] = field(default=(), repr=False)
    model: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a reply: what is being done, in words and by kind, and how far it is.

    kind: "reading" (frames), "encoding", "hearing" (seconds), "pruning", "reused" (encoded before,
    in memory), "loading" (encoded before, on disk) or "answering"
    """

    name: str
    done: int = 0
    total: int = 0
    kind: str = ""
