"""The page in a real browser, on a studio whose words and timing the tests decide."""

from __future__ import annotations

import re
import time

import clips
import pytest
from fake import FakeOutOfMemory
from steps import answer, ask, expect, open_tab, toast, type_and_send, upload

pytest_plugins = ["page_fixtures"]

LONG = " ".join(f"word{number}" for number in range(400))


def test_upload_plan_ask_and_ask_again_about_the_same_video(page, clip, script):
    script.stage_s = 0.15
    page.evaluate(
        """() => {
            window.stages = new Set();
            new MutationObserver(() => {
                const line = document.querySelector('#chat .stage');
                if (line) window.stages.add(line.textContent);
            }).observe(document.body, { childList: true, subtree: true, characterData: true });
        }"""
    )
    upload(page, clip)
    facts = page.locator("#player .facts")
    expect(facts).to_contain_text("4.0 s")
    expect(facts).to_contain_text("160 × 96")
    expect(facts).to_contain_text("12 fps")
    expect(facts).to_contain_text("h264")
    line = page.locator("#budget p")
    expect(line).to_have_text(re.compile(r"4 frames of 8 × 12 patches · 96 tokens of 8\s192 ·"))
    expect(line).to_contain_text("one frame every 1.0 s")

    type_and_send(page, "What moves?")
    text = answer(page)
    assert text.startswith("A red circle moves right. At 0:01 it turns blue, until Time 2.0s.")
    assert "13 tokens" in text
    assert "412 MB" in text
    stages = page.evaluate("[...window.stages]")
    assert {"Reading frames 2/4", "Encoding video", "Removing repeated patches"} <= set(stages)
    caption = page.locator("#chat .caption")
    expect(caption).to_have_text(f"{clip.name} · 0:00–0:04 · 4 frames · 96 tokens")
    expect(page.locator("#player .badge")).to_have_count(0)

    ask(page, "And then?", 2)
    expect(page.locator("#player .badge")).to_have_text("Video already encoded, reused")
    expect(caption).to_have_count(1)
    *_, last = [entry for entry in script.log if entry[0] == "answered"]
    assert [message["role"] for message in last[2]] == ["user", "assistant", "user"]


def test_the_budget_follows_every_field_and_says_what_is_wrong(page, clip, script):
    upload(page, clip)
    line = page.locator("#budget p")
    page.get_by_label("Frames per s", exact=True).fill("3")
    expect(line).to_contain_text("12 frames")
    page.get_by_label("Max frames", exact=True).fill("5")
    expect(line).to_contain_text("5 frames")
    page.get_by_label("From", exact=True).fill("0:01")
    page.get_by_label("To", exact=True).fill("3")
    expect(line).to_contain_text(re.compile(r"one frame every 0\.\d+ s"))
    page.get_by_label("From", exact=True).fill("0:03")
    expect(line).to_have_text("From 0:03 is not before To 0:03. Move From earlier or To later.")
    type_and_send(page, "What happens?")
    assert "is not before" in toast(page)
    page.get_by_label("From", exact=True).fill("soon")
    expect(line).to_contain_text("From is not a time")
    page.get_by_label("From", exact=True).fill("")
    expect(line).to_contain_text("5 frames")
    ask(page, "What happens?")
    expect(page.locator("#chat .caption")).to_contain_text("0:00–0:03")


def test_too_many_tokens_are_refused_by_arithmetic(page, clip, server):
    upload(page, clip)
    page.locator(".sidebar .toggle-button").click()
    page.get_by_label("Max new tokens", exact=True).fill("16350")
    line = page.locator("#budget p")
    expect(line).to_have_text(
        re.compile(
            r"96 tokens exceed the limit 34\. Lower frames per second, shorten the clip, or raise "
            r"the pruning threshold\."
        )
    )
    page.locator("#settings").get_by_label("Remove repeated patches").uncheck()
    type_and_send(page, "What happens?")
    text = toast(page)
    assert "Video too long for this setting" in text
    assert "96 tokens exceed the limit 34." in text


def test_stop_ends_the_work_and_the_text(page, clip, script, server):
    script.answer, script.word_s = LONG, 0.05
    upload(page, clip)
    type_and_send(page, "Tell me everything")
    expect(page.locator("#ask .stop-button")).to_be_visible()
    expect(page.locator("#chat .bot-row")).to_contain_text("word5")
    visitor = next(iter(server.controller.visitors._visitors.values()))
    running = next(
        v for v in server.controller.visitors._visitors.values() if v.studio.running.is_set()
    )
    begin_s = time.monotonic()
    page.locator("#ask .stop-button").click()
    while running.studio.running.is_set():
        assert time.monotonic() - begin_s < 0.6, "the studio still works"
        time.sleep(0.01)
    text = answer(page)
    assert re.search(r"\(stopped after \d+ tokens\)", text)
    time.sleep(0.5)
    assert page.locator("#chat .bot-row .message-content").inner_text() == text
    assert visitor is not None
    script.answer = "Short."
    assert ask(page, "Again?", 2).startswith("Short.")


def test_stop_by_key_and_try_again_by_key(page, clip, script):
    script.answer, script.word_s = LONG, 0.05
    upload(page, clip)
    type_and_send(page, "Tell me everything")
    expect(page.locator("#chat .bot-row")).to_contain_text("word3")
    page.keyboard.press("Escape")
    assert "stopped after" in answer(page)
    script.answer = "Now it is short."
    page.locator("#header h1").click()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#chat .bot-row")).to_contain_text("Now it is short.")


def test_keys(page, clip):
    upload(page, clip)
    video = page.locator("#player video")
    page.locator("#header h1").click()
    page.keyboard.press("/")
    expect(page.locator("#ask textarea")).to_be_focused()
    page.keyboard.type("/ k j")
    expect(page.locator("#ask textarea")).to_have_value("/ k j")
    page.locator("#ask textarea").evaluate("field => field.blur()")
    page.keyboard.press("k")
    page.wait_for_function("!document.querySelector('#player video').paused")
    page.keyboard.press("k")
    page.wait_for_function("document.querySelector('#player video').paused")
    video.evaluate("video => { video.currentTime = 0; }")
    page.keyboard.press("l")
    page.wait_for_function("document.querySelector('#player video').currentTime > 3")
    page.keyboard.press("j")
    page.wait_for_function("document.querySelector('#player video').currentTime < 0.1")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
    assert "dark" not in (page.locator("body").get_attribute("class") or "")
    page.keyboard.press("d")
    expect(page.locator("body")).to_have_class(re.compile("dark"))
    page.reload()
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    expect(page.locator("body")).to_have_class(re.compile("dark"))


def test_enter_sends_and_shift_enter_does_not(page, clip):
    upload(page, clip)
    box = page.locator("#ask textarea")
    box.fill("First line")
    box.press("Shift+Enter")
    page.keyboard.type("second line")
    expect(page.locator("#chat .user-row")).to_have_count(0)
    box.press("Enter")
    answer(page)
    expect(page.locator("#chat .user-row").last).to_contain_text("second line")
    expect(box).to_have_value("")


def test_times_in_the_answer_move_the_player(page, clip):
    upload(page, clip)
    ask(page, "When?")
    links = page.locator("#chat .bot-row a")
    expect(links).to_have_text(["0:01", "Time 2.0s"])
    for link, time_s in ((links.nth(1), 2.0), (links.nth(0), 1.0)):
        link.click()
        page.wait_for_function(
            "time => Math.abs(document.querySelector('#player video').currentTime - time) < 0.05",
            arg=time_s,
        )


def test_a_time_of_an_earlier_video_brings_that_video_back(page, clip, other_clip):
    upload(page, clip)
    ask(page, "When?")
    upload(page, other_clip)
    ask(page, "And here?", 2)
    captions = page.locator("#chat .caption")
    expect(captions.nth(1)).to_contain_text("new context")
    page.locator("#chat .bot-row").first.locator("a").nth(1).click()
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    page.wait_for_function(
        "Math.abs(document.querySelector('#player video')?.currentTime - 2) < 0.05"
    )


def test_undo_clear_and_edit(page, clip, script):
    upload(page, clip)
    ask(page, "First question?")
    script.answer = "Second answer."
    ask(page, "Second question?", 2)
    page.get_by_role("button", name="Undo", exact=True).click()
    expect(page.locator("#chat .bot-row")).to_have_count(1)
    expect(page.locator("#ask textarea")).to_have_value("Second question?")
    page.locator("#ask textarea").fill("")

    script.answer = "Edited answer."
    page.locator("#chat").get_by_role("button", name="Edit").locator("visible=true").click()
    field = page.locator("#chat textarea")
    expect(field).to_have_value("First question?")
    field.fill("Edited <question>?")
    page.locator("#chat").get_by_role("button", name="Submit").locator("visible=true").click()
    expect(page.locator("#chat .bot-row")).to_contain_text("Edited answer.")
    expect(page.locator("#chat .user-row").last).to_contain_text("Edited")
    *_, last = [entry for entry in script.log if entry[0] == "answered"]
    assert last[2][-1]["content"][-1]["text"] == "Edited <question>?"
    assert last[2][-1]["content"][0]["type"] == "video"

    page.get_by_role("button", name="Clear conversation", exact=True).click()
    expect(page.locator("#chat .user-row")).to_have_count(0)
    expect(page.locator("#chat")).to_contain_text("Upload a video, then ask about it.")
    expect(page.locator("#player video")).to_be_visible()
    assert ask(page, "After clearing?").startswith("Edited answer.")


def test_clear_while_answering_leaves_nothing_behind(page, clip, script):
    script.answer, script.word_s = LONG, 0.05
    upload(page, clip)
    type_and_send(page, "Tell me everything")
    expect(page.locator("#chat .bot-row")).to_contain_text("word3")
    page.get_by_role("button", name="Clear conversation", exact=True).click()
    expect(page.locator("#chat .user-row")).to_have_count(0)
    page.wait_for_timeout(500)
    expect(page.locator("#chat .user-row")).to_have_count(0)
    expect(page.locator("#ask .submit-button")).to_be_visible()


def test_out_of_memory_is_said_and_the_page_goes_on(page, clip, script):
    sentence = (
        "The GPU ran out of memory while encoding. Your video is kept. Try max frames 64 or 4-bit."
    )
    script.raises = FakeOutOfMemory(sentence)
    upload(page, clip)
    type_and_send(page, "What happens?")
    text = toast(page)
    assert "Out of memory" in text
    assert sentence in text
    expect(page.locator("#chat .problem")).to_have_text(sentence)
    expect(page.locator("#ask .submit-button")).to_be_visible()
    script.raises = None
    page.get_by_role("button", name="Try again", exact=True).click()
    expect(page.locator("#chat .bot-row")).to_contain_text("A red circle")
    expect(page.locator("#chat .problem")).to_have_count(0)


def test_an_unknown_error_shows_no_detail_and_the_page_goes_on(page, clip, script):
    upload(page, clip)
    for number, words in enumerate((0, 3), 1):
        script.raises, script.raises_after_words = KeyError("/secret/path"), words
        type_and_send(page, "What happens?")
        expect(page.locator("#chat .problem")).to_contain_text("Try again")
        expect(page.locator("#ask .submit-button")).to_be_visible()
        assert "secret" not in page.locator("body").inner_text()
        script.raises = None
        page.get_by_role("button", name="Try again", exact=True).click()
        expect(page.locator("#chat .bot-row").nth(number - 1)).to_contain_text("A red circle")
        expect(page.locator("#chat .problem")).to_have_count(0)


def test_several_videos_and_images_through_the_ask_box(page, clip, other_clip, tmp_path, script):
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), "teal").save(picture)
    page.locator("#ask input[type=file]").set_input_files([str(clip), str(picture)])
    expect(page.locator("#ask .thumbnail-item, #ask .thumbnail-wrapper").first).to_be_visible()
    ask(page, "Compare these.")
    captions = page.locator("#chat .caption")
    expect(captions).to_have_count(2)
    expect(captions.nth(0)).to_contain_text("4 frames")
    expect(captions.nth(1)).to_contain_text("image")
    *_, last = [entry for entry in script.log if entry[0] == "answered"]
    kinds = [part["type"] for part in last[2][0]["content"]]
    assert kinds == ["video", "image", "text"]
    upload(page, picture)
    expect(page.locator("#player img")).to_be_visible()
    expect(page.locator("#budget p")).to_contain_text("Image of 24 × 36 patches")


def test_exports(page, clip, tmp_path):
    upload(page, clip)
    ask(page, "When?")
    found = {}
    for name in ("Markdown", "JSON", "WebVTT"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name, exact=True).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        found[path.suffix] = path.read_text("utf-8")
    assert set(found) == {".md", ".json", ".vtt"}
    assert "> When?" in found[".md"]
    assert '"status": "done"' in found[".json"]
    assert "00:00:01.000 --> " in found[".vtt"]
    assert str(clip.parent) not in "".join(found.values())
    assert "/tmp" not in "".join(found.values())


def test_run_details(page, clip):
    upload(page, clip)
    ask(page, "When?")
    open_tab(page, "Run details")
    details = page.locator("#panel-run")
    details.get_by_text("Show as table").click()
    expect(details.get_by_role("row", name="Visual tokens kept")).to_contain_text("60 (62 %)")
    expect(details.locator("pre").nth(1)).to_contain_text("import vl3")
    expect(details.locator("pre").nth(2)).to_contain_text("python -m train_cli chat")
    assert "/tmp" not in details.inner_text()


@pytest.mark.slow
def test_replaced_by_dropping_on_the_player(page, clip, other_clip):
    upload(page, clip)
    page.locator("#player .screen").evaluate(
        """async (screen, [bytes, name]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "video/mp4" }));
            screen.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }""",
        [list(other_clip.read_bytes()), other_clip.name],
    )
    expect(page.locator("#player .facts")).to_contain_text(other_clip.name)


def test_files_that_browsers_cannot_play_are_said_so_and_answered(page, tmp_path):
    path = clips.write_clip(tmp_path / "old.avi", 24, 12, size=(96, 160), codec="mpeg2video")
    upload(page, path)
    expect(page.locator("#player .facts")).to_contain_text("mpeg2video")
    expect(page.locator("#player .unplayable")).to_contain_text("cannot play the file")
    assert ask(page, "What is it?").startswith("A red circle")
