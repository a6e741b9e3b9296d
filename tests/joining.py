"""A connector that joins neighbours: two frames and 2 x 2 merged cells become a token.

It has the shape of VideoLLaMA 2's, a convolution in space and time: half as many steps, rows and
columns, rounded up, since the last of an odd number is joined with nothing. With its name in a
configuration it takes part in a model, as any class that is registered.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import pad

from vl3.connectors import Connector, register
from vl3.values import Grid, TokenGrid


@register("joining")
class Joining(Connector):
    NAME = "joining"

    def __init__(self, name: str, vision_width: int, language_width: int) -> None:
        super().__init__()
        self.join = nn.Conv3d(vision_width, language_width, kernel_size=2, stride=2)

    @classmethod
    def token_grid(cls, grid: Grid) -> TokenGrid:
        frames, rows, cols = (
            tuple((first, min(first + 2, size)) for first in range(0, size, 2))
            for size in (grid.frames, grid.token_rows, grid.token_cols)
        )
        return TokenGrid(grid=grid, frames=frames, rows=rows, cols=cols)

    def forward(self, x_MD: torch.Tensor, grids=()) -> torch.Tensor:
        tokens = []
        for grid, cells_MD in zip(grids, x_MD.split([grid.num_tokens for grid in grids])):
            size = (grid.frames, grid.token_rows, grid.token_cols)
            x_DTRC = cells_MD.view(*size, -1).movedim(-1, 0)
            x_DTRC = pad(x_DTRC, (0, size[2] % 2, 0, size[1] % 2, 0, size[0] % 2))
            tokens.append(self.join(x_DTRC[None])[0].flatten(1).T)
        return torch.cat(tokens)
