"""What the model saw when it gave a reply, found again in a studio's memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch

from vl3.arguments import shown
from vl3.inference.encoded import EncodedCache
from vl3.inference.encoded_video import HANDED_OVER, EncodedVideo, slot_embeds, with_sound
from vl3.inference.heard import EncodedSound
from vl3.inference.opening import ModelFingerprint
from vl3.interpret import ReplayInput
from vl3.pipeline import to_patches
from vl3.settings import PruneSettings
from vl3.values import Clip, Grid, PromptSegment, Reply, VisualContext
from vl3.vision.token_map import token_layout

CHANGED = (
    "The model is not the one that gave this reply, or code of yours takes part in it: the same "
    "words were read again by the model as it is now."
)
OTHERS = "this reply was given by a model with other tokens; ask that one's studio"


def replay_input(encoded: EncodedCache, reply: Reply) -> ReplayInput:
    """A finished reply with its media, ready to be run again by the model as it is now.

    Raises: ValueError when the reply was stopped too early, is another model's, or a clip is no
    longer kept.
    """
    check(reply)
    if not reply.prompt_ids:
        raise ValueError("this reply was stopped before it had a prompt; nothing can be looked at")
    model, now = encoded.model, encoded.now()
    media = _media(encoded, reply, now)
    videos = [one for one, _ in media if isinstance(one, EncodedVideo)]
    keeps = [
        seen.keep_M(one.grid.num_tokens) for one, seen in media if isinstance(one, EncodedVideo)
    ]
    layout = token_layout(
        [video.tokens for video in videos],
        np.concatenate([np.zeros(0, bool), *keeps]),
        [video.clip.times_s for video in videos],
        [video.clip.frames_TYX3.shape[1:3] for video in videos],
    )
    is_slot_L = np.isin(reply.prompt_ids, model.config.visual_token_ids)
    ids = reply.prompt_ids + reply.token_ids
    is_known = 0 <= min(ids) <= max(ids) < model.config.text_config.vocab_size
    if is_slot_L.sum() != len(layout) or not is_known:
        raise ValueError(OTHERS)

    def embeds() -> torch.Tensor:
        masks = iter(keeps)
        return torch.cat(
            [
                slot_embeds(
                    model,
                    one,
                    torch.from_numpy(next(masks)) if isinstance(one, EncodedVideo) else None,
                )
                for one, _ in media
            ]
        )

    def text(count: int) -> str:
        written = encoded.processor.decode(reply.token_ids[:count])
        # a character of several tokens comes with its last
        return written if count == len(reply.token_ids) else written.rstrip("\ufffd")

    seen = [(one.key, one.keep_bits, one.sound) for one in reply.seen]
    asked = (reply.prompt_ids, reply.token_ids, seen, now.model)
    return ReplayInput(
        key=hashlib.sha256(repr(asked).encode()).hexdigest(),
        prompt_ids=reply.prompt_ids,
        answer_ids=reply.token_ids,
        text=text,
        slot_K=np.flatnonzero(is_slot_L),
        sound_K=_sound_positions(reply),
        cells=layout,
        embeds=embeds,
        frame=lambda clip, index: _frame(videos[clip], index),
        is_lasting=now.model is not None,
        notes=() if now.model and now.model == reply.model else (CHANGED,),
    )


def _sound_positions(reply: Reply) -> np.ndarray:
    """Where the prompt holds sound, int64."""
    runs = [run for seen in reply.seen if seen.sound for run in seen.sound.runs]
    return np.concatenate([np.arange(0), *(first + np.arange(count) for first, count in runs)])


def _frame(video: EncodedVideo, index: int) -> tuple[torch.Tensor, Grid]:
    """Patches [N, P] and grid of one frame, for the encoder to be asked again."""
    if video.made.encoder == HANDED_OVER:
        raise ValueError(
            'source "vision" looks into the encoder, and the features of this video were '
            "handed over; look into an answer about the video as it was opened"
        )
    grid = replace(video.grid, frames=1)
    frames = video.clip.frames_TYX3[index : index + 1]
    one = Clip(frames_TYX3=frames, times_s=None, source=video.clip.source)
    return to_patches([one], [grid]).pixels_NP, grid


def check(reply: object) -> None:
    """Raises ValueError for what is no reply."""
    if not isinstance(reply, Reply):
        raise ValueError(
            "a reply is what studio.reply returns, and the last event of studio.stream - got "
            f"{shown(reply)}"
        )


def videos(encoded: EncodedCache, reply: Reply) -> tuple[EncodedVideo, ...]:
    """The clips and images of a reply's prompt, each pruned as it was for that reply.

    Raises: ValueError when one is no longer kept.
    """
    check(reply)
    chosen = reply.settings.get("prune")
    prune = None if chosen is None else PruneSettings(**chosen)
    settings = replace(encoded.processor.settings, prune=prune)
    return tuple(
        _masked(encoded.repruned(video, settings), seen)
        for video, seen in _media(encoded, reply, encoded.now())
        if isinstance(video, EncodedVideo)
    )


def pieces(encoded: EncodedCache, reply: Reply) -> tuple[PromptSegment, ...]:
    """The prompt of a reply as the model read it: words, template tokens, visual slots by frame, or
    by the frames that the connector joins, and sound by what lies between two frames.

    Joined, with <image> for the slots, the texts are the reply's prompt; a frame of which nothing
    was kept has no slots. (Where the steps of a video follow one another without a word between
    them, the prompt has one <video> for them all.)
    """
    check(reply)
    tokenizer, slot_ids = encoded.processor.tokenizer, set(encoded.model.config.visual_token_ids)
    sound_id = encoded.model.config.audio_token_id
    slots = sum(token in slot_ids for token in reply.prompt_ids)
    if slots != sum(seen.kept_tokens for seen in reply.seen):
        raise ValueError(OTHERS)
    special_ids = tokenizer.added_tokens_decoder.keys()

    def kind(token: int) -> str:
        if token == sound_id:
            return "sound"
        return "slots" if token in slot_ids else "special" if token in special_ids else "text"

    steps = _steps(reply)
    found = []
    for name, run in groupby(reply.prompt_ids, kind):
        ids = list(run)
        if name == "sound":
            found.append(PromptSegment(kind=name, text="", tokens=len(ids)))
        elif name == "slots":
            left = len(ids)
            while left:  # steps may follow one another without a word between them
                kept, step = next(steps)
                found.append(PromptSegment(kind=name, text="", tokens=kept, **step))
                left -= kept
        else:
            found.append(PromptSegment(kind=name, text=tokenizer.decode(ids), tokens=len(ids)))
    return tuple(found)


def _steps(reply: Reply) -> Iterator[tuple[int, dict]]:
    """The slots of each step of the prompt that has some, and what they stand for, in order."""
    for clip, seen in enumerate(reply.seen):
        last = len(seen.times_s or (None,)) - 1  # steps of padding have a place behind it
        for (first, end), kept in zip(seen.spans, seen.kept_per_step):
            frame = min(first, last)
            time_s = seen.times_s[frame] if seen.times_s else None
            if kept:
                yield (
                    kept,
                    {"clip": clip, "frame": frame, "frames": end - first, "time_s": time_s},
                )


def _media(
    encoded: EncodedCache, reply: Reply, now: ModelFingerprint
) -> list[tuple[EncodedVideo | EncodedSound, VisualContext]]:
    """What is kept of each medium of the reply, but for sounds of which nothing was heard."""
    found: list[tuple[EncodedVideo | EncodedSound, VisualContext]] = []
    for number, seen in enumerate(reply.seen, start=1):
        video = encoded.find(seen.key, now) if seen.key else None
        sound = encoded.find_sound(seen.sound.key, now) if seen.sound else None
        if (seen.key and video is None) or (seen.sound and seen.sound.runs and sound is None):
            raise ValueError(
                f"medium {number} of this reply is no longer in memory; open it again with the "
                "same settings, then look"
            )
        if video is not None:
            found.append((with_sound(video, sound, encoded.processor.settings), seen))
        elif sound is not None:
            found.append((sound, seen))
    return found


def _masked(video: EncodedVideo, seen: VisualContext) -> EncodedVideo:
    """The video with the mask of that reply, where that was not the pruner's."""
    keep_M = torch.from_numpy(seen.keep_M(video.grid.num_tokens))
    if torch.equal(keep_M, video.keep.keep_M):
        return video
    keep = replace(
        video.keep, keep_M=keep_M, placeholder_M=torch.zeros_like(keep_M), mode="handed over"
    )
    return replace(video, keep=keep)
