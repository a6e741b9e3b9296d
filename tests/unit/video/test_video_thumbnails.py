"""Pictures for looking at: keyframes where there are any, little to decode, true times."""

import av
import pytest
from clips import numbers, write_animation, write_clip

import vl3.video as video
from vl3.video import decode


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """60 s at 25 fps with a keyframe at least every 4 s."""
    return write_clip(tmp_path_factory.mktemp("glance") / "m.mp4", 1500, gop=100)


def keyframe_times(path):
    with av.open(str(path)) as container:
        return [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe]


def same(count, height, width):
    return height, width


def test_keyframes_are_taken_and_nothing_else_is_decoded(minute, monkeypatch, decoding_here):
    decoded, original = [], decode._Source.packets

    def counting(self, stretch):
        for packet in original(self, stretch):
            decoded.append(packet is not None)
            yield packet

    monkeypatch.setattr(decode._Source, "packets", counting)
    spans = [(0.0, 0.0, 7.5), (7.5, 15.0, 22.5), (22.5, 30.0, 60.0)]
    clip = video.thumbnails(minute, spans, same)
    keys = keyframe_times(minute)
    nearest = [min(keys, key=lambda key: abs(key - time_s)) for _, time_s, _ in spans]
    assert clip.times_s == pytest.approx(nearest)
    assert numbers(clip.frames_TYX3) == [round(25 * time_s) for time_s in nearest]
    assert sum(decoded) == 3


def test_without_a_keyframe_it_is_the_frame_shown_at_the_time(minute):
    clip = video.thumbnails(minute, [(1.0, 1.0, 2.0), (2.0, 2.5, 3.99)], same)
    assert clip.times_s == pytest.approx((1.0, 2.48))
    assert numbers(clip.frames_TYX3) == [25, 62]


def test_animations_have_pictures_too(tmp_path):
    path = write_animation(tmp_path / "a.gif", [100] * 12)
    clip = video.thumbnails(path, [(0.0, 0.0, 0.45), (0.45, 0.5, 1.2)], same)
    assert clip.times_s == pytest.approx((0.0, 0.5))
