"""The audio projector: features of an ear to audio tokens of the language model."""

from __future__ import annotations

import torch

from vl3.connectors.mlp import MLPConnector


class AudioProjector(MLPConnector):
    """Each feature of an ear a token, by itself.

    kind: "linear" or "mlpNx_gelu", as of MLPConnector; VideoLLaMA 2.1-AV uses "mlp2x_gelu", and
    names its layers without readout: mm_projector_a.0 is readout.0 here
    Source: VideoLLaMA2 projector.py (build_audio_projector). Difference: the official class takes
    the language model to be 4,096 wide where the ear's file does not say it, here it is asked.
    """

    def forward(self, x_KD: torch.Tensor, grids: object = ()) -> torch.Tensor:  # type: ignore[override]
        """Shapes: x_KD - [K, width of the ear]; returns [K, language width]"""
        return self.readout(x_KD)
