"""Answers looks: replays what is missing, remembers queries and keys within a bound."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from vl3.arguments import choice, shown, whole
from vl3.interpret import capture
from vl3.interpret.attention_rows import QK, frame_sinks, in_chunks, rollout, sinks, token_row
from vl3.interpret.relevancy import relevancy
from vl3.interpret.replay_input import Attention, ReplayInput
from vl3.values import Grid
from vl3.vision.token_map import ABSENT

SOURCES = ("language", "rollout", "relevancy", "vision")
MEMORY_BYTES = 512 << 20  # queries and keys that stay; those of the latest reply always do
MOST_BYTES = 1 << 30  # of weights that one look may return


@dataclass(slots=True, eq=False)
class _Entry:
    """What was recorded of one reply or of one frame; the sinks of each choice of layers."""

    layers: dict[int, QK] = field(default_factory=dict)
    sinks: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)


class Tracer:
    """The looks into one model's answers. Holds queries and keys of the replies looked at last."""

    def __init__(self, model, memory_bytes: int = MEMORY_BYTES) -> None:
        self.model, self.memory_bytes = model, memory_bytes
        self._known: OrderedDict[Any, _Entry] = OrderedDict()

    @property
    def nbytes(self) -> int:
        entries = list(self._known.values())
        return sum(qk.nbytes for entry in entries for qk in entry.layers.values())

    def clear(self) -> None:
        self._known.clear()

    def look(
        self,
        scene: ReplayInput,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
        source: str = "language",
    ) -> Attention:
        """Where words looked; see vl3.studio.Studio.attention, which this answers."""
        choice("source", source, SOURCES)
        if scene.is_lasting:
            return self._look(scene, layers, heads, tokens, source)
        self._forget(scene)
        try:
            return self._look(scene, layers, heads, tokens, source)
        finally:
            self._forget(scene)

    def _look(self, scene: ReplayInput, layers, heads, tokens, source: str) -> Attention:
        if source == "vision":
            return self._vision(scene, layers, heads, tokens)
        if not scene.answer_ids:
            raise ValueError(
                "this reply has no words to look from; it was stopped before the first"
            )
        tokens = _chosen("tokens", tokens, len(scene.answer_ids))
        if source == "language":
            return self._language(scene, layers, heads, tokens)
        if layers is not None or heads is not None:
            raise ValueError(f"source {source!r} joins all layers and heads; leave both out")
        if source == "relevancy" and len(tokens) > 1:
            raise ValueError(
                f"gradient relevancy is made for one word at a time - got {len(tokens)}; pass one "
                f"of them, such as tokens=[{tokens[0]}]"
            )
        return self._joined(scene, tokens, source)

    def _language(self, scene: ReplayInput, layers, heads, tokens) -> Attention:
        text = self.model.config.text_config
        deep = _chosen("layers", layers, text.num_hidden_layers)
        wide = _chosen("heads", heads, text.num_attention_heads)
        shape = (
            1 if layers is None else len(deep),
            1 if heads is None else len(wide),
            len(tokens),
            len(scene.ids()),
        )
        _check_size(shape)
        recorded = self._recorded(scene, deep, scene.first_text_row)
        row_Q = torch.tensor([scene.row(token) for token in tokens], device=self.model.device)
        slot_K = torch.as_tensor(scene.slot_K, device=self.model.device)
        weight_IHQL = torch.zeros(shape, device=self.model.device)
        share_IHQ = torch.zeros(len(deep), len(wide), len(tokens), device=self.model.device)
        for index, layer in enumerate(deep):
            into = 0 if layers is None else index
            for part, weight_HQL in in_chunks(recorded[layer], row_Q, wide):
                share_IHQ[index, :, part] = weight_HQL[..., slot_K].sum(dim=-1)
                if heads is None:
                    weight_HQL = weight_HQL.mean(dim=0, keepdim=True)
                weight_IHQL[into, :, part] += weight_HQL
        if layers is None:
            weight_IHQL /= len(deep)
        return self._attention(scene, "language", deep, wide, tokens, weight_IHQL, share_IHQ)

    def _joined(self, scene: ReplayInput, tokens, source: str) -> Attention:
        text = self.model.config.text_config
        layers, heads = range(text.num_hidden_layers), range(text.num_attention_heads)
        if source == "relevancy":
            weight_QL = relevancy(self.model, scene, tokens[0])[None]
        else:
            recorded = self._recorded(scene, layers, 0)
            row_Q = torch.tensor([scene.row(token) for token in tokens], device=self.model.device)
            weight_QL = rollout([recorded[layer] for layer in layers], row_Q)
        weight_IHQL = weight_QL[None, None]
        share_IHQ = weight_IHQL[..., torch.as_tensor(scene.slot_K)].sum(dim=-1)
        return self._attention(
            scene, source, tuple(layers), tuple(heads), tokens, weight_IHQL, share_IHQ
        )

    def _attention(self, scene, source, layers, heads, tokens, weight_IHQL, share_IHQ) -> Attention:
        return Attention(
            source=source,
            layers=layers,
            heads=heads,
            tokens=tokens,
            words=tuple(scene.word(token) for token in tokens),
            weight_IHQL=weight_IHQL.cpu().numpy(),
            share_IHQ=share_IHQ.cpu().numpy(),
            slot_K=scene.slot_K,
            sink_K=self._sinks(scene, layers),
            cells=scene.cells,
            notes=scene.notes,
            sound_K=scene.sound_K,
        )

    def _sinks(self, scene: ReplayInput, layers: tuple[int, ...]) -> np.ndarray:
        """Sinks in the mean of these layers and all heads, for all text after the last medium."""
        qk = self._recorded(scene, layers, scene.first_text_row)
        known = self._entry(scene.key).sinks
        if layers not in known:
            row_Q = torch.arange(scene.first_text_row, len(scene.ids()), device=self.model.device)
            slot_K = torch.as_tensor(scene.slot_K, device=self.model.device)
            weight_QK = torch.zeros(len(row_Q), len(slot_K), device=self.model.device)
            for layer in layers:
                for part, weight_HQL in in_chunks(qk[layer], row_Q):
                    weight_QK[part] += weight_HQL[..., slot_K].mean(dim=0)
            known[layers] = sinks(weight_QK).cpu().numpy()
        return known[layers]

    def _vision(self, scene: ReplayInput, layers, heads, tokens) -> Attention:
        config, cells = self.model.config.vision_config, scene.cells
        if not len(cells):
            raise ValueError('source "vision" needs a picture; this reply saw none')
        if not tokens:
            raise ValueError(
                'source "vision" looks from visual tokens; pass some as tokens, found by place '
                "with cells.slot"
            )
        tokens = _chosen("tokens", tokens, len(cells))
        deep = _chosen("layers", layers, len(self.model.vision.blocks))
        wide = _chosen("heads", heads, config.num_attention_heads)
        _check_size((len(deep), len(wide), len(tokens), len(cells)))
        weight_IHQK = np.zeros((len(deep), len(wide), len(tokens), len(cells)), np.float32)
        sink_K = np.zeros(len(cells), bool)
        for index, token in enumerate(tokens):
            clip, frames = int(cells.clip_K[token]), range(*cells.frames_K2[token])
            for frame in frames:
                pixels_NP, grid = scene.frame(clip, frame)
                qk = self._recorded_frame((scene.key, clip, frame), pixels_NP, grid, deep)
                slot_M = cells.slots[clip][frame].ravel()
                kept_M = slot_M != ABSENT
                places = np.flatnonzero(slot_M == cells.first_at(token))
                for into, layer in enumerate(deep):
                    weight_HM = token_row(qk[layer], places, grid.merge**2, wide).cpu().numpy()
                    weight_MH = weight_HM[:, kept_M].T / len(frames)
                    np.add.at(weight_IHQK[into, :, index].T, slot_M[kept_M], weight_MH)
                drawing_M = frame_sinks([qk[layer] for layer in deep], grid.merge**2).cpu().numpy()
                sink_K[slot_M[kept_M & drawing_M]] = True
        share_IHQ = weight_IHQK.sum(axis=-1)
        if layers is None:
            weight_IHQK = weight_IHQK.mean(axis=0, keepdims=True)
        if heads is None:
            weight_IHQK = weight_IHQK.mean(axis=1, keepdims=True)
        return Attention(
            source="vision",
            layers=deep,
            heads=wide,
            tokens=tokens,
            words=("",) * len(tokens),
            weight_IHQL=weight_IHQK,
            share_IHQ=share_IHQ,
            slot_K=np.arange(len(cells)),
            sink_K=sink_K,
            cells=cells,
            notes=scene.notes,
        )

    def _recorded(self, scene: ReplayInput, layers: Sequence[int], first: int) -> dict[int, QK]:
        """Queries from position first on and keys of these layers, replayed where missing."""
        entry = self._entry(scene.key)
        missing = [n for n in layers if n not in entry.layers or entry.layers[n].first > first]
        if missing:
            entry.layers |= capture.language(self.model, scene, missing, first)
            self._trim()
        return entry.layers

    def _recorded_frame(self, key: tuple, pixels_NP, grid: Grid, layers) -> dict[int, QK]:
        entry = self._entry(key)
        missing = [layer for layer in layers if layer not in entry.layers]
        if missing:
            entry.layers |= capture.vision(self.model, pixels_NP, grid, missing)
            self._trim()
        return entry.layers

    def _entry(self, key) -> _Entry:
        entry = self._known.pop(key, None) or _Entry()
        self._known[key] = entry  # at the end; everything may have been released in between
        return entry

    def _forget(self, scene: ReplayInput) -> None:
        for key in [key for key in self._known if scene.key in (key, key[0])]:
            del self._known[key]

    def _trim(self) -> None:
        while len(self._known) > 1 and self.nbytes > self.memory_bytes:
            self._known.popitem(last=False)


def _chosen(name: str, asked: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The numbers asked for; all of them for None."""
    if asked is None:
        return tuple(range(count))
    is_row = isinstance(asked, Iterable) and getattr(asked, "ndim", 1) > 0
    if isinstance(asked, str | bytes) or not is_row:
        raise ValueError(f"{name} is a list of numbers from 0 - got {shown(asked)}")
    asked = list(asked)
    if not asked:
        raise ValueError(f"{name} is empty; leave it out for all {count}")
    numbers = tuple(whole(f"each of {name}", number) for number in asked)
    wrong = [number for number in numbers if not 0 <= number < count]
    if wrong:
        raise ValueError(f"{name} are 0 to {count - 1} here - got {wrong[0]}")
    return numbers


def _check_size(shape: tuple[int, ...]) -> None:
    needed = 4 * math.prod(shape)
    if needed > MOST_BYTES:
        layers, heads, tokens, positions = shape
        raise ValueError(
            f"{layers} layers x {heads} heads x {tokens} tokens x {positions} positions are "
            f"{needed / 1e9:.1f} GB; pass fewer tokens, or leave out layers or heads for their mean"
        )
