"""Vision encoders of one fixed square size, as VideoLLaMA 2 has them: CLIP and SigLIP.

transformers' own classes, behind the interface of vl3.vision.encoder.VisionEncoder: patches and
their grids in, a feature for each patch out. Which class it is follows from the type of
config.vision_config: VL3VisionConfig, CLIPVisionConfig (CLIP ViT-L/14-336, DFN ViT-H) or
SiglipVisionConfig (so400m-384).

    patches -> frames -> embeddings (a learned position each) -> layers up to the chosen one
            -> features without the class token

No layer behind the chosen one runs; all weights are loaded and saved, so that an export is whole.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from vl3.arguments import whole
from vl3.values import Grid
from vl3.vision.encoder import VisionEncoder
from vl3.vision.patchify import unpatchify

RGB = tuple[float, float, float]
LAYER, USUAL_LAYER = "vision_feature_layer", -2


class Kind(NamedTuple):
    """What a class of towers expects: its model, and by what pixels are normalised.

    leading: positions before the patches, which are those of class tokens
    """

    model: type[PreTrainedModel]
    mean: RGB
    std: RGB
    leading: int


# Mean and deviation of OpenAI's CLIP, which DFN has too, and of SigLIP: of their processors.
KINDS: dict[type[PreTrainedConfig], Kind] = {
    CLIPVisionConfig: Kind(
        CLIPVisionModel,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
        leading=1,
    ),
    SiglipVisionConfig: Kind(SiglipVisionModel, mean=(0.5,) * 3, std=(0.5,) * 3, leading=0),
}


def is_tower(config: PreTrainedConfig) -> bool:
    """Whether these are the sizes of an encoder of one fixed size."""
    return type(config) in KINDS


def side(config: Any) -> int:
    """Patches a side that a tower sees of its square; what is left of the square it does not."""
    return config.image_size // config.patch_size


def build_encoder(config: Any) -> VisionEncoder | VisionTower:
    """The vision encoder of these sizes."""
    return VisionTower(config) if is_tower(config) else VisionEncoder(config)


class VisionTower(nn.Module):
    """Patch features of frames of one size, from one of the tower's own layers.

    config.vision_feature_layer says which, as hidden_states of transformers counts: -1 is the last,
    -2, where it says nothing, the one before, 0 the embeddings; the norm behind the last never runs
    Source: VideoLLaMA2 model/encoder.py. Difference: the layers behind the chosen one do not run.
    Cost: linear in frames.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        kind, layers = KINDS[type(config)], config.num_hidden_layers
        layer = whole("vision_feature_layer", getattr(config, LAYER, USUAL_LAYER))
        if not -layers - 1 <= layer <= layers:
            raise ValueError(
                f"{LAYER} is one of the {layers} layers of the tower, -1 for the last "
                f"and -2 for the one before it - got {layer}"
            )
        self.config, self.kind = config, kind
        self.depth = layer if layer >= 0 else layers + 1 + layer
        self.tower: Any = kind.model(config)

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers that run."""
        return self.tower.encoder.layers[: self.depth]

    @property
    def dtype(self) -> torch.dtype:
        return self.tower.embeddings.patch_embedding.weight.dtype

    def forward(self, pixels_NP: torch.Tensor, grids: tuple[Grid, ...]) -> torch.Tensor:
        """Features of the patches, in their order.

        Shapes: pixels_NP - uint8 levels, or floats normalised as the tower's own processor does
                returns x_ND - in the dtype of the weights
        Raises: ValueError for a grid that is not the tower's.
        """
        x_TLD = self.tower.embeddings(self.frames(pixels_NP, grids))
        if self.kind.leading:
            x_TLD = self.tower.pre_layrnorm(x_TLD)
        for block in self.blocks:
            x_TLD = block(x_TLD, None)
        return x_TLD[:, self.kind.leading :].flatten(0, 1)

    def frames(self, pixels_NP: torch.Tensor, grids: tuple[Grid, ...]) -> torch.Tensor:
        """The frames that were cut into these patches, normalised: [T, 3, Y, X]."""
        places = side(self.config)
        for grid in grids:
            if (grid.rows, grid.cols, grid.merge) != (places, places, 1):
                raise ValueError(
                    f"this model's vision tower sees {places} x {places} patches, merged 1 x 1 - "
                    f"got {grid.rows} x {grid.cols}, merged {grid.merge} x {grid.merge}; let the "
                    "model's own processor cut the picture"
                )
        clips = pixels_NP.split([grid.num_patches for grid in grids])
        frames_TYX3 = torch.cat([unpatchify(x, grid) for x, grid in zip(clips, grids)])
        if frames_TYX3.dtype == torch.uint8:
            mean, std = (frames_TYX3.new_tensor(x, dtype=torch.float) for x in self.kind[1:3])
            frames_TYX3 = (frames_TYX3.float() / 255 - mean) / std
        return frames_TYX3.permute(0, 3, 1, 2).to(self.dtype)
