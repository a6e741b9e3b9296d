"""A file is opened for its header once, by whoever asks, until it changes."""

import os

import av
import pytest
from clips import write_clip
from PIL import Image

import vl3
from vl3 import video
from vl3.video import VideoError
from vl3.video.timeline import scan


@pytest.fixture
def opened(monkeypatch, decoding_here):
    """Paths that PyAV and PIL open from now on."""
    names = []
    for module in (av, Image):

        def counting(file, *others, open=module.open, **named):
            names.append(os.fspath(file))
            return open(file, *others, **named)

        monkeypatch.setattr(module, "open", counting)
    return names


def test_a_conversation_with_looks_opens_its_clip_a_few_times(tiny_folder, tmp_path, opened):
    studio = vl3.load(tiny_folder)
    film = write_clip(tmp_path / "film.mp4", 16, 4, size=(64, 64))
    opened.clear()
    shown = {"type": "video", "video": str(film)}
    asked = [{"role": "user", "content": [shown, {"type": "text", "text": "What?"}]}]
    video.probe(film), video.schedule(film, max_frames=3)
    studio.plan(film)
    for _ in range(2):
        reply = studio.reply(asked, max_new_tokens=2)
        studio.open(film)
        studio.videos(reply)
        studio.attention(reply)
        studio.plan(film)
    of_the_film = [name for name in opened if name == str(film)]
    assert len(of_the_film) <= 5, "header, packets, frames, and twice to see what it is"


def test_a_file_that_changed_is_read_again(tmp_path, opened):
    path = tmp_path / "film.mp4"
    write_clip(path, 8, 4, size=(64, 96))
    opened.clear()
    assert video.probe(path).width_px == 96
    first = len(opened)
    assert video.probe(path).width_px == 96
    assert len(opened) == first
    write_clip(path, 8, 4, size=(64, 128))
    assert video.probe(path).width_px == 128
    Image.new("RGB", (20, 30)).save(tmp_path / "film.png")
    os.replace(tmp_path / "film.png", path)
    assert video.probe(path).kind == "image"


def test_an_error_is_not_remembered(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"nothing of a film")
    for _ in range(2):
        with pytest.raises(VideoError):
            video.probe(path)
    write_clip(path, 8, 4, size=(64, 96))
    assert video.probe(path).width_px == 96


def test_the_default_and_the_same_value_said_aloud_are_one(tmp_path, opened):
    path = write_clip(tmp_path / "film.mp4", 8, 4, size=(64, 96))
    opened.clear()
    assert scan(path) is scan(path, 30.0) is scan(path, timeout_s=30.0)
    assert len(opened) == 1
