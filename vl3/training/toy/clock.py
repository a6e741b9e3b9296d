"""Lessons in time: of which second each visual token is, said in the language model's own words.

Whoever is asked about a moment has to find the frame of that moment, and the only clock is the
stamp in words before each frame. So the state of each visual token, some layers up, is compared
with the embeddings of the ten digits: it should point to the seconds of its stamp, like the digit
of a question that asks for that moment. From answers alone nano learns this for half of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

from vl3.model import VL3ForConditionalGeneration
from vl3.prompt import IGNORE

LAYERS = 3  # of the language model, after which a token should know its time
WEIGHT = 0.5  # beside questions
LONGEST = 2  # digits of a stamp


@contextmanager
def overheard(model: VL3ForConditionalGeneration) -> Iterator[list[torch.Tensor]]:
    """States [B, L, E] after LAYERS layers, one for each pass through the model within it."""
    found: list[torch.Tensor] = []
    layer = model.language.model.layers[LAYERS - 1]
    handle = layer.register_forward_hook(lambda _layer, _given, states: found.append(states))
    try:
        yield found
    finally:
        handle.remove()


def digits_of(ids_BL: torch.Tensor, sample_BL: torch.Tensor, slot_id: int, tokenizer):
    """The last digit of the whole seconds that each slot's frame is stamped with.

    Shapes: returns [B, L] int64 0..9, IGNORE for what is no slot of a stamped frame
    """
    time_id, point_id, *digit_ids = _ids(tokenizer)
    L = ids_BL.shape[1]
    place_L = torch.arange(L, device=ids_BL.device)
    is_point_BL = ids_BL == point_id
    begins_BL = torch.zeros_like(is_point_BL)
    for digits in range(1, LONGEST + 1):  # Time, a space, the digits, the point
        begins_BL[:, digits + 2 :] |= (ids_BL == time_id)[:, : L - digits - 2]
    latest_BL = torch.where(is_point_BL & begins_BL, place_L, -1).cummax(dim=1).values
    stamp_BL = latest_BL.clamp(min=1)
    own_BL = (latest_BL > 0) & (sample_BL.gather(1, stamp_BL) == sample_BL)
    value_V = torch.full((len(tokenizer),), IGNORE, device=ids_BL.device)
    value_V[torch.tensor(digit_ids)] = torch.arange(10, device=ids_BL.device)
    digit_BL = value_V[ids_BL.gather(1, stamp_BL - 1)]
    return digit_BL.masked_fill(~(own_BL & (ids_BL == slot_id)), IGNORE)


def lesson_loss(
    model: VL3ForConditionalGeneration, states_BLE: torch.Tensor, digit_BL: torch.Tensor, tokenizer
) -> torch.Tensor:
    """Cross-entropy of the digits of all stamped slots, 0 where there is none."""
    stamped_BL = digit_BL != IGNORE
    states_KE = states_BLE[stamped_BL].float()
    if not len(states_KE):
        return states_BLE.sum() * 0
    states_KE = states_KE * states_KE.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()
    digit_ids = _ids(tokenizer)[2:]
    embeddings = model.get_input_embeddings().weight[digit_ids].float()
    return F.cross_entropy(states_KE @ embeddings.T, digit_BL[stamped_BL])


def _ids(tokenizer) -> list[int]:
    """Time, the point, the ten digits."""
    return tokenizer.convert_tokens_to_ids(["Time", ".", *"0123456789"])
