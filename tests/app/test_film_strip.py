"""The film strip and the current frame: which moments it shows, and what was kept of them."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from clips import write_clip
from hypothesis import given
from hypothesis import strategies as st
from steps import ask, expect, serious, upload
from test_view_models import ordinary, plan, reply

from vl3.values import Grid, Patches, VisualContext
from vl3.vision import patchify, prune
from vl3.webapp import film_strip, text_format, timestamps
from vl3.webapp.conversation import Attachment, Turn, seen_in

pytest_plugins = ["page_fixtures"]


def pruned_clip(frames: int) -> tuple[VisualContext, np.ndarray]:
    """What the model's own pruner leaves of random frames, and its mask by frame."""
    random = np.random.default_rng(frames)
    pictures = random.integers(0, 255, (frames, 56, 84, 3), dtype=np.uint8)
    for number in range(1, frames):
        pictures[number, : random.integers(0, 57)] = pictures[number - 1, :1]
    grid = Grid(frames=frames, rows=4, cols=6, merge=2)
    keep = prune(Patches(pixels_NP=torch.as_tensor(patchify(pictures, grid)), grids=(grid,)))
    seen = VisualContext(
        times_s=tuple(float(number) for number in range(frames)),
        tokens_per_step=grid.tokens_per_frame,
        kept_per_step=tuple(keep.kept_per_frame[0]),
    )
    return seen, keep.keep_M.numpy().reshape(frames, -1)


# moments, shares, words


@given(st.lists(st.floats(0.04, 100), min_size=1, max_size=200))
def test_every_frame_belongs_to_one_cell(steps):
    times_s = np.cumsum(steps).tolist()
    spans = film_strip.spans(times_s)
    assert len(spans) == len(film_strip.firsts(len(times_s))) == min(len(times_s), 16)
    assert (spans[0][0], spans[0][1]) == (times_s[0], times_s[0])
    assert all(start <= time_s < end for start, time_s, end in spans)
    assert all(one[2] == other[0] for one, other in pairwise(spans))
    inside = [sum(start <= time_s < end for start, _, end in spans) for time_s in times_s]
    assert inside == [1] * len(times_s)


@pytest.mark.parametrize("frames", [1, 5, 16, 17, 40])
def test_shares_are_those_of_the_models_mask(frames):
    seen, keep_TM = pruned_clip(frames)
    starts = film_strip.firsts(frames)
    ends = [*starts[1:], frames]
    means = [keep_TM[a:b].mean() for a, b in zip(starts, ends, strict=True)]
    assert film_strip.shares(seen) == pytest.approx(means)
    assert seen.kept_tokens == keep_TM.sum()


def test_labels_never_repeat_where_times_do_not():
    assert film_strip.labels([0.0, 1.0, 62.0]) == ["0:00", "0:01", "1:02"]
    assert film_strip.labels([0.0, 0.96, 1.96]) == ["0:00.0", "0:00.9", "0:01.9"]
    assert film_strip.labels([0.0, 0.04, 59.98]) == ["0:00.00", "0:00.04", "0:59.98"]


def test_cells_are_low_and_pictures_fit():
    assert film_strip.cell_size(480, 854) == (160, 90)
    assert film_strip.cell_size(200, 800) == (160, 40)
    for height, width in ((1080, 1920), (1920, 1080), (300, 300)):
        inner = film_strip.fitted(height, width, film_strip.cell_size(height, width))
        assert inner[0] <= 90
        assert inner[1] <= 160


def test_a_missing_picture_leaves_its_cell_empty():
    chosen = film_strip.spans([0.0, 1.0, 2.0])
    white = np.full((2, 40, 80, 3), 255, np.uint8)
    image, times_s = film_strip.draw(white, [0.0, 2.0], chosen, (160, 90))
    assert times_s == (0.0, 1.0, 2.0)
    middles = [image.getpixel((160 * number + 80, 45)) for number in range(3)]
    assert middles == [(255, 255, 255), film_strip.EMPTY, (255, 255, 255)]


def test_bars_come_with_an_answer_about_the_same_frames():
    whole = plan(frames=4)
    seen = VisualContext(times_s=whole.times_s, tokens_per_step=144, kept_per_step=(144, 72, 0, 36))
    assert [cell["share"] for cell in film_strip.value(whole, None, "", None)["cells"]] == [
        None
    ] * 4
    known = film_strip.value(whole, None, "", seen)
    assert [cell["share"] for cell in known["cells"]] == [1, 0.5, 0, 0.25]
    other = film_strip.value(plan(frames=5), None, "", seen)
    assert other["kept"] is None
    assert (
        ordinary(text_format.budget(whole, text_format.Limits(9999), seen).pruned)
        == "after pruning: 252, 56 % removed"
    )
    full = VisualContext(times_s=whole.times_s, tokens_per_step=144, kept_per_step=(144,) * 4)
    assert text_format.after_pruning(full) == ""


def test_what_was_seen_is_found_by_how_it_was_read():
    first = Attachment(path="/a", name="a", key="a", fps=1.0)
    second = Attachment(path="/b", name="b", key="b", fps=1.0)
    one, two, new = (
        VisualContext(times_s=(0.0,), tokens_per_step=8, kept_per_step=(kept,))
        for kept in (1, 2, 3)
    )
    turns = [
        Turn(
            question="?", attachments=(first,), answer="x", status="done", reply=reply(seen=(one,))
        ),
        Turn(
            question="?",
            attachments=(second,),
            answer="x",
            status="done",
            reply=reply(seen=(new, two)),
        ),
    ]
    assert seen_in(turns, first) == new
    assert seen_in(turns, second) == two
    assert seen_in(turns, Attachment(path="/a", name="a", key="a", fps=2.0)) is None
    stopped = Turn(question="?", attachments=(first,), fresh=True, status="stopped", reply=reply())
    assert seen_in([*turns, stopped], first) == new


# in the browser


def time_of(page) -> float:
    return page.locator("#player video").evaluate("video => video.currentTime")


def is_at(page, time_s: float) -> None:
    page.wait_for_function(
        "time => Math.abs(document.querySelector('#player video').currentTime - time) < 0.02",
        arg=time_s,
    )


def with_pictures(page) -> None:
    """Waits until the pictures are drawn, not only the empty cells."""
    page.wait_for_function(
        """() => [...document.querySelectorAll('#player .cells canvas')].every(canvas =>
            canvas.getContext('2d').getImageData(80, canvas.height / 2, 1, 1).data[3] > 0)"""
    )


def test_the_strip_seeks_and_shows_what_was_kept(page, clip, script):
    upload(page, clip)
    cells = page.locator("#player .cells button")
    expect(cells).to_have_count(4)
    with_pictures(page)
    line = page.locator("#player .strip p")
    expect(line).to_have_text("Frame 1 of 4 · 0:00")
    page.get_by_role("button", name="Go to 0:02", exact=True).click()
    is_at(page, 2.0)
    expect(line).to_have_text("Frame 3 of 4 · 0:02")
    expect(cells.nth(2)).to_have_attribute("aria-current", "true")
    expect(page.locator("#player [aria-current=true]")).to_have_count(1)
    expect(page.locator("#player .kept b")).to_have_count(0)
    ask(page, "What moves?")
    expect(line).to_have_text("Frame 3 of 4 · 0:02 · 12 of 24 tokens kept")
    expect(page.locator("#budget p")).to_contain_text(re.compile(r"\(after pruning: 60, 38.% rem"))
    widths = page.locator("#player .kept b").evaluate_all("all => all.map(b => b.style.width)")
    assert widths == ["100%", "50%", "50%", "50%"]
    # Other frames were not seen by the model yet.
    page.get_by_label("Frames per s", exact=True).fill("2")
    expect(cells).to_have_count(8)
    expect(page.locator("#player .kept b")).to_have_count(0)
    with_pictures(page)


def test_keys_go_to_the_frames_that_the_model_sees(page, tmp_path):
    # Shown at 0, 0.4, 1.1, 1.5, ...: not at whole seconds.
    path = write_clip(
        tmp_path / "uneven.mp4",
        12,
        10,
        times=[0, 4, 11, 15, 19, 23, 27, 31, 35, 38, 41, 44],
        size=(96, 160),
    )
    upload(page, path)
    page.locator("#header h1").click()
    page.wait_for_function("window.vl3.frame.index === 0")
    page.evaluate("window.heard = []; window.vl3.frame.subscribe((index) => heard.push(index)); 0")
    for time_s in (0.4, 1.9, 2.7, 3.8):  # what is shown at 1, 2, 3 and 4 s
        page.keyboard.press(".")
        is_at(page, time_s)
    page.keyboard.press(".")
    page.keyboard.press(",")
    is_at(page, 2.7)
    assert page.evaluate("heard") == [0, 1, 2, 3, 4, 3]
    page.locator("#player video").evaluate("video => { video.currentTime = 2.2; }")
    page.wait_for_function("window.vl3.frame.index === 2")
    page.keyboard.press(".")
    is_at(page, 2.7)


def test_g_goes_to_a_time(page, clip):
    page.locator("#header h1").click()
    page.keyboard.press("g")
    expect(page.get_by_role("dialog")).to_have_count(0)
    upload(page, clip)
    with_pictures(page)  # what an upload draws may take the focus
    page.locator("#header h1").click()
    page.keyboard.press("g")
    dialog = page.get_by_role("dialog", name="Go to time")
    expect(dialog.get_by_label("Time", exact=True)).to_be_focused()
    page.keyboard.type("soon.")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This is not a time. Write 12, 0:12 or 1:02:03.")
    assert serious(page) == []
    dialog.get_by_label("Time", exact=True).fill("0:03")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    is_at(page, 3.0)
    page.keyboard.press("g")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("/")
    expect(page.locator("#ask textarea")).to_be_focused()
    page.keyboard.type("g . ,")
    expect(page.locator("#ask textarea")).to_have_value("g . ,")
    assert time_of(page) == pytest.approx(3.0, abs=0.02)


def test_typed_times_are_read_as_the_fields_read_them(page):
    texts = [
        "12",
        " 12.5 ",
        "12 s",
        "0:12",
        "61:05",
        "1:02:03",
        "1:02:03.25",
        "",
        "1:75",
        "-3",
        "a",
        "1:2",
        "12:",
        "1e3",
    ]
    read = page.evaluate("texts => texts.map(window.vl3.readTime)", texts)
    for text, time_s in zip(texts, read, strict=True):
        try:
            expected = timestamps.parse(text, "Time")
        except ValueError:
            expected = None
        assert time_s == expected, text


@pytest.mark.slow
def test_pictures_have_a_strip_of_their_own_or_none(
    new_page, server, script, clip, other_clip, tmp_path
):
    first, second = new_page(server, apart=True), new_page(server, apart=True)
    asked = []
    second.on("request", lambda request: asked.append(request.url))
    upload(first, clip)
    with_pictures(first)
    expect(second.locator("#player .cells")).to_have_count(0)
    upload(second, other_clip)
    with_pictures(second)
    mine = {
        path.rpartition("/")[2]
        for visitor in server.controller.visitors._visitors.values()
        for path in visitor.paths()
        if visitor.current and visitor.current.name == clip.name
    }
    assert any(name.endswith(".jpg") for name in mine)
    assert not any(url.rpartition("/")[2] in mine for url in asked)
    expect(second.locator("#player .cells button")).to_have_count(2)

    from PIL import Image

    still = tmp_path / "still.png"
    Image.new("RGB", (160, 96), "teal").save(still)
    upload(second, still)
    expect(second.locator("#player img")).to_be_visible()
    expect(second.locator("#player .cells")).to_have_count(0)
    assert second.evaluate("window.vl3.frame.index") == -1
