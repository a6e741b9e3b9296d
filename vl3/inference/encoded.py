"""Clips that were decoded and encoded once, kept within a bound and found again by content.

What is kept says what it holds: digests of its clip, features and mask, and of the encoder that
made it. Where one of them is no longer so, it is not used.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vl3.families.settings import ProcessorSettings
from vl3.inference.disk_cache import FeatureCache
from vl3.inference.encoded_video import (
    HANDED_OVER,
    EncodedVideo,
    Provenance,
    check_parts,
    of_clip,
    of_mask,
    with_sound,
)
from vl3.inference.engine import Engine, never
from vl3.inference.fingerprint import checksum, fingerprint, has_own_code
from vl3.inference.heard import EncodedSound, hear, muted
from vl3.inference.opening import ModelFingerprint, Opening
from vl3.messages.media import MediaPart
from vl3.messages.sounds import SoundPart
from vl3.messages.sources import content_digest
from vl3.pipeline import (
    Planned,
    PlannedSound,
    plan,
    plan_sounds,
    prepare,
    prune_patches,
    to_patches,
)
from vl3.values import Clip, Grid, Ledger, Patches, Plan, Progress
from vl3.vision.token_map import slot_runs

GREY = 128  # of a frame that shows nothing


class EncodedCache:
    """The encoded clips of one studio, least recently used first, at most cache_bytes in all.

    files: where clips that leave the memory, or the program, are found encoded; None for nowhere
    """

    def __init__(self, engine: Engine, cache_bytes: int, files: FeatureCache | None = None) -> None:
        self.engine, self.model, self.processor = engine, engine.model, engine.processor
        self.cache_bytes, self.files = cache_bytes, files
        self._videos: OrderedDict[str, EncodedVideo] = OrderedDict()
        self._sounds: OrderedDict[str, EncodedSound] = OrderedDict()

    def __len__(self) -> int:
        return len(self._videos)

    @property
    def nbytes(self) -> int:
        kept = [known.nbytes for known in list(self._videos.values())]
        return sum(kept) + sum(known.nbytes for known in list(self._sounds.values()))

    def clear(self) -> None:
        self._videos.clear()
        self._sounds.clear()

    def find(self, key: str, now: ModelFingerprint) -> EncodedVideo | None:
        """The clip of this key while it is kept, as the encoder sees it now.

        Raises: ValueError where a caller's features were changed after they were used.
        """
        known = self._videos.get(key)
        if known is None or of_clip(known.clip) != known.made.clip:
            return None
        self._use(key)
        has_changed = checksum(known.features_MD) != known.made.features
        if known.made.encoder == HANDED_OVER:
            if has_changed:
                raise ValueError(
                    "the features that this reply was given with were edited in place since; hand "
                    "a copy over with dataclasses.replace(video, features_MD=...) to keep both"
                )
            return known
        if has_changed or not known.made.is_by(now.encoder):
            known = self._encoded_anew(known, Opening(now))
            self._remember(known)
        return known

    def find_sound(self, key: str, now: ModelFingerprint) -> EncodedSound | None:
        """The sound of this key (EncodedSound.kept_as) while it is kept, as the ear hears it now;
        a caller's features as they are."""
        known = self._sounds.get(key)
        if known is None or key == known.kept_as != known.key:
            return known
        if key != known.key:  # a caller's features that were edited in place since
            return None
        return self.heard(known, Opening(now))

    def plan(self, medium: MediaPart, settings: ProcessorSettings) -> Plan:
        """What a medium will cost, from headers alone."""
        return _as_plan(medium, plan([medium], settings))

    def open(
        self, medium: MediaPart, settings: ProcessorSettings, opening: Opening
    ) -> tuple[EncodedVideo, bool]:
        """The encoded medium, and whether it was known already."""
        planned = plan([medium], settings)
        told = _as_plan(medium, planned)
        video, is_known = self._seen(medium, planned, told, opening)
        sound = self.hear(planned.sounds[0], opening) if planned.sounds[0] else None
        return with_sound(video, sound, settings), is_known

    def hear(self, planned: PlannedSound, opening: Opening) -> EncodedSound:
        """The sound as the ear gives it, at once where it is kept."""
        part = planned.part
        official, ear_sizes = planned.bank_AZ is not None, self.model.config.audio_config
        asked = repr((sorted(part.options.items()), planned.pool, official, ear_sizes))
        key = f"{content_digest(part.source)}-{hashlib.sha256(asked.encode()).hexdigest()}"
        known = self._sounds.get(key)
        if known is not None and not known.has_own_features:
            return self.heard(known, opening)
        return self._keep(hear(self.engine, planned, key, opening))

    def heard(self, sound: EncodedSound, opening: Opening) -> EncodedSound:
        """A sound that was heard before, as the ear hears it now; a caller's features as they
        are."""
        if sound.has_own_features:
            features_KD = sound.features_KD.to(self.model.device, self.model.dtype)
            return self._keep(replace(sound, features_KD=features_KD, hear_s=0.0))
        ear = opening.now.ear
        if opening.reuse and ear is not None and sound.ear == ear:
            return self._keep(replace(sound, hear_s=0.0))
        return self._keep(hear(self.engine, sound.planned, sound.key, opening))

    def _keep(self, sound: EncodedSound) -> EncodedSound:
        self._sounds[sound.kept_as] = sound
        with suppress(KeyError):  # where everything was released in between
            self._sounds.move_to_end(sound.kept_as)
        self._keep_within()
        return sound

    def open_sound(
        self,
        medium: SoundPart,
        settings: ProcessorSettings,
        opening: Opening,
        handed: EncodedSound | None = None,
    ) -> tuple[EncodedSound, bool]:
        """A sound by itself, and whether it was known already; without tokens where it is muted.

        handed: the one that a caller hands over
        """
        (planned,) = plan_sounds([medium], settings)
        if planned is None:
            return muted(self.model, medium), False
        sound = self.heard(handed, opening) if handed else self.hear(planned, opening)
        return sound, sound.hear_s == 0.0

    def _seen(
        self, medium: MediaPart, planned: Planned, told: Plan, opening: Opening
    ) -> tuple[EncodedVideo, bool]:
        settings = planned.settings
        key, encoder = _key(medium, settings, told), opening.now.encoder
        known = self._videos.get(key)
        if known is not None and opening.reuse and self._is_as_made(known, encoder):
            self._use(key)
            opening.on_stage(Progress("Video already encoded, reused", kind="reused"))
            clip = replace(known.clip, source=_source(medium, known.clip))
            return replace(self.repruned(known, settings), plan=told, clip=clip), True
        fresh = self._encode(planned, told, key, opening)
        self._remember(fresh)
        return fresh, False

    def take(
        self,
        video: EncodedVideo,
        asked: ProcessorSettings,
        settings: ProcessorSettings | None,
        opening: Opening,
    ) -> tuple[EncodedVideo, bool]:
        """A video that a caller hands over, ready to be seen, and whether it is used as it is.

        asked: by which it is heard or not
        settings: by which it is pruned anew; None for the mask that it has
        Raises: ValueError for parts that do not belong together, and for a mask of the caller's
        that is to be pruned anew.
        """
        video = replace(video, tokens=self.processor.settings.tokens_of(video.grid))
        is_heard = asked.sound is not None and asked.sound.hear
        heard = self.heard(video.sound, opening) if is_heard and video.sound else None
        video = with_sound(video, heard, asked)
        check_parts(video, self.model.config.vision_config)
        if (why := self.processor.settings.unpruned) and not video.keep.keep_M.all():
            raise ValueError(f"{why[:-1]}; hand over a mask that keeps every patch")
        if settings is not None and video.has_own_keep:
            raise ValueError(
                "this video has a mask of its own, and prune asks for another one; leave prune out "
                "to use the mask, or hand over the video as studio.open gave it"
            )
        made, features_MD = video.made, video.features_MD.to(self.model.device)
        is_own = made.encoder == HANDED_OVER or checksum(video.features_MD) != made.features
        is_ready = is_own or (opening.reuse and made.is_by(opening.now.encoder))
        if is_own:
            features_MD = features_MD.to(self.model.dtype)
            made = replace(made, features=checksum(features_MD), encoder=HANDED_OVER)
            key = f"{video.key.partition('+')[0]}+{made.features}"
            video = replace(video, key=key, made=made, features_MD=features_MD)
        elif is_ready:
            video = replace(video, features_MD=features_MD)
        else:
            video = self._encoded_anew(video, opening)
        if is_ready:
            opening.on_stage(Progress("Video already encoded, reused", kind="reused"))
        self._remember(video)
        if settings is not None:
            return self.repruned(video, settings), is_ready
        ledger = replace(video.ledger, kept_tokens=video.kept_tokens, prune_s=0.0)
        return replace(video, ledger=ledger), is_ready

    def blinded(self, video: EncodedVideo, opening: Opening) -> EncodedVideo:
        """The video with the features that the encoder gives to grey frames, one for all of them.

        Times, grid, mask and sound stay, so that the prompt has the same slots and only what the
        frames show is gone; which of them changed can still be told from the mask.
        """
        grey = replace(
            video.clip, frames_TYX3=np.full_like(video.clip.frames_TYX3[:1], GREY), times_s=None
        )
        one_MD, _ = self._features(
            to_patches([grey], [replace(video.grid, frames=1)]), None, opening
        )
        blind = replace(video, features_MD=one_MD.repeat(video.grid.frames, 1))
        return self.take(blind, self.processor.settings, None, opening)[0]

    def repruned(self, known: EncodedVideo, settings: ProcessorSettings) -> EncodedVideo:
        """The same video under the pruner settings asked for; its features do not change."""
        started = time.perf_counter()
        keep = prune_patches(to_patches([known.clip], [known.grid]), settings.prune)
        prune_s = time.perf_counter() - started
        pruned = replace(known, keep=keep, made=replace(known.made, keep=of_mask(keep)))
        ledger = replace(known.ledger, kept_tokens=pruned.kept_tokens, prune_s=prune_s)
        return replace(pruned, ledger=ledger)

    def _encode(self, planned: Planned, told: Plan, key: str, opening: Opening) -> EncodedVideo:
        started, prune = time.perf_counter(), planned.settings.prune
        reading = partial(Progress, "Reading frames", kind="reading")
        opening.on_stage(reading(0, told.num_frames))

        def read(medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
            return medium.read(settings, grid, lambda *done: opening.on_stage(reading(*done)))

        # Every token is encoded, so that other settings of the pruner need no encoder.
        whole = replace(planned, settings=replace(planned.settings, prune=None), sounds=(None,))
        prepared = prepare(whole, read)
        (clip,), (grid,), patches = prepared.shown, prepared.grids, prepared.patches
        (tokens,) = prepared.tokens
        decoded = time.perf_counter()
        encoder = opening.now.encoder
        written_as = self._written_as(key, encoder) if opening.reuse else None
        features, is_fresh = self._features(patches, written_as, opening)
        encoded = time.perf_counter()
        opening.on_stage(Progress("Removing repeated patches", kind="pruning"))
        keep = prune_patches(patches, prune)
        ledger = Ledger(
            frames=grid.frames,
            visual_tokens=tokens.num_tokens,
            kept_tokens=sum(slot_runs(tokens, keep.keep_M, None).counts),
            encoded_clips=int(is_fresh),
            decode_s=decoded - started,
            encode_s=encoded - decoded,
            prune_s=time.perf_counter() - encoded,
        )
        made = Provenance(
            clip=of_clip(clip),
            features=checksum(features),
            keep=of_mask(keep),
            encoder=encoder,
        )
        return EncodedVideo(
            clip=clip,
            grid=grid,
            tokens=tokens,
            keep=keep,
            plan=told,
            ledger=ledger,
            features_MD=features,
            key=key,
            made=made,
        )

    def _encoded_anew(self, video: EncodedVideo, opening: Opening) -> EncodedVideo:
        """The same frames and mask with the features that the encoder gives them now."""
        started = time.perf_counter()
        features, _ = self._features(to_patches([video.clip], [video.grid]), None, opening)
        ledger = replace(
            video.ledger,
            encoded_clips=1,
            decode_s=0.0,
            prune_s=0.0,
            encode_s=time.perf_counter() - started,
        )
        made = replace(video.made, features=checksum(features), encoder=opening.now.encoder)
        return replace(video, features_MD=features, ledger=ledger, made=made)

    def _features(
        self, patches: Patches, written_as: str | None, opening: Opening
    ) -> tuple[torch.Tensor, bool]:
        """Features of the clip, and whether they were computed rather than found on disk.

        written_as: by which they are found there, and written; None for neither
        """
        (grid,) = patches.grids
        if written_as and self.files and (found := self.files.get(written_as)) is not None:
            opening.on_stage(Progress("Encoded before, read from disk", kind="loading"))
            return found.to(self.model.device), False

        def tell(patches_done: int) -> None:
            done = patches_done // grid.patches_per_frame
            opening.on_stage(Progress("Encoding video", done, grid.frames, kind="encoding"))

        tell(0)
        size, merge = [grid.frames, grid.rows, grid.cols], grid.merge
        with self.engine.turn(opening.stopped) as turn, torch.no_grad():

            def progress(done: int, _total: int) -> None:
                with turn.paused():
                    tell(done)

            fresh = self.model.encode_vision(patches.pixels_NP, [size], [merge], progress)
        if written_as and self.files:
            self.files.put(written_as, fresh)
        return fresh, True

    def now(self, stopped: Callable[[], bool] = never) -> ModelFingerprint:
        """What the model is now; it is asked once for every question."""
        model, vision = self.model, self.model.vision
        with self.engine.turn(stopped):
            is_own = has_own_code(model)
            is_own_encoder = is_own and has_own_code(vision, model.encode_vision)
            encoder = None if is_own_encoder else fingerprint(vision)
            rest = None if is_own else fingerprint(model, without=vision)
            ear = None
            if model.ear is not None and not (is_own and has_own_code(model.ear)):
                ear = fingerprint(model.ear)
        whole = None if is_own else f"{encoder}{rest}"
        return ModelFingerprint(encoder=encoder, model=whole, ear=ear)

    def _is_as_made(self, known: EncodedVideo, encoder: str | None) -> bool:
        """Whether this encoder would make it again, and it was not edited in place."""
        made = known.made
        return (
            made.is_by(encoder)
            and made.clip == of_clip(known.clip)
            and made.features == checksum(known.features_MD)
        )

    def _written_as(self, key: str, encoder: str | None) -> str | None:
        """What features on disk depend on; None where there is no disk or no telling."""
        if self.files is None or encoder is None:
            return None
        return f"{key} {encoder} {torch.__version__}"

    def _use(self, key: str) -> None:
        with suppress(KeyError):  # where everything was released in between
            self._videos.move_to_end(key)

    def _remember(self, fresh: EncodedVideo) -> None:
        self._videos[fresh.key] = replace(fresh, sound=None, sound_runs=None)
        self._use(fresh.key)  # it may have had an older place
        self._keep_within()

    def _keep_within(self) -> None:
        while len(self._videos) > 1 and self.nbytes > self.cache_bytes:
            self._videos.popitem(last=False)
        while len(self._sounds) > 1 and self.nbytes > self.cache_bytes:
            self._sounds.popitem(last=False)


def _as_plan(medium: MediaPart, planned: Planned) -> Plan:
    (info,), (grid,), (tokens,) = planned.shown, planned.grids, planned.tokens
    (sound,) = planned.sounds
    path = medium.source if isinstance(medium.source, str | Path) else None
    return Plan(
        source=Path(path).name if path else getattr(medium.source, "source", "picture"),
        times_s=info.times_s,
        height_px=info.height_px,
        width_px=info.width_px,
        grid=grid,
        duration_s=info.duration_s,
        notes=(*info.notes, *(sound.length.notes if sound else ())),
        tokens=tokens,
        sound_tokens=planned.sound_tokens,
    )


def _key(medium: MediaPart, settings: ProcessorSettings, plan: Plan) -> str:
    source = medium.source
    grid = asdict(plan.grid)
    if plan.grid.copies == 1:
        del grid["copies"]  # what is kept on disk was named before there were any
    chosen = medium.sampling(settings) | grid | {"kind": medium.kind}
    if settings.square:
        chosen |= {"square": settings.square}
    if isinstance(source, Clip):
        chosen |= {"lost_frames": source.lost_frames, "notes": source.notes}
    return f"{content_digest(source)}-{hashlib.sha256(repr(chosen).encode()).hexdigest()}"


def _source(medium: MediaPart, known: Clip) -> str:
    """What the caller calls a clip; the same content may have several names."""
    if isinstance(medium.source, Clip):
        return medium.source.source
    return str(medium.source) if isinstance(medium.source, str | Path) else known.source
