"""The connectors of VideoLLaMA 2: neighbours in space and time become one token.

Each frame goes through a stage of convolutions, a window of frames, rows and columns is joined, and
what comes out goes through a second stage and an MLP:

    x_MD -> s1 (per frame) -> sampler (a window becomes a token, SiLU) -> s2 -> readout

| name              | window    | joined by   | padding | stages |
|-------------------|-----------|-------------|---------|--------|
| stc_connector     | 2 x 2 x 2 | convolution | 1       | 4 deep |
| stc_connector_v35 | 2 x 2 x 2 | convolution | 0       | 4 deep |
| stp_connector     | 2 x 2 x 2 | mean        | 0       | 4 deep |
| spatial_conv      | 1 x 2 x 2 | convolution | 1       | none   |
| spatial_pool      | 1 x 2 x 2 | mean        | 0       | none   |

Padding is of zeros around rows, columns and time alike, so that spatial_conv gives two steps of
padding alone. mean_linear, mean_mlpNx_gelu and mean_identity are what the same models call linear,
mlpNx_gelu and identity: each place's mean over all frames, then what the name says. (VideoLLaMA 3's
mlp2x_gelu takes each frame by itself.)

Source: VideoLLaMA 2, section 2.2 and Algorithm 1; the official projector.py, whose names the
weights have. The paper's algorithm has neither padding nor SiLU; what was released stands here.
Difference: what fails there in torch is refused in words.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from vl3.connectors.base import Connector, register
from vl3.values import Grid, Span, TokenGrid


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a picture, [T, C, R, W]."""

    def forward(self, x_TCRW: torch.Tensor) -> torch.Tensor:
        normed = F.layer_norm(
            x_TCRW.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normed.movedim(-1, 1)


class ConvNorm(nn.Module):
    """A convolution that keeps the size of the picture, and a norm."""

    def __init__(self, ins: int, outs: int, side: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(ins, outs, side, padding=side // 2, groups=groups, bias=False)
        self.bn = ChannelNorm(outs, eps=1e-5)

    def forward(self, x_TCRW: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x_TCRW))


class SqueezeExcite(nn.Module):
    """Each channel scaled by what all channels are in the mean of the picture."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x_TCRW: torch.Tensor) -> torch.Tensor:
        mean = x_TCRW.mean((2, 3), keepdim=True)
        return x_TCRW * self.fc2(F.silu(self.fc1(mean))).sigmoid()


class Block(nn.Module):
    """RegNet's bottleneck: 1 x 1, 3 x 3 in each channel by itself, squeeze and excite, 1 x 1.

    Source: RegNet (Y), as timm 1.0.3 names its parts.
    """

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(ins, outs)
        self.conv2 = ConvNorm(outs, outs, side=3, groups=outs)
        self.se = SqueezeExcite(outs, round(ins / 4))  # a quarter of what comes in
        self.conv3 = ConvNorm(outs, outs)
        if ins != outs:
            self.downsample = ConvNorm(ins, outs)

    def forward(self, x_TCRW: torch.Tensor) -> torch.Tensor:
        around = self.downsample(x_TCRW) if hasattr(self, "downsample") else x_TCRW
        x_TCRW = F.silu(self.conv1(x_TCRW))
        x_TCRW = self.se(F.silu(self.conv2(x_TCRW)))
        return F.silu(self.conv3(x_TCRW) + around)


def stage(depth: int, ins: int, outs: int) -> nn.Module:
    """`depth` blocks, the first of which changes the width; nothing for depth 0."""
    if depth == 0:
        return nn.Identity()
    blocks = {f"b{i}": Block(ins if i == 1 else outs, outs) for i in range(1, depth + 1)}
    return nn.Sequential(OrderedDict(blocks))


def mlp(depth: int, ins: int, outs: int) -> nn.Sequential:
    """`depth` linear layers with GELU between them."""
    layers: list[nn.Module] = [nn.Linear(ins, outs)]
    for _ in range(1, depth):
        layers += [nn.GELU(), nn.Linear(outs, outs)]
    return nn.Sequential(*layers)


class Windowed(Connector):
    """A window of frames, rows and columns becomes a token; see the table of this module.

    window: frames, rows and columns joined; pools: by their mean; depth: blocks of each stage
    """

    window: ClassVar[tuple[int, int, int]] = (2, 2, 2)
    padding: ClassVar[int] = 0
    pools: ClassVar[bool] = False
    depth: ClassVar[int] = 4

    def __init__(self, name: str, vision_width: int, language_width: int) -> None:
        super().__init__()
        if not self.depth and vision_width != language_width:
            raise ValueError(
                f"the connector {name} has no stage that changes the width, so it needs an encoder "
                f"as wide as the language model - got {vision_width} and {language_width}; choose "
                "stc_connector or stp_connector"
            )
        width = language_width
        self.s1 = stage(self.depth, vision_width, width)
        join = (
            nn.AvgPool3d(self.window)
            if self.pools
            else nn.Conv3d(width, width, self.window, stride=self.window, padding=self.padding)
        )
        self.sampler = nn.Sequential(join, nn.SiLU())
        self.s2 = stage(self.depth, width, width)
        self.readout = mlp(2, width, width)

    @classmethod
    def token_grid(cls, grid: Grid) -> TokenGrid:
        """The windows over the grid; those over its padding are cut where the grid ends.

        Raises: ValueError for a grid that is smaller than a window.
        """
        seen = grid.frames * grid.copies
        sizes = {"frames": seen, "rows": grid.token_rows, "columns": grid.token_cols}
        for (name, size), side in zip(sizes.items(), cls.window):
            if size + 2 * cls.padding < side:
                raise ValueError(
                    f"this model joins {side} {name} into a token, and there is {size}; raise "
                    f"max_frames or budget_tokens so that {side} {name} are seen"
                )
        spans = [cls.spans(size, side) for size, side in zip(sizes.values(), cls.window)]
        if grid.copies > 1:  # every step stands for the one picture
            return TokenGrid(
                grid=grid, frames=((0, 1),), rows=spans[1], cols=spans[2], depth=len(spans[0])
            )
        return TokenGrid(grid=grid, frames=spans[0], rows=spans[1], cols=spans[2])

    @classmethod
    def spans(cls, size: int, side: int) -> tuple[Span, ...]:
        """What each window of `side` places covers of `size` places and their padding."""
        firsts = range(-cls.padding, size + cls.padding - side + 1, side)
        return tuple((max(0, min(f, size)), max(0, min(f + side, size))) for f in firsts)

    def forward(self, x_MD: torch.Tensor, grids: Sequence[Grid] = ()) -> torch.Tensor:
        clips = x_MD.split([grid.num_tokens for grid in grids])
        return torch.cat([self._one(cells_MD, grid) for cells_MD, grid in zip(clips, grids)])

    def _one(self, x_MD: torch.Tensor, grid: Grid) -> torch.Tensor:
        x_TRCD = x_MD.unflatten(0, (grid.frames, grid.token_rows, grid.token_cols))
        x_TDRC = self.s1(x_TRCD.movedim(-1, 1))
        x_TDRC = x_TDRC.repeat_interleave(grid.copies, 0)  # frames do not see each other before
        x_TDRC = self.sampler(x_TDRC.movedim(0, 1)[None])[0].movedim(1, 0)
        return self.readout(self.s2(x_TDRC).movedim(1, -1).flatten(0, 2))


@register("stc_connector")
class STC(Windowed):
    """VideoLLaMA2-7B's: padded."""

    padding = 1


@register("stc_connector_v35")
class STCUnpadded(Windowed):
    """VideoLLaMA2.1's: the token count of the paper."""


@register("stp_connector")
class STP(Windowed):
    """With a mean in place of the convolution."""

    pools = True


@register("spatial_conv")
class SpatialConv(Windowed):
    """Within each frame, without stages."""

    window, padding, depth = (1, 2, 2), 1, 0


@register("spatial_pool")
class SpatialPool(Windowed):
    """Within each frame, a mean without stages."""

    window, pools, depth = (1, 2, 2), True, 0


@register("mean_linear|mean_mlp[1-9]x_gelu|mean_identity")
class MeanOverTime(Connector):
    """Each place's mean over all frames, then a linear layer, an MLP or nothing."""

    def __init__(self, name: str, vision_width: int, language_width: int) -> None:
        super().__init__()
        if named := re.fullmatch(r"mean_mlp(\d)x_gelu", name):
            self.layers = mlp(int(named[1]), vision_width, language_width)
        elif name == "mean_linear":
            self.linear = nn.Linear(vision_width, language_width)
        elif vision_width != language_width:
            raise ValueError(
                "the connector mean_identity needs an encoder as wide as the language model - got "
                f"{vision_width} and {language_width}; choose mean_linear"
            )

    @classmethod
    def token_grid(cls, grid: Grid) -> TokenGrid:
        places = TokenGrid.of_cells(grid)
        return TokenGrid(grid=grid, frames=((0, grid.frames),), rows=places.rows, cols=places.cols)

    def forward(self, x_MD: torch.Tensor, grids: Sequence[Grid] = ()) -> torch.Tensor:
        clips = x_MD.split([grid.num_tokens for grid in grids])
        means = [x.unflatten(0, (grid.frames, -1)).mean(0) for x, grid in zip(clips, grids)]
        x_KD = torch.cat(means)
        for layer in self.children():
            x_KD = layer(x_KD)
        return x_KD
