"""Frames and times of clips made on the spot; each frame carries its number."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from clips import numbered, numbers, write_animation, write_clip

import vl3.video as video
from vl3.values import Clip
from vl3.video import decode, timeline


def read_checked(path, **settings) -> tuple[Clip, list[int]]:
    """A clip whose times equal its schedule, with the numbers of its frames."""
    clip = video.read(path, **settings)
    settings.pop("size", None)
    assert clip.times_s == video.schedule(path, **settings).times_s
    return clip, numbers(clip.frames_TYX3)


@pytest.fixture
def decoded_packets(monkeypatch, decoding_here):
    """A list that grows by one number per packet handed to a decoder."""
    seen = []
    original = decode._Source.packets

    def counting(self, stretch):
        for packet in original(self, stretch):
            if packet is not None:
                seen.append(packet.pts)
            yield packet

    monkeypatch.setattr(decode._Source, "packets", counting)
    return seen


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """60 s at 25 fps with a keyframe every 2 s, in several containers."""
    folder = tmp_path_factory.mktemp("minute")
    return {
        "mp4": write_clip(folder / "m.mp4", 1500, gop=50),
        "mkv": write_clip(folder / "m.mkv", 1500, gop=50),
        "ts": write_clip(folder / "m.ts", 1500, gop=50),
        "flv": write_clip(folder / "m.flv", 1500, gop=50),
        "mpg": write_clip(folder / "m.mpg", 1500, codec="mpeg2video", size=(64, 96), gop=15),
        "open": write_clip(
            folder / "o.mp4",
            1500,
            gop=50,
            codec_options={"x264-params": "open-gop=1:bframes=3"},
        ),
    }


FORMATS = {
    "h264.mp4": {},
    "sound.mp4": {"audio_s": 3.0},
    "fragments.mp4": {"format_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.flv": {},
    "hevc10.mov": {"codec": "libx265", "pix_fmt": "yuv420p10le", "size": (64, 96)},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "live.webm": {"codec": "libvpx-vp9", "format_options": {"live": "1"}},
    "av1.mp4": {"codec": "libsvtav1", "size": (64, 96)},
    "mpeg4.avi": {"codec": "mpeg4"},
    "h264.avi": {},
    "raw.h264": {},
    "mpeg2.mpg": {"codec": "mpeg2video", "size": (64, 96)},
    "mpeg2.ts": {"codec": "mpeg2video", "size": (64, 96)},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "wmv2.wmv": {"codec": "wmv2"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_right_frames_at_right_times(name, tmp_path):
    clip, found = read_checked(write_clip(tmp_path / name, 50, **FORMATS[name]), fps=5)
    assert found == list(range(0, 50, 5))
    assert np.allclose(clip.times_s, np.arange(10) / 5, atol=2e-3)
    assert clip.lost_frames == 0


def test_missing_times_are_derived_and_marked(tmp_path):
    assert video.schedule(write_clip(tmp_path / "raw.h264", 50)).estimated
    assert video.schedule(write_clip(tmp_path / "b.avi", 50)).estimated
    assert not video.schedule(write_clip(tmp_path / "c.mp4", 50)).estimated


def test_header_without_length_or_count(tmp_path):
    path = write_clip(tmp_path / "live.webm", 50, codec="libvpx-vp9", format_options={"live": "1"})
    found = video.probe(path)
    assert (found.duration_s, found.num_frames) == (None, None)
    assert video.schedule(path).duration_s == pytest.approx(2.0, abs=0.01)


def test_variable_rate_by_presentation_time(tmp_path):
    times = [0, 40, 100, 500, 510, 1200, 2900]
    path = write_clip(tmp_path / "v.mkv", 7, times=times, time_base=Fraction(1, 1000))
    clip, found = read_checked(path, fps=10)
    assert found == [0, 2, 3, 4, 5, 6]
    assert clip.times_s == pytest.approx([0, 0.1, 0.5, 0.51, 1.2, 2.9], abs=1e-6)
    assert found == [times.index(round(t * 1000)) for t in clip.times_s]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_late_start_counts_from_the_first_frame(tmp_path, suffix):
    path = write_clip(tmp_path / f"late.{suffix}", 50, times=[125 + k for k in range(50)])
    clip, found = read_checked(path, fps=5)
    assert found == list(range(0, 50, 5))
    assert clip.times_s[0] == 0.0
    assert video.probe(path).start_s > 4.9


def test_frames_before_an_edit_list_are_hidden(tmp_path):
    path = write_clip(tmp_path / "neg.mp4", 20, times=[k - 5 for k in range(20)])
    clip, found = read_checked(path, fps=5)
    assert (found, clip.times_s[0]) == ([5, 10, 15], 0.0)


@pytest.mark.parametrize("clockwise_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_mirroring_once(tmp_path, clockwise_deg, mirrored):
    path = write_clip(tmp_path / "r.mp4", 10, clockwise_deg=clockwise_deg, mirrored=mirrored)
    clip, found = read_checked(path, fps=5)
    assert found == [0, 5]
    probe = video.probe(path)
    assert (probe.height_px, probe.width_px) == clip.frames_TYX3.shape[1:3] == (32, 96)
    assert probe.mirrored == mirrored
    if not mirrored:
        assert probe.rotation_deg == clockwise_deg


def test_pixels_become_square(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", 5, pixel_aspect=Fraction(2, 1))
    clip, found = read_checked(path, fps=5)
    assert found == [0]
    assert clip.frames_TYX3.shape == (1, 32, 192, 3)
    turned = write_clip(tmp_path / "t.mp4", 5, pixel_aspect=Fraction(2, 1), clockwise_deg=90)
    probe = video.probe(turned)
    assert (probe.height_px, probe.width_px) == (64, 96)


@pytest.mark.parametrize("count", [1, 2, 24])
def test_short_clips_give_at_least_one_frame(tmp_path, count):
    clip, found = read_checked(write_clip(tmp_path / "s.mp4", count))
    assert (found, clip.times_s) == ([0], (0.0,))


def test_fewer_frames_than_asked(tmp_path):
    _, found = read_checked(write_clip(tmp_path / "few.mp4", 5), fps=100, max_frames=64)
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv", "mpg", "open"])
def test_thinned_over_a_minute(minute, kind, decoded_packets):
    clip, found = read_checked(minute[kind], fps=1, max_frames=4)
    targets = [0, 475, 975, 1475]
    assert found == targets
    assert clip.times_s == pytest.approx([t / 25 for t in targets], abs=2e-3)
    # at most the group of pictures of each frame, not the 1476 packets up to the last one
    assert len(decoded_packets) < 220


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "flv", "mpg", "open"])
def test_a_range_keeps_the_clock_of_the_clip(minute, kind, decoded_packets):
    clip, found = read_checked(minute[kind], fps=2, start=40.0, end=42.0)
    assert found == [1000, 1012, 1025, 1037]
    assert clip.times_s == pytest.approx([40.0, 40.48, 41.0, 41.48], abs=2e-3)
    assert len(decoded_packets) < 160


def test_a_wrong_seek_falls_back_to_reading_on(minute, monkeypatch, decoding_here):
    calls = []

    def too_far(self, packet):
        calls.append(packet)
        self.container.seek(50_000, stream=self.stream)
        self._packets = timeline.packets(self.container, self.stream, self.beat)
        self._next = None

    monkeypatch.setattr(decode._Source, "seek", too_far)
    _, found = read_checked(minute["mkv"], fps=1, max_frames=4)
    assert found == [0, 475, 975, 1475]
    assert calls


def test_only_one_keyframe(tmp_path):
    path = write_clip(tmp_path / "one_key.mp4", 300, gop=1000)
    assert read_checked(path, fps=1, start=10.0)[1] == [250, 275]


def test_the_last_frame_is_there(tmp_path):
    assert read_checked(write_clip(tmp_path / "a.mp4", 30), fps=25)[1] == list(range(30))


def test_attached_picture_and_second_stream_are_ignored(tmp_path):
    import av

    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = 32, 96, "yuv420p"
        streams[0].disposition = 0
        streams[1].disposition = av.stream.Disposition.default
        for index in range(10):
            for number, stream in zip((index, 100 + index), streams):
                frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    assert read_checked(path, fps=5)[1] == [100, 105]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_with_their_own_delays(tmp_path, suffix):
    path = write_animation(tmp_path / f"a.{suffix}", [200, 0, 300, 50])
    clip, found = read_checked(path, fps=100)
    assert found == [0, 1, 2, 3]
    assert clip.times_s == pytest.approx([0, 0.2, 0.3, 0.6], abs=1e-3)
    assert video.schedule(path).duration_s == pytest.approx(0.65, abs=1e-3)
    assert video.probe(path).kind == "video"


COLOURS = [
    (200, 30, 60),
    (20, 180, 90),
    (240, 220, 30),
    (10, 20, 30),
    (250, 250, 250),
    (9, 90, 200),
]


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"matrix": 1},
        {"matrix": 6},
        {"matrix": 9},
        {"full_range": True},
        {"matrix": 1, "full_range": True},
        {"pix_fmt": "yuvj420p", "full_range": True},
        {"pix_fmt": "yuv420p10le", "matrix": 1},
        {"pix_fmt": "yuv444p", "matrix": 9},
    ],
    ids=str,
)
def test_colours_follow_the_tags(tmp_path, tags):
    picture = np.repeat(np.array([COLOURS], np.uint8), 16, axis=1).repeat(64, axis=0)
    path = write_clip(
        tmp_path / "c.mp4", pictures=[picture] * 2, codec_options={"crf": "1"}, **tags
    )
    frame = video.read(path).frames_TYX3[0].astype(int)
    # 8 bits of limited-range YUV and lossy coding: 4 levels; a wrong matrix or range gives over 10
    assert np.abs(frame[32, 8::16] - COLOURS).max() <= 4


def test_untagged_footage_by_height(tmp_path):
    picture = np.full((720, 96, 3), (200, 30, 60), np.uint8)
    hd = write_clip(tmp_path / "hd.mp4", pictures=[picture] * 2, matrix=1)
    reference = video.read(hd).frames_TYX3[0, 300, 48].astype(int)
    assert np.abs(reference - (200, 30, 60)).max() <= 4
    no_tag = write_clip(tmp_path / "n.mp4", pictures=[picture] * 2)
    as_709 = video.read(no_tag).frames_TYX3[0, 300, 48].astype(int)
    as_601 = video.read(no_tag, mode="official", fps=25).frames_TYX3[0, 300, 48].astype(int)
    assert np.abs(as_601 - (200, 30, 60)).max() <= 4 < np.abs(as_709 - (200, 30, 60)).max()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("i.mp4", "libx264", {"x264-params": "tff=1", "crf": "4"}),
        ("i.ts", "mpeg2video", {"flags": "+ildct+ilme", "b": "6000000"}),
    ],
)
def test_interlaced_footage_comes_without_combs(tmp_path, name, codec, options):
    def field(t):
        picture = np.full((128, 192, 3), 30, np.uint8)
        picture[:, 10 + 4 * t : 40 + 4 * t] = 230
        return picture

    woven = [np.stack([field(2 * k)[::2], field(2 * k + 1)[1::2]], 1) for k in range(15)]
    pictures = [w.reshape(128, 192, 3) for w in woven]
    path = write_clip(tmp_path / name, pictures=pictures, codec=codec, codec_options=options)
    frames = video.read(path, fps=25).frames_TYX3.astype(int)
    combs = np.abs(2 * frames[:, 1:-1] - frames[:, :-2] - frames[:, 2:]).mean()
    raw = np.stack(pictures).astype(int)
    assert combs < 0.05 * np.abs(2 * raw[:, 1:-1] - raw[:, :-2] - raw[:, 2:]).mean()
    assert np.abs(frames[5] - field(11)).mean() < 1


def test_alpha_is_laid_over_white(tmp_path):
    from PIL import Image

    images = [Image.new("RGBA", (40, 30), (255, 0, 0, 0)), Image.new("RGBA", (40, 30), "blue")]
    for suffix in ("webp", "png"):
        path = tmp_path / f"a.{suffix}"
        extra = {"lossless": True, "exact": True} if suffix == "webp" else {}
        images[0].save(path, save_all=True, append_images=images[1:], duration=100, **extra)
        frames = video.read(path, fps=100).frames_TYX3
        assert frames[0].min() == 255
        assert frames[1, 15, 20].tolist() == [0, 0, 255]


def test_size_is_pils_bicubic_on_rgb(tmp_path):
    from PIL import Image

    path = write_clip(tmp_path / "a.mp4", 10)
    full = video.read(path, fps=5).frames_TYX3
    expected = [
        np.asarray(Image.fromarray(f).resize((140, 28), Image.Resampling.BICUBIC)) for f in full
    ]
    assert np.array_equal(video.read(path, fps=5, size=(28, 140)).frames_TYX3, expected)
    asked = []

    def half(*arguments):
        asked.append(arguments)
        return arguments[1] // 2, arguments[2] // 2

    assert video.read(path, fps=5, size=half).frames_TYX3.shape == (2, 16, 48, 3)
    assert asked == [(2, 32, 96)]


def test_progress_and_stopping(tmp_path):
    path, seen = write_clip(tmp_path / "a.mp4", 50), []
    video.read(path, fps=5, on_frame=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 10) for k in range(1, 11)]

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.read(path, fps=5, on_frame=stop)


def test_times_of_a_changed_file_are_read_again(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 50)
    assert len(video.schedule(path)) == 2
    write_clip(path, 100)
    assert len(video.schedule(path)) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"max_frames": 0}, "max_frames"),
        ({"start": -1.0}, "start"),
        ({"start": 2.0, "end": 1.0}, "later than start"),
        ({"start": 50.0}, "2.00 s long"),
        ({"mode": "other"}, "mode"),
        ({"size": (0, 10)}, "size"),
        ({"size": 5}, "size"),
        ({"size": (1, 2, 3)}, "size"),
        ({"size": "big"}, "size"),
        ({"size": (10.5, 10)}, "height of size"),
        ({"fps": "2"}, "fps is a number above 0 and at most 1000000 - got '2'"),
        ({"fps": None}, "fps"),
        ({"fps": True}, "fps"),
        ({"max_frames": 2.5}, "max_frames is a whole number"),
        ({"start": "0:10"}, "start is a number of seconds"),
        ({"end": np.array([1.0, 2.0])}, "end is a number of seconds"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"mode": "oficial"}, "did you mean official"),
        ({"mode": ["exact"]}, "mode"),
    ],
)
def test_wrong_settings_are_named(tmp_path, settings, words):
    path = write_clip(tmp_path / "a.mp4", 50)
    with pytest.raises(video.VideoError, match=words):
        video.read(path, **settings)


@pytest.mark.parametrize("name", ["a.h264", "a.hevc", "a.avi"])
@pytest.mark.parametrize("last", range(20, 30))
def test_without_times_the_frame_is_right_wherever_reading_ends(tmp_path, name, last):
    codec = {"codec": "libx265"} if name.endswith("hevc") else {}
    quiet = {"x265-params": "log-level=none:bframes=4"} if codec else {"x264-params": "bframes=4"}
    path = write_clip(tmp_path / name, 40, codec_options=quiet, **codec)
    assert numbers(video.read(path, fps=25 / last).frames_TYX3) == [0, last]


@pytest.mark.parametrize(
    "settings",
    [
        {"fps": np.int64(2)},
        {"fps": np.float32(2), "max_frames": np.int32(180)},
        {"fps": Fraction(2), "max_frames": 180.0},
        {"fps": torch.tensor(2), "start": np.float64(0), "end": torch.tensor(2.0)},
        {"fps": 2, "size": (np.int64(32), np.int32(96)), "timeout_s": np.int64(30)},
        {"fps": 2, "size": np.array([32, 96])},
    ],
)
@pytest.mark.parametrize("mode", ["exact", "official"])
def test_numbers_of_any_kind_are_numbers(tmp_path, settings, mode):
    path = write_clip(tmp_path / "a.mp4", 50)
    expected = numbers(video.read(path, fps=2, mode=mode).frames_TYX3)
    assert numbers(video.read(path, mode=mode, **settings).frames_TYX3) == expected
    settings.pop("size", None)
    assert len(video.schedule(path, mode=mode, **settings)) == len(expected)


@pytest.mark.parametrize("given", [None, 7, 2.5, ["a.mp4"], {"path": "a"}, np.zeros((4, 4, 3))])
def test_what_is_no_path_is_said(given):
    for entrance in (video.read, video.schedule, video.probe, video.is_image):
        with pytest.raises(video.VideoError, match="given by its path - got"):
            entrance(given)


def test_notes_say_what_could_not_be_read_exactly(tmp_path):
    raw = write_clip(tmp_path / "raw.h264", 50)
    for notes in (video.schedule(raw).notes, video.read(raw).notes):
        assert notes == ("Times are estimated at 25 fps: the file has none.",)
    plain = write_clip(tmp_path / "a.mp4", 100, gop=10, bframes=0)
    assert video.read(plain).notes == video.schedule(plain).notes == ()
    content = bytearray(plain.read_bytes())
    with av.open(str(plain)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for packet in (packets[22], packets[72]):
            content[packet.pos + 6 : packet.pos + packet.size] = b"\xa5" * (packet.size - 6)
    plain.write_bytes(content)
    clip = video.read(plain)
    assert clip.lost_frames > 0
    # counted over the groups of pictures that were decoded, each to its end
    assert clip.notes == (f"{clip.lost_frames} of 40 frames could not be read.",)
    assert video.schedule(plain).notes == ()


def test_end_beyond_the_clip_is_its_end(tmp_path):
    assert read_checked(write_clip(tmp_path / "a.mp4", 50), fps=5, end=99.0)[1][-1] == 45


def test_real_clips(shared):
    path = shared / "media" / "sample_demo_9.mp4"
    found, plan = video.probe(path), video.schedule(path)
    assert (found.height_px, found.width_px, found.has_audio, found.codec) == (
        336,
        596,
        True,
        "h264",
    )
    clip = video.read(path, size=(84, 149))
    assert clip.times_s == plan.times_s
    assert clip.frames_TYX3.shape == (10, 84, 149, 3)


def test_a_seek_that_finds_no_packet_is_read_from_the_start(tmp_path, monkeypatch, decoding_here):
    path = write_clip(tmp_path / "film.mp4", 200, 10, size=(64, 64), gop=10)
    right = video.read(path, start=15.0, end=18.0)
    seeks, seek = [], decode._Source.seek

    def sought(source, packet):
        seek(source, packet)
        source._packets = iter(())
        seeks.append(packet)

    monkeypatch.setattr(decode._Source, "seek", sought)
    again = video.read(path, start=15.0, end=18.0)
    assert seeks
    assert np.array_equal(again.frames_TYX3, right.frames_TYX3)
    assert again.times_s == right.times_s
