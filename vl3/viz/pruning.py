"""The data of the pruning view: everything the browser needs to decide as the pruner does.

A slider that asked the server for each threshold would be slow, one that drew an approximation
would lie. So the browser gets the numbers that vl3.vision.prune compares, and compares them itself:

    steps   float32 change of every token against the frame before, per mode that looks no further
    pairs   sum of |difference| of every token between any two frames, exact integers of 24 bits

`last_kept` depends on what was kept before, at every threshold differently, and so does the drift
of a removed patch; both look their differences up in pairs. For 180 frames of 91 tokens, a full
budget, that is 4.4 MB. A difference is the same from both sides, so keep="later" needs no data of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch

from vl3.ops import IMAGENET_STD, LEVELS_PER_UNIT, change
from vl3.settings import PruneMode, PruneSettings, PruneSide
from vl3.values import Clip, Grid, TokenGrid
from vl3.vision.patchify import patchify
from vl3.vision.token_map import token_layout
from vl3.viz.pack import packed, packed_24_bit, sheet

MODES: dict[PruneMode, str] = {
    "official": "Official: the frame before",
    "rlt": "RLT: the frame before, other unit",
    "last_kept": "Last kept: the last kept version",
}
SIDES: dict[PruneSide, str] = {"earlier": "Keep the earlier", "later": "Keep the later"}
STEP_MODES: tuple[PruneMode, ...] = ("official", "rlt")
MOST_PAIRS = 4_000_000  # 12 MB
LEVELS = {  # grey levels of 0..255 in one unit of the threshold
    "official": LEVELS_PER_UNIT / 255,
    "rlt": 255 * len(IMAGENET_STD) / sum(1 / std for std in IMAGENET_STD),
    "last_kept": LEVELS_PER_UNIT / 255,
}


def data(clip: Clip, grid: Grid, used: Mapping | None, frame: int = 0) -> dict:
    """What mount() of assets/web/views takes to show this clip under any threshold.

    clip: at the size of its grid, as the model saw it
    used: mode, threshold, min_tokens and keep of the pruner; None where pruning is off
    frame: the one to start with
    Raises: ValueError when the frames do not fill the grid.
    """
    pixels_NP = patchify(clip.frames_TYX3, grid)
    cells_TMP = pixels_NP.view(grid.frames, grid.tokens_per_frame, -1)
    patch_values = pixels_NP.shape[1]
    num_pairs = grid.frames * (grid.frames - 1) // 2 * grid.tokens_per_frame
    pairs = differences(cells_TMP) if num_pairs <= MOST_PAIRS else None
    return {
        "view": "pruning",
        "source": clip.source,
        "times_s": None if clip.times_s is None else list(clip.times_s),
        "frames": grid.frames,
        "tokens": grid.tokens_per_frame,
        "token_rows": grid.token_rows,
        "token_cols": grid.token_cols,
        "boxes": token_boxes(grid, clip.frames_TYX3.shape[1:3]),
        "sheet": sheet(clip.frames_TYX3),
        "steps": {mode: packed(steps(cells_TMP, patch_values, mode)) for mode in STEP_MODES},
        "pairs": None if pairs is None else packed_24_bit(pairs),
        # value of a pair = sum * unit / values: the arithmetic of vl3.ops.change
        "unit": 255 / LEVELS_PER_UNIT,
        "values": cells_TMP.shape[2],
        "levels": LEVELS,
        "modes": list(MODES.items()),
        "sides": list(SIDES.items()),
        "defaults": asdict(PruneSettings()),
        "used": None if used is None else dict(used),
        "frame": frame,
    }


def token_boxes(grid: Grid, size: tuple[int, int]) -> list[list[float]]:
    """Where the tokens of a frame lie: x0, y0, x1, y1 as shares of its width and height."""
    one = Grid(frames=1, rows=grid.rows, cols=grid.cols, merge=grid.merge)
    height, width = size
    cells = TokenGrid.of_cells(one)  # the pruner decides of cells, whatever is made of them
    places = token_layout([cells], np.ones(one.num_tokens, bool), [None], [(height, width)])
    return (places.box_K4 / [width, height, width, height]).tolist()


def steps(cells_TMP: torch.Tensor, patch_values: int, mode: PruneMode) -> np.ndarray:
    """Change of every token against the frame before, in the unit of the mode.

    Shapes: returns float32 [T, M], infinity in the first frame
    """
    changes = torch.full(cells_TMP.shape[:2], torch.inf)
    for index in range(1, len(cells_TMP)):
        changes[index] = change(cells_TMP[index - 1], cells_TMP[index], patch_values, mode)
    return changes.numpy()


def differences(cells_TMP: torch.Tensor) -> np.ndarray:
    """Sum of |difference| of every token between every two frames a < b.

    Shapes: cells_TMP - uint8; returns uint32 [pairs, M], pair b * (b - 1) / 2 + a
    """
    if cells_TMP.dtype != torch.uint8 or 255 * cells_TMP.shape[2] >= 1 << 24:
        raise ValueError("exact sums in float32 need uint8 and at most 65 792 values in a token")
    late, early = np.tril_indices(len(cells_TMP), -1)
    # pdist runs a = 0: b = 1, 2, ...; a = 1: b = 2, 3, ...
    from_pdist = early * len(cells_TMP) - early * (early + 1) // 2 + late - early - 1
    sums = np.empty((len(late), cells_TMP.shape[1]), np.uint32)
    for token in range(cells_TMP.shape[1]):  # float32 sums of integers below 2**24 are exact
        sums[:, token] = torch.pdist(cells_TMP[:, token].float(), p=1).numpy()[from_pdist]
    return sums
