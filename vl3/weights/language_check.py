"""Whether a causal language model of transformers works behind our cache and our output head."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from vl3.families.layouts import LayoutError
from vl3.language.kv_cache import GrowingCache
from vl3.language.layers import decoder_layers

TOKENS = 6  # of the probe
BACK = 2  # of them that are taken back and read again
# The largest difference of a logit, as a share of the spread of all: sums in another order, in
# float32 and in 16 bits. A cache that forgets gives about 1.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.2
ATTENDING = {"full_attention", "sliding_attention", "chunked_attention"}  # kinds of layers


@torch.no_grad()
def check_language(language: PreTrainedModel, name: str) -> None:
    """Raises LayoutError, in one sentence, for a language model that would not work here.

    What answers and training read is asked of a few tokens: embeddings in place of ids, the output
    head apart from the layers, a prompt in pieces, its end taken back and read again, and a mask of
    which token sees which.
    """
    kind = f"{name} is a {language.config.model_type} model, which does not work here: "
    layer_types = set(getattr(language.config, "layer_types", None) or ())
    if language._is_stateful or layer_types - ATTENDING:
        raise LayoutError(
            f"{kind}it keeps a state in place of keys and values, which cannot be cut back to "
            "where a question begins; choose a language model with attention alone"
        )
    if getattr(language.config, "max_position_embeddings", None) is None:
        raise LayoutError(f"{kind}its config.json has no max_position_embeddings; add that entry")
    if getattr(language.config, "final_logit_softcapping", None):
        raise LayoutError(f"{kind}its logits are capped after its output head; choose another one")
    try:
        decoder_layers(language)
        said, pieces = _answers(language)
    except (AttributeError, IndexError, NotImplementedError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:160]
        raise LayoutError(
            f"{kind}it cannot be read as answers and training do ({why}); choose another language "
            "model"
        ) from error
    allowed = TOLERANCE.get(said.dtype, HALF_TOLERANCE) * float(said.float().std())
    for what, logits in pieces.items():
        if not float((logits.float() - said[:, -logits.shape[1] :].float()).abs().max()) <= allowed:
            raise LayoutError(f"{kind}{what}; choose another language model")


def _answers(language: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of a few tokens as the model itself gives them, and as answers here read them."""
    rows = cast(nn.Embedding, language.get_input_embeddings()).weight.shape[0]
    ids_BL = torch.arange(1, TOKENS + 1, device=language.device)[None] * 7 % rows
    embeds_BLE, head = language.get_input_embeddings()(ids_BL), language.get_output_embeddings()

    def read(part_BLE: torch.Tensor, **options) -> torch.Tensor:
        states = language.base_model(inputs_embeds=part_BLE, return_dict=True, **options)
        return head(states.last_hidden_state)

    cache, start = GrowingCache(), TOKENS - BACK
    read(embeds_BLE[:, :start], past_key_values=cache, use_cache=True)
    read(embeds_BLE[:, start:], past_key_values=cache, use_cache=True)
    for layer in cache.layers:
        layer.crop(start - layer.get_seq_length())
    sees_B1LL = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool, device=language.device).tril()
    mask_B1LL = torch.zeros_like(sees_B1LL, dtype=embeds_BLE.dtype)
    mask_B1LL.masked_fill_(~sees_B1LL, torch.finfo(embeds_BLE.dtype).min)
    return language(input_ids=ids_BL, use_cache=False).logits, {
        "its logits are more than what its output head gives": read(embeds_BLE, use_cache=False),
        "a prompt in pieces is not the prompt as a whole": read(
            embeds_BLE[:, start:], past_key_values=cache, use_cache=True
        ),
        "it does not look where a mask says": read(
            embeds_BLE, attention_mask=mask_B1LL, use_cache=False
        ),
    }
