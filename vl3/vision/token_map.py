"""Which place of which frame a visual token is, after merging and pruning, and back again.

A cell is one merged token of the grid. The prompt holds one slot per *kept* cell: clips in their
order, frames in theirs, rows from the top, columns from the left:

    grid 2 x 3, frame 1        kept          slots, after 4 of frame 0
    (0,0) (0,1) (0,2)          x . x         4 . 5
    (1,0) (1,1) (1,2)          . x .         . 6 .

Everything that draws a token on a frame, or asks what lies under a click, goes through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from vl3.values import Grid

ABSENT = -1  # the slot of a cell that the pruner removed


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenLayout:
    """The places of the kept visual tokens of a prompt, in slot order.

    Shapes: clip_K, frame_K, row_K, col_K - int64; number of the clip or image in the prompt, of the
                    frame in the clip, of the merged cell in the frame from the top left
            time_s_K - float64 presentation time of the frame, NaN in an image
            box_K4 - float64 x0, y0, x1, y1 in pixels of the frame as shown, x1 and y1 outside
            slots - for each clip int64 [frames, token rows, token cols]: the slot of every cell,
                    ABSENT where it was pruned
    """

    clip_K: np.ndarray
    frame_K: np.ndarray
    row_K: np.ndarray
    col_K: np.ndarray
    time_s_K: np.ndarray
    box_K4: np.ndarray
    slots: tuple[np.ndarray, ...]
    frame_sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.clip_K)

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
        """Values of the slots laid out on the frames; pruned cells never receive one.

        Shapes: values_K - [..., K], any leading dimensions
                returns for each clip float [..., frames, token rows, token cols], NaN where pruned
        Raises: ValueError when there is not one value per slot.
        """
        values_K = np.asarray(values_K)
        if values_K.shape[-1] != len(self):
            raise ValueError(f"{values_K.shape[-1]} values for {len(self)} visual slots")
        if not np.issubdtype(values_K.dtype, np.floating):
            values_K = values_K.astype(np.float32)
        maps = []
        for slots in self.slots:
            present = slots != ABSENT
            painted = np.full((*values_K.shape[:-1], *slots.shape), np.nan, values_K.dtype)
            painted[..., present] = values_K[..., slots[present]]
            maps.append(painted)
        return tuple(maps)


def token_layout(
    grids: Sequence[Grid],
    keep_M: np.ndarray,
    times_s: Sequence[Sequence[float] | None],
    frame_sizes: Sequence[tuple[int, int]],
) -> TokenLayout:
    """Places of the kept tokens of all clips and images of a prompt.

    Shapes: keep_M - bool over the merged tokens of all clips, as vl3.values.Keep.keep_M; numpy or
                     torch on a CPU
    times_s: for each clip one time per frame, None for an image
    frame_sizes: for each clip (height, width) in pixels of its frames as shown
    Raises: ValueError when the lists do not belong together.
    """
    keep_M = np.asarray(keep_M, dtype=bool)
    expected = sum(grid.num_tokens for grid in grids)
    if keep_M.shape != (expected,):
        raise ValueError(f"keep of shape {keep_M.shape} for grids of {expected} merged tokens")
    if not len(grids) == len(times_s) == len(frame_sizes):
        raise ValueError(
            f"{len(grids)} grids, {len(times_s)} lists of times and {len(frame_sizes)} frame "
            "sizes; each clip or image has one of each"
        )
    starts = [0, *accumulate(grid.num_tokens for grid in grids)]
    number_M = np.where(keep_M, np.cumsum(keep_M) - 1, ABSENT)
    slots, parts = [], []
    for clip, (grid, times, size) in enumerate(zip(grids, times_s, frame_sizes)):
        if times is not None and len(times) != grid.frames:
            raise ValueError(f"clip {clip} has {grid.frames} frames but {len(times)} times")
        shape = (grid.frames, grid.token_rows, grid.token_cols)
        slots.append(number_M[starts[clip] : starts[clip + 1]].reshape(shape))
        frame_K, row_K, col_K = np.nonzero(slots[-1] != ABSENT)
        seconds = np.full(grid.frames, np.nan) if times is None else np.array(times, float)
        down, across = size[0] / grid.token_rows, size[1] / grid.token_cols
        edges = (col_K * across, row_K * down, (col_K + 1) * across, (row_K + 1) * down)
        parts.append(
            (
                np.full(len(frame_K), clip),
                frame_K,
                row_K,
                col_K,
                seconds[frame_K],
                np.stack(edges, axis=-1),
            )
        )
    empty = [np.zeros(0, np.int64)] * 4 + [np.zeros(0), np.zeros((0, 4))]
    joined = [np.concatenate(part) for part in zip(*parts)] if parts else empty
    names = ("clip_K", "frame_K", "row_K", "col_K", "time_s_K", "box_K4")
    return TokenLayout(
        **dict(zip(names, joined)),
        slots=tuple(slots),
        frame_sizes=tuple((int(height), int(width)) for height, width in frame_sizes),
    )
