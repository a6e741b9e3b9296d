"""Clips that were decoded and encoded once, kept within a bound and found again by content."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from vl3.features import FeatureFiles, encoder_digest
from vl3.media import Medium, content_digest
from vl3.processor import cut, decide
from vl3.settings import ProcessorSettings
from vl3.values import Clip, Grid, Keep, Ledger, Patches, Plan, Stage

OnStage = Callable[[Stage], None]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Video:
    """A clip or image that was decoded, planned and encoded once.

    features_MD: one vector per merged token, before pruning and connector, on the model's device
    key: digest of content, range, sampling and grid; pruning does not enter it
    """

    clip: Clip
    grid: Grid
    keep: Keep
    plan: Plan
    ledger: Ledger
    features_MD: torch.Tensor
    key: str

    @property
    def nbytes(self) -> int:
        return self.features_MD.nbytes + self.clip.frames_TYX3.nbytes

    @property
    def answer_key(self) -> str:
        """Digest of everything the language model sees of this video."""
        kept = hashlib.sha256(self.keep.keep_M.numpy().tobytes()).hexdigest()
        return f"{self.key}-{kept}"


class Library:
    """The encoded clips of one studio, least recently used first, at most cache_bytes in all.

    files: where clips that leave the memory, or the program, are found encoded; None for nowhere
    """

    def __init__(
        self, model, processor, cache_bytes: int, files: FeatureFiles | None = None
    ) -> None:
        self.model, self.processor, self.cache_bytes = model, processor, cache_bytes
        self.files = files
        self._videos: OrderedDict[str, Video] = OrderedDict()

    def __len__(self) -> int:
        return len(self._videos)

    @property
    def nbytes(self) -> int:
        return sum(known.nbytes for known in self._videos.values())

    def clear(self) -> None:
        self._videos.clear()

    def find(self, key: str) -> Video | None:
        """The encoded clip of this key, while it is kept."""
        if key in self._videos:
            self._videos.move_to_end(key)
        return self._videos.get(key)

    def plan(self, medium: Medium, settings: ProcessorSettings) -> Plan:
        """What a medium will cost, from headers alone."""
        measured = medium.measure(settings)
        (grid,) = self.processor.grids([medium], [measured], settings)
        path = medium.source if isinstance(medium.source, str | Path) else None
        return Plan(
            source=Path(path).name if path else getattr(medium.source, "source", "picture"),
            times_s=measured.times_s,
            height_px=measured.height_px,
            width_px=measured.width_px,
            grid=grid,
            duration_s=measured.duration_s,
            notes=measured.notes,
        )

    def open(
        self, medium: Medium, settings: ProcessorSettings, on_stage: OnStage
    ) -> tuple[Video, bool]:
        """The encoded medium, and whether it was known already."""
        plan = self.plan(medium, settings)
        key = _key(medium, settings, plan)
        if (known := self._videos.get(key)) is not None:
            self._videos.move_to_end(key)
            on_stage(Stage("Video already encoded, reused"))
            return self.repruned(known, settings), True
        fresh = self._encode(medium, settings, plan, key, on_stage)
        self._remember(fresh)
        return fresh, False

    def repruned(self, known: Video, settings: ProcessorSettings) -> Video:
        """The same video under the pruner settings asked for; its features do not change."""
        started = time.perf_counter()
        keep = decide(cut([known.clip], [known.grid]), settings.prune)
        prune_s = time.perf_counter() - started
        ledger = replace(known.ledger, kept_tokens=int(keep.keep_M.sum()), prune_s=prune_s)
        return replace(known, keep=keep, ledger=ledger)

    def _encode(self, medium, settings, plan: Plan, key: str, on_stage: OnStage) -> Video:
        started = time.perf_counter()
        on_stage(Stage("Reading frames", 0, plan.num_frames))
        clip = medium.read(
            settings, plan.grid, lambda done, total: on_stage(Stage("Reading frames", done, total))
        )
        grid = replace(plan.grid, frames=len(clip))
        patches = cut([clip], [grid])
        decoded = time.perf_counter()
        features, is_fresh = self._features(patches, key, on_stage)
        encoded = time.perf_counter()
        on_stage(Stage("Removing repeated patches"))
        keep = decide(patches, settings.prune)
        ledger = Ledger(
            frames=grid.frames, visual_tokens=grid.num_tokens,
            kept_tokens=int(keep.keep_M.sum()), encoded_clips=int(is_fresh),
            decode_s=decoded - started, encode_s=encoded - decoded,
            prune_s=time.perf_counter() - encoded,
        )  # fmt: skip
        return Video(
            clip=clip, grid=grid, keep=keep, plan=plan, ledger=ledger, features_MD=features, key=key
        )  # fmt: skip

    def _features(self, patches: Patches, key: str, on_stage: OnStage) -> tuple[torch.Tensor, bool]:
        """Features of the clip, and whether they were computed rather than found on disk."""
        (grid,) = patches.grids
        written_as = f"{key} {self._encoder}" if self.files else ""
        if self.files and (found := self.files.get(written_as)) is not None:
            on_stage(Stage("Encoded before, read from disk"))
            return found.to(self.model.device), False

        def progress(done: int, _total: int) -> None:
            on_stage(Stage("Encoding video", done // grid.patches_per_frame, grid.frames))

        on_stage(Stage("Encoding video", 0, grid.frames))
        size, merge = [grid.frames, grid.rows, grid.cols], grid.merge
        with torch.no_grad():
            fresh = self.model.encode_vision(patches.pixels_NP, [size], [merge], progress)
        if self.files:
            self.files.put(written_as, fresh)
        return fresh, True

    @cached_property
    def _encoder(self) -> str:
        return encoder_digest(self.model.vision)

    def _remember(self, fresh: Video) -> None:
        self._videos[fresh.key] = fresh
        while len(self._videos) > 1 and self.nbytes > self.cache_bytes:
            self._videos.popitem(last=False)


def _key(medium: Medium, settings: ProcessorSettings, plan: Plan) -> str:
    chosen = medium.sampling(settings) | asdict(plan.grid) | {"is_image": medium.is_image}
    return f"{content_digest(medium.source)}-{hashlib.sha256(repr(chosen).encode()).hexdigest()}"
