"""VideoLLaMA 3, top to bottom: encode frames, project, splice into the prompt, answer.

Read this first, then vl3/visual_inputs.py: pixels -> vision -> downsample -> keep -> connector ->
splice -> language. What is heard comes the same way, vl3/sound_inputs.py: ear -> connector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from vl3.config import VL3Config
from vl3.connectors import connector_class
from vl3.hf import from_pretrained
from vl3.hf.generate import VisualGenerationMixin
from vl3.language.attention import use_grouped_attention
from vl3.language.loss import answer_losses
from vl3.sound_inputs import SoundInputs, build_ear
from vl3.vision.encoder import draw_weights
from vl3.vision.towers import build_encoder
from vl3.visual_inputs import VisualInputs

INITIAL_STD = 0.02  # of fresh weights where the language model's configuration names none


@dataclass
class VL3Output(CausalLMOutputWithPast):
    """transformers' output and, with labels and skip_logits, what the loss is made of.

    Shapes: losses_K float32, right_K bool - cross-entropy of each learned token in reading order
            and whether greedy decoding gives it; without gradient
    """

    losses_K: torch.Tensor | None = None
    right_K: torch.Tensor | None = None


class VL3Model(VisualInputs, SoundInputs, nn.Module):
    """All but the output head, as `base_model` of the whole model gives it.

    Its modules are those of the whole model, which alone names and saves their weights.
    """

    def __init__(self, config: VL3Config) -> None:
        super().__init__()
        self.config = config

    if TYPE_CHECKING:  # given to it by the whole model
        decoder: PreTrainedModel

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        pixel_values=None,
        grid_thw=None,
        merge_sizes=None,
        keep_mask=None,
        visual_embeds=None,
        input_features=None,
        feature_lengths=None,
        sound_pieces=None,
        sound_pools=None,
        sound_embeds=None,
        mm_encoder_outputs=None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        """Last hidden states of prompts whose slots are filled; arguments as of the whole model."""
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            visual_embeds = self.embed_visual(pixel_values, grid_thw, merge_sizes, keep_mask)
        if visual_embeds is not None:
            visual = self.config.visual_token_ids
            inputs_embeds = self.splice(input_ids, inputs_embeds, visual_embeds, visual)
        if input_features is not None:
            sound_embeds = self.embed_sound(
                input_features, feature_lengths, sound_pieces, sound_pools
            )
        if sound_embeds is not None:
            heard = (self.config.slot_kinds["audio"],)
            inputs_embeds = self.splice(input_ids, inputs_embeds, sound_embeds, heard)
        for kind, seen in (mm_encoder_outputs or {}).items():
            features = torch.cat(list(seen.pooler_output))
            token_ids = (self.config.slot_kinds[kind],)
            inputs_embeds = self.splice(input_ids, inputs_embeds, features, token_ids)
        with use_grouped_attention(self.decoder.config, inputs_embeds.device):
            return self.decoder(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                return_dict=True,
                **kwargs,
            )

    def get_input_embeddings(self) -> nn.Module:
        return self.decoder.get_input_embeddings()

    def get_decoder(self) -> PreTrainedModel:
        return self.decoder


class VL3ForConditionalGeneration(
    VisualInputs, SoundInputs, PreTrainedModel, VisualGenerationMixin
):
    """A vision encoder, a connector and a causal language model from transformers.

    Source: VideoLLaMA3 section 3, official videollama3_arch.py at 05cee23. Differences: the mask
    of the pruner is computed before the model runs (the prompt holds one slot per *kept* token), so
    batches larger than one work with pruning on; tokens are dropped before a connector that works
    on each alone, which gives the same numbers. One that mixes them gets them all.
    """

    config: VL3Config
    config_class = VL3Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities: Any = ("image", "video", "audio", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: Any = ("Block",)
    # BEATs is released with the first layer's table once more for each of the others.
    _keys_to_ignore_on_load_unexpected: Any = (r"audio_tower.*\.relative_attention_bias\.weight$",)
    _skip_keys_device_placement: Any = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VL3Config) -> None:
        super().__init__(config)
        vision, text = config.vision_config, config.text_config
        self.vision = build_encoder(vision)
        build = connector_class(config.connector)
        self.connector = build(config.connector, vision.hidden_size, text.hidden_size)
        self.language = AutoModelForCausalLM.from_config(text)
        self.ear, self.audio_connector = build_ear(config)
        # PEFT looks for the word embeddings in the first child that is a model of transformers.
        self._modules = {"language": self._modules.pop("language"), **self._modules}
        self.post_init()

    @property
    def base_model(self) -> VL3Model:
        """The model without its output head, of the modules that this one has now."""
        if (base := self.__dict__.get("_base")) is None:  # kept aside: no second name for a weight
            base = self.__dict__["_base"] = VL3Model(self.config)
        base.vision, base.connector = self.vision, self.connector
        base.ear, base.audio_connector = self.ear, self.audio_connector
        base.decoder = self.language.base_model
        base.training = self.training
        return base

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, **kwargs):
        """The model of a checkpoint in any whole-model layout, strictly: a folder or a hub id.

        Takes what transformers' from_pretrained takes (dtype, device_map, quantization_config,
        subfolder, variant, output_loading_info ...), and the folder of an adapter, which is put
        onto its base. Code of a checkpoint is never run. Without dtype or device_map, weights that
        are stored in float16 are loaded in float32, the format a CPU computes.
        Raises: vl3.families.layouts.LayoutError that lists missing, unexpected or misfitting
        tensors, unless output_loading_info asks for that list.
        """
        if pretrained_model_name_or_path is None:
            return super().from_pretrained(None, *args, **kwargs)
        found = from_pretrained.find(pretrained_model_name_or_path, kwargs)
        loaded: Any = super().from_pretrained(found.folder, *args, **found.arguments)
        model, info = loaded
        return from_pretrained.finish(found, model, info)

    @can_return_tuple
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
        input_features: torch.Tensor | None = None,
        feature_lengths: torch.LongTensor | None = None,
        sound_pieces: torch.LongTensor | None = None,
        sound_pools: torch.LongTensor | None = None,
        sound_embeds: torch.FloatTensor | None = None,
        mm_encoder_outputs: dict | None = None,
        skip_logits: bool = False,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs,
    ) -> VL3Output:
        """Logits (and the loss, with labels) of prompts whose slots are filled with visual tokens
        and sound.

        Shapes: input_ids - [B, L], slots hold config.image_token_id or config.audio_token_id
                pixel_values - [N, 3 * patch * patch] uint8 levels or normalised floats, block order
                grid_thw - [items, 3] frames, rows, cols in patches; merge_sizes - [items]
                keep_mask - [M] bool, tokens the pruner keeps; None keeps all; or [K] int64, the
                            token of each slot, where equal frames were encoded once (not with a
                            connector that mixes tokens)
                visual_embeds - [K, E] already encoded, projected and pruned, instead of pixels
                input_features - [P, A, Z] filter banks of the pieces of all sounds, one after the
                                 other; feature_lengths - [P] their samples
                sound_pieces - [sounds] pieces of each; sound_pools - [sounds] how many steps of
                               the ear are joined; both or neither
                sound_embeds - [K, E] already heard and projected, instead of input_features
                inputs_embeds - [B, L, E] instead of input_ids; slots that still hold the embedding
                                of config.image_token_id are filled
                labels - [B, L], -100 where a token is not learned; or, by keyword, shift_labels:
                         the same moved by one, each beside the position that predicts it
                attention_mask - [B, L], or [B, 1, L, L] where several samples share a row
        skip_logits: with labels, gives what the loss is made of instead of the logits, most of
        which are not learned. num_items_in_batch: learned tokens of the whole step, over which the
        loss is the mean (of this batch when None). mm_encoder_outputs: see vl3.hf.generate.
        Raises: ValueError when slots and visual tokens differ in number.
        """
        shift_labels = kwargs.pop("shift_labels", None)  # no parameter: Trainer would wait for it
        states = self.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            pixel_values=pixel_values,
            grid_thw=grid_thw,
            merge_sizes=merge_sizes,
            keep_mask=keep_mask,
            visual_embeds=visual_embeds,
            input_features=input_features,
            feature_lengths=feature_lengths,
            sound_pieces=sound_pieces,
            sound_pools=sound_pools,
            sound_embeds=sound_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        hidden, head = states.last_hidden_state, self.get_output_embeddings()
        loss = losses_K = right_K = logits = None
        if labels is not None or shift_labels is not None:
            each_K, hit_K = answer_losses(hidden, labels, head, shift_labels)
            loss = each_K.sum() / (num_items_in_batch or each_K.numel() or 1)
        if loss is not None and skip_logits:
            losses_K, right_K = each_K.detach(), hit_K
        else:
            is_count = isinstance(logits_to_keep, int)
            logits = head(hidden[:, slice(-logits_to_keep, None) if is_count else logits_to_keep])
        return VL3Output(
            loss=loss,
            logits=logits,
            past_key_values=states.past_key_values,
            hidden_states=states.hidden_states,
            attentions=states.attentions,
            losses_K=losses_K,
            right_K=right_K,
        )

    def get_input_embeddings(self) -> nn.Module:
        return self.language.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language.get_output_embeddings()

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.language.set_output_embeddings(value)

    def get_decoder(self) -> PreTrainedModel:
        """The text model alone, which takes embeddings whose slots are filled."""
        return self.language.base_model

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        return self.vision if modality in ("image", "video") else super().get_encoder(modality)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        draw_weights(module, getattr(self.config.text_config, "initializer_range", INITIAL_STD))


AutoModelForImageTextToText.register(VL3Config, VL3ForConditionalGeneration, exist_ok=True)
