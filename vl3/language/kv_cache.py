"""Keys and values of a prompt, with room to grow: a new token is written, nothing is copied.

transformers' DynamicCache puts old and new together in new memory for every token and layer: at
15,000 tokens that moves more bytes than attention itself reads.

Tokens may leave from the end (crop_to) or from anywhere (evict). Keys are rotated by their
position, and what stood behind an evicted span moves up: a cache that is made for a decoder keeps
each key unrotated as well and rotates it once, for its present position. Rotating the rotated ones
anew at each eviction would add up their rounding: in bfloat16 scores are off by 15 after 1,000.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

LEAST_ROOM = 256  # tokens
SHARE_OF_ROOM = 8  # an eighth of what is there, so that copies stay rare and rooms small
GROWING_ROPE = ("dynamic", "longrope")  # whose frequencies change with the length of the prompt

Span = tuple[int, int]  # first token and the one after the last


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, views of the front of larger tensors.

    Shapes: keys, values - [B, heads, L, channels]; rooms - the same with more tokens
    """

    rooms: tuple[torch.Tensor, ...] = ()

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._write(key_states, value_states)
        return self.keys, self.values

    def _write(self, *fresh: torch.Tensor) -> None:
        """Puts new tokens behind those that are there, in a room for each tensor."""
        start = self.get_seq_length()
        end = start + fresh[0].shape[-2]
        if not self.rooms or end > self.rooms[0].shape[-2]:
            shapes = [(*new.shape[:-2], capacity_for(end), new.shape[-1]) for new in fresh]
            larger = tuple(new.new_empty(*shape) for new, shape in zip(fresh, shapes))
            for room, old in zip(larger, self.rooms):
                room[..., :start, :] = old[..., :start, :]
            self.rooms = larger
        for room, new in zip(self.rooms, fresh):
            room[..., start:end, :] = new
        self._show(end)

    def _show(self, tokens: int) -> None:
        self.keys, self.values = (room[..., :tokens, :] for room in self.rooms[:2])

    def evict(self, spans: Sequence[Span]) -> int:
        """Takes out the tokens of the spans, and what stood behind them moves up; the first token
        that moved. Keys stay rotated for the position that they had."""
        length = self.get_seq_length()
        stays_L = torch.ones(length, dtype=torch.bool)
        for start, stop in spans:
            if not 0 <= start <= stop <= length:
                raise ValueError(
                    f"a span lies within the {length} tokens of the cache - got {start} to {stop}"
                )
            stays_L[start:stop] = False
        first = int(stays_L.long().argmin()) if not stays_L.all() else length
        kept_L = stays_L.nonzero()[first:, 0]
        for room in self.rooms:
            moved = room.index_select(-2, kept_L.to(room.device))
            room[..., first : first + len(kept_L), :] = moved
        if self.rooms:
            self._show(first + len(kept_L))
        return first

    def reset(self) -> None:
        super().reset()
        self.rooms = ()

    @property
    def nbytes(self) -> int:
        return sum(room.nbytes for room in self.rooms)


class UnrotatedLayer(GrowingLayer):
    """Keys beside what they were before they were rotated, for positions 0, 1, ... without a gap.

    Until something is evicted the keys are those of a GrowingLayer, bit by bit.
    """

    def __init__(self, rotary: Rotary) -> None:
        super().__init__()
        self.rotary = rotary

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        unrotated = self.rotary.undone(key_states, self.get_seq_length())
        self._write(key_states, value_states, unrotated)
        return self.keys, self.values

    def evict(self, spans: Sequence[Span]) -> int:
        """As of a GrowingLayer, and what moved is rotated for the position where it is now."""
        first, length = super().evict(spans), self.get_seq_length()
        if first < length:
            unrotated = self.rooms[2][..., first:length, :]
            self.rooms[0][..., first:length, :] = self.rotary.done(unrotated, first)
        return first


class Rotary:
    """The rotation of keys as a decoder of transformers does it, and its inverse.

    Raises: ValueError for a decoder whose keys are not rotated whole, by fixed frequencies.
    """

    def __init__(self, decoder: PreTrainedModel) -> None:
        module = sys.modules[type(decoder).__module__]
        self.angles: Any = getattr(decoder, "rotary_emb", None)
        self.apply: Any = getattr(module, "apply_rotary_pos_emb", None)
        kind = getattr(self.angles, "rope_type", "none")
        share = (getattr(decoder.config, "rope_parameters", None) or {}).get(
            "partial_rotary_factor", 1
        )
        if self.angles is None or self.apply is None or kind in GROWING_ROPE or share != 1:
            raise ValueError(
                f"keys of a {decoder.config.model_type} (rotation: {kind}, of {share:g} of their "
                "channels) cannot be kept unrotated; take a cache without a decoder"
            )

    def done(self, keys: torch.Tensor, start: int) -> torch.Tensor:
        """Unrotated keys [B, heads, L, channels] rotated for positions start, start + 1, ..."""
        cos, sin = self._at(keys, start)
        return self.apply(keys, keys, cos, sin)[1]

    def undone(self, keys: torch.Tensor, start: int) -> torch.Tensor:
        """Keys that the decoder rotated for those positions as they were before, within rounding.

        cos and sin are rounded to the format of the keys: together they are not quite 1 long.
        """
        cos, sin = (part.float() for part in self._at(keys, start))
        turned = self.apply(keys.float(), keys.float(), cos, -sin)[1]
        return (turned / (cos.square() + sin.square())[:, None]).to(keys.dtype)

    def _at(self, keys: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        positions = torch.arange(start, start + keys.shape[-2], device=keys.device)
        return self.angles(keys, positions[None])


def capacity_for(tokens: int) -> int:
    """How many tokens to make room for, so that this many fit."""
    return tokens + max(LEAST_ROOM, tokens // SHARE_OF_ROOM)


class GrowingCache(Cache):
    """The layers of one conversation, empty at first; crop leaves the room where it is.

    Not for beams: they exchange rows of keys, and the room would hold the old ones.
    """

    layers: list[Any]  # of GrowingLayer

    def __init__(self, decoder: PreTrainedModel | None = None) -> None:
        """decoder: keeps its keys unrotated as well, half as many bytes again, for evict"""
        own = GrowingLayer if decoder is None else partial(UnrotatedLayer, Rotary(decoder))
        super().__init__(layer_class_to_replicate=cast(Any, own))

    def crop_to(self, tokens: int) -> None:
        """Leaves the first tokens of each layer; not all are of one length where a pass was
        stopped in between."""
        for layer in self.layers:
            layer.crop(min(0, tokens - layer.get_seq_length()))

    def evict(self, spans: Sequence[Span]) -> None:
        """Takes out the tokens of some spans; with a decoder, those behind them move up as if
        nothing had been there, else they keep the positions that they had.

        What the layers above the first one have made of the tokens that stay knows of those that
        went. Raises: ValueError for a span that is not within the cache.
        """
        for layer in self.layers:
            layer.evict(spans)
