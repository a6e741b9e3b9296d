"""What transformers' generate() needs to know of visual inputs.

Pixels, grids and masks are packed over the clips of a whole batch, so their rows are not the
prompts that generate() repeats for beams and samples. They are encoded once, before anything is
repeated, and handed on as transformers' own `mm_encoder_outputs`: visual tokens by kind of slot,
one tensor per prompt. transformers then repeats them by prompt, cuts them where the prompt is read
in chunks, and gives them to an assistant model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

VISUAL_INPUTS = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "visual_embeds")


class VisualGenerationMixin(GenerationMixin):
    """generate() for a model with embed_visual, slots and config.slot_kinds."""

    if TYPE_CHECKING:  # of the model that it is mixed into
        config: Any
        embed_visual: Callable[..., torch.Tensor]
        slots: Callable[..., torch.Tensor]
        check_count: Callable[[int, int], None]

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor, model_kwargs, model_input_name, generation_config
    ) -> dict:
        given = {name: model_kwargs.pop(name, None) for name in VISUAL_INPUTS}
        visual_KE = given.pop("visual_embeds")
        if given["pixel_values"] is not None:
            visual_KE = self.embed_visual(**given)
        if visual_KE is not None:
            seen = self.by_prompt(inputs_tensor.to(visual_KE.device), visual_KE.detach())
            model_kwargs["mm_encoder_outputs"] = seen
        return model_kwargs

    def by_prompt(
        self, prompts: torch.Tensor, visual_KE: torch.Tensor
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Visual tokens of a batch, in the order of their slots, by kind of slot and prompt.

        Shapes: prompts - token ids [B, L] or embeddings [B, L, E]; visual_KE - [K, E]
        Raises: ValueError when slots and visual tokens differ in number.
        """
        slots_BL = self.slots(prompts)
        self.check_count(int(slots_BL.sum()), len(visual_KE))
        found = {}
        for kind, token_id in self.config.slot_kinds.items():
            of_kind_BL = self.slots(prompts, (token_id,))
            features = visual_KE[of_kind_BL[slots_BL]].split(of_kind_BL.sum(1).tolist())
            found[kind] = BaseModelOutputWithPooling(pooler_output=cast(Any, list(features)))
        return found
