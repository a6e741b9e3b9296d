"""Pictures become a video file whose frames carry their content and times."""

import clips
import numpy as np
import pytest

from vl3 import video
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
