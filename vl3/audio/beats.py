"""BEATs, an ear for sounds of every kind.

Source: "BEATs: Audio Pre-Training with Acoustic Tokenizers" (arXiv 2212.09058), the arrangement of
its iter3+ release. Tensors have its names, which are those of VideoLLaMA 2.1-AV's audio tower too;
the table of the position bias, which it repeats for every layer (`repeated`), is the first layer's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import initialization
from transformers.modeling_layers import GradientCheckpointingLayer

from vl3.audio.ear import Ear, EarSizes, register
from vl3.audio.filter_bank import HOP, WINDOW, beats_bank
from vl3.audio.pieces import EarForm
from vl3.config import BEATsConfig

MEAN, STD = 15.41663, 6.55582  # of the filter bank over AudioSet
# Of the position bias of the heads that attend at once. A head of 30 s takes 9 MB; three at once
# are no faster on a CPU.
_BIAS_BYTES = {"cpu": 8 << 20}
_BIAS_BYTES_OF_A_GPU = 256 << 20


class RelativeAttention(nn.Module):
    """Attention with a bias by distance, which each query scales by a gate of its own.

    The gate is a function of the query before it is scaled; the official code's way to keep float16
    in range (a division by 32 taken back) changes no number and is left out.
    """

    def __init__(self, config: BEATsConfig, is_first: bool) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if is_first:
            self.relative_attention_bias = nn.Embedding(config.num_buckets, self.heads)
        self.dropout = config.attention_dropout

    def forward(
        self, x_BLD: torch.Tensor, bias_HR: torch.Tensor, hidden_BL: torch.Tensor | None
    ) -> torch.Tensor:
        """Shapes: bias_HR - of each distance, R = 2 L - 1; hidden_BL - True for no sound"""
        q, k, v = (
            layer(x_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        gate_BHL2 = self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        a_BHL1, b_BHL1 = gate_BHL2.chunk(2, dim=-1)
        gate_BHL1 = a_BHL1 * (b_BHL1 * self.grep_a - 1) + 2
        batch, _, length, _ = q.shape
        most = _BIAS_BYTES.get(q.device.type, _BIAS_BYTES_OF_A_GPU)
        together = max(1, most // (batch * length * length * q.element_size()))
        found = []
        for first in range(0, self.heads, together):
            some = slice(first, first + together)
            # row i of a view of all distances begins one place before that of row i - 1
            bias_HLL = bias_HR[some].unfold(1, length, 1).flip(1)
            mask_BHLL = gate_BHL1[:, some] * bias_HLL
            if hidden_BL is not None:
                mask_BHLL = mask_BHLL.masked_fill(hidden_BL[:, None, None], float("-inf"))
            found.append(
                functional.scaled_dot_product_attention(
                    q[:, some],
                    k[:, some],
                    v[:, some],
                    attn_mask=mask_BHLL,
                    dropout_p=self.dropout if self.training else 0.0,
                )
            )
        return self.out_proj(torch.cat(found, dim=1).transpose(1, 2).flatten(2))


class Layer(GradientCheckpointingLayer):
    """A post-norm block whose shortcuts are stronger, the more layers there are (deep norm)."""

    def __init__(self, config: BEATsConfig, is_first: bool) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = RelativeAttention(config, is_first)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.shortcut = (2 * config.encoder_layers) ** 0.25
        self.dropout, self.activation_dropout = config.dropout, config.activation_dropout

    def forward(
        self, x_BLD: torch.Tensor, bias_HR: torch.Tensor, hidden_BL: torch.Tensor | None
    ) -> torch.Tensor:
        heard = self._dropped(self.self_attn(x_BLD, bias_HR, hidden_BL), self.dropout)
        x_BLD = self.self_attn_layer_norm(x_BLD * self.shortcut + heard)
        inner = self._dropped(functional.gelu(self.fc1(x_BLD)), self.activation_dropout)
        return self.final_layer_norm(
            x_BLD * self.shortcut + self._dropped(self.fc2(inner), self.dropout)
        )

    def _dropped(self, x: torch.Tensor, share: float) -> torch.Tensor:
        return functional.dropout(x, share, self.training)


class PositionConvolution(nn.Module):
    """A convolution over neighbouring tokens that says where each is; weights by length and way.

    An even kernel gives one place too many at the end, which is cut off.
    """

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        width, self.kernel, self.groups = (
            config.encoder_embed_dim,
            config.conv_pos,
            config.conv_pos_groups,
        )
        self.gain = nn.Parameter(torch.ones(1, 1, self.kernel))
        self.direction = nn.Parameter(torch.empty(width, width // self.groups, self.kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        weight = self.direction * (self.gain / norm)
        found = functional.conv1d(
            x_BLD.transpose(1, 2), weight, self.bias, padding=self.kernel // 2, groups=self.groups
        )
        return functional.gelu(found[..., : x_BLD.shape[1]].transpose(1, 2))


class Encoder(nn.Module):
    """The blocks, and the bias by distance that they share."""

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv = nn.Sequential(PositionConvolution(config))
        self.layers = nn.ModuleList(Layer(config, n == 0) for n in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)

    def forward(self, x_BLD: torch.Tensor, hidden_BL: torch.Tensor | None) -> torch.Tensor:
        config = self.config
        if hidden_BL is not None:
            x_BLD = x_BLD.masked_fill(hidden_BL[..., None], 0)
        x_BLD = self.layer_norm(x_BLD + self.pos_conv(x_BLD))
        x_BLD = functional.dropout(x_BLD, config.dropout, self.training)
        buckets_R = distance_buckets(x_BLD.shape[1], config.num_buckets, config.max_distance)
        table = cast(Layer, self.layers[0]).self_attn.relative_attention_bias
        bias_HR = table(buckets_R.to(x_BLD.device)).T
        decay = config.layer_wise_gradient_decay_ratio
        for layer in self.layers:
            if x_BLD.requires_grad and decay != 1:
                x_BLD = x_BLD.view_as(x_BLD)
                x_BLD.register_hook(lambda gradient: gradient * decay)
            # a frozen ear hears as it does for an answer
            learns = self.training and self.layer_norm.weight.requires_grad
            drop = config.encoder_layerdrop if learns else 0.0
            if not drop or torch.rand(()) >= drop:
                x_BLD = layer(x_BLD, bias_HR, hidden_BL)
            else:  # processes that share gradients wait for those of every weight
                learning = [weight.sum() for weight in layer.parameters() if weight.requires_grad]
                x_BLD = x_BLD + 0 * sum(learning)
        return x_BLD


@register("vl3_beats")
class BEATs(Ear):
    """Patches of 16 x 16 of a filter bank, each a token: 8 bands of every 0.16 s, 50 a second.

    Differences from the official use: any length in pieces of 29.92 s that miss nothing between
    them, and no silence to fill 30 s; where pieces are padded to be a batch, padding is hidden by
    patches (the official mask is of another order, and nobody passes one). `official` banks
    (vl3.audio.official) go through the same way.
    """

    config: BEATsConfig
    config_class = BEATsConfig
    _no_split_modules: Any = ("Layer",)
    _supports_sdpa = True

    def __init__(self, config: BEATsConfig) -> None:
        super().__init__(config)
        patch = config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, stride=patch, bias=False)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = nn.Linear(config.embed_dim, config.encoder_embed_dim)
        self.encoder = Encoder(config)
        if config.finetuned_model:
            self.predictor = nn.Linear(config.encoder_embed_dim, config.predictor_class)
        self.post_init()

    @classmethod
    def form(cls, config: BEATsConfig) -> EarForm:  # type: ignore[override]
        return EarForm(
            step_samples=config.input_patch_size * HOP,
            steps=config.piece_steps,
            bands=config.bands // config.pool_bands,
            overhang=WINDOW - HOP,
            takes_rest=False,
        )

    @classmethod
    def bank(cls, config: BEATsConfig, piece_S: np.ndarray) -> torch.Tensor:  # type: ignore[override]
        least = config.input_patch_size * HOP + WINDOW - HOP
        if 0 < len(piece_S) < least:
            piece_S = np.pad(piece_S, (0, least - len(piece_S)))
        return beats_bank(piece_S)

    @classmethod
    def working_bytes(cls, config: BEATsConfig, itemsize: int, device: str) -> float:  # type: ignore[override]
        tokens = config.piece_steps * config.bands
        at_once = _BIAS_BYTES.get(device, _BIAS_BYTES_OF_A_GPU)
        bias = 2 * max(tokens**2 * itemsize, at_once)  # by distance, and scaled by its gate
        attending = bias + tokens * 5 * config.encoder_embed_dim * itemsize
        bank = tokens * config.input_patch_size**2 * (8 + itemsize)
        return bank + max(attending, super().working_bytes(config, itemsize, device))

    @classmethod
    def sizes(cls, config: BEATsConfig) -> EarSizes:  # type: ignore[override]
        return EarSizes(
            layers=config.encoder_layers,
            positions=config.piece_steps * config.bands,
            width=config.encoder_embed_dim,
            heads=config.encoder_attention_heads,
            inner=config.encoder_ffn_embed_dim,
            biased=True,
        )

    def forward(self, bank_BAZ: torch.Tensor, num_samples_B: torch.Tensor) -> torch.Tensor:
        form = self.form(self.config)
        steps = [form.steps_of(num_samples) for num_samples in num_samples_B.tolist()]
        if not steps:
            return self.layer_norm.weight.new_zeros(0, self.config.width)
        is_padded = min(steps) < bank_BAZ.shape[1] // self.config.input_patch_size
        steps_B = torch.tensor(steps, device=bank_BAZ.device) if is_padded else None
        x_BLD = self.tokens(bank_BAZ, steps_B)
        x_BTJD = x_BLD.unflatten(1, (-1, form.bands, self.config.pool_bands)).mean(3)
        return torch.cat([x_TJD[:count].flatten(0, 1) for x_TJD, count in zip(x_BTJD, steps)])

    def tokens(self, bank_BAZ: torch.Tensor, steps_B: torch.Tensor | None = None) -> torch.Tensor:
        """Features of all patches of a batch, those that are padding among them.

        steps_B: how many steps of each are sound; None for all
        Shapes: bank_BAZ - before the normalisation, which is done in its dtype
                returns [B, steps x bands, width]
        """
        weight = self.patch_embedding.weight
        normalised_BAZ = (bank_BAZ - MEAN) / (2 * STD)
        patches_BDTJ = self.patch_embedding(normalised_BAZ[:, None].to(weight.dtype))
        x_BLD = self.post_extract_proj(self.layer_norm(patches_BDTJ.flatten(2).transpose(1, 2)))
        x_BLD = functional.dropout(x_BLD, self.config.dropout_input, self.training)
        length, hidden_BL = patches_BDTJ.shape[2], None
        if steps_B is not None:
            hidden_BT = torch.arange(length, device=steps_B.device) >= steps_B[:, None]
            hidden_BL = hidden_BT.repeat_interleave(self.config.bands, dim=1)
        return self.encoder(x_BLD, hidden_BL)

    def class_probabilities(self, x_LD: torch.Tensor) -> torch.Tensor:
        """Of the classes it was fine-tuned on (AudioSet's), each by itself, for one sound.

        Shapes: x_LD - its features, unpooled
        """
        return self.predictor(x_LD).mean(0).sigmoid()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, PositionConvolution):
            spread = math.sqrt(4 / (module.kernel * self.config.encoder_embed_dim))
            nn.init.normal_(module.direction, std=spread)
            length = torch.linalg.vector_norm(module.direction, dim=(0, 1), keepdim=True)
            initialization.copy_(module.gain, length)
            nn.init.zeros_(module.bias)
        elif isinstance(module, RelativeAttention):
            nn.init.ones_(module.grep_a)
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
            if isinstance(bias := getattr(module, "bias", None), torch.Tensor):
                nn.init.zeros_(bias)


SHARED_BIAS = "encoder.layers.0.self_attn.relative_attention_bias.weight"


# Names of the release, and ours where they are others: transformers takes the former for those of
# a convolution of torch's, which has them under names of its own.
RENAMED = {
    "encoder.pos_conv.0.weight_g": "encoder.pos_conv.0.gain",
    "encoder.pos_conv.0.weight_v": "encoder.pos_conv.0.direction",
}


def own_tensors(released: Mapping[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """The tensors of a release under our names, what it has several times once."""
    copies = repeated(layers)
    return {
        RENAMED.get(name, name): tensor for name, tensor in released.items() if name not in copies
    }


def repeated(layers: int) -> tuple[str, ...]:
    """Names of the release for tensors that are the first layer's position bias once more."""
    return tuple(SHARED_BIAS.replace(".0.", f".{layer}.") for layer in range(1, layers))


def distance_buckets(length: int, num_buckets: int, max_distance: int) -> torch.Tensor:
    """The bucket of each distance key - query, from -(length - 1) to length - 1.

    Half of the buckets are for keys behind the query. Of each half, half are exact distances, the
    others grow by a constant factor up to max_distance, and the last one has all beyond.
    Source: Raffel et al., arXiv 1910.10683 (T5).
    """
    distance_R = torch.arange(1 - length, length)
    half = num_buckets // 2
    exact = half // 2
    far_R = distance_R.abs()
    growth = torch.log(far_R.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    rough_R = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return half * (distance_R > 0) + torch.where(far_R < exact, far_R, rough_R)
