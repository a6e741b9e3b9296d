"""Two runs beside each other, and how one was made: the views in a browser."""

from __future__ import annotations

import numpy as np
import pytest
from steps import serious
from test_views import GRIDS, noisy
from view_steps import HOSTILE, drag, texts_of, with_module

from vl3.pipeline import to_patches
from vl3.values import Clip, Grid, Ledger, PromptSegment, Reply
from vl3.vision.prune import keep_all, prune
from vl3.viz import compare, run
from vl3.viz.compare import Side

pytest_plugins = ["page_fixtures", "view_fixtures"]

READOUT = ".compare .readout"
LANDSCAPE = GRIDS["landscape"]


def side(clip: Clip, grid: Grid, threshold: float | None, text="Red.", name="") -> Side:
    keep = (
        keep_all([grid])
        if threshold is None
        else prune(to_patches([clip], [grid]), threshold=threshold)
    )
    ledger = Ledger(
        frames=grid.frames,
        visual_tokens=grid.num_tokens,
        kept_tokens=int(keep.keep_M.sum()),
        new_tokens=2,
        prefill_s=0.4 if threshold is None else 0.1,
        first_token_s=0.5,
        total_s=0.75,
        peak_memory_bytes=2_000_000_000,
    )
    reply = Reply(text=text, token_ids=(1, 2), prompt="", settings={}, ledger=ledger)
    name = name or ("Pruning off" if threshold is None else f"Pruning at {threshold:g}")
    return Side(name=name, reply=reply, clips=(clip,), keeps=(keep,))


def two(grid: Grid = LANDSCAPE, texts=("Red.", "Blue."), source="a clip", **options) -> dict:
    clip = noisy(grid, source=source)
    return compare.data(
        *(side(clip, grid, at, text) for at, text in zip((None, 2.0), texts)),
        "What moves?",
        **options,
    )


def details(text="Time 0.0s:", name="Settings", note="Memory was short.") -> dict:
    reply = Reply(
        text="Red.",
        token_ids=(1, 2),
        prompt=f"{text}<image>",
        settings={"temperature": 0.0},
        ledger=Ledger(
            decode_s=1.0,
            encode_s=2.0,
            prune_s=0.002,
            prefill_s=0.5,
            first_token_s=3.6,
            total_s=4.0,
            new_tokens=2,
            prompt_tokens=20,
            kept_tokens=12,
        ),
        notes=(note,),
    )
    pieces = [
        PromptSegment(kind="special", text="<|im_start|>", tokens=1),
        *(
            piece
            for frame in range(3)
            for piece in (
                PromptSegment(kind="text", text=text, tokens=4),
                PromptSegment(
                    kind="slots", text="", tokens=1 + frame, clip=0, frame=frame, time_s=frame
                ),
            )
        ),
    ]
    return run.data(
        reply, pieces, rows=[("Frames", "3")], blocks=[{"title": name, "text": f"{text}\n  1"}]
    )


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


def pixel(page, number: int, x: float, y: float) -> list[int]:
    return (
        page.locator(".compare canvas.frame")
        .nth(number)
        .evaluate(
            "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData("
            "Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data].slice(0, 3)",
            [x, y],
        )
    )


@pytest.mark.parametrize(("rows", "cols"), [(6, 10), (10, 4), (2, 2)])
def test_each_side_dims_what_its_run_removed_and_lights_what_it_kept(open_views, rows, cols):
    grid = Grid(frames=3, rows=rows, cols=cols, merge=2)
    frames = np.full((3, rows * 14, cols * 14, 3), 200, np.uint8)
    token = grid.tokens_per_frame - 1
    row, col = divmod(token, grid.token_cols)
    frames[1:, row * 28 : (row + 1) * 28, col * 28 : (col + 1) * 28] = 120
    clip = Clip(frames_TYX3=frames, times_s=(0.0, 1.0, 2.0), source="boxes")
    page = open_views(compare.data(side(clip, grid, None), side(clip, grid, 0.1)))
    drag(page, "Frame", 1)
    page.wait_for_timeout(150)
    for index in range(grid.tokens_per_frame):
        row, col = divmod(index, grid.token_cols)
        places = [
            ((col + share) / grid.token_cols, (row + 0.5) / grid.token_rows)
            for share in (0.25, 0.35, 0.45, 0.55, 0.65)
        ]
        level = 120 if index == token else 200
        for number, share in ((0, 1), (1, 1 if index == token else 0.28)):
            darkest = min(pixel(page, number, *place)[0] for place in places)  # between the lines
            assert darkest == pytest.approx(level * share, abs=4), (number, index)
    assert page.locator(READOUT).inner_text() == (
        f"Frame 2 of 3 · 0:01.0 · kept {grid.tokens_per_frame} in A, 1 in B, "
        f"of {grid.tokens_per_frame}"
    )


def test_one_slider_moves_both_sides_whatever_times_their_frames_have(open_views):
    many, few = Grid(frames=5, rows=4, cols=6, merge=2), Grid(frames=3, rows=2, cols=2, merge=2)
    dense, sparse = noisy(many), noisy(few, seed=1)  # every half second
    sparse = Clip(frames_TYX3=sparse.frames_TYX3, times_s=(0.0, 0.75, 1.5), source="few")
    data = compare.data(side(dense, many, None), side(sparse, few, None), frame=3)
    page = open_views(data)
    with_module(page)
    # moments 0, .5, .75, 1, 1.5, 2
    labels = page.locator(".compare canvas.frame")
    readout = page.locator(READOUT)
    assert readout.inner_text() == "Frame 5 of 6 · 0:01.5 · kept 6 of 6 in A, 1 of 1 in B"
    for moment, frames in enumerate([(1, 1), (2, 1), (2, 2), (3, 2), (4, 3), (5, 3)]):
        drag(page, "Frame", moment)
        for number, frame in enumerate(frames):
            assert f"frame {frame} of {(5, 3)[number]}" in labels.nth(number).get_attribute(
                "aria-label"
            )
    page.evaluate(
        """(data) => { window.told = [];
            const emit = (name, detail) => told.push([name, detail]);
            window.view = look.mount(document.getElementById("view-0"), data, emit); }""",
        data,
    )
    drag(page, "Frame", 2)
    drag(page, "Frame", 1)  # the first run's frame stays the same
    drag(page, "Frame", 5)
    assert page.evaluate("told") == [["frame", 1], ["frame", 4]]
    page.evaluate("view.update({ frame: 2 })")
    assert readout.inner_text().startswith("Frame 4 of 6 · 0:01.0")
    assert len(page.evaluate("told")) == 2  # who is told of a frame does not answer with it
    bars = page.locator(".compare canvas.bars")
    width = bars.nth(1).bounding_box()["width"]
    bars.nth(1).click(position={"x": width * 0.5, "y": 20})
    assert readout.inner_text().startswith("Frame 3 of 6 · 0:00.7")
    page.evaluate("view.destroy()")
    assert page.locator("#view-0").inner_html() == ""


def test_the_words_that_differ_are_underlined_and_the_costs_are_compared(open_views):
    page = open_views(two(texts=("A red circle moves.", "A blue circle moves.")))
    marked = page.locator(".compare mark")
    assert marked.all_inner_texts() == ["red", "blue"]
    assert "underline" in marked.first.evaluate("node => getComputedStyle(node).textDecoration")
    answers = page.locator(".answers .text").all_inner_texts()
    assert answers == ["A red circle moves.", "A blue circle moves."]
    assert "Underlined words are in one answer only." in page.locator(".compare").inner_text()
    rows = [spaced(row) for row in page.locator(".costs tbody tr").all_inner_texts()]
    kept = sum(two()["sides"][1]["media"][0]["kept"])
    ratio = f"{kept / LANDSCAPE.num_tokens:.2f} ×"
    assert f"Visual tokens kept\t{LANDSCAPE.num_tokens}\t{kept}\t{ratio}" in rows
    assert "Reading the prompt\t400 ms\t100 ms\t0.25 ×" in rows
    assert "Total\t750 ms\t750 ms\tsame" in rows
    assert "Peak memory\t2.00 GB\t2.00 GB\tsame" in rows
    assert "Encoding video\t0 ms\t0 ms\tsame" in rows


def test_equal_answers_empty_ones_and_images_say_so(open_views):
    image = GRIDS["image"]
    page = open_views(two(), two(image, texts=("", "")))
    first, second = page.locator(".compare").all()
    assert first.locator("mark").count() == 2
    assert "Both answers are the same, word for word." in second.inner_text()
    assert second.locator(".answers .text").all_inner_texts() == ["(no answer)", "(no answer)"]
    assert second.locator(".readout").inner_text() == "Image · kept 24 in A, 24 in B, of 24"
    assert second.locator("input, .bars").filter(visible=True).count() == 0


def test_several_clips_are_chosen_from(open_views):
    first, second = noisy(LANDSCAPE, source="one"), noisy(GRIDS["image"], source="two")
    sides = [side(first, LANDSCAPE, at) for at in (None, 2.0)]
    sides = [
        Side(
            name=each.name,
            reply=each.reply,
            clips=(first, second),
            keeps=(*each.keeps, keep_all([GRIDS["image"]])),
        )
        for each in sides
    ]
    page = open_views(compare.data(*sides))
    choice = page.get_by_label("Clip or image")
    assert choice.locator("option").all_inner_texts() == ["1: one", "2: two"]
    choice.select_option("1")
    assert page.locator(READOUT).inner_text().startswith("Image · kept 24")
    choice.select_option("0")
    drag(page, "Frame", 4)
    assert page.locator(READOUT).inner_text().startswith("Frame 5 of 9")


def test_keys_move_both_and_the_table_says_what_the_pictures_show(open_views):
    data = two()
    page = open_views(data)
    page.get_by_label("Frame", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press(".")
    assert page.locator(READOUT).inner_text().startswith("Frame 3 of 9")
    assert page.locator(".compare .spoken").inner_text() == page.locator(READOUT).inner_text()
    page.keyboard.press(",")
    page.get_by_text("Show kept patches as table").press("Enter")
    cells = texts_of(page.locator(".compare details tbody tr").nth(4))
    kept = [str(one["media"][0]["kept"][4]) for one in data["sides"]]
    assert cells == ["5", "0:02.0", *kept]
    assert page.locator(READOUT).inner_text().startswith("Frame 2 of 9")


def test_run_details_name_every_part_and_show_slots_between_the_words(open_views):
    page = open_views(details())
    parts = [spaced(row).split("\n") for row in page.locator(".parts li").all_inner_texts()]
    assert parts == [
        ["Reading frames", "1.00 s", "25 %"],
        ["Encoding video", "2.00 s", "50 %"],
        ["Removing repeated patches", "2 ms", "under 1 %"],
        ["Reading the prompt", "500 ms", "13 %"],
        ["Answering", "400 ms", "10 %"],
        ["Rest", "98 ms", "2 %"],
    ]
    widths = page.locator(".stages i").evaluate_all(
        "nodes => nodes.map((node) => node.getBoundingClientRect().width)"
    )
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.03)
    assert sum(widths) == pytest.approx(page.locator(".stages").bounding_box()["width"], abs=12)
    assert "Encoding video 2.00 s, 50 %" in spaced(
        page.locator(".stages").get_attribute("aria-label")
    )
    prompt = page.locator(".prompt").inner_text()
    assert spaced(prompt) == (
        "<|im_start|>Time 0.0s:1 visual tokenTime 0.0s:2 visual tokensTime 0.0s:3 visual tokens"
    )
    assert page.locator(".prompt .special").all_inner_texts() == ["<|im_start|>"]
    assert "the seed has no part in it" in page.locator(".run").inner_text()
    page.get_by_text("Show as table").click()
    page.locator(".run details tbody tr").first.wait_for()
    assert ["Frames", "3"] in [
        row.split("\t") for row in page.locator(".run details tbody tr").all_inner_texts()
    ]


def test_a_slot_of_the_prompt_is_a_way_to_its_frame(open_views):
    data = details()
    page = open_views(data)
    assert page.locator("button.chip").count() == 0  # nobody listens on the one-file page
    with_module(page)
    page.evaluate(
        """(data) => { window.told = [];
            const emit = (name, detail) => told.push([name, detail]);
            window.view = look.mount(document.getElementById("view-0"), data, emit); }""",
        data,
    )
    page.locator(".chip").nth(1).click()
    assert page.evaluate("told") == [["frame", 1]]
    current = page.locator(".chip[aria-current]")
    assert current.get_attribute("title") == "Clip 1, frame 2, 0:01.0"
    page.evaluate("view.update({ frame: 2 })")
    assert current.get_attribute("title") == "Clip 1, frame 3, 0:02.0"
    assert len(page.evaluate("told")) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_targets_are_large(open_views, scheme):
    page = open_views(two(), details(), scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    page.wait_for_timeout(200)
    assert serious(page) == []
    targets = page.locator(".vl3-look :is(button, select, input[type=range], summary)").all()
    assert len(targets) >= 6
    for target in targets:
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 24, target.evaluate("node => node.outerHTML")
    for canvas in page.locator(".vl3-look canvas").all():
        assert canvas.get_attribute("role") == "img"
        assert canvas.get_attribute("aria-label")


@pytest.mark.parametrize("grid", ["landscape", "portrait"])
def test_a_phone_shows_both_sides_without_sideways_scrolling(open_views, grid):
    long = "a_very_long_word_without_any_space_" * 6
    page = open_views(two(GRIDS[grid], texts=(long, "Red.")), details(), width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    first, second = (page.locator(".compare canvas.frame").nth(n).bounding_box() for n in (0, 1))
    assert first["y"] == second["y"]
    shape = GRIDS[grid]
    assert first["height"] / first["width"] == pytest.approx(shape.rows / shape.cols, rel=0.03)


@pytest.mark.parametrize("text", HOSTILE)
def test_words_of_people_files_and_models_stay_text(open_views, text):
    data = two(texts=(text, f"{text} {text}"), source=text)
    data["question"] = data["sides"][0]["name"] = text
    page = open_views(data, details(text=text, name=text, note=text), title=text)
    page.wait_for_timeout(150)
    assert page.evaluate("[window.p, window.pwnd]") == [None, None]
    assert page.locator("main :is(img, a)").count() == 0
    assert page.locator(".asked").inner_text() == text
    assert page.locator(".answers .text").first.inner_text() == text
    assert text in page.locator(".prompt").inner_text()
    assert text in page.locator(".run pre").inner_text()
    assert text in page.locator(".compare canvas.frame").first.get_attribute("aria-label")
