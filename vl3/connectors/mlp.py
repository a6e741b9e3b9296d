"""The per-token connector of VideoLLaMA 3: a small MLP."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn

from vl3.connectors.base import Connector, register
from vl3.values import Grid, TokenGrid

EACH_BY_ITSELF = "linear|mlp[1-9]x_gelu"  # names of connectors of tokens one by one


@register(EACH_BY_ITSELF)
class MLPConnector(Connector):
    """Each merged cell a token, by itself.

    kind: "linear", or "mlpNx_gelu" for N linear layers with GELU between them; the released models
    use "mlp2x_gelu".
    Source: VideoLLaMA3 projector.py (build_vision_projector).
    """

    mixes = False

    def __init__(self, kind: str, vision_width: int, language_width: int) -> None:
        super().__init__()
        named = re.fullmatch(r"mlp(\d)x_gelu", kind)
        layers: list[nn.Module] = [nn.Linear(vision_width, language_width)]
        for _ in range(1, int(named[1]) if named else 1):
            layers += [nn.GELU(), nn.Linear(language_width, language_width)]
        self.readout = nn.Sequential(*layers)

    @classmethod
    def token_grid(cls, grid: Grid) -> TokenGrid:
        return TokenGrid.of_cells(grid)

    def forward(self, x_MD: torch.Tensor, grids: Sequence[Grid] = ()) -> torch.Tensor:
        return self.readout(x_MD)
