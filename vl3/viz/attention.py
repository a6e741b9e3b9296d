"""The data of the attention view: where every word of an answer looked, and each of its layers.

The browser gets one byte for a weight. Weights on visual tokens span several powers of ten, and on
a linear scale most of them would be 0; so the bytes are logarithmic, DECADES below the largest
weight of each map, which comes along as a number. A weight is then known to within 2.4 %.

What opens the view (`data`) has the mean of all layers for every word, so that going from word to
word, and from a patch to the words, needs no request. The layers and heads of one word, rollout,
relevancy and the vision encoder are asked for one at a time: the view emits "need", the host calls
Studio.attention with what `asked` makes of it, and hands `maps`, or `refused`, to view.update:

    view --need--> asked(need, sizes) -> studio.attention(reply, **...) -> maps -> update({maps})

28 layers x 12 heads x 4 000 visual tokens are 1.3 MB. Attention shows where information was read,
not why the answer was given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from vl3.values import Clip, SoundTokens
from vl3.vision.token_map import TokenLayout
from vl3.viz.pack import packed, sheet

DECADES = 5  # from a map's largest weight down to the least that is not 0
STEPS = 254  # between the levels 1 and 255
MOST_BYTES = 2_000_000  # of maps in one answer to a "need"
MEAN, LAYERED, JOINED = "mean", ("language", "vision"), ("rollout", "relevancy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """A sound of the prompt. strip: its data of vl3.viz.sound; tokens: as of its SoundContext."""

    strip: Mapping
    tokens: SoundTokens


def data(
    mean,
    clips: Sequence[Clip],
    *,
    sounds: Sequence[Heard] | None = None,
    vision: tuple[int, int] | None = None,
    details: Sequence = (),
    token: int | None = None,
    medium: int = 0,
    frame: int = 0,
) -> dict:
    """What mount() of assets/web/views takes to show where the words of one answer looked.

    mean: vl3.interpret.Attention, the mean over all layers and heads for all words of the answer
    clips: of the prompt in its order, at the size that the model saw (Studio.videos)
    sounds: what was heard, in the order of the prompt; None shows how much of it was, and not where
    vision: numbers of layers and heads of the vision encoder; without it that is not offered
    details: further Attention, as `maps` takes it, to be had without asking (in a one-file page)
    token, medium, frame: what to begin with; without token the word that looked there most
    Raises: ValueError when these do not belong together.
    """
    cells, count = mean.cells, len(mean.tokens)
    if mean.source != "language" or mean.tokens != tuple(range(count)):
        raise ValueError('mean is Studio.attention(reply), source "language", all tokens')
    if mean.weight_IHQL.shape[:2] != (1, 1):
        raise ValueError("mean is over all layers and heads; leave both out of Studio.attention")
    sizes = [clip.frames_TYX3.shape[1:3] for clip in clips]
    lengths = [len(slots) for slots in cells.slots]
    if sizes != list(cells.frame_sizes) or [len(clip) for clip in clips] != lengths:
        raise ValueError(
            f"{len(clips)} clips with frames of {sizes} for an answer that saw {len(lengths)} with "
            f"{list(cells.frame_sizes)}; pass the clip of every video that the reply saw"
        )
    heard = len(mean.sound_K) if sounds is None else sum(one.tokens.num_tokens for one in sounds)
    if heard != len(mean.sound_K):
        raise ValueError(
            f"sounds of {heard} tokens for an answer that heard {len(mean.sound_K)}; pass every "
            "sound that the reply heard"
        )
    layers, heads = mean.share_IHQ.shape[:2]
    share_tops, share_levels = quantised(mean.share_IHQ.reshape(layers * heads, count).T)
    return {
        "view": "attention",
        "words": list(mean.words),
        "media": [_medium(clip, slots) for clip, slots in zip(clips, cells.slots)],
        "sizes": {
            "tokens": count,
            "slots": len(cells),
            "frame_slots": _most_in_a_frame(cells),
            "layers": layers,
            "heads": heads,
            "vision_layers": 0 if vision is None else vision[0],
            "vision_heads": 0 if vision is None else vision[1],
        },
        "share": {"tops": packed(share_tops), "levels": packed(share_levels)},
        "mean": _packed_maps(mean, MEAN),
        "details": [maps(one) for one in details],
        "split": packed(mean.split_IHQ3[0, 0].astype(np.float32)) if heard else None,
        "sounds": _listened(mean, sounds or ()),
        "token": token,
        "medium": medium,
        "frame": frame,
    }


def _listened(mean, sounds: Sequence[Heard]) -> list[dict]:
    """Of each sound its strip, the times of its steps, and what every word gave to each of them."""
    weight_QK, first, found = mean.sound_IHQK[0, 0], 0, []
    for sound in sounds:
        tokens, end = sound.tokens, first + sound.tokens.num_tokens
        if not tokens.num_tokens:
            continue
        steps_QT = weight_QK[:, first:end].reshape(len(weight_QK), -1, tokens.bands).sum(axis=2)
        tops, levels = quantised(steps_QT)
        found.append(
            {
                "strip": dict(sound.strip),
                "spans": packed(np.array(tokens.spans_s, np.float32)),
                "tops": packed(tops),
                "levels": packed(levels),
            }
        )
        first = end
    return found


def _medium(clip: Clip, slots_TRC: np.ndarray) -> dict:
    frames, rows, cols = slots_TRC.shape
    return {
        "source": clip.source,
        "times_s": None if clip.times_s is None else list(clip.times_s),
        "frames": frames,
        "rows": rows,
        "cols": cols,
        "slots": packed(slots_TRC.astype(np.int32)),
        "sheet": sheet(clip.frames_TYX3),
    }


def _most_in_a_frame(cells: TokenLayout) -> int:
    pairs = np.concatenate([cells.clip_K[:, None], cells.frames_K2], axis=1)
    return int(np.unique(pairs, axis=0, return_counts=True)[1].max(initial=0))


def maps(attention) -> dict:
    """One look as view.update({"maps": ...}) takes it.

    attention: vl3.interpret.Attention of single layers and heads, or of a source that joins them
    Returns the maps [layers, heads, tokens, slots] as levels, the slots beginning with `first`.
    Source "vision" reaches one frame, or those that the token stands for, and only their slots are
    in the maps.
    Raises: ValueError for a mean, which `data` has, and for several visual tokens.
    """
    asked_for = (len(attention.layers), len(attention.heads))
    expected = asked_for if attention.source in LAYERED else (1, 1)
    if attention.weight_IHQL.shape[:2] != expected:
        raise ValueError("these maps are a mean; name layers and heads, or take a joined source")
    if attention.source == "vision" and len(attention.tokens) != 1:
        raise ValueError(f"one visual token at a time - got {len(attention.tokens)}")
    return _packed_maps(attention, attention.source)


def _packed_maps(attention, source: str) -> dict:
    values_IHQK = attention.cells.folded(attention.visual_IHQK)
    first, end = 0, len(attention.cells)
    if source == "vision":
        first, end = _frame_of(attention.cells, attention.tokens[0])
    values_XK = values_IHQK.reshape(prod(values_IHQK.shape[:3]), values_IHQK.shape[3])
    tops, levels = quantised(values_XK[:, first:end])
    single = source in LAYERED
    return {
        "source": source,
        "tokens": list(attention.tokens),
        "layers": list(attention.layers) if single else None,
        "heads": list(attention.heads) if single else None,
        "first": first,
        "slots": end - first,
        "sinks": np.flatnonzero(attention.sink_K).tolist(),
        "tops": packed(tops),
        "levels": packed(levels),
    }


def _frame_of(cells: TokenLayout, slot: int) -> tuple[int, int]:
    """First slot and end of the frames that a slot stands for; their slots follow each other."""
    same_K = cells.clip_K == cells.clip_K[slot]
    same_K &= (cells.frames_K2 == cells.frames_K2[slot]).all(axis=1)
    slots = np.flatnonzero(same_K)
    return int(slots[0]), int(slots[-1]) + 1


def quantised(values_XK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every row as bytes on a logarithmic scale of its own; `restored` is the inverse.

    Shapes: values_XK - not negative
            returns tops_X - float32, the largest of each row; levels_XK - uint8, 0 for what is
            DECADES or more below it
    """
    values_XK = np.asarray(values_XK, np.float32)
    tops_X = values_XK.max(axis=1, initial=0)
    share_XK = values_XK / np.where(tops_X > 0, tops_X, 1)[:, None]
    with np.errstate(divide="ignore"):
        levels_XK = 1 + np.round(STEPS * (1 + np.log10(share_XK) / DECADES))
    return tops_X, np.clip(levels_XK, 0, 1 + STEPS).astype(np.uint8)


def restored(tops_X: np.ndarray, levels_XK: np.ndarray) -> np.ndarray:
    """The weights that the browser reads out of `quantised`, float32 [X, K]."""
    share_XK = 10 ** (DECADES * ((levels_XK.astype(np.float32) - 1) / STEPS - 1))
    return np.where(levels_XK > 0, share_XK * tops_X[:, None], 0).astype(np.float32)


def asked(need: Mapping, sizes: Mapping) -> dict:
    """What Studio.attention is to be called with for a view's "need".

    need: source, token and layer, from a browser: anything may be in it. token is the number of a
          word, or of a visual token for source "vision"
    sizes: data()["sizes"] of the answer that is shown
    One layer with all its heads, or all layers where they are small enough to come at once; rollout
    comes for all words.
    Raises: ValueError for what the view would not ask.
    """
    source, token = need.get("source"), need.get("token")
    if source not in LAYERED + JOINED:
        raise ValueError("the source of these maps is unknown")
    prefix = "vision_" if source == "vision" else ""
    _check("token", token, sizes["slots" if prefix else "tokens"])
    if source == "rollout":
        return {"source": source}
    if source == "relevancy":
        return {"source": source, "tokens": [token]}
    layers, heads = sizes[f"{prefix}layers"], sizes[f"{prefix}heads"]
    _check("layer", need.get("layer"), layers)
    slots = sizes["frame_slots" if prefix else "slots"]
    comes_whole = layers * heads * slots <= MOST_BYTES
    return {
        "source": source,
        "tokens": [token],
        "layers": list(range(layers)) if comes_whole else [need["layer"]],
        "heads": list(range(heads)),
    }


def _check(name: str, number, count: int) -> None:
    if type(number) is not int or not 0 <= number < count:
        raise ValueError(f"there is no such {name}; they are whole numbers from 0 to {count - 1}")


def refused(need: Mapping, problem: str) -> dict:
    """In place of maps: why there are none, in one sentence. need: as `asked` has accepted it."""
    return {"source": need["source"], "token": need["token"], "problem": problem}
