"""The images and videos of a conversation: found, measured from headers, read at a size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vl3 import video
from vl3.messages.reader import Read, frame_times, read
from vl3.messages.sounds import SoundPart, part_of_sound, sound_part
from vl3.messages.sources import found_source, pictures_in, shown_kind
from vl3.values import Clip, Grid, Sound
from vl3.video.images import Resize, image_size, resized, shape_of, still_notes
from vl3.video.official import filled
from vl3.video.sample import exact_picks, piece_middles, thin
from vl3.video.square import Square

if TYPE_CHECKING:
    from vl3.families.settings import ProcessorSettings
    from vl3.vision.token_map import SlotRuns

SAMPLING = ("fps", "max_frames", "num_frames", "start", "end", "mode")
MAX_PICTURES = 180  # of a list of pictures, where nothing says how many
FIXED = "however long the video is: this model does not go by frames per second."
FOLDER_FPS = 3.0  # of a folder of frames, as VideoLLaMA 2 takes it
LONGEST = 1 << 30  # frames: where nobody names a number
EVERY_FRAME_FPS = 240.0  # faster than videos are; a number of frames is spread over them


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What headers say of a medium: frames that will be read, their size, times and the length.

    notes: what cannot be read exactly, as far as headers tell
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
class MediaPart:
    """An image or a video of a message, not read yet.

    part: as vl3.messages.reader reads it; kind: "image" or "video", by what its source is
    source: a path, a Clip, a PIL image or an array
    options: fps, max_frames, num_frames, start, end and mode, as far as the part says
    """

    part: dict
    kind: str
    source: Any
    options: dict

    def measure(self, settings: ProcessorSettings) -> MediaInfo:
        """Its size, from headers and packets; nothing is decoded but a first frame."""
        if (clip := self._held(settings)) is not None:
            frames, height_px, width_px = clip.frames_TYX3.shape[:3]
            return MediaInfo(frames, height_px, width_px, clip.times_s, notes=clip.notes)
        if self.kind == "image":
            if isinstance(self.source, str | Path):
                path = Path(self.source)
                return MediaInfo(1, *image_size(path), notes=still_notes(path))
            clip = video.read_image(self.source)
            frames, height_px, width_px = clip.frames_TYX3.shape[:3]
            return MediaInfo(frames, height_px, width_px, notes=clip.notes)
        planned = video.schedule(self.source, **self.sampling(settings))
        header = video.probe(self.source)
        is_ignored = settings.spread and self.options.get("fps") not in (None, settings.fps)
        fixed = (f"{len(planned)} frames, {FIXED}",) if is_ignored else ()
        return MediaInfo(
            len(planned),
            header.height_px,
            header.width_px,
            planned.times_s,
            planned.duration_s,
            (*planned.notes, *fixed),
        )

    def sound(self) -> SoundPart | None:
        """The sound of a video that is a file, or of a clip that came with one."""
        if self.kind == "image":
            return None
        if isinstance(self.source, Clip):
            heard = getattr(self.part.get("video"), "sound", None)
            span = {key: self.part[key] for key in ("start", "end") if key in self.part}
            if isinstance(heard, Sound):
                with suppress(ValueError):  # of a range in which nothing is heard
                    return SoundPart(self.part, part_of_sound(heard, **span), {})
            return None
        options = {key: self.options[key] for key in ("start", "end") if key in self.options}
        return SoundPart(self.part, self.source, options)

    def sampling(self, settings: ProcessorSettings) -> dict:
        """fps and max_frames, or pieces, and start, end and mode, the part's own before the
        processor's."""
        own = {key: self.options[key] for key in SAMPLING if self.options.get(key) is not None}
        wanted = own.pop("num_frames", None)
        if settings.spread:
            most = min(wanted or LONGEST, own.pop("max_frames", None) or LONGEST)
            pieces = settings.frames_of(None if most == LONGEST else most)
            own.pop("fps", None)
            return {"pieces": pieces, "mode": settings.sampling} | own
        if wanted is not None:
            most = min(wanted, own.get("max_frames", wanted))
            own |= {"fps": EVERY_FRAME_FPS, "max_frames": most}
        return {
            "fps": settings.fps,
            "max_frames": settings.max_frames,
            "mode": settings.sampling,
        } | own

    def read(self, settings, grid: Grid, on_frame: Callable[[int, int], None] | None) -> Clip:
        """The decoded frames at the size of the grid.

        on_frame: called with (done, total) after each frame, and again while none comes; may raise
        """
        size = settings.square or (grid.rows * settings.patch, grid.cols * settings.patch)
        if (clip := self._held(settings)) is not None:
            return resize_clip(clip, size)
        from vl3 import ops  # with torch, which is not needed before a picture is made smaller

        resize = resized if settings.square else ops.resizer(resized)
        if self.kind == "image":
            return video.read_image(self.source, size=size, resize=resize)
        sampling = self.sampling(settings)
        told: tuple[int, ...] = (0, grid.frames)

        def tell(*done: int) -> None:
            nonlocal told
            if on_frame:
                told = done or told
                on_frame(*told)

        return video.read(
            self.source, size=size, on_frame=tell, on_wait=tell, resize=resize, **sampling
        )

    def _held(self, settings: ProcessorSettings) -> Clip | None:
        """The clip of a source that is no file: one that has been read, or, for a model that takes
        a fixed number of frames, those of a folder of pictures."""
        if isinstance(self.source, Clip):
            clip = self.source
            if not settings.spread or clip.times_s is None:
                return clip
            taken, black = self._taken(len(clip), settings)
            if taken == list(range(len(clip))) and not black:
                return clip
            taken_s = tuple(clip.times_s[index] for index in taken)
            clip = replace(clip, frames_TYX3=clip.frames_TYX3[taken], times_s=taken_s)
            return _blackened(clip, black)
        files = pictures_in(self.source) if settings.spread else []
        if not files:
            return None
        times_s = [index / FOLDER_FPS for index in range(len(files))]
        inside = _chosen(times_s, {k: v for k, v in self.options.items() if k in ("start", "end")})
        taken, black = self._taken(len(inside), settings)
        chosen = [inside[index] for index in taken]
        shown_s = tuple(times_s[index] for index in chosen)
        return _blackened(clip_of_pictures([files[index] for index in chosen], shown_s), black)

    def _taken(self, count: int, settings: ProcessorSettings) -> tuple[list[int], int]:
        """Which of so many frames stand for all of them, and how many black ones follow.

        Of just as many as are wanted all. Of fewer some repeat or, in mode "official", black ones
        follow.
        """
        pieces = self.sampling(settings)["pieces"]
        black = max(0, pieces - count) if settings.sampling == "official" else 0
        return list(range(count)) if black or count == pieces else piece_middles(
            count, pieces
        ), black


def _blackened(clip: Clip, count: int) -> Clip:
    """The clip and so many black frames, under the time of its last."""
    times_s = cast(tuple, clip.times_s)
    frames_TYX3 = filled(clip.frames_TYX3, count)
    return replace(clip, frames_TYX3=frames_TYX3, times_s=times_s + times_s[-1:] * count)


def find_media(messages: Sequence[dict]) -> list[MediaPart | SoundPart]:
    """The images, videos and sounds of a conversation, in order.

    messages: in any of the shapes that vl3.messages.reader reads. A source is a path, a file: or
    data: URL, bytes, a PIL image, an array or tensor [Y, X, 3] or [3, Y, X], a Clip (or what has
    one as clip, and perhaps a Sound as sound: an opened video, a film of the toy world); of a video
    also a list of pictures or an array of frames and, for a model that takes a fixed number of
    them, a folder of pictures; of sound a path, a URL, bytes, a Sound (or what has one), or
    (samples, rate).
    Raises: ValueError in one sentence for what is not read.
    """
    media: list[MediaPart | SoundPart] = []
    for turn in read(messages):
        if isinstance(turn["content"], str):
            continue
        for part in turn["content"]:
            if (kind := part["type"]) == "text":
                continue
            if kind not in part:
                raise ValueError(
                    f"a message has a part of type {kind} without {kind}; give its path under "
                    f"{kind}, path or url"
                )
            if kind == "audio":
                held = getattr(part[kind], "part", None)  # of one that was opened before
                if not isinstance(held, SoundPart):
                    held = sound_part(part, found_source(kind, part[kind]))
                media.append(held)
            else:
                media.append(_medium(part))
    return media


def _medium(part: dict) -> MediaPart:
    kind = part["type"]
    source = found_source(kind, part[kind])
    options = {key: value for key, value in part.items() if key not in ("type", kind)}
    if isinstance(source, list):
        taken, times_s = pictures_taken(part, len(source))
        source, options = clip_of_pictures([source[index] for index in taken], times_s), {}
    elif isinstance(source, Clip) and kind == source.kind == "video":
        source, options = part_of_clip(source, options), {}
    if isinstance(source, Clip) and kind == "image" and source.kind == "video":
        raise ValueError("an image is one picture - got a clip of frames; use type video")
    return MediaPart(part, "image" if kind == "image" else shown_kind(source), source, options)


def pictures_taken(part: dict, count: int) -> tuple[list[int], tuple[float, ...]]:
    """Which pictures of a video that lists so many are taken, and when each is shown.

    part: its timestamps or sample_fps (fps where neither is given; 1 by default) say when they are
    shown; num_frames, max_frames (180 by default), start, end and fps what is taken of them.
    Raises: ValueError for times that do not fit the pictures.
    """
    times_s = frame_times(part, count)
    is_timed = "timestamps" in part or "sample_fps" in part
    options = {
        key: part[key]
        for key in ("max_frames", "num_frames", "start", "end", "fps")
        if key in part and (key != "fps" or is_timed)
    }
    taken = _chosen(times_s, {"max_frames": MAX_PICTURES} | options)
    return taken, tuple(times_s[index] for index in taken)


def clip_of_pictures(pictures: Sequence, times_s: tuple[float, ...]) -> Clip:
    """The clip of some pictures; all take the first one's size. Raises: vl3.video.VideoError."""
    clips: list[Clip] = []
    for picture in pictures:
        size = clips[0].frames_TYX3.shape[1:3] if clips else None
        if isinstance(picture, Clip):
            clips.append(resize_clip(picture, size) if size else picture)
        else:
            clips.append(video.read_image(picture, size=size))
    return Clip(
        frames_TYX3=np.concatenate([clip.frames_TYX3 for clip in clips]),
        times_s=times_s,
        source=f"{len(clips)} pictures",
        notes=tuple(dict.fromkeys(note for clip in clips for note in clip.notes)),
    )


def part_of_clip(clip: Clip, options: dict) -> Clip:
    """What the options take of a clip that has been read; all of it without any."""
    if "mode" in options:
        raise ValueError("mode is not used for a clip that has been read; give its file")
    if not options:
        return clip
    times_s = cast(tuple, clip.times_s)  # of a clip, whose images have no options
    chosen = _chosen(times_s, options)
    return replace(
        clip,
        frames_TYX3=clip.frames_TYX3[chosen],
        times_s=tuple(times_s[index] for index in chosen),
    )


def _chosen(times_s: Sequence[float], options: dict) -> list[int]:
    """Which frames of known times the options take."""
    start, end = options.get("start", 0.0), options.get("end")
    inside = [i for i, t in enumerate(times_s) if t >= start and (end is None or t < end)]
    if not inside:
        raise ValueError(
            f"no frame lies between start {start:g} s and end "
            f"{'the last' if end is None else f'{end:g} s'}; the frames are from {times_s[0]:g} to "
            f"{times_s[-1]:g} s"
        )
    if "fps" in options:
        own = np.array([times_s[index] for index in inside])
        picks = exact_picks(own, own[-1] + 1e-6, options["fps"], None, own[0])
        inside = [inside[index] for index in picks]
    most = [options[key] for key in ("num_frames", "max_frames") if key in options]
    return [inside[index] for index in thin(len(inside), min(most, default=None))]


def annotate(
    messages,
    media: Sequence[MediaPart | SoundPart],
    clips: Sequence[Clip | MediaInfo | SlotRuns],
) -> Read:
    """The messages in the one form, with frame counts and times in place of the media, as
    prompt.render takes them.

    media: as find_media gives them for these messages; clips: their clips, what measures them, or
    the runs of slots that their tokens make
    """
    pairs = iter(zip(media, clips, strict=True))

    def replaced(part: dict) -> dict:
        if part["type"] == "text":
            return part
        medium, clip = next(pairs)
        sounds = getattr(clip, "sounds", ())
        if medium.kind == "audio":
            return {"type": "audio", "sounds": list(sounds)}
        if medium.kind == "image":
            when = part.get("timestamp")
            return {"type": "image"} | ({} if when is None else {"timestamp": when})
        return {
            "type": "video",
            "num_frames": len(clip),
            "timestamps": list(cast(tuple, clip.times_s)),
        } | ({"sounds": list(sounds)} if sounds else {})

    return Read(
        turn
        if isinstance(turn["content"], str)
        else turn | {"content": [replaced(part) for part in turn["content"]]}
        for turn in read(messages)
    )


def resize_clip(clip: Clip, size: tuple[int, int] | Square) -> Clip:
    """The clip at height x width or in a square, resized as at decode (PIL, bicubic, uint8).

    What already has the size of what is seen of a square is that.
    """
    if clip.frames_TYX3.shape[1:3] == shape_of(size):
        return clip
    from vl3 import ops  # with torch, as above

    resize: Resize = resized if isinstance(size, Square) else ops.resizer(resized)
    frames = [resize(frame_YX3, size) for frame_YX3 in clip.frames_TYX3]
    return replace(clip, frames_TYX3=np.stack(frames))
