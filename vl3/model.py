"""VideoLLaMA 3, top to bottom: encode frames, project, splice into the prompt, answer.

Read this first. pixels -> vision -> downsample -> connector -> keep -> splice -> language.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from vl3 import layouts
from vl3.attention import group_heads
from vl3.config import VL3Config
from vl3.connectors import MLPConnector
from vl3.loss import answer_losses
from vl3.values import Grid
from vl3.vision import VisionEncoder, downsample, unique_frames

# Without gradients the encoder runs over at most this many patches at a time (one frame at least),
# so that its memory does not grow with the clip and a stop is noticed soon. Frames never see each
# other: the result does not depend on where a clip is cut.
CHUNK_PATCHES = {"cpu": 1024, "cuda": 16384, "mps": 4096}


@dataclass
class VL3Output(CausalLMOutputWithPast):
    """transformers' output and, with labels, what the loss is made of.

    Shapes: losses_K float32, right_K bool - cross-entropy of each learned token in reading order
            and whether greedy decoding gives it; without gradient
    """

    losses_K: torch.FloatTensor | None = None
    right_K: torch.BoolTensor | None = None


VISUAL_INPUTS = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "visual_embeds")


class VL3ForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """A vision encoder, a connector and a causal language model from transformers.

    Source: VideoLLaMA3 section 3, official videollama3_arch.py at 05cee23. Differences: the mask
    of the pruner is computed before the model runs (the prompt holds one slot per *kept* token), so
    batches larger than one work with pruning on; tokens are dropped before the connector, which
    gives the same numbers because the connector works on each token alone.
    """

    config: VL3Config
    config_class = VL3Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block",)
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VL3Config) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision = VisionEncoder(vision)
        self.connector = MLPConnector(config.connector, vision.hidden_size, text.hidden_size)
        self.language = AutoModelForCausalLM.from_config(text)
        group_heads(self.language)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """The model of a checkpoint folder in any whole-model layout, strictly.

        Takes what transformers' from_pretrained takes (dtype, device_map, quantization_config ...).
        Hub ids are resolved by vl3.weights.hub.resolve first.
        Raises: vl3.layouts.LayoutError that lists missing, unexpected or misfitting tensors.
        """
        folder = Path(pretrained_model_name_or_path)
        names = layouts.tensor_names(folder)
        layout = layouts.detect(folder, names)
        layouts.read_json(folder, "generation_config.json")  # whose errors are sentences
        config = kwargs.pop("config", None) or layouts.read_config(folder)
        model, info = super().from_pretrained(
            folder, *args, config=config, output_loading_info=True, ignore_mismatched_sizes=True,
            trust_remote_code=False, key_mapping=layouts.key_mapping(layout, names), **kwargs,
        )  # fmt: skip
        layouts.check_loaded(folder, layout, info)
        model._weight_conversions = None  # or save_pretrained would write their names, not ours
        return model

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        pixel_values: torch.Tensor | None = None,
        grid_thw: torch.LongTensor | None = None,
        merge_sizes: torch.LongTensor | None = None,
        keep_mask: torch.BoolTensor | None = None,
        visual_embeds: torch.FloatTensor | None = None,
        skip_logits: bool | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs,
    ) -> VL3Output:
        """Logits (and the loss, with labels) of prompts whose slots are filled with visual tokens.

        Shapes: input_ids - [B, L], every visual slot holds config.image_token_id
                pixel_values - [N, 3 * patch * patch] uint8 levels or normalised floats, block order
                grid_thw - [items, 3] frames, rows, cols in patches; merge_sizes - [items]
                keep_mask - [M] bool, tokens the pruner keeps; None keeps all; or [K] int64, the
                            token of each slot, where equal frames were encoded once
                visual_embeds - [K, E] already encoded, projected and pruned, instead of pixels
                labels - [B, L], -100 where a token is not learned
                attention_mask - [B, L], or [B, 1, L, L] where several samples share a row
        skip_logits: with labels, leaves the logits out, most of which nobody learns; None does so
        in training mode. num_items_in_batch: learned tokens of the whole step, which the loss is
        the mean over (of this batch when None).
        Raises: ValueError when slots and visual tokens differ in number.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if pixel_values is not None:
                visual_embeds = self.embed_visual(pixel_values, grid_thw, merge_sizes, keep_mask)
            if visual_embeds is not None:
                inputs_embeds = self.splice(input_ids, inputs_embeds, visual_embeds)
        states = self.language.base_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        output = VL3Output(
            past_key_values=states.past_key_values,
            hidden_states=states.hidden_states,
            attentions=states.attentions,
        )
        hidden, head = states.last_hidden_state, self.get_output_embeddings()
        if labels is not None:
            losses_K, output.right_K = answer_losses(hidden, labels, head)
            output.losses_K = losses_K.detach()
            output.loss = losses_K.sum() / (num_items_in_batch or losses_K.numel() or 1)
            if self.training if skip_logits is None else skip_logits:
                return output
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        output.logits = head(hidden[:, keep])
        return output

    def embed_visual(self, pixel_values, grid_thw, merge_sizes, keep_mask=None) -> torch.Tensor:
        """Kept visual tokens at the language model's width, [K, E]."""
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
        for chunk in chunk_grids(fresh_grids, CHUNK_PATCHES[self.device.type]):
            stop = start + sum(grid.num_patches for grid in chunk)
            pixels = fresh_NP[start:stop].to(self.device)
            features.append(downsample(self.vision(pixels, chunk), chunk))
            start = stop
            if on_patches is not None:
                on_patches(start * total // fresh_NP.shape[0], total)
        x_MD = torch.cat(features)
        if fresh_grids != grids:
            x_MD = x_MD[source_M.to(x_MD.device)]
        return x_MD if keep is None else x_MD[keep.to(x_MD.device)]

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features through the connector: [M, D] to [M, E]."""
        return self.connector(features)

    def splice(self, input_ids, inputs_embeds, visual_embeds) -> torch.Tensor:
        """Text embeddings [B, L, E] with the visual tokens [K, E] in their slots, in order."""
        slots_BL = self.slots(input_ids)
        num_slots = int(slots_BL.sum())
        if num_slots != visual_embeds.shape[0]:
            raise ValueError(
                f"the prompt has {num_slots} visual slots but {visual_embeds.shape[0]} visual "
                "tokens were kept; render the prompt from the same Keep that pruned the clip"
            )
        visual_embeds = visual_embeds.to(inputs_embeds)
        return inputs_embeds.masked_scatter(slots_BL[:, :, None], visual_embeds)

    def slots(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Where the prompt holds visual slots: bool, same shape."""
        ids = torch.tensor(self.config.slot_token_ids, device=input_ids.device)
        return torch.isin(input_ids, ids)

    def prepare_inputs_for_generation(
        self, *args, inputs_embeds=None, is_first_iteration=False, **kwargs
    ) -> dict:
        inputs = super().prepare_inputs_for_generation(
            *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs = {key: value for key, value in inputs.items() if key not in VISUAL_INPUTS}
        return inputs

    def get_input_embeddings(self) -> nn.Module:
        return self.language.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language.set_output_embeddings(value)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.text_config.initializer_range)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)


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
