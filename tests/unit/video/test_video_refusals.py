"""Bad inputs: one plain sentence with the file's name, no path, and the process goes on."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from clips import numbered, numbers, write_clip

import vl3.video as video
from vl3.video import timeline
from vl3.video.watchdog import run_with_watchdog


def _sound(path, codec, with_cover=False):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=1) if with_cover else None
        if cover:
            cover.height, cover.width, cover.pix_fmt = 32, 96, "yuvj420p"
            cover.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame.from_ndarray(numbered(1), format="rgb24")
            container.mux(cover.encode(picture.reformat(format="yuvj420p")))
            container.mux(cover.encode(None))
        size = stream.codec_context.frame_size or 1152
        for start in range(0, 44100, size):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, size), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Name -> path of files that cannot be read."""
    folder = tmp_path_factory.mktemp("bad")
    whole = write_clip(folder / "whole.mp4", 50).read_bytes()
    early = write_clip(
        folder / "early.mp4", 100, format_options={"movflags": "faststart"}
    ).read_bytes()
    contents = {
        "text.mp4": b"just some words\n" * 50,
        "empty.mp4": b"",
        "zeros.mp4": bytes(4000),
        "noise.mp4": np.random.default_rng(0).bytes(50_000),
        "half.mp4": whole[: len(whole) // 2],
        "quarter.mp4": early[: len(early) * 6 // 10],
        "list.m3u8": b"#EXTM3U\n#EXTINF:4,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "list.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\nwhole.mp4\n#EXT-X-ENDLIST\n",
        "concat.mp4": b"ffconcat version 1.0\nfile whole.mp4\n",
        "dash.mpd": b'<?xml version="1.0"?>\n<MPD></MPD>',
        "stream.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "picture.jpg": b"\xff\xd8\xff\xe0" + bytes(100),
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    _sound(folder / "sound.m4a", "aac")
    _sound(folder / "sound.mp3", "libmp3lame")
    _sound(folder / "cover.mp3", "libmp3lame", with_cover=True)
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")
    return folder


REFUSED = {
    "text.mp4": "not a video or picture",
    "zeros.mp4": "not a video or picture",
    "noise.mp4": "not a video or picture",
    "picture.jpg": "not a video or picture",
    "drawing.svg": "not a video or picture",
    "empty.mp4": "No video frames found in empty.mp4: the file is empty",
    "half.mp4": "incomplete or was still uploading",
    "sound.m4a": "No video stream found in sound.m4a: it holds only sound",
    "sound.mp3": "No video stream found in sound.mp3: it holds only sound",
    "cover.mp3": "No video stream found in cover.mp3: it holds only sound and a cover picture",
    "list.m3u8": "playlist",
    "list.mp4": "playlist",
    "concat.mp4": "playlist",
    "dash.mpd": "playlist",
    "stream.sdp": "playlist",
    "folder.mp4": "folder",
    "pipe.mp4": "device or pipe",
    "missing.mp4": "no file named missing.mp4",
    "x" * 300 + ".mp4": "cannot be opened",
    "nul\0.mp4": "cannot be opened",
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("entrance", [video.probe, video.schedule, video.read])
def test_refused_in_words(bad, name, entrance):
    with pytest.raises(video.VideoError, match=REFUSED[name]) as caught:
        entrance(bad / name)
    sentence = str(caught.value)
    assert str(bad) not in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    "address",
    ["http://example.org/a.mp4", "rtsp://example.org/a.mp4", "file:///etc/a.mp4"],
)
def test_addresses_are_not_fetched(address):
    with pytest.raises(video.VideoError, match="web address"):
        video.probe(address)


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "pipe:0", "subfile,,start,0:a.mp4"])
def test_protocol_prefixes_are_only_names(name):
    with pytest.raises(video.VideoError, match="no file named"):
        video.probe(name)


def test_device(tmp_path):
    with pytest.raises(video.VideoError, match="device"):
        video.read("/dev/zero")


def test_playlist_does_not_open_what_it_names(tmp_path, monkeypatch):
    path = tmp_path / "list.m3u8"
    write_clip(tmp_path / "seg.ts", 50)
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nseg.ts\n#EXT-X-ENDLIST\n")
    import av

    with av.open(str(path)) as container:  # without the restriction it would play
        assert len(list(container.demux(video=0))) > 40
    with pytest.raises(video.VideoError, match="playlist"):
        video.read(path)


def test_cut_off_upload_is_refused_when_most_is_missing(bad):
    video.probe(bad / "quarter.mp4")
    for entrance in (video.schedule, video.read):
        with pytest.raises(video.VideoError, match=r"incomplete: only .* of its 100 frames"):
            entrance(bad / "quarter.mp4")


def test_cut_off_upload_counts_what_is_missing(bad, tmp_path):
    content = (bad / "early.mp4").read_bytes()
    path = tmp_path / "most.mp4"
    path.write_bytes(content[: int(len(content) * 0.9)])
    clip = video.read(path, fps=25)
    assert 0 < clip.lost_frames < 50
    assert numbers(clip.frames_TYX3) == [round(t * 25) for t in clip.times_s]


@pytest.mark.parametrize(
    "name", ["视频.mp4", "naïve 'quoted' \"name\" 😀.mp4", "new\nline.mp4", "-i.mp4", "%03d.mp4"]
)
def test_any_name_is_read(tmp_path, name):
    path = write_clip(tmp_path / "a.mp4", 10).rename(tmp_path / name)
    assert numbers(video.read(path, fps=5).frames_TYX3) == [0, 5]
    assert numbers(video.read(str(path), fps=5).frames_TYX3) == [0, 5]


def _damaged(path, hit, tmp_path):
    """A copy in which the packets that `hit(index, keyframe)` names are overwritten."""
    import av

    with av.open(str(path)) as container:
        found = [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for index, (pos, size, key) in enumerate(found):
        if hit(index, key):
            content[pos + 8 : pos + size] = bytes(size - 8)
    copy = tmp_path / f"damaged{path.suffix}"
    copy.write_bytes(content)
    return copy


def _busy(k):
    picture = numbered(k, 128, 192)
    grain = np.random.default_rng(0).integers(0, 255, (8, 24, 3), np.uint8)
    picture[64:] = np.roll(np.kron(grain, np.ones((8, 8, 1), np.uint8)), 3 * k, 1)
    return picture


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damaged_packets_are_counted_and_never_shown(tmp_path, suffix):
    pictures = [_busy(k) for k in range(100)]
    path = write_clip(tmp_path / f"a.{suffix}", pictures=pictures, gop=25)
    damaged = _damaged(path, lambda index, key: index in (40, 41), tmp_path)
    clip = video.read(damaged, fps=25)
    found = numbers(clip.frames_TYX3)
    assert found == [round(t * 25) for t in clip.times_s]
    assert {*range(30), *range(60, 100)} <= set(found)
    assert 2 <= clip.lost_frames <= 25
    assert clip.lost_frames == 100 - len(found)


def test_mostly_damaged_is_refused(tmp_path):
    pictures = [_busy(k) for k in range(60)]
    path = write_clip(tmp_path / "a.mkv", pictures=pictures, gop=10)
    damaged = _damaged(path, lambda index, key: index > 10, tmp_path)
    with pytest.raises(video.VideoError, match="too damaged"):
        video.read(damaged, fps=25)


def test_a_stalled_decoder_is_given_up(tmp_path, monkeypatch, decoding_here):
    path = write_clip(tmp_path / "stall.mp4", 50)
    video.schedule(path)
    original, ended = timeline.packets, threading.Event()

    def stalling(container, stream, beat):
        yield next(original(container, stream, beat))
        ended.wait(20)

    monkeypatch.setattr("vl3.video.decode.packets", stalling)
    start = time.monotonic()
    with pytest.raises(video.VideoError, match=r"Reading stall.mp4 was given up"):
        video.read(path, timeout_s=0.3)
    assert time.monotonic() - start < 3
    ended.set()


def test_slow_but_moving_is_not_given_up():
    def slow(beat):
        for k in range(5):
            time.sleep(0.1)
            beat()
            yield k

    assert list(run_with_watchdog("slow.mp4", 0.3, slow)) == [0, 1, 2, 3, 4]


def test_a_slow_listener_is_not_a_stall():
    seen = []
    for item in run_with_watchdog("a.mp4", 0.2, lambda beat: iter(range(3))):
        time.sleep(0.4)
        seen.append(item)
    assert seen == [0, 1, 2]


def test_the_thread_ends_when_the_listener_leaves():
    def endless(beat):
        while True:
            beat()
            yield 1

    source = run_with_watchdog("leave.mp4", 5, endless)
    next(source)
    source.close()
    deadline = time.monotonic() + 2
    while any(t.name == "read leave.mp4" for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_process_can_end_while_a_decoder_hangs():
    code = (
        "import time\n"
        "from vl3.video.watchdog import run_with_watchdog\n"
        "def hang(beat):\n    time.sleep(60)\n    yield 1\n"
        "try:\n    next(run_with_watchdog('a.mp4', 0.2, hang))\n"
        "except ValueError as e:\n    print(e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert "given up" in done.stdout
