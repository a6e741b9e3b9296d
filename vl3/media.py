"""The images and videos of a conversation: found, measured from headers, read at a size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vl3 import ops, video
from vl3.settings import ProcessorSettings
from vl3.values import Clip, Grid
from vl3.video.images import image_size, resized, still_notes

SAMPLED_BLOCKS, BLOCK_BYTES = 64, 1 << 18  # files up to 16 MiB are hashed whole, others by sample


@dataclass(frozen=True, slots=True)
class Measured:
    """What headers say of a medium: frames that will be read, their size, times and the length.

    notes: what a person must know of how it is read, one sentence each
    """

    frames: int
    height_px: int
    width_px: int
    times_s: tuple[float, ...] | None = None
    duration_s: float | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.frames


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """An image or a video of a message, not read yet."""

    part: dict
    is_image: bool
    source: object
    options: dict

    def measure(self, settings: ProcessorSettings) -> Measured:
        """Its size, from headers and packets; nothing is decoded but a first frame."""
        if isinstance(self.source, Clip):
            return Measured(*self.source.frames_TYX3.shape[:3], self.source.times_s)
        if self.is_image:
            if isinstance(self.source, str | Path):
                path = Path(self.source)
                return Measured(1, *image_size(path), notes=still_notes(path))
            return Measured(*video.read_image(self.source).frames_TYX3.shape[:3])
        planned = video.schedule(self.source, **self.sampling(settings))
        shown = video.probe(self.source)
        return Measured(
            len(planned), shown.height_px, shown.width_px, planned.times_s, planned.duration_s,
            planned.notes,
        )  # fmt: skip

    def sampling(self, settings: ProcessorSettings) -> dict:
        """fps, max_frames, start, end and mode, the part's own before the processor's."""
        own = {key: value for key, value in self.options.items() if value is not None}
        return {
            "fps": settings.fps,
            "max_frames": settings.max_frames,
            "mode": settings.sampling,
        } | own

    def read(self, settings, grid: Grid, on_frame: Callable[[int, int], None] | None) -> Clip:
        """The decoded frames at the size of the grid."""
        size = (grid.rows * settings.patch, grid.cols * settings.patch)
        if isinstance(self.source, Clip):
            return resize_clip(self.source, size)
        resize = ops.resizer(resized)
        if self.is_image:
            return video.read_image(self.source, size=size, resize=resize)
        return video.read(
            self.source, size=size, on_frame=on_frame, resize=resize, **self.sampling(settings)
        )


def find_media(messages: Sequence[dict]) -> list[Medium]:
    """The images and videos of a conversation, in order.

    A video is a path, a Clip or {"path", "fps", "max_frames", "start", "end"}; an image a path, a
    PIL image or an array of height x width x 3.
    """
    media = []
    for message in messages:
        if isinstance(message["content"], str):
            continue
        for part in message["content"]:
            if isinstance(part, str) or "text" in part:
                continue
            kind = part.get("type")
            if kind not in ("image", "video") or kind not in part:
                raise ValueError(
                    f"a message part is text, image or video with an entry of that name - got "
                    f"type {kind!r} with {sorted(part)}"
                )
            source, options = part[kind], {}
            if isinstance(source, dict):
                options = {key: value for key, value in source.items() if key != "path"}
                unknown = options.keys() - {"fps", "max_frames", "start", "end", "mode"}
                if unknown or "path" not in source:
                    raise ValueError(
                        "a video given as a dict has path and optionally fps, max_frames, start, "
                        f"end, mode - got {sorted(source)}"
                    )
                source = source["path"]
            media.append(Medium(part, kind == "image" or _is_image(source), source, options))
    return media


def _is_image(source) -> bool:
    """Whether what a message calls a video is a still picture."""
    return source.is_image if isinstance(source, Clip) else video.is_image(source)


def annotate(messages, media: Sequence[Medium], clips: Sequence[Clip]) -> list[dict]:
    """The messages with frame counts and times in place of the media, as prompt.render takes."""
    known = {id(medium.part): (medium, clip) for medium, clip in zip(media, clips)}

    def replaced(part):
        if id(part) not in known:
            return part
        medium, clip = known[id(part)]
        if medium.is_image:
            return {"type": "image", "timestamp": part.get("timestamp")}
        return {"type": "video", "num_frames": len(clip), "timestamps": clip.times_s}

    return [
        message
        if isinstance(message["content"], str)
        else message | {"content": [replaced(part) for part in message["content"]]}
        for message in messages
    ]


def resize_clip(clip: Clip, size: tuple[int, int]) -> Clip:
    """The clip at height x width, resized as at decode (PIL, bicubic, uint8)."""
    if clip.frames_TYX3.shape[1:3] == size:
        return clip
    resize = ops.resizer(resized)
    frames = [resize(frame_YX3, size) for frame_YX3 in clip.frames_TYX3]
    return replace(clip, frames_TYX3=np.stack(frames))


def content_digest(source) -> str:
    """Digest of what a file (by its size and up to 64 blocks), a Clip or a picture shows."""
    digest = hashlib.sha256()
    if isinstance(source, str | Path):
        size = Path(source).stat().st_size
        digest.update(str(size).encode())
        step = max(BLOCK_BYTES, size // SAMPLED_BLOCKS)
        with open(source, "rb") as file:
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(BLOCK_BYTES))
        return digest.hexdigest()
    clip = source if isinstance(source, Clip) else video.read_image(source)
    digest.update(repr((clip.frames_TYX3.shape, clip.times_s)).encode())
    digest.update(clip.frames_TYX3.tobytes())
    return digest.hexdigest()
