"""Decoding of a clip in several threads, and of no more than the wanted frames need."""

import threading
import time

import numpy as np
import pytest
from clips import numbers, write_clip

import vl3.video as video
from vl3.video import decode, frames, timeline
from vl3.video.watchdog import run_with_watchdog


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """60 s at 25 fps with a keyframe every 2 s, in several containers."""
    folder = tmp_path_factory.mktemp("minute")
    open_gop = {"codec_options": {"x264-params": "open-gop=1:bframes=3"}}
    kinds = {"mp4": {}, "ts": {}, "open.mp4": open_gop}
    return {
        kind: write_clip(folder / f"m.{kind}", 1500, gop=50, **more) for kind, more in kinds.items()
    }


@pytest.fixture(autouse=True)
def small_pictures_too(monkeypatch, decoding_here):
    monkeypatch.setattr(decode, "_SHARE_PX", 0)


@pytest.fixture
def sources(monkeypatch):
    """Sets the number of cores; gives a list of [thread, packets decoded] of each opened file."""
    opened = []
    original = decode._Source.packets

    def counting(self, stretch):
        if not any(one[0] is self for one in opened):
            opened.append([self, 0])
        mine = next(one for one in opened if one[0] is self)
        for packet in original(self, stretch):
            mine[1] += packet is not None
            yield packet

    monkeypatch.setattr(decode._Source, "packets", counting)
    monkeypatch.setattr(frames, "available_cores", lambda: 2)
    return opened


@pytest.mark.parametrize("kind", ["mp4", "ts", "open.mp4"])
def test_threads_give_the_frames_of_one(minute, kind, sources, monkeypatch):
    done = []
    clip = video.read(minute[kind], fps=2, on_frame=lambda count, _: done.append(count))
    assert len(sources) == 2
    packets = [count for _, count in sources]
    assert max(packets) < 900, "each decodes about half"
    assert numbers(clip.frames_TYX3) == [int(12.5 * k) for k in range(120)]
    assert done == list(range(1, 121))
    monkeypatch.setattr(frames, "available_cores", lambda: 1)
    alone = video.read(minute[kind], fps=2)
    assert len(sources) == 3
    assert np.array_equal(clip.frames_TYX3, alone.frames_TYX3)
    assert clip.times_s == alone.times_s


def test_shares_are_runs_of_about_as_many_packets(minute, monkeypatch):
    line = timeline.scan(minute["mp4"])
    wanted = list(range(0, 1500, 5))
    parts = decode.split_for_threads(line, wanted, 8)
    assert [len(part) for part in parts] == [160, 140], "600 packets each at least"
    assert [*parts[0], *parts[1]] == wanted
    assert decode.split_for_threads(line, wanted, 1) == [wanted]
    assert decode.split_for_threads(line, wanted[:10], 8) == [wanted[:10]], "too few packets"
    monkeypatch.setattr(decode, "_SHARE_PX", line.header.area_px + 1)
    assert decode.split_for_threads(line, wanted, 8) == [wanted], "too small pictures"


def test_the_rest_of_a_group_of_pictures_is_not_decoded(minute, sources):
    clip = video.read(minute["mp4"], fps=0.5, start=0.4)
    assert numbers(clip.frames_TYX3) == list(range(10, 1500, 50))
    # of each group of 50 what comes before the frame, and the few that are stored before it
    assert sum(count for _, count in sources) < 30 * 20


@pytest.mark.parametrize("at", [0.2, 0.8])
def test_a_damaged_clip_is_the_same_whatever_the_cores(minute, at, sources, monkeypatch, tmp_path):
    raw = bytearray(minute["mp4"].read_bytes())
    line = timeline.scan(minute["mp4"])
    places = line.packet_pos_N
    for packet in range(int(at * 1500), int(at * 1500) + 30):
        raw[places[packet] + 4 : places[packet] + 40] = b"\x00" * 36
    path = tmp_path / "damaged.mp4"
    path.write_bytes(raw)
    clip = video.read(path, fps=2)
    monkeypatch.setattr(frames, "available_cores", lambda: 1)
    alone = video.read(path, fps=2)
    assert clip.lost_frames == alone.lost_frames > 0
    assert clip.times_s == alone.times_s
    assert np.array_equal(clip.frames_TYX3, alone.frames_TYX3)
    assert len(sources) == 5, "two threads and one, then one and one"


def test_frames_that_do_not_arrive_are_decoded_without_leaving_anything_out(minute, monkeypatch):
    needed, tried = decode._Source._needed, []

    def wrong(self, stretch):
        tried.append(stretch.whole)
        return needed(self, stretch) and {-1}

    monkeypatch.setattr(decode._Source, "_needed", wrong)
    clip = video.read(minute["mp4"], fps=5, start=10.0, end=12.0)
    assert numbers(clip.frames_TYX3) == list(range(250, 300, 5))
    assert True in tried
    assert tried[0] is False


def test_producers_start_after_the_first_has_given_something():
    order = []

    def one(name, wait_s):
        def produce(beat):
            order.append(f"{name} starts")
            time.sleep(wait_s)
            beat()
            yield name

        return produce

    given = []
    for name in run_with_watchdog("clip", 5.0, one("a", 0.1), one("b", 0.0), one("c", 0.0)):
        order.append(f"{name} came")
        given.append(name)
    assert order[:2] == ["a starts", "a came"] or order[:1] == ["a starts"]
    assert given[0] == "a"
    assert sorted(given) == ["a", "b", "c"]
    assert list(run_with_watchdog("clip", 5.0, lambda beat: iter(()), one("b", 0.0))) == []


def test_one_stalled_or_failing_thread_ends_all():
    release = threading.Event()

    def fine(beat):
        for number in range(3):
            beat()
            yield number

    def stalls(beat):
        release.wait(10)
        yield 0

    def fails(beat):
        raise video.VideoError("broken")
        yield 0

    with pytest.raises(video.VideoError, match=r"clip was given up: no progress for 0\.2 s"):
        list(run_with_watchdog("clip", 0.2, fine, stalls))
    release.set()
    with pytest.raises(video.VideoError, match="broken"):
        list(run_with_watchdog("clip", 5.0, fine, fails))
