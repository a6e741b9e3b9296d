"""Sounds that were read and heard once: piece by piece, however long they are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch

from vl3.audio import SoundLength
from vl3.audio.ear import Ear
from vl3.audio.official import SAMPLES as OFFICIAL_SAMPLES
from vl3.families.settings import ProcessorSettings
from vl3.inference.engine import Engine
from vl3.inference.fingerprint import checksum
from vl3.inference.opening import Opening
from vl3.messages.sounds import SoundPart
from vl3.pipeline import PlannedSound, plan_sounds
from vl3.sound import RATE_HZ, SoundTokens
from vl3.sound_inputs import pool_steps
from vl3.values import Progress, SoundPlan
from vl3.vision.token_map import SlotRuns

MUTED = "Sound is switched off, so nothing of it was heard."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedSound:
    """A sound, or the track of a video, as the ear gave it.

    planned: where it comes from, its length, and the time that each token stands for
    features_KD: one vector for each token, before the connector, on the model's device
    key: digest of content, range and how steps of the ear are joined
    made: digest of the features as the ear gave them
    ear: fingerprint of the ear; None where code of a caller took part in it

    dataclasses.replace(sound, features_KD=...), or an edit in place, is an intervention, as of an
    EncodedVideo.
    """

    planned: PlannedSound
    features_KD: torch.Tensor
    key: str
    made: str
    ear: str | None
    hear_s: float = 0.0

    @property
    def part(self) -> SoundPart:
        return self.planned.part

    @property
    def length(self) -> SoundLength:
        """What is known of the sound without its samples."""
        return self.planned.length

    @property
    def tokens(self) -> SoundTokens:
        """The time that each token stands for, on the clip's clock."""
        return self.planned.tokens

    @property
    def has_own_features(self) -> bool:
        """Whether they are a caller's, not the ear's."""
        return checksum(self.features_KD) != self.made

    @property
    def kept_as(self) -> str:
        """By which a studio keeps it, a caller's features beside the ear's."""
        return f"{self.key}+{checksum(self.features_KD)}" if self.has_own_features else self.key

    @property
    def source(self) -> str:
        """What a person calls it."""
        return str(getattr(self.part.source, "source", self.part.source))

    @property
    def nbytes(self) -> int:
        return self.features_KD.nbytes

    @property
    def answer_key(self) -> str:
        """Digest of everything the language model hears of it."""
        return f"{self.key}-{checksum(self.features_KD)}"

    @property
    def slots(self) -> SlotRuns:
        """Its slots in a prompt, where it is no video's."""
        return SlotRuns(None, (), (self.tokens.num_tokens,))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know of how it was read, one sentence each."""
        own = "The features of the sound were handed over, and are not the ear's."
        return (*self.length.notes, own) if self.has_own_features else self.length.notes


def hear(engine: Engine, planned: PlannedSound, key: str, opening: Opening) -> EncodedSound:
    """The sound through the model's ear, a piece at a time, between which others have their turn.

    Raises: vl3.video.VideoError; vl3.inference.engine.Stopped.
    """
    begun_s = time.perf_counter()
    ear, part, length = cast(Ear, engine.model.ear), planned.part, planned.length
    total_s = round(length.duration_s)
    tell = partial(Progress, "Hearing sound", total=total_s, kind="hearing")
    opening.on_stage(tell(done=0))

    def one(bank_AZ: torch.Tensor, num_samples: int) -> torch.Tensor:
        with engine.turn(opening.stopped), torch.no_grad():  # ended before anybody goes on
            return ear(bank_AZ[None].to(engine.model.device), torch.tensor([num_samples]))

    def pieces() -> Iterator[torch.Tensor]:
        done = 0
        if planned.bank_AZ is not None:
            yield one(planned.bank_AZ, OFFICIAL_SAMPLES)
            return
        form = ear.form(ear.config)
        blocks = part.blocks(lambda: opening.on_stage(tell(done=done)))
        for piece_S in form.pieces(blocks):
            yield one(ear.bank(ear.config, piece_S), len(piece_S))
            done = min(total_s, done + form.piece_samples // RATE_HZ)
            opening.on_stage(tell(done=done))

    features_KD = joined(pieces(), ear, planned.pool)
    return EncodedSound(
        planned=planned,
        features_KD=features_KD,
        key=key,
        made=checksum(features_KD),
        ear=opening.now.ear,
        hear_s=time.perf_counter() - begun_s,
    )


def joined(pieces: Iterator[torch.Tensor], ear: Ear, pool: int) -> torch.Tensor:
    """The features of all pieces, so many neighbouring steps of them as one; [K, D].

    What is held before it is joined is no more than a piece and a step.
    """
    bands = ear.form(ear.config).bands
    weight = next(ear.parameters())
    rest_KD = weight.new_zeros(0, ear.config.width)
    found = []
    for piece_KD in pieces:
        rest_KD = torch.cat([rest_KD, piece_KD])
        whole = len(rest_KD) // (pool * bands) * (pool * bands)
        found.append(pool_steps(rest_KD[:whole], pool, bands))
        rest_KD = rest_KD[whole:]
    return torch.cat([*found, pool_steps(rest_KD, pool, bands)])


def plan_of_sound(part: SoundPart, settings: ProcessorSettings) -> SoundPlan:
    """What a sound will cost. Raises: vl3.video.VideoError; ValueError where there is no ear."""
    (planned,), length = plan_sounds([part], settings), part.measure()
    return SoundPlan(
        source=Path(str(getattr(part.source, "source", part.source))).name,
        tokens=planned.tokens if planned else SoundTokens(spans_s=()),
        duration_s=length.duration_s,
        start_s=length.start_s + length.first_frame_s,
        notes=(*length.notes, *(() if planned else (MUTED,))),
    )


def muted(model, part: SoundPart) -> EncodedSound:
    """What is left of a sound where sound is switched off."""
    nothing = SoundLength(num_samples=0, start_s=0.0, first_frame_s=0.0, track=None, notes=(MUTED,))
    features_KD = torch.zeros(0, model.ear.config.width, device=model.device)
    return EncodedSound(
        planned=PlannedSound(part, nothing, SoundTokens(spans_s=()), 1),
        features_KD=features_KD,
        key="muted",
        made=checksum(features_KD),
        ear=None,
    )
