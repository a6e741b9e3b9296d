"""The way of media into a prompt: planned from headers, prepared as patches and mask, rendered.

    find_media -> plan     grids and token counts: the cost, before a frame is decoded
               -> prepare  frames, patches, and which tokens are kept; sounds as filter banks
               -> render   token ids with a slot for each kept token (VL3Processor.render)

Chat, training, checks of data, previews and all else that reads clips for the model go this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch

from vl3.audio import SoundLength
from vl3.audio.ear import ear_class
from vl3.audio.official import SAMPLES as OFFICIAL_SAMPLES
from vl3.audio.official import official_sound
from vl3.config import BEATsConfig
from vl3.families.settings import ProcessorSettings, SoundSettings
from vl3.messages.media import MediaInfo, MediaPart
from vl3.messages.sounds import SoundPart
from vl3.settings import PruneSettings
from vl3.sound import Sound, SoundRuns, SoundTokens
from vl3.values import Clip, Grid, Keep, Patches, TokenGrid
from vl3.vision import fit_grid, patchify
from vl3.vision.prune import keep_all, prune
from vl3.vision.token_map import SlotRuns, slot_runs

AnyPart = MediaPart | SoundPart
Read = Callable[[MediaPart, ProcessorSettings, Grid], Clip]
Hear = Callable[[SoundPart], Sound]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedSound:
    """A sound that was measured and not read.

    tokens: on the clip's clock, after so many neighbouring steps of the ear (pool) were joined
    bank_AZ: the filter bank, in sampling "official" of an ear of BEATs: what VideoLLaMA 2.1-AV took
    """

    part: SoundPart
    length: SoundLength
    tokens: SoundTokens
    pool: int
    bank_AZ: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A sound that was read, as an ear takes it.

    Shapes: banks - for each piece float32 [A, Z]; lengths - int64, samples of each piece
    """

    sound: Sound
    tokens: SoundTokens
    pool: int
    banks: tuple[torch.Tensor, ...]
    lengths: torch.Tensor

    @property
    def num_tokens(self) -> int:
        return self.tokens.num_tokens


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Media of one prompt that were measured and not read.

    media: all of them; sounds: of each what is heard of it, None for nothing
    shown: what the headers of images and videos say, with frames and times; grids: under their
    common budget
    """

    settings: ProcessorSettings
    media: tuple[AnyPart, ...]
    shown: tuple[MediaInfo, ...]
    grids: tuple[Grid, ...]
    sounds: tuple[PlannedSound | None, ...]

    @property
    def tokens(self) -> list[TokenGrid]:
        """What the model's connector makes of each grid."""
        return [self.settings.tokens_of(grid) for grid in self.grids]

    @property
    def slots(self) -> list[SlotRuns]:
        """The slots of each medium in the prompt, before pruning."""
        seen = [(tokens, None, info.times_s) for tokens, info in zip(self.tokens, self.shown)]
        return _slots(self.settings, self.media, seen, self.sounds)

    @property
    def num_tokens(self) -> int:
        """Visual tokens in all, before pruning."""
        return sum(tokens.num_tokens for tokens in self.tokens)

    @property
    def sound_tokens(self) -> int:
        """Tokens of sound in all."""
        return sum(sound.tokens.num_tokens for sound in self.sounds if sound)

    @property
    def pieces(self) -> int:
        """Pieces in which the ear hears all sounds."""
        if (sound := self.settings.sound) is None:
            return 0
        form = ear_class(sound.ear).form(sound.ear)
        lengths = [planned.length.num_samples for planned in self.sounds if planned]
        return sum(-(-form.steps_of(length) // form.steps) for length in lengths)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Media of one prompt that were read.

    media: all of them; heard: of each what is heard of it, None for nothing
    shown: clips of images and videos; grids: with the frames that were there; patches, keep: of all
    of them; tokens: what the model's connector makes of each grid
    """

    settings: ProcessorSettings
    media: tuple[AnyPart, ...]
    shown: tuple[Clip, ...]
    grids: tuple[Grid, ...]
    patches: Patches
    keep: Keep
    tokens: tuple[TokenGrid, ...]
    heard: tuple[Heard | None, ...]

    @property
    def slots(self) -> list[SlotRuns]:
        """The slots of each medium in the prompt: its kept tokens, by the steps they belong to."""
        seen, start = [], 0
        for tokens, clip in zip(self.tokens, self.shown):
            end = start + tokens.grid.num_tokens
            seen.append((tokens, self.keep.keep_M[start:end], clip.times_s))
            start = end
        return _slots(self.settings, self.media, seen, self.heard)

    @property
    def num_tokens(self) -> int:
        """Kept visual tokens in all."""
        return sum(sum(runs.counts) for runs in self.slots)


def _slots(
    settings: ProcessorSettings,
    media: Sequence[AnyPart],
    seen: Sequence[tuple],
    sounds: Sequence[PlannedSound | Heard | None],
) -> list[SlotRuns]:
    """The slots of each medium; seen: of each image and video tokens, mask and times."""
    pictures, found = iter(seen), []
    for medium, sound in zip(media, sounds):
        heard = sound.tokens if sound else None
        if medium.kind == "audio":
            found.append(SlotRuns(None, (), (heard.num_tokens if heard else 0,)))
        else:
            tokens, keep_M, times_s = next(pictures)
            found.append(slot_runs(tokens, keep_M, times_s, sound_runs(settings, heard)))
    return found


def sound_runs(settings: ProcessorSettings, tokens: SoundTokens | None) -> SoundRuns | None:
    """Where tokens of a video's sound stand between its steps; None for one that is not heard."""
    if tokens is None or not tokens.num_tokens or settings.sound is None:
        return None
    return SoundRuns(tokens=tokens, order=settings.sound.order, chunk_s=settings.sound.chunk_s)


def plan(media: Sequence[AnyPart], settings: ProcessorSettings) -> Planned:
    """The media of one prompt measured, and their grids and sounds under their common budgets.

    Raises: vl3.video.VideoError; ValueError for sound where the model has no ear.
    """
    shown = [medium.measure(settings) for medium in media if isinstance(medium, MediaPart)]
    return fit(media, shown, settings)


def fit(
    media: Sequence[AnyPart], shown: Sequence[MediaInfo], settings: ProcessorSettings
) -> Planned:
    """The plan of media whose pictures were measured before."""
    return Planned(
        settings,
        tuple(media),
        tuple(shown),
        fit_grids([medium for medium in media if medium.kind != "audio"], shown, settings),
        plan_sounds(media, settings),
    )


def fit_grids(
    media: Sequence[AnyPart], shown: Sequence[MediaInfo], settings: ProcessorSettings
) -> tuple[Grid, ...]:
    """The grids of images and videos under their common budget."""
    if not media:
        return ()
    if settings.square:
        pairs = zip(media, shown)
        return tuple(settings.square_grid(info.frames, medium.kind) for medium, info in pairs)
    budget_tokens = settings.budget_tokens
    if settings.frame_tokens is not None:
        num_frames = sum(info.frames for info in shown)
        budget_tokens = min(budget_tokens, settings.frame_tokens * num_frames)
    grids = fit_grid(
        [(info.frames, info.height_px, info.width_px) for info in shown],
        [settings.merge_of(medium.kind) for medium in media],
        budget_tokens,
        patch=settings.patch,
        min_tokens=settings.min_tokens,
    )
    return tuple(grids)


def plan_sounds(
    media: Sequence[AnyPart], settings: ProcessorSettings
) -> tuple[PlannedSound | None, ...]:
    """What is heard of each medium; as many neighbouring steps joined as the budget asks for."""
    parts = [heard_part(medium, settings) for medium in media]
    if settings.sound is None or not any(parts):
        return (None,) * len(parts)
    whole = [_measured(part, settings, settings.sound) if part else None for part in parts]
    num_tokens = sum(one.tokens.num_tokens for one in whole if one)
    pool = max(1, -(-num_tokens // settings.sound.tokens))
    return tuple(
        replace(one, tokens=one.tokens.pooled(pool), pool=pool) if one else None for one in whole
    )


def _measured(part: SoundPart, settings: ProcessorSettings, heard: SoundSettings) -> PlannedSound:
    """The sound with all of its tokens."""
    length = part.measure()
    if settings.sampling == "official" and isinstance(heard.ear, BEATsConfig) and part.is_file:
        official = official_sound(cast(Path, part.source))
        return PlannedSound(part, length, official.tokens, 1, official.bank_AZ)
    form = ear_class(heard.ear).form(heard.ear)
    tokens = form.tokens(length.num_samples, length.start_s + length.first_frame_s)
    return PlannedSound(part, length, tokens, 1)


def heard_part(medium: AnyPart, settings: ProcessorSettings) -> SoundPart | None:
    """The sound of a medium, None where there is none to hear.

    Raises: ValueError for sound that is asked for where the model has no ear.
    """
    is_asked = medium.kind == "audio" or medium.part.get("sound")
    if settings.sound is None and is_asked:
        raise ValueError("sound is not read by this model; take the audio out of the message")
    if settings.sound is None or not settings.sound.hear or medium.part.get("sound") is False:
        return None
    return medium if isinstance(medium, SoundPart) else medium.sound()


def read_medium(medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
    """The clip of a medium at the size of its grid. Raises: vl3.video.VideoError."""
    return medium.read(settings, grid, None)


def prepare(planned: Planned, read: Read = read_medium, hear: Hear = SoundPart.read) -> Prepared:
    """The media decoded, cut into patches, and the pruner's mask over them; their sounds as banks.

    read, hear: what decodes a picture or a sound, where they are kept or progress is shown
    Raises: vl3.video.VideoError.
    """
    settings = planned.settings
    pictures = [medium for medium in planned.media if isinstance(medium, MediaPart)]
    clips = tuple(read(medium, settings, grid) for medium, grid in zip(pictures, planned.grids))
    grids = tuple(replace(grid, frames=len(clip)) for grid, clip in zip(planned.grids, clips))
    heard = tuple(_heard(sound, settings, hear) if sound else None for sound in planned.sounds)
    if clips:
        patches = to_patches(clips, grids)
        keep = prune_patches(patches, settings.prune)
    else:
        nothing = torch.empty(0, 3 * settings.patch**2, dtype=torch.uint8)
        patches, keep = Patches(pixels_NP=nothing, grids=()), keep_all(())
    tokens = tuple(settings.tokens_of(grid) for grid in grids)
    return Prepared(settings, planned.media, clips, grids, patches, keep, tokens, heard)


def _heard(planned: PlannedSound, settings: ProcessorSettings, hear: Hear) -> Heard:
    ear, sound = cast(SoundSettings, settings.sound).ear, hear(planned.part)
    if planned.bank_AZ is not None:
        banks, lengths = (planned.bank_AZ,), torch.tensor([OFFICIAL_SAMPLES])
        return Heard(sound, planned.tokens, planned.pool, banks, lengths)
    kind = ear_class(ear)
    pieces = [*kind.form(ear).pieces([sound.samples_S])]
    return Heard(
        sound,
        planned.tokens,
        planned.pool,
        tuple(kind.bank(ear, piece_S) for piece_S in pieces),
        torch.tensor([len(piece_S) for piece_S in pieces], dtype=torch.long),
    )


def to_patches(clips: Sequence[Clip], grids: Sequence[Grid]) -> Patches:
    """Patches of decoded clips whose frames already have the size of their grids."""
    pixels = [patchify(clip.frames_TYX3, grid) for clip, grid in zip(clips, grids)]
    joined = pixels[0] if len(pixels) == 1 else torch.cat(pixels)
    return Patches(pixels_NP=joined, grids=tuple(grids))


def spelled_out(patches: Patches) -> Patches:
    """The patches with each picture that is shown several times there as often.

    It is how tensors say it, which know frames, rows and columns of a grid and no copies.
    """
    grids, pixels = [], []
    for grid, part in zip(
        patches.grids, patches.pixels_NP.split([grid.num_patches for grid in patches.grids])
    ):
        grids.append(replace(grid, frames=grid.frames * grid.copies, copies=1))
        pixels.append(part.repeat(grid.copies, 1) if grid.copies > 1 else part)
    if tuple(grids) == patches.grids:
        return patches
    return Patches(pixels_NP=torch.cat(pixels), grids=tuple(grids))


def prune_patches(patches: Patches, settings: PruneSettings | None) -> Keep:
    """The pruner's mask, or one that keeps everything when pruning is off."""
    return keep_all(patches.grids) if settings is None else prune(patches, **asdict(settings))
