"""Where media come from: paths, URLs, bytes, pictures, arrays, tensors, clips, sounds."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from pathlib import Path

import numpy as np
from PIL import Image

from vl3 import audio, video
from vl3.arguments import shown
from vl3.messages import spool
from vl3.messages.sounds import SoundPart
from vl3.values import Clip, Sound
from vl3.video.container import local_file
from vl3.video.images import kind_of

SAMPLED_BLOCKS, BLOCK_BYTES = 64, 1 << 18  # files up to 16 MiB are hashed whole, others by sample


def pictures_in(folder: object) -> list[Path]:
    """The pictures of a folder, by their names; none where it has none, or is none."""
    if not isinstance(folder, str | Path) or not os.path.isdir(folder):
        return []
    kinds = [(file, mimetypes.guess_type(file.name)[0]) for file in sorted(Path(folder).iterdir())]
    return [file for file, kind in kinds if (kind or "").startswith("image/")]


def found_source(kind: str, source: object) -> object:
    """A source as it can be read: a path, a Clip, a picture, a list of pictures; a sound."""
    sound = getattr(source, "sound", source)
    if kind == "audio" and isinstance(sound, Sound | tuple):
        return sound
    clip = getattr(source, "clip", None)
    if isinstance(clip, Clip):
        return clip
    if isinstance(source, bytes | bytearray):
        return spool.shared().keep(bytes(source))
    if isinstance(source, str):
        if spool.is_data_url(source):
            try:
                return spool.shared().keep(spool.data_of_url(source))
            except ValueError as error:
                raise ValueError(f"the data: URL of the {kind} cannot be read: {error}") from None
        path = spool.file_of_url(source)
        if spool.SCHEME.match(path):
            raise ValueError(
                f"{shown(path)} is a web address; only files and data: URLs are read, so download "
                "it first and give the path"
            )
        return path
    if isinstance(source, os.PathLike):
        return Path(source)
    if kind == "audio":
        raise ValueError(
            "the source of audio is a path, a file: or data: URL, bytes, a vl3.values.Sound or "
            f"(samples, rate) - got {shown(source)}"
        )
    if hasattr(source, "detach"):  # a tensor: torch is there already, and not imported for it
        tensor = source.detach().cpu()
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(source, np.ndarray):
        source = _channels_last(source)
    if isinstance(source, np.ndarray) and source.ndim == 4 and kind == "video":
        return list(source)
    if isinstance(source, list) and kind == "video":
        pictures = [found_source("image", picture) for picture in source]
        if any(isinstance(picture, Clip) and len(picture) != 1 for picture in pictures):
            raise ValueError("a list of frames holds pictures - got a clip of several frames")
        return pictures
    if isinstance(source, Clip | Image.Image | np.ndarray):
        return source
    raise ValueError(
        f"the source of {'an image' if kind == 'image' else 'a video'} is a path, a file: or data: "
        f"URL, bytes, a picture, an array (height, width, 3), a tensor or a Clip - got "
        f"{shown(source)}"
    )


def is_wave(source: object) -> bool:
    """Whether it is samples of sound with their rate."""
    return (
        isinstance(source, tuple)
        and len(source) == 2
        and hasattr(source[0], "ndim")
        and isinstance(source[1], int | float | np.number)
    )


def is_sound(source: object) -> bool:
    """Whether it is sound without a picture: a Sound, samples with their rate, or such a file."""
    if isinstance(getattr(source, "part", None), SoundPart) or isinstance(source, Sound):
        return True
    if isinstance(source, str | Path) and os.path.isfile(source):
        return audio.is_sound(source)  # what cannot be read is told by whoever reads it
    return is_wave(source)


def _channels_last(pixels: np.ndarray) -> np.ndarray:
    """Pictures [..., Y, X, channels], of such or of [..., channels, Y, X] as torch has them."""
    channels = (1, 3, 4)
    if pixels.ndim in (3, 4) and pixels.shape[-1] not in channels and pixels.shape[-3] in channels:
        return np.moveaxis(pixels, -3, -1)
    return pixels


def shown_kind(source) -> str:
    """What a source shows that a message calls a video: a still picture is an image."""
    if isinstance(source, Clip):
        return source.kind
    if isinstance(source, str | Path):
        return "video" if os.path.isdir(source) else kind_of(local_file(source))
    return "image"


def content_digest(source) -> str:
    """Digest of what a file (by its size and up to 64 blocks), a Clip or a picture shows."""
    digest = hashlib.sha256()
    if isinstance(source, str | Path) and os.path.isdir(source):
        for picture in pictures_in(source):
            digest.update(f"{picture.name} {content_digest(picture)}".encode())
        return digest.hexdigest()
    if isinstance(source, str | Path):
        size = Path(source).stat().st_size
        digest.update(str(size).encode())
        step = max(BLOCK_BYTES, size // SAMPLED_BLOCKS)
        with open(source, "rb") as file:
            for offset in range(0, size, step):
                file.seek(offset)
                digest.update(file.read(BLOCK_BYTES))
        return digest.hexdigest()
    if isinstance(source, Sound):
        digest.update(repr((source.start_s, source.first_frame_s)).encode())
        digest.update(source.samples_S.tobytes())
        return digest.hexdigest()
    clip = source if isinstance(source, Clip) else video.read_image(source)
    digest.update(repr((clip.frames_TYX3.shape, clip.times_s)).encode())
    digest.update(clip.frames_TYX3.tobytes())
    return digest.hexdigest()
