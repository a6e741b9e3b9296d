"""The vision encoder: SigLIP's pre-norm blocks at any resolution, with 2D-RoPE.

Patches of all frames are packed into one sequence, so the linear layers see one big matrix;
attention stays inside a frame. Frames of equal size are a batch for attention, other sizes follow
as further batches: memory and time grow linearly with frames, no mask is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from vl3 import ops
from vl3.config import VL3VisionConfig
from vl3.values import Grid
from vl3.vision import rope2d


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Runs of frames with the same grid in a packed sequence: each is one batch for attention.

    runs: (frames, patches per frame, angle_NR of one frame) in the order of the sequence
    """

    runs: tuple[tuple[int, int, torch.Tensor], ...]


class Attend(nn.Module):
    """Softmax attention inside each frame; q and k arrive here already rotated.

    A module of its own without weights, so that what enters it can be looked at from outside.
    """

    def __init__(self, config: VL3VisionConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def eager(self) -> bool:
        return self.config._attn_implementation == "eager"

    def forward(self, q_NHC, k_NHC, v_NHC, segments: Segments) -> torch.Tensor:
        outputs, start = [], 0
        for frames, length, _ in segments.runs:
            part = slice(start, start + frames * length)
            start = part.stop
            q, k, v = (
                x[part].unflatten(0, (frames, length)).transpose(1, 2)
                for x in (q_NHC, k_NHC, v_NHC)
            )
            out = self._plain(q, k, v) if self.eager else F.scaled_dot_product_attention(q, k, v)
            outputs.append(out.transpose(1, 2).flatten(0, 1))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    @staticmethod
    def _plain(q, k, v) -> torch.Tensor:
        # On a CPU the backward pass of the fused attention is slower than this at small sizes.
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        return weights.softmax(dim=-1) @ v


class Attention(nn.Module):
    def __init__(self, config: VL3VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.head_channels = config.head_channels
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.attend = Attend(config)
        self.out = nn.Linear(width, width)

    def forward(self, x_ND: torch.Tensor, segments: Segments) -> torch.Tensor:
        q, k, v = (
            layer(x_ND).unflatten(-1, (-1, self.head_channels))
            for layer in (self.q, self.k, self.v)
        )
        q, k = ops.rotate(q, k, segments.runs)
        return self.out(self.attend(q, k, v, segments).flatten(-2))


class MLP(nn.Module):
    def __init__(self, config: VL3VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, x_ND: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(x_ND)))


class Block(GradientCheckpointingLayer):
    """Pre-norm transformer block; attention stays inside each frame."""

    def __init__(self, config: VL3VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_ND: torch.Tensor, segments: Segments) -> torch.Tensor:
        x_ND = x_ND + self.attention(self.norm1(x_ND), segments)
        return x_ND + self.mlp(self.norm2(x_ND))


class VisionEncoder(PreTrainedModel):
    """Patch features of frames and images of any size.

    Source: VideoLLaMA3 modeling_videollama3_encoder.py. Differences: attention of one frame never
    reaches another whatever the attention implementation (the official eager path leaks, its sdpa
    path builds a dense mask over all patches).
    Cost: linear in frames, quadratic in patches per frame; memory linear in patches.
    """

    config: VL3VisionConfig
    config_class = VL3VisionConfig
    base_model_prefix = ""
    main_input_name = "pixels_NP"
    input_modalities: Any = ("image", "video")
    supports_gradient_checkpointing = True
    _no_split_modules: Any = ("Block",)
    _input_embed_layer = "patch_embedding"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VL3VisionConfig) -> None:
        super().__init__(config)
        self.patch_embedding = nn.Conv2d(
            3, config.hidden_size, config.patch_size, stride=config.patch_size
        )
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # No post_init: the whole model draws all random weights, in one order.

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # read at each pass; transformers would guess from this file's text that not

    def forward(self, pixels_NP: torch.Tensor, grids: tuple[Grid, ...]) -> torch.Tensor:
        """Features after the final norm, before down-sampling.

        Shapes: pixels_NP - uint8 levels, or floats already normalised to [-1, 1]; block order
                returns x_ND - in the dtype of the weights
        """
        segments = self.segments(grids, pixels_NP.device)
        x_ND = self.embed(pixels_NP)
        for block in self.blocks:
            x_ND = block(x_ND, segments)
        return self.norm(x_ND)

    def embed(self, pixels_NP: torch.Tensor) -> torch.Tensor:
        """Patch embedding: the checkpoint's convolution, one output per cut patch."""
        if pixels_NP.dtype == torch.uint8:
            pixels_NP = (pixels_NP.float() / 255 - 0.5) / 0.5
        patch = self.config.patch_size
        pixels = pixels_NP.to(self.patch_embedding.weight.dtype).view(-1, 3, patch, patch)
        return self.patch_embedding(pixels).flatten(1)

    def segments(self, grids: tuple[Grid, ...], device: torch.device) -> Segments:
        """Runs of equal frames with their rotation angles; neighbours of one size join."""
        runs: list[tuple[int, Grid]] = []
        for grid in grids:
            shape = (grid.rows, grid.cols, grid.merge)
            if runs and shape == (runs[-1][1].rows, runs[-1][1].cols, runs[-1][1].merge):
                runs[-1] = (runs[-1][0] + grid.frames, grid)
            else:
                runs.append((grid.frames, grid))
        channels, theta = self.config.head_channels, self.config.rope_theta
        return Segments(
            tuple(
                (
                    frames,
                    grid.patches_per_frame,
                    rope2d.angles(rope2d.positions(grid, device), channels, theta),
                )
                for frames, grid in runs
            )
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        draw_weights(module, self.config.initializer_range)


def draw_weights(module: nn.Module, std: float) -> None:
    """Random weights for a layer and zeros for its bias, unless they were loaded."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=std)
        if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
            nn.init.zeros_(bias)
