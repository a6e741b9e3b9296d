"""Odd files as people have them, each made on the spot, and what reading them has to give.

Frames carry their own number (tests/clips.py), so that the right frame at the right time is known.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import numbered, numbers, write_animation, write_clip
from heic import write_heic
from PIL import Image

from vl3.values import Clip

Make = Callable[[Path], object]
WIDE = numbered(1234)  # 32 high, 96 wide
UNDO = {  # how a picture is stored that EXIF orientation 2 to 8 sets upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, kw_only=True)
class Read:
    """A file is read, at 1 frame per second.

    times_s: of the frames, to 0.05 s; None for a picture. size: (height, width)
    shows: the numbers on the frames; sees: whether a frame is right that carries none
    note: words of the note that a person gets
    """

    times_s: Sequence[float] | None = None
    size: tuple[int, int] = (32, 96)
    shows: Sequence[int] | None = None
    sees: Callable[[np.ndarray], bool] | None = None
    note: str = ""

    def __str__(self) -> str:
        height, width = self.size
        said = f', note "{self.note}"' if self.note else ""
        if self.times_s is None:
            return f"picture of {width} x {height}{said}"
        frames = "1 frame" if len(self.times_s) == 1 else f"{len(self.times_s)} frames"
        return f"{frames} to {self.times_s[-1]:g} s{said}"

    def fault(self, clip: Clip) -> str:
        """What is not as it should be; empty where all is."""
        times_s, size = clip.times_s, clip.frames_TYX3.shape[1:3]
        if (times_s is None) != (self.times_s is None):
            return "a picture" if times_s is None else f"a video of {len(times_s)} frames"
        if times_s is not None and (
            len(times_s) != len(self.times_s)
            or np.abs(np.subtract(times_s, self.times_s)).max() > 0.05
        ):
            return "frames at " + ", ".join(f"{time_s:.4g}" for time_s in times_s[:8]) + " s"
        if size != self.size:
            return f"{size[1]} x {size[0]}"
        if self.shows is not None and numbers(clip.frames_TYX3) != list(self.shows):
            return f"other frames: {numbers(clip.frames_TYX3)}"
        if self.sees is not None and not self.sees(clip.frames_TYX3[0].astype(int)):
            return "another picture"
        if self.note not in " ".join(clip.notes) or (clip.notes and not self.note):
            return f"notes {clip.notes}"
        return ""


@dataclass(frozen=True)
class Refused:
    """A file is refused in one sentence that has these words."""

    words: str

    def __str__(self) -> str:
        return f'refused: "{self.words}"'

    def fault(self, sentence: str) -> str:
        plain = sentence.endswith(".") and "\n" not in sentence and "/" not in sentence
        return "" if self.words in sentence and plain else sentence


@dataclass(frozen=True)
class Row:
    """kind: what people call it; file: its name; make: writes it at a path."""

    kind: str
    file: str
    make: Make
    expected: Read | Refused


def _bytes(content: bytes) -> Make:
    return lambda path: path.write_bytes(content)


def _clip(count: int = 75, **options) -> Make:
    return lambda path: write_clip(path, count, **options)


def _picture(picture: Image.Image, **options) -> Make:
    return lambda path: picture.save(path, **options)


def _turned(orientation: int, **options) -> Make:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _picture(Image.fromarray(WIDE).transpose(UNDO[orientation]), exif=exif, **options)


def _cut(make: Make, share: float) -> Make:
    """The first part of a file."""

    def write(path: Path) -> None:
        make(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return write


def _joined(make: Make, times: int = 2) -> Make:
    """Several recordings in one file, byte after byte."""

    def write(path: Path) -> None:
        make(path)
        path.write_bytes(path.read_bytes() * times)

    return write


def _overwritten(make: Make, hit: Callable[[int], bool]) -> Make:
    """A video in which the packets with these numbers are nonsense."""

    def write(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            packets = [p for p in container.demux(video=0) if p.size]
            for number, packet in enumerate(packets):
                if hit(number):
                    start, end = packet.pos + 6, packet.pos + packet.size
                    content[start:end] = b"\xa5" * (end - start)
        path.write_bytes(content)

    return write


def _two_videos(path: Path) -> None:
    """A dashcam's file: one video forward, one backward."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 96, "yuv420p"
        for k in range(75):
            for place, stream in enumerate(streams):
                frame = av.VideoFrame.from_ndarray(numbered(k + 1000 * place), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))


def _hdr(path: Path) -> None:
    """10 bits with the curve of HLG, as phones record."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 96, "yuv420p10le"
        stream.codec_context.color_trc, stream.codec_context.color_primaries = 18, 9
        stream.codec_context.colorspace = 9
        for k in range(75):
            frame = av.VideoFrame.from_ndarray(numbered(k), format="rgb24")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9)
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _sound(path: Path, cover: bool = False) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libmp3lame" if path.suffix == ".mp3" else "aac", rate=44100, layout="mono"
        )
        picture = container.add_stream("mjpeg", rate=1) if cover else None
        if picture:
            picture.height, picture.width, picture.pix_fmt = 32, 96, "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(WIDE, format="rgb24").reformat(format="yuvj420p")
            container.mux([*picture.encode(frame), *picture.encode(None)])
        size = stream.codec_context.frame_size or 1152
        for start in range(0, 44100, size):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _without_index(path: Path) -> None:
    """An AVI whose recorder lost power: no index at its end."""
    write_clip(path, 75, codec="mjpeg", pix_fmt="yuvj420p")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])


def _png(height: int, width: int, rows: bytes, bits: int = 8) -> bytes:
    """A grey PNG of that claim, with these bytes as its compressed rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _broken_png(path: Path) -> None:
    """A byte in the middle of the compressed rows is another."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 65), np.uint8)
    packed = bytearray(zlib.compress(noise.tobytes()))
    packed[2] ^= 0xFF
    path.write_bytes(_png(64, 64, bytes(packed)))


def _huge_png(path: Path) -> None:
    rows = zlib.compress(bytes((1 + 13_304 // 8) * 13_300))
    path.write_bytes(_png(13_300, 13_300, rows, bits=1))


def _huge_gif(path: Path) -> None:
    """3000 frames of 8000 x 8000, each a point of which is given."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 8000, 8000, 0xF0, 0, 0) + bytes(6)
    wait = b"\x21\xf9\x04\x00" + struct.pack("<H", 10) + b"\x00\x00"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(screen + (wait + frame) * 3000 + b"\x3b")


def _claims(path: Path) -> None:
    """An MP4 of a few kB whose table claims fifty million frames of one size."""
    write_clip(path, 10)
    content = bytearray(path.read_bytes())
    at = content.index(b"stsz") + 8
    content[at : at + 8] = struct.pack(">II", 1, 50_000_000)
    path.write_bytes(content)


def _claims_in_fragment(path: Path) -> None:
    write_clip(path, 10, format_options={"movflags": "frag_keyframe+empty_moov"})
    content = bytearray(path.read_bytes())
    at = content.index(b"trun") + 8
    content[at : at + 4] = struct.pack(">I", 50_000_000)
    path.write_bytes(content)


def _tiff(picture: np.ndarray, tags: dict[int, int] | None = None) -> Make:
    return _picture(Image.fromarray(picture), tiffinfo=tags or {})


def _camera(path: Path) -> None:
    """A camera's raw file: a small preview first, the rest in an order of its own."""
    Image.fromarray(WIDE).save(path, format="TIFF", tiffinfo={254: 1})


def _pdf(path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(WIDE).save(file, "JPEG")
    path.write_bytes(b"%PDF-1.4\n1 0 obj\nstream\n" + file.getvalue() + b"\nendstream\n%%EOF")


def _motion_photo(path: Path) -> None:
    """A phone's JPEG with a short video behind it."""
    file, film = io.BytesIO(), path.with_suffix(".mp4")
    Image.fromarray(WIDE).save(file, "JPEG", quality=95)
    write_clip(film, 50)
    path.write_bytes(file.getvalue() + film.read_bytes())
    film.unlink()


def _brightness(low: int, high: int) -> Callable[[np.ndarray], bool]:
    """Whether the left edge is as dark, and the right edge as bright, within 6."""

    def right(frame_YX3: np.ndarray) -> bool:
        left, end = frame_YX3[:, 0].mean(), frame_YX3[:, -1].mean()
        return abs(left - low) <= 6 and abs(end - high) <= 6

    return right


RAMP = np.linspace(0, 1, 96)[None].repeat(32, 0)
FROM_BLACK_TO_WHITE = _brightness(0, 255)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
PLAIN = Read(times_s=(0, 1, 2), shows=(0, 25, 50))
STILL = Read(shows=(1234,))
HALF_ALPHA = Image.fromarray(np.dstack([WIDE, np.full((32, 96), 255, np.uint8)]))
TALL = numbered(1234, 96, 96 * 3)

ROWS = [
    # phones
    Row("plain video", "plain.mp4", _clip(), PLAIN),
    Row(
        "phone picture in tiles",
        "grid.heic",
        lambda p: write_heic(p, TALL),
        Read(size=(96, 288), shows=(1234,)),
    ),
    Row(
        "phone picture in tiles, turned",
        "turned.heic",
        lambda p: write_heic(p, np.rot90(TALL, -1), turns=[(b"irot", 1)]),
        Read(size=(96, 288), shows=(1234,)),
    ),
    Row(
        "phone picture in one tile, mirrored",
        "mirrored.heic",
        lambda p: write_heic(p, TALL[:, ::-1], tile_px=512, turns=[(b"imir", 1)]),
        Read(size=(96, 288), shows=(1234,)),
    ),
    Row(
        "phone picture cut off",
        "cut.heic",
        _cut(lambda p: write_heic(p, TALL), 0.7),
        Refused("damaged or incomplete"),
    ),
    Row("JPEG turned by EXIF", "turned.jpg", _turned(6, quality=95), STILL),
    Row("TIFF turned by EXIF", "turned.tif", _turned(6), STILL),
    Row("TIFF mirrored by EXIF", "mirrored.tif", _turned(5), STILL),
    Row("PNG turned by EXIF", "turned.png", _turned(8), STILL),
    Row("WebP turned by EXIF", "turned.webp", _turned(6, lossless=True), STILL),
    Row("AVIF turned by EXIF", "turned.avif", _turned(7, quality=95), STILL),
    Row("photo with a video behind it", "motion.jpg", _motion_photo, STILL),
    Row("video turned by 90 degrees", "turned.mov", _clip(clockwise_deg=90), PLAIN),
    Row("video mirrored", "mirrored.mp4", _clip(mirrored=True), PLAIN),
    Row(
        "variable frame rate",
        "vfr.mp4",
        _clip(times=[0, 10, 500, 1500, 1510, 2990], count=6, time_base=Fraction(1, 1000)),
        Read(times_s=(0, 0.5, 1.51, 2.99), shows=(0, 2, 4, 5)),
    ),
    Row("HDR of a phone", "hdr.mp4", _hdr, Read(times_s=(0, 1, 2), shows=(0, 25, 50), note="HDR")),
    Row(
        "fragments",
        "fragments.mp4",
        _clip(format_options={"movflags": "frag_keyframe+empty_moov"}),
        PLAIN,
    ),
    Row(
        "two videos in one file",
        "dashcam.mp4",
        _two_videos,
        Read(times_s=(0, 1, 2), shows=(0, 25, 50), note="holds 2 videos"),
    ),
    # clocks
    Row(
        "recordings joined, TS",
        "joined.ts",
        _joined(_clip(50)),
        Read(times_s=(0, 1, 2, 3), shows=(0, 25, 0, 25), note="2 parts"),
    ),
    Row(
        "recordings joined, MPG",
        "joined.mpg",
        _joined(_clip(50, codec="mpeg2video", bframes=0)),
        Read(times_s=(0, 1, 2, 3), note="2 parts"),
    ),
    Row(
        "recordings joined, WebM",
        "joined.webm",
        _joined(_clip(50, codec="libvpx-vp9", codec_options={"crf": "10", "deadline": "realtime"})),
        Read(times_s=(0, 1, 2, 3), shows=(0, 25, 0, 25), note="2 parts"),
    ),
    Row(
        "recordings joined, fragments",
        "joined_fragments.mp4",
        _joined(_clip(50, format_options={"movflags": "frag_keyframe+empty_moov"})),
        Read(times_s=(0, 1, 1.96, 3), shows=(0, 25, 49, 25), note="12 frames where its parts"),
    ),
    Row(
        "recordings joined, MP4",
        "joined.mp4",
        _joined(_clip(50)),
        Read(times_s=(0, 1), shows=(0, 25), note="1 more recording"),
    ),
    Row(
        "clock of the day",
        "wallclock.mkv",
        _clip(
            75, times=[1_700_000_000_000 + 40 * k for k in range(75)], time_base=Fraction(1, 1000)
        ),
        PLAIN,
    ),
    Row("late start", "late.mkv", _clip(75, times=[1250 + k for k in range(75)]), PLAIN),
    Row(
        "sound before the picture",
        "sound_first.mp4",
        _clip(50, times=[75 + k for k in range(50)], audio_s=6),
        Read(times_s=(3, 4), shows=(0, 25)),
    ),
    Row(
        "start cut by an edit list",
        "trimmed.mp4",
        _clip(85, times=[k - 10 for k in range(85)]),
        Read(times_s=(0, 1, 2), shows=(10, 35, 60)),
    ),
    Row(
        "no times at all",
        "raw.h264",
        _clip(75),
        Read(times_s=(0, 1, 2), shows=(0, 25, 50), note="estimated at 25 fps"),
    ),
    Row(
        "no length in the header",
        "live.webm",
        _clip(
            75,
            codec="libvpx-vp9",
            format_options={"live": "1"},
            codec_options={"crf": "10", "deadline": "realtime"},
        ),
        PLAIN,
    ),
    Row("AVI without an index", "lost_power.avi", _without_index, PLAIN),
    Row(
        "GIF without delays",
        "fast.gif",
        lambda p: write_animation(p, [0] * 25),
        Read(times_s=(0, 1, 2), shows=(0, 10, 20)),
    ),
    Row(
        "animated AVIF",
        "hold.avif",
        lambda p: write_animation(p, [100, 3000, 100, 2000]),
        Read(times_s=(0, 0.1, 3.2), shows=(0, 1, 3)),
    ),
    Row(
        "animated WebP",
        "moving.webp",
        lambda p: write_animation(p, [100, 3000, 100, 2000]),
        Read(times_s=(0, 0.1, 3.2), shows=(0, 1, 3)),
    ),
    Row(
        "animated PNG",
        "moving.png",
        lambda p: write_animation(p, [100, 3000, 100, 2000]),
        Read(times_s=(0, 0.1, 3.2), shows=(0, 1, 3)),
    ),
    Row("one frame", "one.mp4", _clip(1), Read(times_s=(0,), shows=(0,))),
    Row("one keyframe", "one_key.mkv", _clip(75, gop=1000), PLAIN),
    # damage
    Row("half uploaded", "half.mp4", _cut(_clip(), 0.5), Refused("incomplete")),
    Row(
        "most of it missing",
        "start.mp4",
        _cut(_clip(100, format_options={"movflags": "faststart"}), 0.6),
        Refused("incomplete"),
    ),
    Row(
        "its end missing",
        "no_end.mp4",
        _cut(_clip(100, format_options={"movflags": "faststart"}), 0.93),
        Read(times_s=(0, 1, 2, 3), shows=(0, 25, 50, 75), note="cut off"),
    ),
    Row(
        "some frames damaged",
        "spots.mp4",
        _overwritten(_clip(100, gop=10, bframes=0), lambda k: k in (22, 72)),
        Read(times_s=(0, 0.84, 2, 2.84), shows=(0, 21, 50, 71), note="could not be read"),
    ),
    Row(
        "most frames damaged",
        "ruin.mp4",
        _overwritten(_clip(100), lambda k: k % 10 > 0),
        Refused("too damaged"),
    ),
    Row("empty file", "empty.mp4", _bytes(b""), Refused("empty")),
    Row(
        "words called a video",
        "words.mp4",
        _bytes(b"just some words\n" * 50),
        Refused("not a video or picture"),
    ),
    Row(
        "noise called a video",
        "noise.mkv",
        _bytes(np.random.default_rng(0).bytes(50_000)),
        Refused("not a video or picture"),
    ),
    Row("JPEG cut off", "cut.jpg", _cut(_picture(PHOTO), 0.6), Refused("damaged or incomplete")),
    Row("PNG cut off", "cut.png", _cut(_picture(PHOTO), 0.6), Refused("damaged or incomplete")),
    Row("PNG damaged inside", "broken.png", _broken_png, Refused("damaged or incomplete")),
    Row("WebP cut off", "cut.webp", _cut(_picture(PHOTO), 0.6), Refused("damaged")),
    Row("AVIF cut off", "cut.avif", _cut(_picture(PHOTO), 0.6), Refused("damaged")),
    Row("GIF cut off", "cut.gif", _cut(_picture(PHOTO), 0.3), Refused("damaged or incomplete")),
    Row("TIFF cut off", "cut.tif", _cut(_picture(PHOTO), 0.3), Refused("damaged")),
    # bombs
    Row("picture of 177 million pixels", "bomb.png", _huge_png, Refused("at most 120 million")),
    Row("69 kB of 3000 frames in 8K", "bomb.gif", _huge_gif, Refused("million pixels for each")),
    Row("50 million frames claimed", "claims.mp4", _claims, Refused("claims 50000000")),
    Row(
        "50 million claimed in a fragment",
        "fragment.mp4",
        _claims_in_fragment,
        Refused("claims 50000000"),
    ),
    Row(
        "TIFF of 3600 million pixels",
        "huge.tif",
        _bytes(
            b"II*\0\x08\0\0\0\x02\0"
            + struct.pack("<HHIIHHII", 256, 4, 1, 60000, 257, 4, 1, 60000)
            + bytes(4)
        ),
        Refused(""),
    ),
    # depth and colour
    Row(
        "12 bits in 16",
        "twelve.tif",
        _tiff((RAMP * 4095).astype(np.uint16)),
        Read(sees=FROM_BLACK_TO_WHITE, note="4095 as white"),
    ),
    Row(
        "16 bits",
        "sixteen.png",
        _picture(Image.fromarray((RAMP * 65535).astype(np.uint16))),
        Read(sees=FROM_BLACK_TO_WHITE),
    ),
    Row(
        "floats from 0 to 1",
        "float.tif",
        _tiff(RAMP.astype(np.float32)),
        Read(sees=FROM_BLACK_TO_WHITE),
    ),
    Row(
        "floats from 0 to 255",
        "float255.tif",
        _tiff((RAMP * 255).astype(np.float32)),
        Read(sees=FROM_BLACK_TO_WHITE),
    ),
    Row(
        "floats with NaN",
        "nan.tif",
        _tiff(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)),
        Refused("NaN"),
    ),
    Row("CMYK", "print.jpg", _picture(Image.fromarray(WIDE).convert("CMYK"), quality=95), STILL),
    Row("palette with alpha", "palette.png", _picture(HALF_ALPHA.quantize(16)), STILL),
    Row("grey with alpha", "grey.png", _picture(HALF_ALPHA.convert("LA")), STILL),
    Row("black and white", "fax.tif", _picture(Image.fromarray(WIDE).convert("1")), STILL),
    Row(
        "several pages",
        "pages.tif",
        lambda p: Image.fromarray(WIDE).save(p, save_all=True, append_images=[PHOTO]),
        Read(shows=(1234,), note="2 pages"),
    ),
    Row("camera's raw file", "photo.nef", _camera, Refused("raw file")),
    Row("one pixel", "pixel.png", _picture(Image.new("RGB", (1, 1))), Read(size=(1, 1))),
    Row(
        "DVD, interlaced, wide pixels",
        "dvd.mpg",
        _clip(
            75,
            codec="mpeg2video",
            bframes=0,
            size=(64, 96),
            pixel_aspect=Fraction(32, 27),
            codec_options={"flags": "+ildct+ilme", "b": "8M"},
        ),
        Read(times_s=(0, 1, 2), size=(64, 114), shows=(0, 25, 50)),
    ),
    Row("full range colours", "full.mp4", _clip(full_range=True), PLAIN),
    # other things
    Row("sound alone", "sound.m4a", _sound, Refused("holds only sound")),
    Row(
        "sound and its cover",
        "cover.mp3",
        lambda p: _sound(p, cover=True),
        Refused("sound and a cover picture"),
    ),
    Row(
        "playlist",
        "list.m3u8",
        _bytes(b"#EXTM3U\n#EXTINF:4,\na.mp4\n#EXT-X-ENDLIST\n"),
        Refused("playlist"),
    ),
    Row("PDF with a picture", "paper.pdf", _pdf, Refused("PDF document")),
    Row(
        "very long line of pixels",
        "line.png",
        _picture(Image.new("RGB", (3000, 10), "red")),
        Read(size=(10, 3000)),
    ),
    Row("name in other letters", "视频 'é' 😀.mp4", _clip(), PLAIN),
]
