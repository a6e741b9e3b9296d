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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xxhash

from vl3.families.settings import ProcessorSettings
from vl3.inference.disk_cache import FeatureCache
from vl3.inference.engine import Engine, never
from vl3.inference.fingerprint import checksum, fingerprint, has_own_code
from vl3.messages.media import MediaPart, content_digest
from vl3.pipeline import Planned, plan, prepare, prune_patches, to_patches
from vl3.values import Clip, Grid, Keep, Ledger, Patches, Plan, Progress, TokenGrid
from vl3.vision.token_map import SlotRuns, slot_runs

OnStage = Callable[[Progress], None]
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFingerprint:
    """Fingerprints of encoder and whole model; None where code of a caller takes part in it."""

    encoder: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Opening:
    """How a clip is opened.

    now: what the model is; reuse: whether what is kept, here and on disk, may be used and added to
    on disk; on_stage: is told of progress, outside of the engine's turns; stopped: whether to end
    """

    now: ModelFingerprint
    reuse: bool = True
    on_stage: OnStage = lambda stage: None
    stopped: Callable[[], bool] = never


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EncodedVideo:
    """A clip or image that was decoded, planned and encoded once.

    features_MD: one vector per merged cell, before pruning and connector, on the model's device
    tokens: what the connector makes of the grid
    key: digest of content, range, sampling and grid; pruning does not enter it

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

    @property
    def nbytes(self) -> int:
        return self.features_MD.nbytes + self.clip.frames_TYX3.nbytes

    @property
    def answer_key(self) -> str:
        """Digest of everything the language model sees of this video."""
        return f"{self.key}-{_of_mask(self.keep)}"

    @property
    def slots(self) -> SlotRuns:
        """Its slots in a prompt: the kept tokens, by the steps they belong to."""
        return slot_runs(self.tokens, self.keep.keep_M, self.clip.times_s)

    @property
    def kept_tokens(self) -> int:
        return sum(self.slots.counts)

    @property
    def has_own_keep(self) -> bool:
        """Whether the mask is not the pruner's."""
        return _of_mask(self.keep) != self.made.keep

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person must know of how the clip was read, one sentence each."""
        lost = self.clip.lost_frames
        if self.clip.notes or not lost:
            return self.clip.notes
        return (f"{lost} frame{'s' if lost > 1 else ''} could not be read.",)


class EncodedCache:
    """The encoded clips of one studio, least recently used first, at most cache_bytes in all.

    files: where clips that leave the memory, or the program, are found encoded; None for nowhere
    """

    def __init__(self, engine: Engine, cache_bytes: int, files: FeatureCache | None = None) -> None:
        self.engine, self.model, self.processor = engine, engine.model, engine.processor
        self.cache_bytes, self.files = cache_bytes, files
        self._videos: OrderedDict[str, EncodedVideo] = OrderedDict()

    def __len__(self) -> int:
        return len(self._videos)

    @property
    def nbytes(self) -> int:
        return sum(known.nbytes for known in list(self._videos.values()))

    def clear(self) -> None:
        self._videos.clear()

    def find(self, key: str, now: ModelFingerprint) -> EncodedVideo | None:
        """The clip of this key while it is kept, as the encoder sees it now.

        Raises: ValueError where a caller's features were changed after they were used.
        """
        known = self._videos.get(key)
        if known is None or _of_clip(known.clip) != known.made.clip:
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

    def plan(self, medium: MediaPart, settings: ProcessorSettings) -> Plan:
        """What a medium will cost, from headers alone."""
        return _as_plan(medium, plan([medium], settings))

    def open(
        self, medium: MediaPart, settings: ProcessorSettings, opening: Opening
    ) -> tuple[EncodedVideo, bool]:
        """The encoded medium, and whether it was known already."""
        planned = plan([medium], settings)
        told = _as_plan(medium, planned)
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
        self, video: EncodedVideo, settings: ProcessorSettings | None, opening: Opening
    ) -> tuple[EncodedVideo, bool]:
        """A video that a caller hands over, ready to be seen, and whether it is used as it is.

        settings: by which it is pruned anew; None for the mask that it has
        Raises: ValueError for parts that do not belong together, and for a mask of the caller's
        that is to be pruned anew.
        """
        video = replace(video, tokens=self.processor.settings.tokens_of(video.grid))
        _check_parts(video, self.model.config.vision_config)
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

    def repruned(self, known: EncodedVideo, settings: ProcessorSettings) -> EncodedVideo:
        """The same video under the pruner settings asked for; its features do not change."""
        started = time.perf_counter()
        keep = prune_patches(to_patches([known.clip], [known.grid]), settings.prune)
        prune_s = time.perf_counter() - started
        pruned = replace(known, keep=keep, made=replace(known.made, keep=_of_mask(keep)))
        ledger = replace(known.ledger, kept_tokens=pruned.kept_tokens, prune_s=prune_s)
        return replace(pruned, ledger=ledger)

    def _encode(self, planned: Planned, told: Plan, key: str, opening: Opening) -> EncodedVideo:
        started, prune = time.perf_counter(), planned.settings.prune
        reading = partial(Progress, "Reading frames", kind="reading")
        opening.on_stage(reading(0, told.num_frames))

        def read(medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
            return medium.read(settings, grid, lambda *done: opening.on_stage(reading(*done)))

        # Every token is encoded, so that other settings of the pruner need no encoder.
        whole = replace(planned, settings=replace(planned.settings, prune=None))
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
            clip=_of_clip(clip),
            features=checksum(features),
            keep=_of_mask(keep),
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
        return ModelFingerprint(encoder=encoder, model=None if is_own else f"{encoder}{rest}")

    def _is_as_made(self, known: EncodedVideo, encoder: str | None) -> bool:
        """Whether this encoder would make it again, and it was not edited in place."""
        made = known.made
        return (
            made.is_by(encoder)
            and made.clip == _of_clip(known.clip)
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
        self._videos[fresh.key] = fresh
        self._use(fresh.key)  # it may have had an older place
        while len(self._videos) > 1 and self.nbytes > self.cache_bytes:
            self._videos.popitem(last=False)


def _as_plan(medium: MediaPart, planned: Planned) -> Plan:
    (info,), (grid,), (tokens,) = planned.shown, planned.grids, planned.tokens
    path = medium.source if isinstance(medium.source, str | Path) else None
    return Plan(
        source=Path(path).name if path else getattr(medium.source, "source", "picture"),
        times_s=info.times_s,
        height_px=info.height_px,
        width_px=info.width_px,
        grid=grid,
        duration_s=info.duration_s,
        notes=info.notes,
        tokens=tokens,
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


def _of_clip(clip: Clip) -> str:
    told = (clip.times_s, clip.lost_frames, clip.notes)
    frames = np.ascontiguousarray(clip.frames_TYX3)
    return f"{xxhash.xxh3_128_hexdigest(frames.data)} {told}"


def _of_mask(keep: Keep) -> str:
    return hashlib.sha256(keep.keep_M.cpu().numpy().tobytes()).hexdigest()


def _check_parts(video: EncodedVideo, vision) -> None:
    """Raises ValueError where clip, grid, mask and features of a video do not belong together."""
    grid, tokens = video.grid, video.grid.num_tokens
    size = (grid.frames, grid.rows * vision.patch_size, grid.cols * vision.patch_size, 3)
    if video.clip.frames_TYX3.shape != size:
        raise ValueError(
            f"a clip of shape {video.clip.frames_TYX3.shape} does not fill this video's grid, "
            f"which wants {size} for this model; open the clip with studio.open"
        )
    if _of_clip(video.clip) != video.made.clip:
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
