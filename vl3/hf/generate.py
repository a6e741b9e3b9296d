"""What transformers' generate() needs to know of visual inputs and sound.

Pixels, grids, masks and filter banks are packed over the media of a whole batch, so their rows are
not the prompts that generate() repeats for beams and samples. They are encoded once, before
anything is repeated, and handed on as transformers' own `mm_encoder_outputs`: tokens by kind of
slot, one tensor per prompt. transformers then repeats them by prompt, cuts them where the prompt is
read in chunks, and gives them to an assistant model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPooling

VISUAL_INPUTS = ("pixel_values", "grid_thw", "merge_sizes", "keep_mask", "visual_embeds")
SOUND_INPUTS = ("input_features", "feature_lengths", "sound_pieces", "sound_pools", "sound_embeds")


class VisualGenerationMixin(GenerationMixin):
    """generate() for a model with embed_visual, slots and config.slot_kinds."""

    if TYPE_CHECKING:  # of the model that it is mixed into
        config: Any
        embed_visual: Callable[..., torch.Tensor]
        embed_sound: Callable[..., torch.Tensor]
        slots: Callable[..., torch.Tensor]
        check_count: Callable[[int, int], None]

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor, model_kwargs, model_input_name, generation_config
    ) -> dict:
        seen = {name: model_kwargs.pop(name, None) for name in VISUAL_INPUTS}
        heard = {name: model_kwargs.pop(name, None) for name in SOUND_INPUTS}
        visual_KE, sound_KE = seen.pop("visual_embeds"), heard.pop("sound_embeds")
        if seen["pixel_values"] is not None:
            visual_KE = self.embed_visual(**seen)
        if heard["input_features"] is not None:
            sound_KE = self.embed_sound(**heard)
        outputs: dict[str, BaseModelOutputWithPooling] = {}
        for tokens_KE, kinds in ((visual_KE, ("image", "video")), (sound_KE, ("audio",))):
            if tokens_KE is not None:
                prompts = inputs_tensor.to(tokens_KE.device)
                outputs |= self.by_prompt(prompts, tokens_KE.detach(), kinds)
        if outputs:
            model_kwargs["mm_encoder_outputs"] = outputs
        return model_kwargs

    def _expand_multimodal_outputs(
        self, input_ids, mm_encoder_output, expand_size=1, inputs_embeds=None
    ) -> dict:
        """Repeats what was heard too, which is kept by prompt; transformers knows of pictures."""
        expand: Any = super()._expand_multimodal_outputs  # type: ignore[misc]  # of a model's own
        found = expand(input_ids, mm_encoder_output, expand_size, inputs_embeds)
        if (heard := found.get("audio")) is not None:
            heard.pooler_output = [one for one in heard.pooler_output for _ in range(expand_size)]
        return found

    def by_prompt(
        self, prompts: torch.Tensor, tokens_KE: torch.Tensor, kinds: Collection[str]
    ) -> dict[str, BaseModelOutputWithPooling]:
        """Tokens of a batch, in the order of their slots, by kind of slot and prompt.

        kinds: those of the tokens, as config.slot_kinds names them
        Shapes: prompts - token ids [B, L] or embeddings [B, L, E]; tokens_KE - [K, E]
        Raises: ValueError when slots and tokens differ in number.
        """
        ids = {kind: token for kind, token in self.config.slot_kinds.items() if kind in kinds}
        slots_BL = self.slots(prompts, tuple(ids.values()))
        self.check_count(int(slots_BL.sum()), len(tokens_KE))
        found = {}
        for kind, token_id in ids.items():
            of_kind_BL = self.slots(prompts, (token_id,))
            features = tokens_KE[of_kind_BL[slots_BL]].split(of_kind_BL.sum(1).tolist())
            found[kind] = BaseModelOutputWithPooling(pooler_output=cast(Any, list(features)))
        return found
