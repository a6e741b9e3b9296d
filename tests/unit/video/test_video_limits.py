"""What would cost too much is refused before the work, in one sentence that names the limit."""

import struct
import time

import av
import numpy as np
import pytest
from clips import write_animation, write_clip
from PIL import Image

import vl3.video as video
from vl3.video import limits, mp4_boxes, timeline
from vl3.video.watchdog import run_with_watchdog

pytestmark = pytest.mark.usefixtures("decoding_here")  # where limits are set as the tests have them


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("limits") / "a.mp4", 50)


def claiming(path, count, sample_bytes=1):
    content = bytearray(write_clip(path, 10).read_bytes())
    at = content.index(b"stsz") + 8
    content[at : at + 8] = struct.pack(">II", sample_bytes, count)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("entrance", [video.probe, video.schedule, video.read, video.read_image])
def test_pixels_of_a_picture(tmp_path, monkeypatch, entrance):
    monkeypatch.setattr(limits, "PICTURE_PIXELS", 10_000)
    for name in ("a.png", "a.tif", "a.webp", "a.jpg"):
        Image.new("RGB", (200, 100)).save(tmp_path / name)
        with pytest.raises(video.VideoError, match=f"{name} is too large: 200 x 100 pixels"):
            entrance(tmp_path / name)
        Image.new("RGB", (100, 100)).save(tmp_path / name)
        entrance(tmp_path / name)


def test_pixels_of_pictures_in_memory_and_of_sizes_asked_for(monkeypatch):
    monkeypatch.setattr(limits, "PICTURE_PIXELS", 10_000)
    with pytest.raises(video.VideoError, match="too large"):
        video.read_image(Image.new("RGB", (200, 100)))
    with pytest.raises(video.VideoError, match="size asked for is too large: 101 x 100"):
        video.read_image(Image.new("RGB", (50, 50)), size=(100, 101))


def test_pixels_of_a_frame(clip, monkeypatch):
    monkeypatch.setattr(limits, "FRAME_PIXELS", 3000)
    for entrance in (video.probe, video.schedule, video.read):
        with pytest.raises(video.VideoError, match="frames of 96 x 32 pixels"):
            entrance(clip.rename(clip.with_name(f"{entrance.__name__}.mp4")))
        clip.with_name(f"{entrance.__name__}.mp4").rename(clip)


def test_decoded_bytes(clip, monkeypatch):
    monkeypatch.setattr(limits, "READ_BYTES", 10 * 32 * 96 * 3)
    assert len(video.read(clip, fps=5)) == 10
    with pytest.raises(video.VideoError, match=r"11 frames of 96 x 32 pixels .* lower max_frames"):
        video.read(clip, fps=25, max_frames=11)
    with pytest.raises(video.VideoError, match="1 frames of 900 x 900"):
        video.read(clip, max_frames=1, size=(900, 900))


def test_claimed_samples_are_those_of_the_tables(clip, tmp_path):
    assert mp4_boxes.claimed_samples(clip) == 50
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    assert (
        mp4_boxes.claimed_samples(write_clip(tmp_path / "f.mp4", 50, format_options=fragments))
        == 50
    )
    with_sound = mp4_boxes.claimed_samples(write_clip(tmp_path / "s.mp4", 50, audio_s=2))
    assert 60 < with_sound < 80
    assert mp4_boxes.claimed_samples(write_clip(tmp_path / "b.mkv", 50)) == 0


@pytest.mark.parametrize("count", [50_000_000, 2**32 - 1])
def test_claims_are_refused_before_they_are_believed(tmp_path, monkeypatch, count):
    path = claiming(tmp_path / "a.mp4", count)
    monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
    for entrance in (video.probe, video.schedule, video.read):
        with pytest.raises(video.VideoError, match=f"claims {count} frames"):
            entrance(path)


def test_claims_of_a_damaged_file_are_found(tmp_path):
    content = claiming(tmp_path / "a.mp4", 50_000_000).read_bytes()
    at = content.index(b"mdat") + 10
    for broken in (b"XXXX".join(content.split(b"ftyp")), content[:at] + content[at + 7 :]):
        (tmp_path / "b.mp4").write_bytes(broken)
        assert mp4_boxes.claimed_samples(tmp_path / "b.mp4") == 50_000_000


def test_uncompressed_sound_claims_nothing(tmp_path):
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 96, "yuv420p"
        sound = container.add_stream("pcm_u8", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.uint8), "u8", "mono")
        silence.sample_rate = 8000
        container.mux([*sound.encode(silence), *sound.encode(None)])
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 96, 3), np.uint8), format="rgb24")
        container.mux([*stream.encode(picture), *stream.encode(None)])
    assert mp4_boxes.claimed_samples(path) == 1
    assert len(video.read(path)) == 1


def test_packets_of_any_container(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", 50)
    monkeypatch.setattr(limits, "SAMPLES", 49)
    with pytest.raises(video.VideoError, match="too long: it holds 50 packets"):
        timeline.scan(path)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif", "mp4"])
def test_work_against_the_size_of_the_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "mp4":
        write_clip(path, 20)
    else:
        write_animation(path, [100] * 20)
    monkeypatch.setattr(limits, "FREE_PIXELS", 20 * 32 * 96 - 1)
    monkeypatch.setattr(limits, "PIXELS_PER_BYTE", 1)
    for entrance in (video.schedule, video.read):
        with pytest.raises(video.VideoError, match=r"a.* is too costly: 20 frames"):
            entrance(path)
    monkeypatch.setattr(limits, "PIXELS_PER_BYTE", 1000)
    assert len(video.read(path, fps=100)) == 20


def test_a_read_that_goes_on_too_long_is_given_up(tmp_path, monkeypatch):
    def endless(beat):
        while True:
            beat()
            time.sleep(0.01)
            yield 1

    started = time.monotonic()
    with pytest.raises(video.VideoError, match="longer than a file of its size may"):
        for _ in run_with_watchdog("a.mp4", 5.0, endless, deadline_s=0.3):
            pass
    assert time.monotonic() - started < 3
    # what the caller does in between does not count
    slow = run_with_watchdog("a.mp4", 5.0, lambda beat: iter(range(3)), deadline_s=0.3)
    assert [time.sleep(0.2) or item for item in slow] == [0, 1, 2]


def test_the_deadline_holds_for_stills_too(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda *_: time.sleep(2))
    monkeypatch.setattr(limits, "READ_S", 0.2)
    with pytest.raises(video.VideoError, match=r"a.png was given up"):
        video.read_image(path)


def test_frames_larger_than_the_header_says_are_not_decoded(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mkv", 5, size=(64, 96))
    from vl3.video import container

    monkeypatch.setattr(container, "_MOST_PIXELS", {"max_pixels": "2000"})
    with pytest.raises(video.VideoError):
        video.read(path)
