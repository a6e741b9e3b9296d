"""Every wrong step gives one sentence, and the page keeps working."""

from __future__ import annotations

import clips
import pytest
from playwright.sync_api import expect
from steps import ask, toast, type_and_send, upload


def test_a_question_before_any_video(page, clip):
    type_and_send(page, "What happens?")
    text = toast(page)
    assert "Upload a video, then ask about it." in text
    expect(page.locator("#ask textarea")).to_have_value("What happens?")
    upload(page, clip)
    page.locator("#ask textarea").press("Enter")
    expect(page.locator("#chat .bot-row .foot").first).to_be_visible()


def test_an_empty_question(page, clip):
    upload(page, clip)
    type_and_send(page, "   ")
    text = toast(page)
    assert "Nothing to send" in text
    assert "Write a question first." in text


def test_buttons_without_a_conversation(page):
    for name in ("Try again", "Undo", "JSON"):
        page.get_by_role("button", name=name, exact=True).click()
        assert "Ask a question first." in toast(page)


def bad_files(folder, clip):
    text = folder / "notes.mp4"
    text.write_text("this is a text file\n" * 50)
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    truncated = folder / "truncated.mp4"
    truncated.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    playlist = folder / "list.mp4"
    playlist.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    return {"text": text, "empty": empty, "truncated": truncated, "playlist": playlist}


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "playlist"])
def test_a_file_that_is_no_video(page, clip, tmp_path, kind):
    path = bad_files(tmp_path, clip)[kind]
    page.locator("#drop input[type=file]").set_input_files(str(path))
    message = toast(page)
    assert "Cannot read this file" in message
    assert path.name in message
    assert str(tmp_path) not in message
    assert "/" not in message.replace("and/or", "")
    upload(page, clip)
    ask(page, "Does it still work?")


def test_a_file_with_sound_only(page, clip, tmp_path):
    import av
    import numpy as np

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        clips._silence(container, stream, 1.0)
    assert np.ceil(path.stat().st_size) > 0
    page.locator("#drop input[type=file]").set_input_files(str(path))
    message = toast(page)
    assert "Cannot read this file" in message
    assert "No video stream found in song.mp4" in message
    upload(page, clip)


def test_a_clip_of_one_frame(page, tmp_path, script):
    path = clips.write_clip(tmp_path / "one.mp4", 1, 12, size=(96, 160))
    upload(page, path)
    expect(page.locator("#budget p")).to_contain_text("1 frame of")
    ask(page, "What is it?")
    expect(page.locator("#chat .caption")).to_contain_text("1 frame ·")


def test_a_file_beyond_the_limit(page, clip, tmp_path):
    path = tmp_path / "huge.mp4"
    path.write_bytes(clip.read_bytes() + bytes(21_000_000))
    page.locator("#drop input[type=file]").set_input_files(str(path))
    message = toast(page)
    assert "huge.mp4" in message
    upload(page, clip)


def test_a_bad_attachment_in_the_ask_box(page, clip, tmp_path):
    path = bad_files(tmp_path, clip)["text"]
    page.locator("#ask input[type=file]").set_input_files(str(path))
    expect(page.locator("#ask .thumbnail-item, #ask .thumbnail-wrapper").first).to_be_visible()
    type_and_send(page, "What is this?")
    assert "Cannot read this file" in toast(page)
    expect(page.locator("#chat .user-row")).to_have_count(0)
    expect(page.locator("#ask .submit-button")).to_be_visible()
