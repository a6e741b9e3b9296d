"""What a look needs, a finished answer with its media, and what it gives: rows and their maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from vl3.values import Grid
from vl3.vision.token_map import TokenLayout


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReplayInput:
    """A finished answer and all that the model saw, ready to be run again.

    key: digest of everything below
    text: gives the text of the first n tokens of the answer
    slot_K: position of every visual token in the prompt; cells has their places
    sound_K: position of every token of sound
    embeds: gives what fills all slots, in the prompt's order, [K, E]
    frame: gives patches [N, P] and grid of one frame, by numbers of clip and frame
    is_lasting: whether what is recorded of it holds for the next look
    notes: what a person must know of the replay, one sentence each
    """

    key: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    text: Callable[[int], str]
    slot_K: np.ndarray
    sound_K: np.ndarray
    cells: TokenLayout
    embeds: Callable[[], torch.Tensor]
    frame: Callable[[int, int], tuple[torch.Tensor, Grid]]
    is_lasting: bool = True
    notes: tuple[str, ...] = ()

    def ids(self) -> tuple[int, ...]:
        """What is replayed: prompt and answer; the last token was never read, only written."""
        return self.prompt_ids + self.answer_ids[:-1]

    def row(self, token: int) -> int:
        """The position whose output predicted this token of the answer."""
        return len(self.prompt_ids) - 1 + token

    def word(self, token: int) -> str:
        """The text that one token of the answer added."""
        return self.text(token + 1)[len(self.text(token)) :]

    @property
    def first_text_row(self) -> int:
        """The first position after the last visual token and the last of sound."""
        ends = [int(slots[-1]) + 1 for slots in (self.slot_K, self.sound_K) if len(slots)]
        return max(ends, default=0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Attention:
    """Where some words of an answer looked.

    I layers, H heads and Q words in the order asked; I or H is 1 where the weights are a mean, and
    then layers or heads lists what the mean is over. Word t has the row that *predicts* token t:
    it sees the prompt and the t tokens before. In source "vision" the Q are visual tokens that look
    at their own frame, and the positions are the visual tokens alone.

    Shapes: weight_IHQL - float32 over the positions of prompt and answer. Sources "language" and
                          "rollout": sums to 1. "relevancy": scaled to sum to 1. "vision": sums to 1
                          less what went to cells that the pruner removed afterwards
            share_IHQ - float32, share of visual tokens in each row, always for every single layer
                        and head looked at: the head x layer matrix. One number each where the
                        source has no single layers and heads
            slot_K - int64 position of every visual token among L
            sink_K - bool, visual tokens that draw attention whatever the word (vl3.interpret.sinks)
            sound_K - int64 position of every token of sound among L, in the order of the reply's
                      SoundContexts; none in source "vision"
    notes: what a person must know of the replay, one sentence each
    """

    source: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    tokens: tuple[int, ...]
    words: tuple[str, ...]
    weight_IHQL: np.ndarray
    share_IHQ: np.ndarray
    slot_K: np.ndarray
    sink_K: np.ndarray
    cells: TokenLayout
    notes: tuple[str, ...] = ()
    sound_K: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def split_IHQ3(self) -> np.ndarray:
        """The share of each row on sound, on pictures and on words, template and answer included.

        They sum to 1; in source "vision", which sees one frame alone, all is the picture's.
        """
        total_IHQ = self.weight_IHQL.sum(axis=-1, dtype=np.float64)
        sound_IHQ = self.sound_IHQK.sum(axis=-1, dtype=np.float64)
        picture_IHQ = self.visual_IHQK.sum(axis=-1, dtype=np.float64)
        words_IHQ = np.maximum(0, total_IHQ - sound_IHQ - picture_IHQ)
        split_IHQ3 = np.stack([sound_IHQ, picture_IHQ, words_IHQ], axis=-1)
        return split_IHQ3 / np.maximum(split_IHQ3.sum(axis=-1, keepdims=True), 1e-30)

    @property
    def sound_IHQK(self) -> np.ndarray:
        """The weights on tokens of sound."""
        return self.weight_IHQL[..., self.sound_K]

    @property
    def visual_IHQK(self) -> np.ndarray:
        """The weights on visual tokens."""
        return self.weight_IHQL[..., self.slot_K]

    def maps(self) -> tuple[np.ndarray, ...]:
        """For each clip [I, H, Q, frames, cell rows, cell cols], NaN where pruned.

        A token's weight stands in every frame and cell that it is made of."""
        return self.cells.paint(self.visual_IHQK)

    def to_slot(self, slot: int) -> np.ndarray:
        """From a patch to the words: what each word gave to one visual token, [I, H, Q]."""
        return self.weight_IHQL[..., self.slot_K[slot]]
