"""The per-token connector of VideoLLaMA 3: a small MLP."""

from __future__ import annotations

import re

import torch
from torch import nn


class MLPConnector(nn.Module):
    """Visual tokens at the language model's width.

    kind: "linear", or "mlpNx_gelu" for N linear layers with GELU between them; the released models
    use "mlp2x_gelu".
    Source: VideoLLaMA3 projector.py (build_vision_projector).
    """

    def __init__(self, kind: str, vision_width: int, language_width: int) -> None:
        super().__init__()
        named = re.fullmatch(r"mlp(\d+)x_gelu", kind)
        if kind != "linear" and not named:
            raise ValueError(f"no connector {kind!r}; choose linear or mlpNx_gelu, e.g. mlp2x_gelu")
        layers: list[nn.Module] = [nn.Linear(vision_width, language_width)]
        for _ in range(1, int(named[1]) if named else 1):
            layers += [nn.GELU(), nn.Linear(language_width, language_width)]
        self.readout = nn.Sequential(*layers)

    def forward(self, x_MD: torch.Tensor) -> torch.Tensor:
        return self.readout(x_MD)
