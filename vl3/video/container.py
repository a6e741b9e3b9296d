"""Opening a video file safely, and saying in words why one cannot be opened.

Only plain local files are read, and only by demuxers that read no other file: playlists, concat
scripts and the like are refused before they could open anything.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import av
import av.error

from vl3.arguments import shown
from vl3.video import limits
from vl3.video.errors import VideoError
from vl3.video.header_cache import once_per_file
from vl3.video.mp4_boxes import claimed_samples

# Names of libavformat demuxers. Left out on purpose are those that open further files or devices
# (hls, dash, concat, image2, sdp, rtsp, lavfi, ...). Sound formats are in the list so that a song
# is answered with "no video stream" instead of "not a media file".
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,mpeg1video,flv,live_flv,kux,"
    "asf,asf_o,ogg,gif,apng,mxf,h264,hevc,vvc,m4v,h263,h261,ivf,obu,av1,nut,rm,dv,wtv,gxf,mjpeg,"
    "yuv4mpegpipe,swf,cavsvideo,vc1,vc1test,flic,amv,nsv,roq,smk,bink,dnxhd,dirac,"
    "mp3,aac,flac,wav,w64,aiff,ac3,eac3,ape,caf,amr,au,dts,truehd,tta,wv,mpc,mpc8"
)
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": _DEMUXERS,
    "enable_drefs": "0",
    # apng: frames without a delay last 100 ms, as browsers and the gif demuxer have it
    "default_fps": "10",
}
_MOST_PIXELS = {"max_pixels": str(limits.FRAME_PIXELS)}
# Pictures inside of these would be found and shown as a video.
_DOCUMENTS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "an archive or office document",
    b"\xd0\xcf\x11\xe0": "an office document",
    b"\x1f\x8b": "an archive",
    b"7z\xbc\xaf": "an archive",
    b"Rar!": "an archive",
    b"MZ": "a program",
    b"\x7fELF": "a program",
    b"SQLite format": "a database",
}
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
_MP4_BOXES = (b"ftyp", b"mdat", b"moov", b"free", b"skip", b"wide", b"pnot")
_LISTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"[playlist]", b"v=0")


def local_file(path: str | os.PathLike) -> Path:
    """The path, once it is known to be a readable, non-empty, regular file.

    Raises: VideoError - no path, a URL, nothing there, a directory, a device or pipe, an empty file
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise VideoError(f"A video or picture is given by its path - got {shown(path)}.") from None
    if _URL.match(text):
        raise VideoError(
            f"{shown_name(text)} is a web address; only files on this computer are read, "
            "so download it first and give the path."
        )
    name = shown_name(text)
    try:
        found = os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"There is no file named {name} at the given place.") from None
    except (OSError, ValueError) as error:
        raise VideoError(f"{name} cannot be opened: {_reason(error)}.") from None
    if stat.S_ISDIR(found.st_mode):
        raise VideoError(f"{name} is a folder, not a video; choose one file in it.")
    if not stat.S_ISREG(found.st_mode):
        raise VideoError(f"{name} is a device or pipe; only ordinary files are read.")
    if found.st_size == 0:
        raise VideoError(f"No video frames found in {name}: the file is empty (0 bytes).")
    return Path(text).absolute()


def shown_name(path: str | os.PathLike) -> str:
    """The name of a file as sentences show it: no folder, no control characters, not too long."""
    name = Path(os.fspath(path).rstrip("/")).name or os.fspath(path)
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= 80 else f"{name[:50]}...{name[-25:]}"


def open_video(path: Path) -> av.container.InputContainer:
    """An open container; the caller closes it.

    Raises: VideoError - not a media file, incomplete, a playlist, unreadable, claims too much
    """
    _check_claims(path)
    try:
        container = av.open(
            str(path),
            options=_MOST_PIXELS,
            container_options=_OPTIONS,
            metadata_errors="replace",
        )
    except av.error.PermissionError:
        raise VideoError(f"{shown_name(path)} cannot be opened: permission denied.") from None
    except (av.error.FFmpegError, ValueError, OSError):
        raise VideoError(_why_not(path)) from None
    if container.format.name == "mjpeg" and not _begins(path, b"\xff\xd8"):
        container.close()  # pictures in a file of another kind
        raise VideoError(_why_not(path))
    return container


def _begins(path: Path, letters: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(letters)) == letters


@once_per_file(64)
def _check_claims(path: Path) -> None:
    """Refuses, before libavformat allocates for it, what is no video or claims too much."""
    name = shown_name(path)
    with open(path, "rb") as file:
        head = file.read(16)
    for letters, kind in _DOCUMENTS.items():
        if head.startswith(letters):
            raise VideoError(f"{name} is {kind} and not a video; give the video itself.")
    limits.check_samples(name, claimed_samples(path), path.stat().st_size)


def pick_stream(container: av.container.InputContainer, name: str) -> av.video.stream.VideoStream:
    """The video stream to read: the default one, never a cover picture.

    Raises: VideoError - no video stream, or none that can be decoded
    """
    videos, default = video_streams(container), av.stream.Disposition.default
    if not videos:
        raise VideoError(f"No video stream found in {name}{_what_instead(container)}.")
    stream = max(videos, key=lambda s: (bool(s.disposition & default), -s.index))
    if stream.codec_context is None:
        raise VideoError(f"The video in {name} uses a codec that cannot be decoded here.")
    limits.check_frame(name, stream.height, stream.width)
    stream.codec_context.options = _MOST_PIXELS  # for frames larger than the header says
    return stream


def video_streams(
    container: av.container.InputContainer,
) -> list[av.video.stream.VideoStream]:
    """The video streams of a file without its cover pictures and thumbnails."""
    flags = av.stream.Disposition
    covers = flags.attached_pic | flags.timed_thumbnails
    return [stream for stream in container.streams.video if not stream.disposition & covers]


def _what_instead(container: av.container.InputContainer) -> str:
    sound, cover = bool(container.streams.audio), bool(container.streams.video)
    if sound and cover:
        return ": it holds only sound and a cover picture"
    if sound:
        return ": it holds only sound"
    return ": it holds only a cover picture" if cover else ""


def _why_not(path: Path) -> str:
    name = shown_name(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if head[4:8] in _MP4_BOXES:
        return (
            f"{name} is incomplete or was still uploading: its index is missing; wait for the "
            "upload or copy the file again."
        )
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_LISTS):
        return f"{name} is a playlist or script that names other files; give the video itself."
    return f"{name} is not a video or picture that can be read: its content is of no known format."


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
