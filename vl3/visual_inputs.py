"""From pixels to a prompt's embeddings: frames encoded, joined by the connector, put into slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from vl3.config import VL3Config
from vl3.connectors import Connector, connector_class
from vl3.values import Grid
from vl3.vision import VisionEncoder, downsample, unique_frames
from vl3.vision.towers import VisionTower

# Without gradients the encoder runs over at most this many patches at a time (one frame at least),
# so that its memory does not grow with the clip and a stop is noticed soon. Frames never see each
# other: the result does not depend on where a clip is cut.
CHUNK_PATCHES = {"cpu": 1024, "cuda": 16384}
OTHER_CHUNK_PATCHES = 4096


class VisualInputs:
    """From pixels to a prompt's embeddings, for a model with vision, connector and config."""

    if TYPE_CHECKING:  # of the model that it is mixed into
        config: VL3Config
        vision: VisionEncoder | VisionTower
        connector: Connector
        get_input_embeddings: Callable[[], nn.Module]

    def embed_visual(self, pixel_values, grid_thw, merge_sizes, keep_mask=None) -> torch.Tensor:
        """Kept visual tokens at the language model's width, [K, E]."""
        if connector_class(self.config.connector).mixes:
            features = self.encode_vision(pixel_values, grid_thw, merge_sizes)
            return self.visual_tokens(features, to_grids(grid_thw, merge_sizes), keep_mask)
        return self.project(self.encode_vision(pixel_values, grid_thw, merge_sizes, keep=keep_mask))

    def encode_vision(
        self,
        pixel_values: torch.Tensor,
        grid_thw: torch.LongTensor | Sequence[Sequence[int]],
        merge_sizes: torch.LongTensor | Sequence[int],
        on_patches: Callable[[int, int], None] | None = None,
        keep: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Features of merged tokens before the connector: of all [M, D], of the kept ones [K, D].

        Without gradients a frame that equals the one before is not encoded again.
        keep: as keep_mask of forward
        on_patches: called with (patches done, patches in all) as the work proceeds, when no
        gradient is recorded; may raise to stop.
        """
        grids = to_grids(grid_thw, merge_sizes)
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.vision.parameters()):
            return downsample(self.vision(pixel_values, grids), grids, keep)
        fresh_NP, fresh_grids, source_M = unique_frames(pixel_values, grids)
        features, start, total = [], 0, pixel_values.shape[0]
        device = working_device(self.vision)
        for chunk in chunk_grids(fresh_grids, CHUNK_PATCHES.get(device.type, OTHER_CHUNK_PATCHES)):
            stop = start + sum(grid.num_patches for grid in chunk)
            pixels = fresh_NP[start:stop].to(device)
            features.append(downsample(self.vision(pixels, chunk), chunk))
            start = stop
            if on_patches is not None:
                on_patches(start * total // fresh_NP.shape[0], total)
        x_MD = torch.cat(features)
        if fresh_grids != grids:
            x_MD = x_MD[source_M.to(x_MD.device)]
        return x_MD if keep is None else x_MD[keep.to(x_MD.device)]

    def visual_tokens(
        self, features: torch.Tensor, grids: Sequence[Grid], keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Kept visual tokens [K, E] of the features of whole clips, [M, D] before the connector.

        keep: as keep_mask of forward. Where the connector mixes merged cells, every token needs all
        of its own: then keep leaves all in place, or is empty, which gives no token at all.
        Raises: ValueError for a keep that would take cells from tokens.
        """
        if not connector_class(self.config.connector).mixes:
            return self.project(features if keep is None else features[keep.to(features.device)])
        if keep is not None and len(keep):
            is_whole = keep.dtype == torch.bool and bool(keep.all())
            order_M = torch.arange(len(features), device=keep.device)
            if len(keep) != len(features) or not (is_whole or torch.equal(keep, order_M)):
                raise ValueError(
                    f"the connector {self.config.connector!r} joins neighbouring patches and "
                    "frames, so none can be left out; make the inputs with prune=None"
                )
        tokens = self.project(features, grids)
        return tokens if keep is None or len(keep) else tokens[:0]

    def project(self, features: torch.Tensor, grids: Sequence[Grid] | None = None) -> torch.Tensor:
        """Features through the connector: [M, D] to [K, E], one for one where it does not mix.

        In the format of its weights where these train in another one than the encoder has.
        grids: whose merged cells the features are of, in full; for connectors that mix them
        """
        weight = next((p for p in self.connector.parameters() if p.ndim > 1), None)
        if weight is not None and weight.is_floating_point():
            features = features.to(weight.dtype)
        if not connector_class(self.config.connector).mixes:
            return self.connector(features)
        if grids is None:
            raise ValueError(
                f"the connector {self.config.connector!r} joins neighbouring patches and frames; "
                "pass the grids of the features"
            )
        return self.connector(features, tuple(grids))

    def splice(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        visual_embeds: torch.Tensor,
        token_ids: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Text embeddings [B, L, E] with the visual tokens [K, E] in their slots, in order.

        input_ids: None where only embeddings are known; a slot is then known by its embedding
        token_ids: which slots are meant, when not all of them
        """
        slots_BL = self.slots(inputs_embeds if input_ids is None else input_ids, token_ids)
        self.check_count(int(slots_BL.sum()), len(visual_embeds))
        if visual_embeds.shape[-1] != inputs_embeds.shape[-1]:
            raise ValueError(
                f"visual tokens of width {visual_embeds.shape[-1]} do not fit embeddings of width "
                f"{inputs_embeds.shape[-1]}; encode them with the model that reads them"
            )
        visual_embeds = visual_embeds.to(inputs_embeds)
        where_BL1 = slots_BL[:, :, None].to(inputs_embeds.device)
        return inputs_embeds.masked_scatter(where_BL1, visual_embeds)

    def slots(self, prompts: torch.Tensor, token_ids: Sequence[int] | None = None) -> torch.Tensor:
        """Where prompts, ids [B, L] or embeddings [B, L, E], hold visual slots: bool [B, L]."""
        wanted = self.config.slot_token_ids if token_ids is None else token_ids
        ids = torch.tensor(wanted, device=prompts.device)
        if not prompts.is_floating_point():
            return torch.isin(prompts, ids)
        marks_SE = self.get_input_embeddings()(ids).to(prompts)
        return (prompts[..., None, :] == marks_SE).all(-1).any(-1)

    @staticmethod
    def check_count(num_slots: int, num_tokens: int) -> None:
        if num_slots != num_tokens:
            raise ValueError(
                f"the prompt has {num_slots} visual slots but {num_tokens} visual "
                "tokens were kept; render the prompt from the same Keep that pruned the clip"
            )


def working_device(module: nn.Module) -> torch.device:
    """Where a module computes: its weights' device or, where accelerate fetches them, that one."""
    device = next(module.parameters()).device
    if device.type != "meta":
        return device
    hooks = (getattr(part, "_hf_hook", None) for part in module.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return torch.device(next((device for device in devices if device is not None), "cpu"))


def to_grids(grid_thw, merge_sizes) -> tuple[Grid, ...]:
    """Grids of [items, 3] sizes and [items] merge sizes, the form in which tensors carry them."""
    sizes, merges = torch.as_tensor(grid_thw).tolist(), torch.as_tensor(merge_sizes).tolist()
    return tuple(
        Grid(frames=frames, rows=rows, cols=cols, merge=merge)
        for (frames, rows, cols), merge in zip(sizes, merges)
    )


def chunk_grids(grids: Sequence[Grid], most_patches: int) -> list[tuple[Grid, ...]]:
    """The grids cut between frames into chunks of at most most_patches (or one frame) each."""
    chunks: list[list[Grid]] = [[]]
    room = most_patches
    for grid in grids:
        left = grid.frames
        while left:
            fits = min(left, room // grid.patches_per_frame)
            if fits < 1 and chunks[-1]:
                chunks.append([])
                room = most_patches
                continue
            fits = max(1, fits)
            chunks[-1].append(Grid(frames=fits, rows=grid.rows, cols=grid.cols, merge=grid.merge))
            left -= fits
            room -= fits * grid.patches_per_frame
    return [tuple(chunk) for chunk in chunks]
