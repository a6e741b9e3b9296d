"""Pictures become a video file whose frames carry their content and times."""

import io

import av
import clips
import numpy as np
import pytest

from vl3 import video
from vl3.sound import RATE_HZ, Sound
from vl3.video.encode import encode


@pytest.mark.parametrize("size", [(64, 96), (43, 97)])
def test_pictures_and_times_come_back(tmp_path, size):
    pictures = np.stack([clips.numbered(number, *size) for number in range(6)])
    times_s = (3.0, 3.5, 4.0, 5.25, 5.5, 6.0)
    path = tmp_path / "film.mp4"
    path.write_bytes(encode(pictures, times_s))
    clip = video.read(path, fps=30)
    shown = [clips.numbers(clip.frames_TYX3)[clip.times_s.index(t)] for t in clip.times_s]
    assert shown == list(range(6))
    assert clip.times_s == pytest.approx([time_s - 3.0 for time_s in times_s], abs=1e-3)
    known = video.probe(path)
    assert known.duration_s == pytest.approx(3.5, abs=0.01)
    assert (known.height_px, known.width_px) == (size[0] + size[0] % 2, size[1] + size[1] % 2)


def test_a_single_picture_is_shown_for_a_second(tmp_path):
    path = tmp_path / "one.mp4"
    path.write_bytes(encode(clips.numbered(3)[None], None))
    assert video.probe(path).duration_s == pytest.approx(1.0, abs=0.01)


def burst(at_s, start_s, seconds=4):
    """A tone of a tenth of a second, at a time counted from the first picture."""
    samples_S = np.zeros(seconds * RATE_HZ, np.float32)
    first = round((at_s - start_s) * RATE_HZ)
    samples_S[first : first + 1600] = 0.5 * np.sin(np.arange(1600) * 0.4)
    return Sound(samples_S=samples_S, start_s=start_s, source="burst")


def heard_at(file):
    """When the sound of a file becomes loud, and when it ends, by the times of its samples."""
    with av.open(io.BytesIO(file)) as container:
        frames = list(container.decode(audio=0))
    start_s = frames[0].pts / RATE_HZ
    samples_S = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return start_s + np.argmax(np.abs(samples_S) > 0.2) / RATE_HZ, start_s + len(
        samples_S
    ) / RATE_HZ


@pytest.mark.parametrize("start_s", [0.0, 0.01, 1.25, -0.5])
@pytest.mark.parametrize("first_s", [0.0, 3.0])
def test_sound_is_heard_when_it_says(start_s, first_s):
    """Counted from the first picture, whatever its own time; what is before it is left out."""
    pictures = np.stack([clips.numbered(number) for number in range(4)])
    times_s = tuple(first_s + number for number in range(4))
    file = encode(pictures, times_s, burst(2.0, start_s))
    onset_s, end_s = heard_at(file)
    assert onset_s == pytest.approx(2.0, abs=0.005)
    assert end_s == pytest.approx(start_s + 4, abs=0.08)
    assert abs(heard_at(encode(pictures, times_s, burst(2.1, start_s)))[0] - 2.0) > 0.09, "canary"


def test_pictures_are_the_same_with_sound_and_without(tmp_path):
    pictures = np.stack([clips.numbered(number) for number in range(4)])
    read = []
    for name, sound in (
        ("silent", None),
        ("sound", burst(1.0, 0.0)),
        ("short", burst(0.2, 0.0, 1)),
    ):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(encode(pictures, (0.0, 1.0, 2.0, 3.0), sound))
        read.append(video.read(path, fps=1))
    assert [clip.times_s for clip in read] == [(0.0, 1.0, 2.0, 3.0)] * 3
    assert all(np.array_equal(clip.frames_TYX3, read[0].frames_TYX3) for clip in read)


def test_without_samples_there_is_no_track():
    for start_s in (0.0, 2.0):
        nothing = Sound(samples_S=np.zeros(0, np.float32), start_s=start_s, source="nothing")
        with av.open(io.BytesIO(encode(clips.numbered(3)[None], None, nothing))) as container:
            assert [stream.type for stream in container.streams] == ["video"]


def test_sound_that_ends_before_the_first_picture_is_left_out():
    early = Sound(samples_S=np.ones(1600, np.float32), start_s=-1.0, source="early")
    with av.open(io.BytesIO(encode(clips.numbered(3)[None], None, early))) as container:
        assert [stream.type for stream in container.streams] == ["video"]
