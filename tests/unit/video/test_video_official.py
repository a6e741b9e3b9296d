"""The official reader's frames and stamps, against recorded rows and against ffmpeg itself."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from clips import numbers, write_animation, write_clip
from official_reader import read_official

import vl3.video as video


def _rows(folder):
    table = json.loads((folder / "frame_sampling.json").read_text())["load_video"]
    return [
        row
        for row in table
        if "error" not in row
        and row["n"]
        and row["video"] != "rotated90.mp4"
        and not row["args"].get("precise_time")
        and (folder / "videos" / row["video"]).exists()
    ]


def _differs(row, frames, times_s):
    if len(frames) != row["n"] or not np.allclose(times_s, row["timestamps"], atol=1e-3):
        return True
    return bool(row.get("indices")) and numbers(frames) != row["indices"]


def test_recorded_rows(shared):
    folder = shared / "fixtures" / "vl3_preprocess"
    rows = _rows(folder)
    assert len(rows) == 80
    wrong = [
        (row["video"], row["args"])
        for row in rows
        if _differs(row, *read_official(folder / "videos" / row["video"], **row["args"]))
    ]
    assert wrong == []


def test_recorded_rows_tell_the_first_frame_from_the_last(shared):
    """Canary: the frame one earlier than the official one fails the comparison."""
    folder = shared / "fixtures" / "vl3_preprocess"
    row = next(r for r in _rows(folder) if r["args"] == {"fps": 1, "max_frames": 180})
    frames, times_s = read_official(folder / "videos" / row["video"], **row["args"])
    assert not _differs(row, frames, times_s)
    assert _differs(dict(row, indices=[k - 1 for k in row["indices"]]), frames, times_s)
    assert _differs(row, frames, [t + 0.01 for t in times_s])


def test_last_frame_of_each_interval_with_its_start(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 150)
    clip = video.read(path, mode="official")
    assert numbers(clip.frames_TYX3) == [24, 49, 74, 99, 124, 149]
    assert clip.times_s == (0, 1, 2, 3, 4, 5)
    assert video.schedule(path, mode="official").times_s == clip.times_s
    thinned = video.read(path, mode="official", max_frames=4)
    assert numbers(thinned.frames_TYX3) == [24, 49, 99, 149]
    assert thinned.times_s == (0, 1, 3, 5)


def test_repeated_frames_are_repeated(tmp_path):
    path = write_clip(tmp_path / "slow.mp4", 10, 2)
    clip = video.read(path, mode="official", fps=4)
    assert numbers(clip.frames_TYX3) == [k // 2 for k in range(20)]


def test_clip_shorter_than_an_interval_is_refused_by_read(tmp_path):
    path = write_clip(tmp_path / "short.mp4", 24)
    with pytest.raises(video.VideoError, match="mode='exact'"):
        video.read(path, mode="official")


def test_short_range_and_gif_take_the_middle(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 150)
    frames, times_s = read_official(path, start_time=1.2, end_time=1.9)
    assert (numbers(frames), times_s) == ([38], (1.52,))
    gif = write_animation(tmp_path / "a.gif", [100] * 16)
    frames, times_s = read_official(gif)
    assert (numbers(frames), times_s) == ([8], (0.32,))


def test_padding_and_size(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 150)
    frames, times_s = read_official(path, temporal_factor=4)
    assert numbers(frames)[-3:] == [149] * 3
    assert times_s == (0, 1, 2, 3, 4, 5, 6, 7)
    assert read_official(path, size=48, size_divisible=14)[0].shape == (6, 42, 140, 3)


FILES = {
    "longer_sound.mp4": {"count": 100, "audio_s": 6.5},
    "no_b.mp4": {"count": 48, "fps": 24, "bframes": 0},
    "late_sound.mp4": {"count": 100, "times": [13 + k for k in range(100)], "audio_s": 7},
    "late_sound.mkv": {"count": 100, "times": [13 + k for k in range(100)], "audio_s": 7},
    "offset.mkv": {"count": 100, "times": [125 + k for k in range(100)]},
    "offset.ts": {"count": 100, "gop": 25},
    "negative.mp4": {"count": 60, "times": [k - 5 for k in range(60)]},
    "fragments.mp4": {"count": 100, "format_options": {"movflags": "frag_keyframe+empty_moov"}},
    "vp9.webm": {"count": 60, "codec": "libvpx-vp9"},
}
RANGES = [
    {"fps": 2},
    {"fps": 29.97},
    {"start_time": 1.0, "end_time": 3.0},
    {"start_time": 0.7, "end_time": 4.31, "fps": 2},
    {"end_time": 2.0, "fps": 7},
]


def _by_ffprobe(path):
    ask = ["ffprobe", "-v", "quiet", "-show_format", "-show_streams", "-of", "json", str(path)]
    return json.loads(subprocess.run(ask, capture_output=True, check=True).stdout)


def _by_ffmpeg(path, said, fps=1, start_time=None, end_time=None):
    """Numbers and stamps by the ffmpeg program, driven as the official reader drives it."""
    stream = next(s for s in said["streams"] if s["codec_type"] == "video")
    length_s = float(said["format"]["duration"])
    trim = start_time is not None or end_time is not None
    first_s = float(stream["start_time"])
    if start_time is not None:
        first_s = max(first_s, start_time)
        length_s -= first_s - start_time
    if end_time is not None:
        length_s = min(length_s, end_time - first_s)
    cut = ["-ss", str(first_s), "-t", str(length_s)] if trim else []
    command = ["ffmpeg", "-v", "quiet", *cut, "-i", str(path)]
    command += ["-filter_complex", f"[0]fps=fps={fps}:round=down[s0]", "-map", "[s0]"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:"]
    raw = subprocess.run(command, capture_output=True, check=False).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, stream["height"], stream["width"], 3)
    return numbers(frames), np.arange(first_s, first_s + length_s + 1 / fps, 1 / fps)[: len(frames)]


def _ffmpeg_version():
    if not shutil.which("ffmpeg") or not shutil.which("ffprobe"):
        return None
    said = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout
    return said.split()[2]


@pytest.mark.skipif(
    not (_ffmpeg_version() or "").startswith("5.1"), reason="needs the ffmpeg program, version 5.1"
)
@pytest.mark.parametrize("name", FILES)
def test_same_as_ffmpeg(tmp_path, name):
    path = write_clip(tmp_path / name, **FILES[name])
    said = _by_ffprobe(path)
    for arguments in RANGES:
        expected, stamps = _by_ffmpeg(path, said, **arguments)
        if not expected:
            with pytest.raises(video.VideoError, match="takes no frame"):
                read_official(path, max_frames=None, **arguments)
            continue
        frames, times_s = read_official(path, max_frames=None, **arguments)
        assert numbers(frames) == expected, arguments
        assert np.allclose(times_s, stamps, atol=1e-3), arguments
