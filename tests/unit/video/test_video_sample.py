"""Which frames are taken, on presentation times alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.video.sample import exact_picks, fps_filter_picks, middle_picks, thin

TIMES_25 = np.arange(150) / 25


def test_exact_takes_the_frame_shown_at_each_target():
    assert exact_picks(TIMES_25, 6.0, 1.0, 180) == [0, 25, 50, 75, 100, 125]
    assert exact_picks(TIMES_25, 6.0, 2.0, 180)[:4] == [0, 12, 25, 37]


def test_exact_thins_targets_from_first_to_last():
    assert exact_picks(TIMES_25, 6.0, 1.0, 4) == [0, 25, 75, 125]
    assert exact_picks(TIMES_25, 6.0, 1.0, 1) == [0]


def test_exact_never_gives_a_frame_twice_and_always_one():
    assert exact_picks(np.array([0.0, 2.5]), 3.0, 10.0, 180) == [0, 1]
    assert exact_picks(np.array([0.0]), 0.04, 1.0, 180) == [0]
    assert exact_picks(TIMES_25, 3.2, 0.1, 180, start_s=3.1) == [77]


def test_exact_range_takes_the_frame_on_screen_at_its_start():
    assert exact_picks(np.array([0.0, 1.0, 4.0]), 5.0, 1.0, 180, start_s=2.5) == [1, 2]


def test_exact_bears_times_rounded_to_milliseconds():
    rounded = np.round(np.arange(175) * 1001 / 24, 0) / 1000
    assert exact_picks(rounded, 7.299, 24000 / 1001, None) == list(range(175))


@given(
    gaps=st.lists(st.integers(1, 400), min_size=1, max_size=60),
    fps=st.sampled_from([0.3, 1.0, 2.0, 7.0, 29.97]),
    limit=st.integers(1, 20),
    start=st.floats(0, 3),
)
def test_exact_holds_for_any_spacing(gaps, fps, limit, start):
    times = np.concatenate([[0], np.cumsum(gaps)]) / 100
    end = float(times[-1]) + 0.04
    picks = exact_picks(times, end, fps, limit, start_s=min(start, end - 0.01))
    assert 1 <= len(picks) <= limit
    assert picks == sorted(set(picks))
    assert picks[0] >= 0
    assert picks[-1] < len(times)


def test_fps_filter_gives_the_last_frame_of_each_interval():
    slot, picks = fps_filter_picks(np.arange(150), 150, Fraction(1, 25), Fraction(1))
    assert (slot, picks) == (0, [24, 49, 74, 99, 124, 149])


def test_fps_filter_gives_nothing_for_a_clip_shorter_than_an_interval():
    assert fps_filter_picks(np.arange(24), 24, Fraction(1, 25), Fraction(1)) == (0, [])
    assert fps_filter_picks(np.array([], np.int64), 0, Fraction(1, 25), Fraction(1)) == (0, [])


def test_fps_filter_repeats_frames_over_gaps_and_starts_late():
    pts = np.array([30, 31, 100])
    assert fps_filter_picks(pts, 126, Fraction(1, 25), Fraction(1)) == (1, [1, 1, 1, 2])


@given(
    gaps=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    fps=st.sampled_from([Fraction(1), Fraction(2), Fraction(1, 2), Fraction(30), Fraction(7, 3)]),
)
def test_fps_filter_agrees_with_ffmpegs_two_frame_buffer(gaps, fps):
    pts = np.concatenate([[0], np.cumsum(gaps)])
    end = int(pts[-1]) + 40
    slots = [int(p * Fraction(1, 1000) * fps // 1) for p in pts.tolist()]
    end_slot = int(end * Fraction(1, 1000) * fps // 1)
    expected, coming = [], slots[0]
    for frame in range(len(slots)):
        until = slots[frame + 1] if frame + 1 < len(slots) else end_slot
        while coming < until:
            expected.append(frame)
            coming += 1
    assert fps_filter_picks(pts, end, Fraction(1, 1000), fps) == (slots[0], expected)


@pytest.mark.parametrize(
    ("count", "video_fps", "fps", "expected"),
    [
        (300, 29.97002997, 1, [14, 43, 72, 101, 130, 159, 188, 217, 246, 275]),
        (7, 25.0, 1, [3]),
        (100, 23.976, 3, [3, 10, 17, 24, 31, 38, 45, 52, 59, 66, 73, 80, 87, 94]),
        (16, 25.0, 30, []),
        (0, 25.0, 1, []),
    ],
)
def test_middle_of_each_segment(count, video_fps, fps, expected):
    assert middle_picks(count, video_fps, fps, 180) == expected


def test_even_spread():
    assert middle_picks(150, 25.0, None, 8) == [0, 21, 42, 63, 85, 106, 127, 149]
    assert thin(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert thin(5, None).tolist() == [0, 1, 2, 3, 4]
