"""Which place of which frames a visual token stands for, after the connector and pruning, and back.

A cell is merge x merge patches of a frame. The connector says which cells each token is made of
(vl3.values.TokenGrid): one cell each, or a block of them in several frames. The prompt holds one
slot per *kept* token: clips in their order, steps in theirs, rows from the top, columns from the
left. Where each cell is a token:

    grid 2 x 3, frame 1        kept          slots, after 4 of frame 0
    (0,0) (0,1) (0,2)          x . x         4 . 5
    (1,0) (1,1) (1,2)          . x .         . 6 .

and where a token is made of 2 x 2 cells of two frames, both of which show

    frames 2 and 3             slots, after 2 of frames 0 and 1
    (0,0) (0,1) (0,2)          2 2 3
    (1,0) (1,1) (1,2)          2 2 3

Everything that draws a token on a frame, or asks what lies under a click, goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import ArrayLike

from vl3.values import Span, TokenGrid

ABSENT = -1  # the slot of a cell that the pruner removed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenLayout:
    """What the kept visual tokens of a prompt stand for, in slot order.

    Shapes: clip_K - int64, number of the clip or image in the prompt
            frames_K2 - int64, first and end (outside) of the frames of the clip
            row_K, col_K - int64, the first merged cell of the frame, from the top left
            times_s_K2 - float64 presentation times of the first and the last frame; NaN in an image
                         and for a token that stands for no frame
            box_K4 - float64 x0, y0, x1, y1 in pixels of the frame as shown, x1 and y1 outside
            slots - for each clip int64 [frames, cell rows, cell cols]: the slot of every cell,
                    ABSENT where it was pruned; of a picture that is shown several times the first
    depths: for each clip the tokens at each place (vl3.values.TokenGrid); none for 1 everywhere
    """

    clip_K: np.ndarray
    frames_K2: np.ndarray
    row_K: np.ndarray
    col_K: np.ndarray
    times_s_K2: np.ndarray
    box_K4: np.ndarray
    slots: tuple[np.ndarray, ...]
    frame_sizes: tuple[tuple[int, int], ...]
    depths: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.clip_K)

    @property
    def frame_K(self) -> np.ndarray:
        """The first frame of each token, int64."""
        return self.frames_K2[:, 0]

    @property
    def time_s_K(self) -> np.ndarray:
        """When the first frame of each token is shown, float64 seconds; NaN in an image."""
        return self.times_s_K2[:, 0]

    def slot(self, clip: int, frame: int, row: int, col: int) -> int | None:
        """The slot of a cell; None where the pruner removed it.

        Raises: IndexError outside the grid.
        """
        if min(clip, frame, row, col) < 0:
            raise IndexError(f"cells are counted from 0 - got {(clip, frame, row, col)}")
        found = int(self.slots[clip][frame, row, col])
        return None if found == ABSENT else found

    def slot_at(self, clip: int, frame: int, x_px: float, y_px: float) -> int | None:
        """The slot under a point of the frame as shown; None where it was pruned or outside."""
        height, width = self.frame_sizes[clip]
        if not (0 <= x_px < width and 0 <= y_px < height):
            return None
        _, rows, cols = self.slots[clip].shape
        return self.slot(clip, frame, int(y_px * rows // height), int(x_px * cols // width))

    def paint(self, values_K: np.ndarray) -> tuple[np.ndarray, ...]:
        """Values of the slots laid out on all cells that they stand for; pruned ones get none.

        Shapes: values_K - [..., K], any leading dimensions
                returns for each clip float [..., frames, cell rows, cell cols], NaN where pruned
        Raises: ValueError when there is not one value per slot.
        """
        values_K = self.folded(values_K)
        maps = []
        for slots in self.slots:
            present = slots != ABSENT
            painted = np.full((*values_K.shape[:-1], *slots.shape), np.nan, values_K.dtype)
            painted[..., present] = values_K[..., slots[present]]
            maps.append(painted)
        return tuple(maps)

    def folded(self, values_K: np.ndarray) -> np.ndarray:
        """The values with those of all tokens at one place of a picture together, in the slot of
        the first of them; the others have none.

        Shapes: values_K - [..., K], returned as float
        """
        values_K = self._floats(values_K)
        for clip, depth in enumerate(self.depths):
            if depth == 1:
                continue
            own_K = np.flatnonzero(self.clip_K == clip)
            layers = values_K[..., own_K].reshape(*values_K.shape[:-1], depth, -1)
            values_K = values_K.copy()
            values_K[..., own_K] = 0
            values_K[..., own_K[: layers.shape[-1]]] = layers.sum(axis=-2)
        return values_K

    def first_at(self, slot: int) -> int:
        """The slot of the first token at the place of this one."""
        clip = int(self.clip_K[slot])
        depth = self.depths[clip] if self.depths else 1
        own_K = np.flatnonzero(self.clip_K == clip)
        return int(own_K[(slot - own_K[0]) % (len(own_K) // depth)]) if depth > 1 else slot

    def by_frame(self, values_K: np.ndarray) -> tuple[np.ndarray, ...]:
        """Sums of the slots' values over the tokens that stand for each frame, each once.

        Shapes: values_K - [..., K]; returns for each clip float [..., frames]
        Raises: ValueError when there is not one value per slot.
        """
        values_K = self._floats(values_K)
        sums = []
        for clip, slots in enumerate(self.slots):
            frame_T = np.arange(len(slots))
            first_K, end_K = self.frames_K2.T
            in_frame_KT = (first_K[:, None] <= frame_T) & (frame_T < end_K[:, None])
            in_frame_KT &= (self.clip_K == clip)[:, None]
            sums.append(values_K @ in_frame_KT.astype(values_K.dtype))
        return tuple(sums)

    def _floats(self, values_K: np.ndarray) -> np.ndarray:
        values_K = np.asarray(values_K)
        if values_K.shape[-1] != len(self):
            raise ValueError(f"{values_K.shape[-1]} values for {len(self)} visual slots")
        is_float = np.issubdtype(values_K.dtype, np.floating)
        return values_K if is_float else values_K.astype(np.float32)


def token_layout(
    tokens: Sequence[TokenGrid],
    keep_M: ArrayLike,
    times_s: Sequence[Sequence[float] | None],
    frame_sizes: Sequence[tuple[int, int]],
) -> TokenLayout:
    """What the kept tokens of all clips and images of a prompt stand for.

    tokens: of each clip, as its connector says (vl3.connectors.Connector.token_grid)
    Shapes: keep_M - bool over the merged cells of all clips, as vl3.values.Keep.keep_M; numpy or
                     torch on a CPU
    times_s: for each clip one time per frame, None for an image
    frame_sizes: for each clip (height, width) in pixels of its frames as shown
    Raises: ValueError when the lists do not belong together.
    """
    is_kept_M = np.asarray(keep_M, dtype=bool)
    expected = sum(each.grid.num_tokens for each in tokens)
    if is_kept_M.shape != (expected,):
        raise ValueError(f"keep of shape {is_kept_M.shape} for grids of {expected} merged cells")
    if not len(tokens) == len(times_s) == len(frame_sizes):
        raise ValueError(
            f"{len(tokens)} grids, {len(times_s)} lists of times and {len(frame_sizes)} frame "
            "sizes; each clip or image has one of each"
        )
    ends = accumulate(each.grid.num_tokens for each in tokens)
    slots, parts, before = [], [], 0
    for clip, (each, end, times, size) in enumerate(zip(tokens, ends, times_s, frame_sizes)):
        if times is not None and len(times) != each.grid.frames:
            raise ValueError(f"clip {clip} has {each.grid.frames} frames but {len(times)} times")
        kept_SRC = kept_tokens(each, is_kept_M[end - each.grid.num_tokens : end])
        numbers = np.where(kept_SRC, before + np.cumsum(kept_SRC).reshape(kept_SRC.shape) - 1, -1)
        before += int(kept_SRC.sum())
        token_TRC = token_of_cells(each)
        slots.append(np.where(token_TRC < 0, ABSENT, numbers.ravel()[token_TRC]))
        parts.append((np.full(kept_SRC.sum(), clip), *_places(each, kept_SRC, times, size)))
    if not parts:
        none = np.zeros((0, 2), np.int64)
        parts = [(none[:, 0], none, none[:, 0], none[:, 0], np.zeros((0, 2)), np.zeros((0, 4)))]
    names = ("clip_K", "frames_K2", "row_K", "col_K", "times_s_K2", "box_K4")
    return TokenLayout(
        **{name: np.concatenate(part) for name, part in zip(names, zip(*parts))},
        slots=tuple(slots),
        frame_sizes=tuple((int(height), int(width)) for height, width in frame_sizes),
        depths=tuple(each.depth for each in tokens),
    )


def _places(tokens: TokenGrid, kept_SRC: np.ndarray, times, size: tuple[int, int]) -> tuple:
    """Of the kept tokens of one clip: frames, first cell, times and box."""
    step_K, row_K, col_K = np.nonzero(kept_SRC)
    row_K %= len(tokens.rows)  # layer behind layer
    frames_K2 = np.array(tokens.frames)[step_K]
    rows_K2, cols_K2 = np.array(tokens.rows)[row_K], np.array(tokens.cols)[col_K]
    times_s_K2 = np.full(frames_K2.shape, np.nan)
    if times is not None:
        real_K = frames_K2[:, 0] < frames_K2[:, 1]
        shown_K2 = frames_K2[real_K] - [0, 1]  # the last frame is the one before the end
        times_s_K2[real_K] = np.array(times, float)[shown_K2]
    down, across = size[0] / tokens.grid.token_rows, size[1] / tokens.grid.token_cols
    edges = (
        cols_K2[:, 0] * across,
        rows_K2[:, 0] * down,
        cols_K2[:, 1] * across,
        rows_K2[:, 1] * down,
    )
    return frames_K2, rows_K2[:, 0], cols_K2[:, 0], times_s_K2, np.stack(edges, axis=-1)


def token_of_cells(tokens: TokenGrid) -> np.ndarray:
    """For each merged cell of a clip the number of the (first) token made of it, ABSENT where none
    is.

    Shapes: returns int64 [frames, cell rows, cell cols]
    """
    grid, (_, rows, cols) = tokens.grid, tokens.shape
    step_T = _owners(tokens.frames, grid.frames)[:, None, None]
    row_R = _owners(tokens.rows, grid.token_rows)[:, None]
    col_C = _owners(tokens.cols, grid.token_cols)
    is_made_TRC = (step_T >= 0) & (row_R >= 0) & (col_C >= 0)
    return np.where(is_made_TRC, (step_T * tokens.depth * rows + row_R) * cols + col_C, ABSENT)


def _owners(spans: Sequence[Span], size: int) -> np.ndarray:
    """For each of `size` places the number of the span that it lies in, ABSENT where in none."""
    owner = np.full(size, ABSENT)
    for number, (first, end) in enumerate(spans):
        owner[first:end] = number
    return owner


def kept_tokens(tokens: TokenGrid, keep_M: ArrayLike) -> np.ndarray:
    """Which tokens of one clip are kept where the pruner leaves these of its cells.

    A token goes when all of its cells do; one that stands for padding alone stays, and so do those
    behind the first at a place.

    Shapes: keep_M - bool, numpy or torch on a CPU; returns bool [steps, depth * rows, cols]
    """
    token_M = token_of_cells(tokens).ravel()
    is_made_M = token_M >= 0
    of_cells = np.zeros(tokens.num_tokens, bool)
    of_cells[token_M[is_made_M]] = True
    kept = ~of_cells
    kept[token_M[is_made_M & np.asarray(keep_M, dtype=bool)]] = True
    steps, rows, cols = tokens.shape
    return kept.reshape(steps, tokens.depth * rows, cols)


@dataclass(frozen=True, slots=True)
class SlotRuns:
    """The slots of one medium in a prompt: for each step a run of visual tokens, then its sound.

    times_s: of each step, when its first frame is shown; None for an image and for sound alone
    counts: visual slots of each step
    sounds: slots of sound before the first step and after each; nothing where nothing is heard
    """

    times_s: tuple[float, ...] | None
    counts: tuple[int, ...]
    sounds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def in_order(self) -> tuple[int, ...]:
        """All runs as they stand in a prompt; one of sound only where there is any."""
        before, *after = self.sounds or (0,) * (len(self.counts) + 1)
        runs = [before] if before else []
        for count, sound in zip(self.counts, after):
            runs += [count, sound] if sound else [count]
        return tuple(runs)


def slot_runs(
    tokens: TokenGrid,
    keep_M: ArrayLike | None,
    times_s: Sequence[float] | None,
    sound: Callable[[Sequence[float]], tuple[int, ...]] | None = None,
) -> SlotRuns:
    """The slots of one clip in a prompt; keep_M as of kept_tokens, None before anything is pruned.

    times_s: of its frames; None for an image
    sound: slots of its sound before the first and after each of the steps that are shown then
    """
    if keep_M is None:
        counts = (tokens.tokens_per_step,) * len(tokens.frames)
    else:
        counts = tuple(kept_tokens(tokens, keep_M).sum(axis=(1, 2)).tolist())
    if times_s is None:
        return SlotRuns(None, counts)
    last = tokens.grid.frames - 1  # a step of padding is shown with the frame beside it
    shown_s = tuple(times_s[min(first, last)] for first, _ in tokens.frames)
    return SlotRuns(shown_s, counts, sound(shown_s) if sound else ())
