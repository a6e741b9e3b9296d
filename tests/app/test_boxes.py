"""Boxes in answers: found in text, drawn over the picture. And asking about a moment."""

from __future__ import annotations

from dataclasses import replace

import clips
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import answer, ask, expect, type_and_send, upload

from vl3.webapp import box_links, chat_rows
from vl3.webapp.box_links import Box

pytest_plugins = ["page_fixtures"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A star is at [[100, 200, 300, 400]].", [Box(100, 200, 300, 400)]),
        ("[[1,2,30,40],\n [5,6,70,80]]", [Box(1, 2, 30, 40), Box(5, 6, 70, 80)]),
        ("At 0:12 it is at [[1,2,30,40]].", [Box(1, 2, 30, 40, 12.0)]),
        ("[[1,2,30,40]]. At 0:12 it goes.", [Box(1, 2, 30, 40, 12.0)]),
        (
            "[[1,2,30,40]] at 0:12 and [[5,6,70,80]] (Time 20.0s)",
            [Box(1, 2, 30, 40, 12.0), Box(5, 6, 70, 80, 20.0)],
        ),
        ("At 0:12 [[1,2,30,40]]. At 0:15 it goes.", [Box(1, 2, 30, 40, 12.0)]),
        ("[[-5, 0, 99999, 1001]]", [Box(0, 0, 1000, 1000)]),
        ("[[5,5,5,9]] and [[9,9,1,1]] have no area", []),
        ("a[[1,2,30,40]] and f()[[1,2,30,40]] and x[0][[1,2,30,40]]", []),
        ("[[1,2,30,40]][0] and [[1,2,30,40]](x)", []),
        ("`x = [[1,2,30,40]]`\n```\n[[1,2,30,40]]\n```", []),
        ("[1,2,30,40] [[1,2,30]] [[1,2,30,40,50]] [[1.5,2,30,40]] [[[1,2,30,40]]]", []),
        ("[[1,2,30,40],[1,2]] [[1,2,30,40] [[x,2,30,40]] [[1e3,2,30,40]] [[٣,2,30,40]]", []),
        ("", []),
    ],
)
def test_boxes_in_text(text, found):
    assert box_links.find(text) == (found, len(found))


def test_ten_thousand_boxes_are_counted_and_a_hundred_linked():
    text = "At 0:01 " + "[[1,2,30,40]] " * 10_000
    found, total = box_links.find(text)
    assert (len(found), total) == (100, 10_000)
    link = box_links.link(text, "aa11", 4.0)
    assert link.startswith("[Show boxes](#boxes=1,2,30,40@1;1,2,30,40@1;")
    assert link.endswith("&n=10000&v=aa11)")
    assert len(link) < 2000
    assert box_links.link("none", "aa11") == ""


@given(st.text(alphabet="[]0123456789,- \n`a:()s@&;", max_size=80))
def test_any_text_gives_boxes_on_the_scale_and_a_plain_link(text):
    for box in box_links.find(text)[0]:
        assert 0 <= box.left < box.right <= 1000
        assert 0 <= box.top < box.bottom <= 1000
    link = box_links.link(text, "aa11")
    assert not link or set(link[link.index("(") :]) <= set("()#boxesnv=0123456789,;@.&a")


def test_only_a_finished_answer_offers_its_boxes():
    from test_view_models import attachment, done

    video, image = attachment(), attachment("a.png", kind="image")
    turn = done(text="At 0:12 [[1,2,30,40]].", attachments=(video, image))
    (_, shown) = chat_rows.rows([turn])
    assert "[Show box](#boxes=1,2,30,40@12&n=1&v=aa11)" in shown["content"]
    (_, shown) = chat_rows.rows([replace(turn, status="working", reply=None)])
    assert "#boxes" not in shown["content"]


@pytest.mark.parametrize(
    ("question", "answer", "asked_s", "shown_s"),
    [
        ("Where is it?", "At 0:12 [[1,2,30,40]].", 5.0, 12),
        ("At 3 seconds: where is it?", "[[1,2,30,40]]", 5.0, 3),
        ("At 3.4 seconds: where is it?", "[[1,2,30,40]]", None, 3),
        ("Where is it in frame 8?", "[[1,2,30,40]]", 5.0, 7),
        ("Where is it in the first frame?", "[[1,2,30,40]]", 5.0, 0),
        ("Where is it in the last frame?", "[[1,2,30,40]]", 5.0, 63),
        ("Where is it in frame 900?", "[[1,2,30,40]]", 5.0, 5),
        ("Where is it?", "[[1,2,30,40]]", 5.2, 5),
        ("Where is it?", "[[1,2,30,40]]", None, None),
    ],
)
def test_a_box_belongs_to_the_frame_that_is_named_or_was_seen_by_who_asked(
    question, answer, asked_s, shown_s
):
    from test_view_models import attachment, done

    turn = done(question, answer, attachments=(attachment(),), asked_s=asked_s)
    content = chat_rows.rows([turn])[1]["content"]
    place = "1,2,30,40" if shown_s is None else f"1,2,30,40@{shown_s}"
    assert f"(#boxes={place}&n=1&v=aa11)" in content
    image = done(question, answer, attachments=(attachment("a.png", kind="image"),))
    assert chat_rows.rows([image])[1]["content"].count("@") == ("At" in answer)


# In the browser.

LINE = (255, 216, 77, 255)
# The pixels around a point, as the drawing may lie half a pixel aside.
PIXELS = """([x, y]) => {
    const canvas = document.querySelector('#player canvas.boxes');
    const ratio = canvas.width / canvas.clientWidth;
    const pen = canvas.getContext('2d');
    const at = [Math.round(x * ratio) - 1, Math.round(y * ratio) - 1];
    const bytes = pen.getImageData(...at, 3, 3).data;
    return [...Array(9).keys()].map((i) => [...bytes.slice(4 * i, 4 * i + 4)]);
}"""


def picture_in(page) -> tuple[float, float, float, float]:
    """Left, top, width and height of the picture on the canvas, worked out anew."""
    area = page.locator("#player video, #player img").bounding_box()
    canvas = page.locator("#player canvas.boxes").bounding_box()
    wide, high = page.locator("#player video, #player img").evaluate(
        "of => [of.videoWidth || of.naturalWidth, of.videoHeight || of.naturalHeight]"
    )
    scale = min(area["width"] / wide, area["height"] / high)
    left = area["x"] - canvas["x"] + (area["width"] - wide * scale) / 2
    top = area["y"] - canvas["y"] + (area["height"] - high * scale) / 2
    return left, top, wide * scale, high * scale


def assert_box(page, x0, y0, x1, y1) -> None:
    """Its four sides are drawn where they belong, and its middle is empty."""
    left, top, width, height = picture_in(page)
    x, y = lambda part: left + part / 1000 * width, lambda part: top + part / 1000 * height
    middle = x((x0 + x1) / 2), y((y0 + y1) / 2)
    sides = [(x(x0), middle[1]), (x(x1), middle[1]), (middle[0], y(y0)), (middle[0], y(y1))]
    for side in sides:
        near = page.evaluate(PIXELS, side)
        assert any(max(abs(a - b) for a, b in zip(pixel, LINE)) < 60 for pixel in near), side
    assert [pixel[3] for pixel in page.evaluate(PIXELS, middle)] == [0] * 9


def test_boxes_over_a_video(page, clip, script):
    script.answer = "At 0:02 a star [[200,300,700,800]]. At 0:03 another [[100,300,500,900]]."
    upload(page, clip)
    ask(page, "Where?")
    offer = page.get_by_role("link", name="Show boxes", exact=True)
    offer.click()
    line = page.locator("#player .told p")
    expect(line).to_have_text(
        "1 of 2 boxes shown · 1 at 0:02: 20–\u206070 % across, 30–\u206080 % down · more at 0:03."
    )
    for width in (1280, 700, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        assert_box(page, 200, 300, 700, 800)
    page.locator("#player video").evaluate("video => { video.currentTime = 3; }")
    expect(line).to_contain_text("2 at 0:03")
    assert_box(page, 100, 300, 500, 900)
    page.locator("#player video").evaluate("video => { video.currentTime = 0.5; }")
    expect(line).to_have_text("0 of 2 boxes shown · more at 0:02, 0:03.")
    page.get_by_role("button", name="Hide boxes").click()
    expect(page.locator("#player canvas.boxes")).to_have_count(0)
    expect(offer).to_be_focused()


@pytest.mark.slow
def test_a_box_is_shown_on_the_frame_asked_about_and_on_no_other(page, clip, script):
    script.answer = "[[200,300,700,800]]"
    upload(page, clip)
    video, line = page.locator("#player video"), page.locator("#player .told p")
    seek = "(video, time_s) => { video.currentTime = time_s; }"
    for number, (question, stands_s, shown_s) in enumerate(
        [("At 2 seconds: where?", 0.4, 2), ("Where in frame 4?", 0.4, 3), ("Where?", 1.2, 1)], 1
    ):
        video.evaluate(seek, stands_s)
        page.wait_for_function(
            "time => Math.abs(document.querySelector('#player video').currentTime - time) < 0.05",
            arg=stands_s,
        )
        ask(page, question, number)
        video.evaluate(seek, 0.4)
        page.locator("#chat .bot-row").last.get_by_role("link", name="Show box").click()
        expect(line).to_contain_text(f"1 of 1 box shown · 1 at 0:0{shown_s}:")
        assert abs(video.evaluate("video => video.currentTime") - shown_s) < 0.05
        assert_box(page, 200, 300, 700, 800)
    video.evaluate(seek, 1.3)
    expect(line).to_have_text("0 of 1 box shown · more at 0:01.")
    canvas = page.locator("#player canvas.boxes")
    drawn = "(of) => of.getContext('2d').getImageData(0, 0, of.width, of.height).data.some(Boolean)"
    assert not canvas.evaluate(drawn)
    page.get_by_role("button", name="Next", exact=True).click()
    expect(line).to_contain_text("1 of 1 box shown")
    assert canvas.evaluate(drawn)


def test_boxes_over_a_turned_video_an_image_and_one_that_was_replaced(page, clip, tmp_path, script):
    from PIL import Image

    turned = clips.write_clip(tmp_path / "turned.mp4", 24, 12, size=(96, 160), clockwise_deg=90)
    picture = tmp_path / "wide.png"
    Image.new("RGB", (400, 100), "teal").save(picture)
    script.answer = "[[200,300,700,800]]"
    for number, path in enumerate((turned, picture), 1):
        upload(page, path)
        ask(page, "Where?", number)
        page.locator("#chat .bot-row").last.get_by_role("link", name="Show box").click()
        expect(page.locator("#player .told p")).to_contain_text("1 of 1 box shown")
        assert_box(page, 200, 300, 700, 800)
    *_, width, height = picture_in(page)
    assert width > 3 * height
    upload(page, clip)
    expect(page.locator("#player canvas.boxes")).to_have_count(0)
    page.locator("#chat .bot-row").first.get_by_role("link", name="Show box").click()
    expect(page.locator("#player .facts")).to_contain_text("turned.mp4")
    page.wait_for_function("document.querySelector('#player video')?.readyState > 0")
    page.wait_for_timeout(100)
    assert_box(page, 200, 300, 700, 800)


def test_ten_thousand_boxes_do_not_hurt(page, clip, script):
    script.answer = "[[1,2,30,40]]\n" * 10_000
    script.word_s = 0
    upload(page, clip)
    type_and_send(page, "Where?")
    offer = page.get_by_role("link", name="Show boxes", exact=True)
    offer.click(timeout=30_000)  # 140 kB of text take the chat itself some seconds
    expect(page.locator("#player .told p")).to_contain_text("100 of 10000 boxes", timeout=1000)


def test_asking_about_the_moment_where_the_player_stands(page, clip, script):
    upload(page, clip)
    chip = page.locator("#moment button")
    expect(chip).to_have_count(0)
    video = page.locator("#player video")
    video.evaluate("video => { video.currentTime = 2.5; }")
    expect(chip).to_have_text("Ask at 0:02")
    box = page.locator("#ask textarea")
    box.fill("What is it?")
    chip.click()
    expect(box).to_have_value("At 2.5 seconds: What is it?")
    expect(box).to_be_focused()
    video.evaluate("video => { video.currentTime = 3; }")
    expect(chip).to_have_text("Ask at 0:03")
    chip.click()
    expect(box).to_have_value("At 3 seconds: What is it?")
    box.press("Enter")
    answer(page)
    *_, last = [entry for entry in script.log if entry[0] == "answered"]
    assert last[2][-1]["content"][-1]["text"] == "At 3 seconds: What is it?"
    video.evaluate("video => video.play()")
    expect(chip).to_have_count(0)
