"""Keys and values of a prompt, with room to grow: a new token is written, nothing is copied.

transformers' DynamicCache puts old and new together in new memory for every token and layer: at
15,000 tokens that moves more bytes than attention itself reads.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

LEAST_ROOM = 256  # tokens
SHARE_OF_ROOM = 8  # an eighth of what is there, so that copies stay rare and rooms small


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, views of the front of larger tensors.

    Shapes: keys, values - [B, heads, L, channels]; rooms - the same with more tokens
    """

    rooms: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states, value_states, *args, **kwargs):
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.rooms is None or end > self.rooms[0].shape[-2]:
            kept: Any = (self.keys, self.values)
            self.rooms = tuple(
                fresh.new_empty(*fresh.shape[:-2], capacity_for(end), fresh.shape[-1])
                for fresh in (key_states, value_states)
            )
            if start:
                for room, old in zip(self.rooms, kept):
                    room[..., :start, :] = old
        for room, fresh in zip(self.rooms, (key_states, value_states)):
            room[..., start:end, :] = fresh
        self.keys, self.values = (room[..., :end, :] for room in self.rooms)
        return self.keys, self.values

    def reset(self) -> None:
        super().reset()
        self.rooms = None

    @property
    def nbytes(self) -> int:
        return sum(room.nbytes for room in self.rooms or ())


def capacity_for(tokens: int) -> int:
    """How many tokens to make room for, so that this many fit."""
    return tokens + max(LEAST_ROOM, tokens // SHARE_OF_ROOM)


def growing_cache() -> Cache:
    """An empty cache for one conversation; crop leaves the room where it is.

    Not for beams: they exchange rows of keys, and the room would hold the old ones.
    """
    return Cache(layer_class_to_replicate=GrowingLayer)
