"""The way of media into a prompt: planned from headers, prepared as patches and mask, rendered.

    find_media -> plan     grids and token counts: the cost, before a frame is decoded
               -> prepare  frames, patches, and which tokens are kept
               -> render   token ids with a slot for each kept token (VL3Processor.render)

Chat, training, checks of data, previews and all else that reads clips for the model go this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from vl3.families.settings import ProcessorSettings
from vl3.messages.media import MediaInfo, MediaPart
from vl3.settings import PruneSettings
from vl3.values import Clip, Grid, Keep, Patches, TokenGrid
from vl3.vision import fit_grid, patchify
from vl3.vision.prune import keep_all, prune
from vl3.vision.token_map import SlotRuns, slot_runs

Read = Callable[[MediaPart, ProcessorSettings, Grid], Clip]


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """Media of one prompt that were measured and not read.

    shown: what their headers say, with frames and times; grids: under their common budget
    """

    settings: ProcessorSettings
    media: tuple[MediaPart, ...]
    shown: tuple[MediaInfo, ...]
    grids: tuple[Grid, ...]

    @property
    def tokens(self) -> list[TokenGrid]:
        """What the model's connector makes of each grid."""
        return [self.settings.tokens_of(grid) for grid in self.grids]

    @property
    def slots(self) -> list[SlotRuns]:
        """The slots of each medium in the prompt, before pruning."""
        pairs = zip(self.tokens, self.shown)
        return [slot_runs(tokens, None, info.times_s) for tokens, info in pairs]

    @property
    def num_tokens(self) -> int:
        """Visual tokens in all, before pruning."""
        return sum(tokens.num_tokens for tokens in self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Media of one prompt that were read.

    shown: their clips; grids: with the frames that were there; patches, keep: of all of them
    tokens: what the model's connector makes of each grid
    """

    media: tuple[MediaPart, ...]
    shown: tuple[Clip, ...]
    grids: tuple[Grid, ...]
    patches: Patches
    keep: Keep
    tokens: tuple[TokenGrid, ...]

    @property
    def slots(self) -> list[SlotRuns]:
        """The slots of each medium in the prompt: its kept tokens, by the steps they belong to."""
        found, start = [], 0
        for tokens, clip in zip(self.tokens, self.shown):
            end = start + tokens.grid.num_tokens
            found.append(slot_runs(tokens, self.keep.keep_M[start:end], clip.times_s))
            start = end
        return found

    @property
    def num_tokens(self) -> int:
        """Kept visual tokens in all."""
        return sum(sum(runs.counts) for runs in self.slots)


def plan(media: Sequence[MediaPart], settings: ProcessorSettings) -> Planned:
    """The media of one prompt measured, and their grids under their common budget.

    Raises: vl3.video.VideoError.
    """
    shown = tuple(medium.measure(settings) for medium in media)
    return fit(media, shown, settings)


def fit(
    media: Sequence[MediaPart], shown: Sequence[MediaInfo], settings: ProcessorSettings
) -> Planned:
    """The plan of media that were measured before."""
    if not media:
        return Planned(settings, (), (), ())
    if settings.square:
        pairs = zip(media, shown)
        squares = [settings.square_grid(info.frames, medium.kind) for medium, info in pairs]
        return Planned(settings, tuple(media), tuple(shown), tuple(squares))
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
    return Planned(settings, tuple(media), tuple(shown), tuple(grids))


def read_medium(medium: MediaPart, settings: ProcessorSettings, grid: Grid) -> Clip:
    """The clip of a medium at the size of its grid. Raises: vl3.video.VideoError."""
    return medium.read(settings, grid, None)


def prepare(planned: Planned, read: Read = read_medium) -> Prepared:
    """The media decoded, cut into patches, and the pruner's mask over them.

    read: what decodes a medium, where frames are kept or progress is shown
    Raises: vl3.video.VideoError.
    """
    settings = planned.settings
    clips = tuple(
        read(medium, settings, grid) for medium, grid in zip(planned.media, planned.grids)
    )
    grids = tuple(replace(grid, frames=len(clip)) for grid, clip in zip(planned.grids, clips))
    if not clips:
        nothing = torch.empty(0, 3 * settings.patch**2, dtype=torch.uint8)
        return Prepared((), (), (), Patches(pixels_NP=nothing, grids=()), keep_all(()), ())
    patches = to_patches(clips, grids)
    keep = prune_patches(patches, settings.prune)
    tokens = tuple(settings.tokens_of(grid) for grid in grids)
    return Prepared(planned.media, clips, grids, patches, keep, tokens)


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
