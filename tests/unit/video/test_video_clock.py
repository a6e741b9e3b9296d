"""Whose clock times are on: a player's, also where stamps are late, of the day, or begin anew."""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import numbers, write_clip

import vl3.video as video
from vl3.video.clock import clock_shift
from vl3.video.sample import exact_picks

NONE = np.iinfo(np.int64).min
MS = Fraction(1, 1000)


def joined(path, parts):
    """The clips of these lengths byte after byte in one file."""
    content = b""
    for count in parts:
        content += write_clip(path, count).read_bytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("parts", [(50, 50), (50, 30, 40), (10, 90)])
def test_joined_recordings_follow_one_another(tmp_path, parts):
    path = joined(tmp_path / "a.ts", parts)
    clip = video.read(path, fps=25)
    found = [number for count in parts for number in range(count)]
    assert numbers(clip.frames_TYX3) == found
    assert clip.times_s == pytest.approx([k / 25 for k in range(len(found))], abs=1e-3)
    planned = video.schedule(path, fps=25)
    assert planned.times_s == clip.times_s
    assert planned.duration_s == pytest.approx(len(found) / 25, abs=1e-3)
    for notes in (planned.notes, clip.notes):
        assert f"its {len(parts)} parts are counted in a row" in notes[0]


def test_a_range_in_the_second_recording(tmp_path):
    path = joined(tmp_path / "a.ts", (50, 50))
    clip = video.read(path, fps=5, start=3.0, end=3.6)
    assert numbers(clip.frames_TYX3) == [25, 30, 35]
    assert clip.times_s == pytest.approx((3.0, 3.2, 3.4), abs=1e-3)


def test_what_is_behind_and_not_read_is_said(tmp_path):
    single, one = write_clip(tmp_path / "a.mkv", 50).read_bytes(), tmp_path / "b.mkv"
    one.write_bytes(single * 4)
    assert "2 more recordings" in video.schedule(one).notes[-1]
    assert video.schedule(tmp_path / "a.mkv").notes == ()
    for suffix in ("mp4", "flv"):
        one = write_clip(tmp_path / f"a.{suffix}", 50)
        assert video.schedule(one).notes == ()
        one.write_bytes(one.read_bytes() * 2)
        assert "1 more recording" in video.schedule(one).notes[-1]


def stamps(*parts):
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


def shifts(pts, dts=None, keys=(0,)):
    key = np.zeros(len(pts), bool)
    key[list(keys)] = True
    return clock_shift(pts, np.full(len(pts), NONE) if dts is None else dts, key, NONE)


def test_the_clock_begins_anew_without_decoding_times():
    one = np.arange(0, 400, 40)
    assert shifts(stamps(one, one), keys=(0, 10)).tolist() == [0] * 10 + [400] * 10
    assert shifts(stamps(one, one + 200), keys=(0, 10)).tolist() == [0] * 10 + [200] * 10


def test_one_wild_stamp_is_no_new_clock():
    steady = np.arange(0, 4000, 40)
    for at, value in ((50, 10**9), (50, -(10**6)), (99, 0), (1, 5000)):
        wild = steady.copy()
        wild[at] = value
        assert shifts(wild, dts=wild, keys=range(0, 100, 10)) is None
    reordered = stamps([0, 120, 40, 80, 240, 160, 200, 360, 280, 320])
    assert shifts(reordered, dts=np.arange(-80, 320, 40), keys=(0,)) is None
    assert shifts(np.full(20, NONE), keys=()) is None


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_sound_before_the_picture_moves_its_times(tmp_path, suffix):
    path = write_clip(tmp_path / f"a.{suffix}", 50, times=[75 + k for k in range(50)], audio_s=6)
    with av.open(str(path)) as container:
        first = container.streams.video[0]
        lead_s = float(first.start_time * first.time_base) - container.start_time / av.time_base
    assert lead_s == pytest.approx(3, abs=0.15)
    clip = video.read(path, fps=5)
    assert numbers(clip.frames_TYX3)[0] == 0
    assert clip.times_s[0] == pytest.approx(lead_s, abs=2e-3)
    assert video.schedule(path).duration_s == pytest.approx(lead_s + 2, abs=2e-3)
    at_4_s = int((4.001 - lead_s) * 25)
    assert numbers(video.read(path, start=4.0, end=4.5).frames_TYX3) == [at_4_s]
    assert len(video.read(path, max_frames=2, fps=5)) == 2
    with pytest.raises(video.VideoError, match="begins at 3"):
        video.read(path, end=2.0)


def test_the_delay_of_a_sound_encoder_moves_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 25, bframes=0)
    with_sound = tmp_path / "b.mkv"
    with av.open(str(path)) as source, av.open(str(with_sound), "w") as target:
        copied = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("libopus", rate=48000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                target.mux(packet)
        for start in range(0, 48000, 960):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), "flt", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    assert video.read(with_sound, fps=5).times_s == pytest.approx((0, 0.2, 0.4, 0.6, 0.8), abs=0.01)


def test_a_clock_of_the_day_counts_from_its_start(tmp_path):
    path = write_clip(
        tmp_path / "a.mkv", 75, times=[1_700_000_000_000 + 40 * k for k in range(75)], time_base=MS
    )
    for mode in ("exact", "official"):
        assert video.schedule(path, mode=mode).times_s == pytest.approx((0, 1, 2), abs=1e-3)
        clip = video.read(path, mode=mode, start=1.0, end=2.6)
        assert clip.times_s[0] == pytest.approx(1, abs=1e-3)
    assert video.probe(path).duration_s == pytest.approx(3, abs=0.05)


def test_frames_far_apart_cost_no_memory(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 3, times=[0, 40, 3 * 10**12], time_base=MS)
    clip = video.read(path, fps=30, max_frames=None)
    assert numbers(clip.frames_TYX3) == [0, 1, 2]
    with pytest.raises(video.VideoError, match="official way of sampling would give 9"):
        video.schedule(path, mode="official", fps=30)


def test_picks_of_few_frames_are_those_of_all_steps():
    rng = np.random.default_rng(0)
    for _ in range(200):
        times_s = np.cumsum(rng.uniform(0, 3, 6))
        start_s, fps = rng.uniform(0, 2), rng.uniform(3, 60)
        end_s = float(times_s[-1] + 1)
        count = max(1, int(np.ceil((end_s - start_s) * fps - 1e-6)))
        targets_s = start_s + np.arange(count) / fps
        shown = np.searchsorted(times_s, targets_s + 5.01e-4, side="right") - 1
        assert exact_picks(times_s, end_s, fps, None, start_s) == sorted({*np.maximum(shown, 0)})
