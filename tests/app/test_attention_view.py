"""The attention view in a browser: what is painted where, what is said, what is asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest
from joining import Joining
from steps import serious
from view_steps import HOSTILE, drag, pixel, texts_of, with_module

from vl3.interpret import Attention
from vl3.values import Clip, Grid, TokenGrid
from vl3.vision.token_map import token_layout
from vl3.viz import attention

pytest_plugins = ["page_fixtures", "view_fixtures"]

GREY = 128
VIEW, READOUT, NOTE, SAID = (f".attention {part}" for part in ("", ".readout", ".note", ".spoken"))
WORDS = ("A", " red", " square", " and", " a", " red", " cros", "s", ".")
LAYERS, HEADS, VISION = 3, 4, (2, 5)
GRIDS = {
    "landscape": Grid(frames=4, rows=6, cols=10, merge=2),
    "portrait": Grid(frames=3, rows=10, cols=4, merge=2),
    "odd": Grid(frames=2, rows=3, cols=7, merge=1),
    "image": Grid(frames=1, rows=5, cols=3, merge=1),
}


def grey(grid: Grid, source: str = "clip") -> Clip:
    shape = (grid.frames, grid.rows * 14, grid.cols * 14, 3)
    times_s = None if grid.frames == 1 else tuple(0.5 * index for index in range(grid.frames))
    return Clip(frames_TYX3=np.full(shape, GREY, np.uint8), times_s=times_s, source=source)


class Answer:
    """An invented answer about grey clips: looks of every source, each with maps of its own."""

    def __init__(
        self, *grids: Grid, keep=None, words=WORDS, sources=(), sinks=(), made=TokenGrid.of_cells
    ):
        self.clips = [grey(*pair) for pair in zip(grids, [*sources, *["clip"] * len(grids)])]
        total = sum(grid.num_tokens for grid in grids)
        self.keep = np.ones(total, bool) if keep is None else keep
        times = [clip.times_s for clip in self.clips]
        sizes = [clip.frames_TYX3.shape[1:3] for clip in self.clips]
        self.cells = token_layout([made(grid) for grid in grids], self.keep, times, sizes)
        self.words, self.sinks = words, list(sinks)
        self.rng = np.random.default_rng(1)

    def look(self, source, tokens, layers=None, heads=None, weight=None, share=None) -> Attention:
        """Random maps, or the weight given, of any shape that fits [I, H, Q, K]."""
        K, deep, wide = len(self.cells), layers or range(LAYERS), heads or range(HEADS)
        shape = (len(layers or [0]), len(heads or [0]), len(tokens), K)
        found = self.rng.random(shape) ** 4 / max(K, 1) if weight is None else weight
        found = np.broadcast_to(np.asarray(found, np.float32), shape)
        if share is None:
            share = self.rng.random((len(deep), len(wide), len(tokens)))
        is_sink = np.isin(np.arange(K), self.sinks)
        return Attention(
            source=source,
            layers=tuple(deep),
            heads=tuple(wide),
            tokens=tuple(tokens),
            words=tuple(self.words[token] for token in tokens) if source != "vision" else ("",),
            weight_IHQL=found,
            share_IHQ=share,
            slot_K=np.arange(K),
            sink_K=is_sink,
            cells=self.cells,
        )

    def data(self, weight=None, share=None, **options) -> dict:
        mean = self.look("language", range(len(self.words)), weight=weight, share=share)
        return attention.data(mean, self.clips, **{"vision": VISION, **options})


def hosted(page, data: dict) -> None:
    """The view again, with somebody who writes down what it emits: window.told, window.view."""
    with_module(page)
    page.evaluate(
        """(data) => { window.told = [];
            const emit = (name, detail) => told.push([name, detail]);
            window.view = look.mount(document.getElementById("view-0"), data, emit); }""",
        data,
    )
    page.wait_for_timeout(200)


def said(page, place: str = READOUT) -> str:
    return page.locator(place).inner_text().replace("\u00a0", " ")


def colour_in(page, box) -> list[int]:
    """The colour in the middle of a box, as shares x0, y0, x1, y1 of the frame."""
    x0, y0, x1, y1 = box
    return pixel(page, (x0 + x1) / 2, (y0 + y1) / 2)


def is_lit(colour) -> bool:
    """The yellow end of cividis over grey, and not its blue end, nor grey."""
    red, _, blue = colour
    return red > blue + 60


def boxes_of(answer: Answer, clip: int) -> np.ndarray:
    """Of the slots of a clip, in order: x0, y0, x1, y1 as shares of the frame."""
    height, width = answer.cells.frame_sizes[clip]
    return answer.cells.box_K4[answer.cells.clip_K == clip] / [width, height, width, height]


@pytest.mark.parametrize("name", GRIDS)
def test_one_patch_is_lit_in_its_box_and_no_other(open_views, name):
    """For patches of every frame: all pixels of the canvas that are lit are those of the box."""
    grid = GRIDS[name]
    rng = np.random.default_rng(len(name))
    keep = np.ones(grid.num_tokens, bool) if grid.frames == 1 else rng.random(grid.num_tokens) < 0.7
    words = (" w0", " w1", " w2")
    answer = Answer(grid, keep=keep, words=words)
    slots = rng.choice(len(answer.cells), len(words), replace=False)
    weight = np.full((len(words), len(answer.cells)), 1e-6)
    weight[np.arange(len(words)), slots] = 0.5
    page = open_views(answer.data(weight=weight, token=0))
    checked = 0
    for word, slot in enumerate(slots):
        page.locator(".token").nth(word).click()
        if grid.frames > 1:
            drag(page, "Frame", int(answer.cells.frame_K[slot]))
        page.wait_for_timeout(120)
        found = page.locator("canvas.frame").evaluate(
            """(canvas) => { const { width, height } = canvas;
                const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
                const box = [width, height, 0, 0]; let lit = 0;
                for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
                  const at = 4 * (y * width + x);
                  if (data[at] <= data[at + 2] + 60) continue;
                  lit++;
                  [box[0], box[1]] = [Math.min(box[0], x), Math.min(box[1], y)];
                  [box[2], box[3]] = [Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
                }
                return { lit, box, width, height }; }"""
        )
        shown = (found["width"], found["height"]) * 2
        expected = boxes_of(answer, 0)[slot] * shown
        assert found["box"] == pytest.approx(list(expected), abs=0.51), (word, slot)
        x0, y0, x1, y1 = expected
        assert found["lit"] == pytest.approx((x1 - x0) * (y1 - y0), rel=0.01)
        checked += 1
    assert checked == 3


def test_removed_patches_are_hatched_and_never_get_a_value(open_views):
    grid = GRIDS["landscape"]
    keep = np.random.default_rng(0).random(grid.num_tokens) < 0.5
    answer = Answer(grid, keep=keep)
    page = open_views(answer.data(weight=0.01, token=0))
    drag(page, "Opacity", 100)
    for frame in range(grid.frames):
        drag(page, "Frame", frame)
        page.wait_for_timeout(120)
        lines = page.locator("canvas.frame").evaluate(
            """(canvas, [rows, cols]) => Array.from({ length: rows * cols }, (_, token) => {
                const [wide, high] = [canvas.width / cols, canvas.height / rows];
                const x = Math.round((token % cols) * wide + wide / 6);
                const y = Math.round((Math.floor(token / cols) + 0.5) * high);
                return [...canvas.getContext("2d").getImageData(x, y, wide / 1.5, 1).data]; })""",
            [grid.token_rows, grid.token_cols],
        )
        for token, line in enumerate(lines):
            colours = np.reshape(line, (-1, 4))[:, :3]
            if keep[frame * grid.tokens_per_frame + token]:
                assert np.all(colours == (254, 232, 56))  # the top of cividis, flat
            else:
                assert np.all(colours == colours[:, :1])
                assert colours.min() == pytest.approx(0.28 * GREY, abs=3)
    removed = int((~keep[-grid.tokens_per_frame :]).sum())
    label = page.locator("canvas.frame").get_attribute("aria-label").replace("\u00a0", " ")
    assert f"{removed} patches of this frame were removed" in label
    page.locator(".attention summary").first.click()
    rows = texts_of(page.locator(".attention tbody tr").nth(3))
    assert rows[3:] == [str(grid.tokens_per_frame - removed), str(removed)]
    token = int(np.flatnonzero(~keep[-grid.tokens_per_frame :])[0])
    row, col = divmod(token, grid.token_cols)
    drag(page, "Patch row", row)
    drag(page, "Patch column", col)
    told = f"Row {row}, column {col} of frame 4 was removed by the pruner: no token could read it."
    assert told in said(page, VIEW)
    tints = page.locator(".token").evaluate_all(
        "nodes => nodes.map((node) => node.style.getPropertyValue('--tint'))"
    )
    assert set(tints) == {"0%"}


def test_repeated_words_are_two_and_frames_are_summed(open_views):
    """Two tokens "red" look at different frames; totals, readout and bars follow the number."""
    grid = GRIDS["landscape"]
    answer = Answer(grid)
    weight = np.zeros((len(WORDS), len(answer.cells)))
    weight[1, answer.cells.frame_K == 0] = 0.3 / grid.tokens_per_frame
    weight[5, answer.cells.frame_K == 2] = 0.6 / grid.tokens_per_frame
    page = open_views(answer.data(weight=weight, token=1))
    assert said(page) == (
        "Token 2 of 9, “red” · mean of layers · 30 % of its attention on the video, "
        "30 % on frame 1 of 4"
    )
    page.get_by_role("button", name="red").nth(1).click()
    assert said(page).startswith("Token 6 of 9, “red” · mean of layers · 60 % of its attention")
    assert said(page).endswith(", 0 % on frame 1 of 4")
    assert "strongest with 4 % in row 0, column 0 of frame 3 at 0:01.0" in said(page, SAID)
    bars = page.locator("canvas.totals")
    width = bars.bounding_box()["width"]
    bars.click(position={"x": width * 2.5 / 4, "y": 20})
    assert said(page).endswith(", 60 % on frame 3 of 4")
    page.locator(".token").nth(1).click()
    page.get_by_role("button", name="Strongest frame").click()
    assert said(page).endswith(", 30 % on frame 1 of 4")
    groups = page.locator(".word").evaluate_all("nodes => nodes.map((node) => node.textContent)")
    assert groups == ["A", "red", "square", "and", "a", "red", "cross."]


def test_hover_previews_a_click_locks_and_keys_step(open_views):
    page = open_views(Answer(GRIDS["landscape"]).data(token=0))
    tokens = page.locator(".token")
    tokens.nth(2).hover()
    assert said(page).startswith("Token 3 of 9, “square”")
    assert tokens.nth(0).get_attribute("aria-pressed") == "true"
    spoken = said(page, SAID)
    page.locator("h2").first.hover()
    assert said(page).startswith("Token 1 of 9")
    assert said(page, SAID) == spoken  # nothing is said of a preview
    tokens.nth(2).click()
    assert tokens.nth(2).get_attribute("aria-pressed") == "true"
    assert said(page, SAID).startswith("Token 3 of 9, “square”")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert said(page).startswith("Token 5 of 9, “a”")
    assert tokens.nth(4).evaluate("node => node === document.activeElement")
    page.keyboard.press("ArrowLeft")
    assert said(page).startswith("Token 4 of 9, “and”")
    page.keyboard.press(".")
    assert said(page).endswith("frame 2 of 4")
    page.get_by_label("Frame", exact=True).focus()
    page.keyboard.press("ArrowRight")  # a slider keeps its keys
    assert said(page).startswith("Token 4 of 9")
    assert said(page).endswith("frame 3 of 4")
    page.get_by_role("button", name="Play").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    assert said(page).startswith("Token 9 of 9, “.”")
    page.keyboard.press("Tab")  # one stop for all tokens
    assert tokens.nth(8).evaluate("node => node === document.activeElement")
    page.keyboard.press("Tab")
    assert not page.evaluate("document.activeElement.classList.contains('token')")


def test_playing_steps_through_the_answer_and_ends(open_views):
    page = open_views(Answer(GRIDS["image"], words=(" one", " two", " three")).data(token=0))
    play = page.get_by_role("button", name="Play")
    play.click()
    page.locator(".token[aria-pressed=true]", has_text="three").wait_for()
    play.wait_for()
    assert said(page).startswith("Token 3 of 3")


def test_a_click_on_a_patch_tints_the_words(open_views):
    grid = GRIDS["portrait"]
    answer = Answer(grid)
    weight = np.full((len(WORDS), len(answer.cells)), 1e-5)
    slot = answer.cells.slot(0, 1, 3, 1)
    weight[2, slot], weight[7, slot] = 0.2, 0.05
    page = open_views(answer.data(weight=weight, token=0))
    drag(page, "Frame", 1)
    box = page.locator("canvas.frame").bounding_box()
    place = {"x": box["width"] * 1.5 / 2, "y": box["height"] * 3.5 / 5}
    page.locator("canvas.frame").click(position=place)
    assert "Row 3, column 1 of frame 2 was read most by token 3, “square”: 20 %" in said(page, VIEW)
    tints = page.locator(".token").evaluate_all(
        "nodes => nodes.map((node) => parseFloat(node.style.getPropertyValue('--tint')))"
    )
    assert tints[2] == 48
    assert tints[7] == pytest.approx(12, abs=0.5)
    assert max(tints[:2] + tints[3:7] + tints[8:]) < 0.1
    title = page.locator(".token").nth(7).get_attribute("title").replace("\u00a0", " ")
    assert title.startswith("Token 8, s · ")
    assert title.endswith("· 5 % on the chosen patch")
    page.locator(".attention summary").last.click()
    cells_ = texts_of(page.locator(".attention tbody tr").nth(2))
    assert [cells_[0], cells_[1], cells_[3].replace("\u00a0", " ")] == ["3", "square", "20 %"]
    page.locator("canvas.frame").click(position=place)
    assert page.get_by_role("button", name="No patch").is_disabled()


def test_what_is_lacking_is_asked_for_once_and_shown_when_it_comes(open_views):
    answer = Answer(GRIDS["landscape"])
    data = answer.data(token=1)
    page = open_views(data)
    hosted(page, data)
    page.get_by_label("Source").select_option("language")
    assert page.evaluate("told").pop()[0] == "need"
    need = page.evaluate("told")[-1][1]
    assert (need["source"], need["token"]) == ("language", 1)
    assert "LLM layer for “red” is being computed" in said(page, NOTE)
    assert "mean of layers" in said(page)
    first = answer.look("language", [1], layers=range(LAYERS), heads=range(HEADS))
    page.evaluate("(maps) => view.update({ maps })", attention.maps(first))
    assert said(page, NOTE) == ""
    drag(page, "Layer", 2)
    page.locator(".head", has_text="Head 3").click()
    here = answer.cells.frame_K == 0
    expected = first.visual_IHQK[2, 3, 0]
    assert f"layer 2, head 3 · {round(100 * expected.sum())} % of its attention" in said(page)
    shown = float(re.search(r", ([\d.]+) % on frame 1", said(page)).group(1))
    assert shown == pytest.approx(100 * expected[here].sum(), rel=0.06)
    orders = page.locator(".head").evaluate_all("nodes => nodes.map((node) => node.dataset.head)")
    shares = np.frombuffer(attention.quantised(data_share(data))[1], np.uint8).reshape(-1, 12)
    by_share = np.argsort(-shares[1].reshape(LAYERS, HEADS)[2].astype(int), kind="stable")
    assert orders == ["mean", *map(str, by_share)]
    asked = len(page.evaluate("told"))
    page.get_by_label("Source").select_option("mean")
    page.get_by_label("Source").select_option("language")
    assert len(page.evaluate("told")) == asked  # it is remembered
    page.locator(".token").nth(4).click()
    new = page.evaluate("told")[asked:]
    assert new == [["need", {"source": "language", "token": 4, "layer": 2}], ["token", 4]]
    page.locator(".token").nth(5).click()
    page.locator(".token").nth(6).click()
    later = [detail for name, detail in page.evaluate("told")[asked + 2 :] if name == "need"]
    assert later == []  # one question at a time ...
    second = answer.look("language", [4], layers=[2], heads=range(HEADS))
    page.evaluate("(maps) => view.update({ maps })", attention.maps(second))
    later = [detail for name, detail in page.evaluate("told")[asked + 2 :] if name == "need"]
    assert later == [{"source": "language", "token": 6, "layer": 2}]  # ... then the latest wish


def data_share(data: dict) -> np.ndarray:
    """The head x layer shares that came with the data, by token."""
    import base64

    tops, levels = (base64.b64decode(data["share"][name]) for name in ("tops", "levels"))
    tops = np.frombuffer(tops, "<f4")
    return attention.restored(tops, np.frombuffer(levels, np.uint8).reshape(len(tops), -1))


def test_the_other_sources(open_views):
    answer = Answer(GRIDS["landscape"])
    data = answer.data(token=1)
    page = open_views(data)
    hosted(page, data)
    source = page.get_by_label("Source")
    source.select_option("rollout")
    rollout = answer.look("rollout", range(len(WORDS)))
    page.evaluate("(maps) => view.update({ maps })", attention.maps(rollout))
    share = rollout.visual_IHQK[0, 0].sum(axis=1)
    assert f"rollout · {round(100 * share[1])} % of its rollout on the video" in said(page)
    asked = len(page.evaluate("told"))
    page.locator(".token").nth(3).click()
    assert [name for name, _ in page.evaluate("told")[asked:]] == ["token"]
    assert f"rollout · {round(100 * share[3])} % of its rollout on the video" in said(page)
    source.select_option("relevancy")
    need = page.evaluate("told").pop()[1]
    refused = attention.refused(need, "gradient relevancy over <b>9</b> positions is too long.")
    page.evaluate("(maps) => view.update({ maps })", refused)
    assert said(page, NOTE) == (
        "gradient relevancy over <b>9</b> positions is too long. Shown is the mean of layers."
    )
    assert page.locator(".attention b").count() == 0
    source.select_option("vision")
    assert said(page, NOTE).startswith("Choose a patch: the vision encoder shows where it looked")
    slot = answer.cells.slot(0, 2, 1, 3)
    drag(page, "Frame", 2)
    drag(page, "Patch row", 1)
    drag(page, "Patch column", 3)
    need = [detail for name, detail in page.evaluate("told") if name == "need"][-1]
    while need["token"] != slot:  # it was asked where the sliders passed
        page.evaluate("(maps) => view.update({ maps })", attention.refused(need, "no"))
        need = [detail for name, detail in page.evaluate("told") if name == "need"][-1]
    assert need == {"source": "vision", "token": slot, "layer": 1}
    weight = np.zeros(len(answer.cells))
    weight[answer.cells.frame_K == 2] = 0.02
    weight[answer.cells.slot(0, 2, 0, 0)] = 0.5
    vision = answer.look("vision", [slot], layers=[0, 1], heads=range(5), weight=weight)
    page.evaluate("(maps) => view.update({ maps })", attention.maps(vision))
    page.wait_for_timeout(150)
    assert said(page).startswith("Patch row 1, column 3 of frame 3 · vision encoder, layer 1")
    assert is_lit(colour_in(page, boxes_of(answer, 0)[answer.cells.slot(0, 2, 0, 0)]))
    drag(page, "Frame", 0)
    page.wait_for_timeout(150)
    assert colour_in(page, boxes_of(answer, 0)[0]) == [GREY] * 3  # it cannot see other frames


def test_a_token_of_two_frames_is_lit_in_both_and_in_all_of_its_cells(open_views):
    grid = Grid(frames=5, rows=3, cols=5, merge=1)
    answer = Answer(grid, made=Joining.token_grid)
    weight = np.full((len(WORDS), 18), 1e-6)
    slot = 6 + 4  # frames 2 and 3; row 2, columns 2 and 3
    weight[:, slot] = 0.5
    page = open_views(answer.data(weight=weight, token=0, frame=2))
    cells = [(row, col) for row in range(3) for col in range(5)]
    lit = {}
    for frame in range(5):
        drag(page, "Frame", frame)
        page.wait_for_timeout(120)
        boxes = {(r, c): (c / 5, r / 3, (c + 1) / 5, (r + 1) / 3) for r, c in cells}
        lit[frame] = [cell for cell in cells if is_lit(colour_in(page, boxes[cell]))]
        assert ("50 % on frame" in said(page)) == (frame in (2, 3))
    own = [(2, 2), (2, 3)]
    assert lit == {0: [], 1: [], 2: own, 3: own, 4: []}


def test_a_cell_of_the_matrix_is_a_way_to_its_head(open_views):
    answer = Answer(GRIDS["odd"])
    share = np.zeros((LAYERS, HEADS, len(WORDS)))
    share[2, 1] = 0.9
    data = answer.data(share=share, token=1)
    page = open_views(data)
    hosted(page, data)
    matrix = page.locator("canvas.matrix")
    label = matrix.get_attribute("aria-label").replace("\u00a0", " ")
    assert label.endswith("highest: layer 2, head 1: 90 %")
    box = matrix.bounding_box()
    x = 24 + (box["width"] - 24) * 1.5 / HEADS
    matrix.click(position={"x": x, "y": (box["height"] - 18) * 2.5 / LAYERS})
    assert page.evaluate("told").pop() == ["need", {"source": "language", "token": 1, "layer": 2}]
    looked = answer.look("language", [1], layers=[2], heads=range(HEADS))
    page.evaluate("(maps) => view.update({ maps })", attention.maps(looked))
    assert "layer 2, head 1 ·" in said(page)
    assert page.locator(".head[aria-pressed=true]").inner_text().startswith("Head 1")


def test_sinks_are_hidden_from_picture_sums_and_scale(open_views):
    grid = GRIDS["landscape"]
    answer = Answer(grid, sinks=[7])
    weight = np.full(len(answer.cells), 0.001)
    weight[7] = 0.5
    page = open_views(answer.data(weight=weight, token=0))
    boxes = boxes_of(answer, 0)
    assert is_lit(colour_in(page, boxes[7]))
    assert not is_lit(colour_in(page, boxes[3]))
    page.get_by_label("Hide sinks (1)").check()
    page.wait_for_timeout(150)
    x0, y0, x1, y1 = boxes[7]
    assert pixel(page, x0 + 0.2 * (x1 - x0), y0 + 0.2 * (y1 - y0)) == [GREY] * 3
    assert is_lit(colour_in(page, boxes[3]))
    assert said(page).endswith("1.4 % on frame 1 of 4")
    assert "hidden sink" in said(page, ".attention .legend >> nth=0")


def test_the_scale_is_of_the_frame_or_of_the_clip(open_views):
    grid = GRIDS["landscape"]
    answer = Answer(grid)
    weight = np.where(answer.cells.frame_K == 3, 0.04, 0.0004)
    page = open_views(answer.data(weight=weight, token=0))
    box = boxes_of(answer, 0)[0]
    assert not is_lit(colour_in(page, box))
    page.get_by_label("Per frame").check()
    page.wait_for_timeout(150)
    assert is_lit(colour_in(page, box))
    legend = said(page, ".attention .legend >> nth=0")
    low, high = (float(number) for number in re.findall(r"([\d.]+) %", legend))
    assert (low, high) == pytest.approx((0.0004, 0.04), rel=0.03)
    drag(page, "Opacity", 0)
    page.wait_for_timeout(150)
    assert colour_in(page, box) == [GREY] * 3


def test_several_pictures_are_one_row_of_frames(open_views):
    video, image = GRIDS["landscape"], GRIDS["image"]
    answer = Answer(video, image, sources=("a film", "a photograph"))
    weight = np.where(answer.cells.clip_K == 1, 0.03, 0.0001)
    weight[answer.cells.slot(1, 0, 4, 2)] = 0.2
    data = answer.data(weight=weight, token=0)
    page = open_views(data)
    hosted(page, data)
    assert said(page).endswith("on frame 1 of 4 of picture 1")
    bars = page.locator("canvas.totals")
    bars.click(position={"x": bars.bounding_box()["width"] - 8, "y": 20})
    assert page.evaluate("told") == [["medium", 1], ["frame", 0]]
    assert said(page).endswith("on the image of picture 2")
    page.wait_for_timeout(150)
    box = page.locator("canvas.frame").bounding_box()
    assert box["height"] / box["width"] == pytest.approx(5 / 3, rel=0.03)
    boxes = boxes_of(answer, 1)
    assert is_lit(colour_in(page, boxes[14]))
    assert page.get_by_label("Frame", exact=True).is_disabled()
    page.get_by_label("Picture", exact=True).select_option("1: a film")
    assert said(page).endswith("on frame 1 of 4 of picture 1")
    page.evaluate("view.update({ frame: 2, token: 3 })")
    assert said(page).startswith("Token 4 of 9")
    assert said(page).endswith("on frame 3 of 4 of picture 1")
    page.evaluate("view.update({ medium: 1 })")
    assert said(page).endswith("on the image of picture 2")
    assert len(page.evaluate("told")) == 4  # who is told of a frame does not answer with it
    page.evaluate("view.destroy()")
    assert page.locator("#view-0").inner_html() == ""
    page.keyboard.press("ArrowRight")


def test_an_answer_without_a_picture_says_so(open_views):
    page = open_views(Answer().data(share=np.zeros((LAYERS, HEADS, len(WORDS)))))
    assert "This answer saw no picture" in said(page, NOTE)
    assert said(page) == "Token 1 of 9, “A”"
    assert page.locator("canvas, .attention select").count() == 0
    page.keyboard.press("ArrowRight")
    assert said(page) == "Token 2 of 9, “red”"


def test_a_page_alone_has_what_is_in_it_and_says_so(open_views):
    answer = Answer(GRIDS["landscape"])
    inside = answer.look("language", [5], layers=range(LAYERS), heads=range(HEADS))
    page = open_views(answer.data(token=1, details=[inside]))
    assert (
        "Without a running model there is the mean of layers for every token, and LLM layer for "
        "token 6, “red”." in said(page, VIEW)
    )
    options = page.get_by_label("Source").locator("option")
    off = options.evaluate_all("nodes => nodes.filter((n) => n.disabled).map((n) => n.value)")
    assert off == ["rollout", "relevancy", "vision"]
    page.get_by_label("Source").select_option("language")
    assert said(page, NOTE) == "LLM layer is not here for “red”. Shown is the mean of layers."
    page.locator(".token").nth(5).click()
    assert said(page, NOTE) == ""
    assert "mean of heads" in said(page)


def everything(grid: str = "landscape", words=WORDS) -> dict:
    """A view with as much on show as there can be."""
    answer = Answer(GRIDS[grid], GRIDS["image"], sinks=[1], words=words)
    one = answer.look("language", [1], layers=range(LAYERS), heads=range(HEADS))
    return answer.data(token=1, details=[one])


def open_everything(open_views, *views, **options):
    page = open_views(*views, **options)
    page.get_by_label("Source").select_option("language")
    drag(page, "Patch row", 1)
    for summary in page.locator(".attention summary").all():
        summary.click()
    page.wait_for_timeout(200)
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_targets_are_large(open_views, scheme):
    page = open_everything(open_views, everything(), scheme=scheme)
    page.get_by_label("Hide sinks (1)").check()
    assert serious(page) == []
    targets = page.locator(".attention :is(button, select, input, summary):visible").all()
    assert len(targets) > 25
    for target in targets:
        box = target.bounding_box()
        if target.get_attribute("type") != "radio":  # its label is what is pressed
            assert min(box["width"], box["height"]) >= 24, target.evaluate("node => node.outerHTML")
    for canvas in page.locator(".attention canvas:not([aria-hidden=true])").all():
        assert canvas.get_attribute("role") == "img"
        assert canvas.get_attribute("aria-label")


def test_a_phone_shows_everything_without_sideways_scrolling(open_views):
    long = ("A", " Donaudampfschifffahrtsgesellschaftskapitänskajütentür", *WORDS[2:])
    page = open_everything(open_views, everything("portrait", words=long), width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0


def test_words_and_names_stay_text(open_views):
    tiny = Grid(frames=1, rows=2, cols=2, merge=1)
    words = tuple(f" {name}" for name in HOSTILE)
    answer = Answer(*[tiny] * len(HOSTILE), words=words, sources=HOSTILE)
    one = answer.look("language", [1], layers=range(LAYERS), heads=range(HEADS))
    data = answer.data(token=1, details=[one])
    page = open_everything(open_views, data, title=HOSTILE[-1])
    hosted(page, data)
    options = page.get_by_label("Picture", exact=True).locator("option")
    for index, name in enumerate(HOSTILE):
        page.get_by_label("Picture", exact=True).select_option(str(index))
        page.locator(".token").nth(index).click()
        assert page.locator(".token").nth(index).text_content() == name
        assert f"Token {index + 1} of 6, “{name}”" in said(page)
        assert name in page.locator("canvas.frame").get_attribute("aria-label")
        assert name in options.nth(index).text_content()
    assert page.evaluate("[window.p, window.pwnd]") == [None, None]
    assert page.locator("main img").count() == 0
