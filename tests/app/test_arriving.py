"""A file on its way: what is asked meanwhile, what is dropped or pasted, what cannot be read."""

from __future__ import annotations

import re
import threading

import clips
import pytest
from PIL import Image
from steps import answer, ask, expect, toast, type_and_send, upload

pytest_plugins = ["page_fixtures"]

UPLOAD = re.compile(r"/upload\?")
# Whether the browser was kept from doing what it does by itself: from leaving the page.
DROP = """async ([at, files]) => {
    const data = new DataTransfer();
    for (const [bytes, name, type] of files) {
        data.items.add(new File([new Uint8Array(bytes)], name, { type }));
    }
    if (!files.length) data.setData("text/uri-list", "http://127.0.0.1/elsewhere");
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    return ["dragenter", "dragover", "drop"].map((kind) =>
        !document.querySelector(at).dispatchEvent(new DragEvent(kind, options)));
}"""


def slow(page) -> list:
    """Uploads wait from now on, until one of the list goes on."""
    held = []
    page.route(UPLOAD, lambda route: held.append(route))
    return held


def file_of(path, kind="video/mp4") -> list:
    return [list(path.read_bytes()), path.name, kind]


def choose(page, path) -> None:
    page.locator("#drop input[type=file]").set_input_files(str(path))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), "teal").save(path)
    return path


def test_a_question_waits_for_the_upload_and_goes_to_the_new_file(page, clip, other_clip):
    upload(page, clip)
    uploads = slow(page)
    choose(page, other_clip)
    expect(page.locator("#held")).to_contain_text(f"Uploading {other_clip.name}.")
    type_and_send(page, "Which file is this?")
    expect(page.locator("#held")).to_contain_text(f"Your question waits for {other_clip.name}")
    page.wait_for_timeout(300)
    expect(page.locator("#chat .user-row")).to_have_count(0)
    uploads.pop().continue_()
    answer(page)
    expect(page.locator("#chat .caption")).to_contain_text([other_clip.name])
    expect(page.locator("#held")).to_be_hidden()
    expect(page.locator("#ask textarea")).to_have_value("")


@pytest.mark.slow
def test_a_question_can_stop_waiting_and_the_button_waits_as_enter_does(page, clip, other_clip):
    upload(page, clip)
    uploads = slow(page)
    choose(page, other_clip)
    page.locator("#ask textarea").fill("Wait?")
    page.locator("#ask .submit-button").click()
    page.get_by_role("button", name="Do not send").click()
    uploads.pop().continue_()
    expect(page.locator("#player .facts")).to_contain_text(other_clip.name)
    page.wait_for_timeout(400)
    expect(page.locator("#chat .user-row")).to_have_count(0)
    expect(page.locator("#ask textarea")).to_have_value("Wait?")


@pytest.mark.slow
def test_a_question_about_a_file_that_cannot_be_read_is_not_sent(page, clip, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    upload(page, clip)
    uploads = slow(page)
    choose(page, broken)
    type_and_send(page, "And this?")
    expect(page.locator("#held")).to_contain_text("waits for broken.png")
    uploads.pop().continue_()
    assert "broken.png is not" in toast(page)
    expect(page.locator("#held")).to_contain_text("was not sent")
    expect(page.locator("#ask textarea")).to_have_value("And this?")
    expect(page.locator("#chat .user-row")).to_have_count(0)


def test_a_question_waits_for_what_is_attached_to_it(page, clip, picture):
    upload(page, clip)
    uploads = slow(page)
    page.locator("#ask input[type=file]").set_input_files(str(picture))
    page.wait_for_timeout(200)
    type_and_send(page, "Both?")
    expect(page.locator("#held")).to_contain_text("Your question waits")
    uploads.pop().continue_()
    answer(page)
    expect(page.locator("#chat .caption")).to_contain_text([clip.name, picture.name])


@pytest.mark.slow
def test_of_two_files_chosen_at_once_the_later_one_counts(page, clip, other_clip):
    upload(page, clip)
    uploads = slow(page)
    choose(page, clip)
    page.evaluate(DROP, ["#chat", [file_of(other_clip)]])
    page.wait_for_timeout(300)
    expect(page.locator("#held")).to_contain_text(f"{other_clip.name} comes after")
    type_and_send(page, "Which?")
    for _ in range(2):
        while not uploads:
            page.wait_for_timeout(50)
        uploads.pop().continue_()
    expect(page.locator("#player .facts")).to_contain_text(other_clip.name)
    answer(page)
    expect(page.locator("#chat .caption")).to_contain_text([other_clip.name])


@pytest.mark.slow
def test_a_file_dropped_anywhere_is_taken_and_nothing_leaves_the_page(page, clip, other_clip):
    assert page.evaluate(DROP, ["#chat", [file_of(clip)]]) == [True] * 3
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    for at, path in (("#header h1", other_clip), ("#inspect", clip), ("#player video", other_clip)):
        assert page.evaluate(DROP, [at, [file_of(path)]]) == [True] * 3
        expect(page.locator("#player .facts")).to_contain_text(path.name)
        expect(page.locator("#vl3-drop")).to_have_count(0)
    assert page.evaluate(DROP, ["#chat", []]) == [True] * 3, "a link is no file"
    page.evaluate(DROP.replace('"dragover", "drop"', '"dragover"'), ["#chat", [file_of(clip)]])
    expect(page.locator("#vl3-drop")).to_have_text("Drop the file anywhere on the page")
    expect(page.locator("#vl3-drop")).to_have_count(0)  # where the drag has left the window


def test_several_dropped_files_are_attached_to_the_question(page, clip, other_clip, picture):
    files = [file_of(clip), file_of(other_clip), file_of(picture, "image/png"), file_of(clip)]
    page.evaluate(DROP, ["#chat", files])
    expect(page.locator("#held")).to_contain_text("4 files are attached to the question.")
    expect(page.locator("#ask .thumbnail-item")).to_have_count(4)
    ask(page, "Compare them.")
    expect(page.locator("#chat .caption")).to_contain_text(
        [clip.name, other_clip.name, picture.name]
    )


def test_a_pasted_picture_is_attached_wherever_the_focus_is(page, picture):
    for number, at in enumerate(("#ask textarea", "body"), 1):
        page.evaluate(
            """([at, bytes]) => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "p.png", { type: "image/png" }));
                document.querySelector(at).dispatchEvent(
                    new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
            }""",
            [at, list(picture.read_bytes())],
        )
        expect(page.locator("#ask .thumbnail-item")).to_have_count(number)


def test_what_fails_for_an_unknown_reason_is_said_in_a_sentence(page, clip, script):
    script.plan_raises = KeyError("/secret/path")
    choose(page, clip)
    text = toast(page)
    assert "This failed for a reason that the page does not know" in text
    assert "secret" not in page.locator("body").inner_text()
    script.plan_raises = None
    upload(page, clip)


def test_a_file_of_a_kind_that_the_browser_does_not_know_reaches_the_reader(page, tmp_path):
    photo = tmp_path / "photo.heic"
    photo.write_bytes(b"no photo")
    choose(page, photo)
    text = toast(page)
    assert "Cannot read this file" in text
    assert "photo.heic" in text


def test_a_damaged_picture_is_said_in_a_sentence(page, picture, tmp_path):
    Image.effect_noise((64, 48), 80).save(picture)
    damaged = tmp_path / "damaged.png"
    raw = bytearray(picture.read_bytes())
    raw[60:200] = bytes(140)
    damaged.write_bytes(raw)
    choose(page, damaged)
    assert len(toast(page).split()) > 8


@pytest.mark.slow
def test_a_file_that_is_gone_is_not_called_unplayable(browser, server, tmp_path):
    context = browser.new_context()  # whose console may say that the file is not there
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_function("sessionStorage.getItem('vl3-run')")
    upload(page, clips.write_clip(tmp_path / "gone.mp4", 12, 12, size=(96, 160)))
    ask(page, "What?")
    (path,) = server.controller.uploads.folder.rglob("gone.mp4")
    path.unlink()
    page.reload()
    expect(page.locator("#player .unplayable")).to_contain_text("is not on the server any more")
    type_and_send(page, "And now?")
    assert "gone.mp4" in toast(page)
    context.close()


def test_of_two_uploads_the_later_one_counts_whichever_is_read_sooner(controller, clip, other_clip):
    from test_controller import uploaded

    visitor = controller.visitors.get("one")
    first, reading, go_on = (
        uploaded(controller, visitor, clip),
        threading.Event(),
        threading.Event(),
    )
    attach = controller.uploads.attach

    def slowly(path):
        if path == str(first):
            reading.set()
            assert go_on.wait(5)
        return attach(path)

    controller.uploads.attach = slowly
    earlier = threading.Thread(target=controller.choose_upload, args=(visitor, str(first)))
    earlier.start()
    assert reading.wait(5)
    uploaded(controller, visitor, other_clip)
    go_on.set()
    earlier.join(5)
    assert visitor.current.name == other_clip.name
