"""A clip or image that was decoded and encoded once, and what it was made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
import xxhash

from vl3.families.settings import ProcessorSettings
from vl3.inference.heard import EncodedSound
from vl3.pipeline import sound_runs
from vl3.sound import SoundRuns
from vl3.values import Clip, Grid, Keep, Ledger, Plan, TokenGrid
from vl3.vision.token_map import SlotRuns, slot_runs

HANDED_OVER = "handed over"  # features that a caller gave: no encoder makes them anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What a video held when it was made, as digests.

    encoder: fingerprint of the encoder; None where code of a caller took part in it
    """

    clip: str
    features: str
    keep: str
    encoder: str | None

    def is_by(self, encoder: str | None) -> bool:
        """Whether this encoder would make the features again; None is sure of nothing."""
        return encoder is not None and encoder == self.encoder


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedVideo:
    """A clip or image that was decoded, planned and encoded once.

    features_MD: one vector per merged cell, before pruning and connector, on the model's device
    tokens: what the connector makes of the grid
    key: digest of content, range, sampling and grid; pruning does not enter it
    sound: what is heard of it, None for nothing; sound_runs: where, as of vl3.pipeline.sound_runs

    dataclasses.replace(video, features_MD=...) or keep=... is an intervention: a question about the
    result is answered with exactly these features or this mask. Editing them in place is one too.
    """

    clip: Clip
    grid: Grid
    tokens: TokenGrid
    keep: Keep
    plan: Plan
    ledger: Ledger
    features_MD: torch.Tensor
    key: str
    made: Provenance
    sound: EncodedSound | None = None
    sound_runs: SoundRuns | None = None

    @property
    def nbytes(self) -> int:
        return self.features_MD.nbytes + self.clip.frames_TYX3.nbytes

    @property
    def answer_key(self) -> str:
        """Digest of everything the language model sees and hears of this video."""
        heard = f"-{self.sound.answer_key}-{self.slots.sounds}" if self.sound else ""
        return f"{self.key}-{of_mask(self.keep)}{heard}"

    @property
    def slots(self) -> SlotRuns:
        """Its slots in a prompt: the kept tokens, by the steps they belong to, and its sound."""
        return slot_runs(self.tokens, self.keep.keep_M, self.clip.times_s, self.sound_runs)

    @property
    def kept_tokens(self) -> int:
        return sum(self.slots.counts)

    @property
    def has_own_keep(self) -> bool:
        """Whether the mask is not the pruner's."""
        return of_mask(self.keep) != self.made.keep

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know of how the clip was read, one sentence each."""
        lost, heard = self.clip.lost_frames, self.sound.notes if self.sound else ()
        if self.clip.notes or not lost:
            return (*self.clip.notes, *heard)
        return (f"{lost} frame{'s' if lost > 1 else ''} could not be read.", *heard)


def with_sound(
    video: EncodedVideo, sound: EncodedSound | None, settings: ProcessorSettings
) -> EncodedVideo:
    """The video with that sound, or with none."""
    runs = sound_runs(settings, sound.tokens) if sound else None
    return replace(video, sound=sound, sound_runs=runs)


def of_clip(clip: Clip) -> str:
    told = (clip.times_s, clip.lost_frames, clip.notes)
    frames = np.ascontiguousarray(clip.frames_TYX3)
    return f"{xxhash.xxh3_128_hexdigest(frames.data)} {told}"


def of_mask(keep: Keep) -> str:
    return hashlib.sha256(keep.keep_M.cpu().numpy().tobytes()).hexdigest()


def check_parts(video: EncodedVideo, vision) -> None:
    """Raises ValueError where clip, grid, mask and features of a video do not belong together."""
    grid, tokens = video.grid, video.grid.num_tokens
    size = (grid.frames, grid.rows * vision.patch_size, grid.cols * vision.patch_size, 3)
    if video.clip.frames_TYX3.shape != size:
        raise ValueError(
            f"a clip of shape {video.clip.frames_TYX3.shape} does not fill this video's grid, "
            f"which wants {size} for this model; open the clip with studio.open"
        )
    if of_clip(video.clip) != video.made.clip:
        raise ValueError(
            "the clip of this video is not the one that was encoded; open the changed one with "
            "studio.open(clip)"
        )
    if tuple(video.features_MD.shape) != (tokens, vision.hidden_size):
        raise ValueError(
            f"features_MD of shape {tuple(video.features_MD.shape)} are not those of this model: "
            f"{tokens} tokens of {vision.hidden_size} values"
        )
    if not video.features_MD.is_floating_point():
        raise ValueError(f"features_MD are floating-point - got {video.features_MD.dtype}")
    mask_M = video.keep.keep_M
    if mask_M.dtype != torch.bool or tuple(mask_M.shape) != (tokens,):
        raise ValueError(
            f"keep_M is bool, one for each of {tokens} tokens - got {mask_M.dtype} of shape "
            f"{tuple(mask_M.shape)}"
        )
    if video.keep.grids != (grid,):
        raise ValueError("the mask of this video is of another grid; make it for video.grid")


def sound_of(medium: EncodedVideo | EncodedSound) -> EncodedSound | None:
    """What is heard of it."""
    return medium if isinstance(medium, EncodedSound) else medium.sound


@torch.no_grad()
def slot_embeds(
    model, medium: EncodedVideo | EncodedSound, keep_M: torch.Tensor | None = None
) -> torch.Tensor:
    """What fills the slots of a medium, in their order, [K, E]; keep_M: another mask."""
    if isinstance(medium, EncodedSound):
        return model.project_sound(medium.features_KD)
    keep_M = medium.keep.keep_M if keep_M is None else keep_M
    visual_KE = model.visual_tokens(medium.features_MD, (medium.grid,), keep_M)
    slots = slot_runs(medium.tokens, keep_M, medium.clip.times_s, medium.sound_runs)
    if medium.sound is None or not slots.sounds:
        return visual_KE
    seen = visual_KE.split(slots.counts)
    before, *after = model.project_sound(medium.sound.features_KD).to(visual_KE).split(slots.sounds)
    return torch.cat([before, *chain.from_iterable(zip(seen, after))])
