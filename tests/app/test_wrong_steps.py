"""Every wrong step gives one sentence, and the page keeps working."""

from __future__ import annotations

import av
import clips
import pytest
from steps import ask, expect, toast, type_and_send, upload

pytest_plugins = ["page_fixtures"]


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
    """Files that are no video, each with what the page says about it."""
    text, empty, truncated, playlist, song = [
        folder / f"{name}.mp4" for name in ("text", "empty", "truncated", "list", "song")
    ]
    text.write_text("this is a text file\n" * 50)
    empty.write_bytes(b"")
    truncated.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    playlist.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    with av.open(str(song), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        clips._silence(container, stream, 1.0)
    return {
        text: "text.mp4 is not a video",
        empty: "No video frames found in empty.mp4",
        truncated: "truncated.mp4 is incomplete",
        playlist: "list.mp4 is a playlist",
        song: "No video stream found in song.mp4",
    }


@pytest.mark.slow
def test_files_that_are_no_video(page, clip, tmp_path):
    for number, (path, sentence) in enumerate(bad_files(tmp_path, clip).items(), 1):
        page.locator("#drop input[type=file]").set_input_files(str(path))
        message = toast(page)
        assert "Cannot read this file" in message
        assert sentence in message
        assert "/" not in message
        if number == 1:
            upload(page, clip)
        ask(page, "Does it still work?", number)
        expect(page.locator("#player .facts")).to_contain_text(clip.name)


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
    path = next(iter(bad_files(tmp_path, clip)))
    page.locator("#ask input[type=file]").set_input_files(str(path))
    expect(page.locator("#ask .thumbnail-item, #ask .thumbnail-wrapper").first).to_be_visible()
    type_and_send(page, "What is this?")
    assert "Cannot read this file" in toast(page)
    expect(page.locator("#chat .user-row")).to_have_count(0)
    expect(page.locator("#ask .submit-button")).to_be_visible()
