"""The look-inside views in a browser, on the one-file page."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from steps import serious
from view_steps import HOSTILE, drag, pixel, texts_of, with_module

from vl3.pipeline import to_patches
from vl3.values import Clip, Grid
from vl3.vision.prune import prune
from vl3.vision.rope2d import angles
from vl3.vision.rope2d import positions as patch_positions
from vl3.viz import positions, pruning

pytest_plugins = ["page_fixtures", "view_fixtures"]

MODES = ("official", "rlt", "last_kept")
USED = {"mode": "official", "threshold": 0.1, "min_tokens": 1, "keep": "earlier"}
READOUT = ".pruning .readout"


def noisy(grid: Grid, seed: int = 0, patch: int = 14, source: str = "noise") -> Clip:
    """A clip that drifts slowly here, jumps there, and stands still in between."""
    rng = np.random.default_rng(seed)
    size = (grid.rows * patch, grid.cols * patch, 3)
    strength = np.linspace(0, 6, size[1])[None, :, None] ** 2
    frames = [rng.integers(0, 256, size)]
    for _ in range(grid.frames - 1):
        moved = frames[-1] + rng.normal(0.3, 1, size) * strength
        frames.append(frames[-1] if rng.random() < 0.25 else moved)
    return Clip(
        frames_TYX3=np.stack(frames).clip(0, 255).astype(np.uint8),
        times_s=None if grid.frames == 1 else tuple(index * 0.5 for index in range(grid.frames)),
        source=source,
    )


def boxes_clip(grid: Grid) -> Clip:
    """Frame 0 is light grey; in every later one only its own token is darker, and stays so."""
    frames = np.full((grid.frames, grid.rows * 14, grid.cols * 14, 3), 200, np.uint8)
    for index in range(1, grid.frames):
        row, col = divmod(index, grid.token_cols)
        side = 14 * grid.merge
        frames[index:, row * side : (row + 1) * side, col * side : (col + 1) * side] = 100
    return Clip(frames_TYX3=frames, times_s=tuple(map(float, range(grid.frames))), source="boxes")


GRIDS = {
    "landscape": Grid(frames=9, rows=6, cols=10, merge=2),
    "portrait": Grid(frames=6, rows=10, cols=4, merge=2),
    "unmerged": Grid(frames=5, rows=3, cols=5, merge=1),
    "one token": Grid(frames=7, rows=2, cols=2, merge=2),
    "image": Grid(frames=1, rows=4, cols=6, merge=1),
}


def test_the_browsers_mask_is_the_pruners_bit_for_bit(open_views):
    page = open_views(pruning.data(noisy(GRIDS["one token"]), GRIDS["one token"], USED))
    with_module(page)
    rng = np.random.default_rng(5)
    checked = 0
    for name, grid in GRIDS.items():
        clip = noisy(grid, seed=len(name))
        patches = to_patches([clip], [grid])
        rules, expected = [], []
        for mode in MODES:
            for side in ("earlier", "later"):
                changes = prune(patches, mode=mode, keep=side).change_M
                changes = changes[changes.isfinite()].double().numpy()
                thresholds = 10 ** rng.uniform(-2, 2, 50)
                if len(changes):  # exactly a value that is compared: strictly greater is kept
                    thresholds[:15] = rng.choice(changes, 15)
                for threshold in map(float, thresholds):
                    rule = {"mode": mode, "threshold": threshold, "keep": side}
                    rule["min_tokens"] = int(rng.integers(0, 3))
                    keep = prune(patches, **rule)
                    state = keep.keep_M.to(torch.uint8) + keep.placeholder_M.to(torch.uint8)
                    rules.append(rule)
                    expected.append((state.tolist(), keep.kept_per_frame[0]))
        found = page.evaluate(
            """([data, rules]) => { const { decide } = look.pruner(data);
                const told = ({ state, kept }) => [[...state], kept];
                return rules.map((rule) => told(decide(rule))); }""",
            [pruning.data(clip, grid, USED), rules],
        )
        for rule, one, other in zip(rules, expected, found, strict=True):
            assert list(one) == other, (name, rule)
            checked += 1
    assert checked == 5 * 6 * 50


def test_drift_is_the_difference_from_the_last_kept_version(open_views):
    grid = GRIDS["landscape"]
    clip = noisy(grid, seed=2)
    page = open_views(pruning.data(clip, grid, USED))
    with_module(page)
    rule = USED | {"mode": "rlt", "threshold": 0.2}
    keep = prune(to_patches([clip], [grid]), **rule).keep_M.view(grid.frames, -1).numpy()
    side = 28
    tiles = clip.frames_TYX3.reshape(grid.frames, 3, side, 5, side, 3).astype(int)
    levels = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(grid.frames, 15, -1)
    found = page.evaluate(
        "([data, rule]) => { const p = look.pruner(data), d = p.decide(rule);"
        "return Array.from({ length: data.frames }, (_, i) => [...p.drift(d, i)]); }",
        [pruning.data(clip, grid, USED), rule],
    )
    assert 0 < keep[1:].sum() < keep[1:].size
    for frame in range(grid.frames):
        for token in range(15):
            last = max(index for index in range(frame + 1) if keep[index, token])
            expected = abs(levels[frame, token] - levels[last, token]).mean()
            assert found[frame][token] == pytest.approx(expected, abs=1e-4)


def darkest(page, box) -> int:
    """Least red in a token's box, away from its edges: between the lines of the hatch."""
    x0, y0, x1, y1 = box
    places = [(x0 + (x1 - x0) * i / 9, (y0 + y1) / 2) for i in range(2, 8)]
    return min(pixel(page, *place)[0] for place in places)


@pytest.mark.parametrize(("rows", "cols"), [(6, 10), (10, 4)], ids=["landscape", "portrait"])
def test_removed_patches_are_dimmed_and_the_changed_one_is_lit(open_views, rows, cols):
    grid = Grid(frames=6, rows=rows, cols=cols, merge=2)
    data = pruning.data(boxes_clip(grid), grid, USED)
    page = open_views(data)
    drag(page, "Frame", 3)
    page.wait_for_timeout(150)
    for token, box in enumerate(data["boxes"]):
        level = 100 if 1 <= token <= 3 else 200
        share = 1 if token == 3 else 0.28
        assert darkest(page, box) == pytest.approx(level * share, abs=3), token
    total = grid.tokens_per_frame + 5
    assert page.locator(READOUT).inner_text().replace("\u00a0", " ") == (
        f"Frame 4 of 6 · kept 1 of {grid.tokens_per_frame} · clip {total} of {grid.num_tokens} "
        f"({round(100 * total / grid.num_tokens)} %)"
    )
    page.get_by_label("Off", exact=True).check()
    page.wait_for_timeout(150)
    assert darkest(page, data["boxes"][-1]) == pytest.approx(200, abs=3)
    page.get_by_label("Heat of change", exact=True).check()
    page.wait_for_timeout(150)
    red, green, blue = pixel(page, *np.mean(np.reshape(data["boxes"][3], (2, 2)), axis=0))
    assert red > 180 > blue + 60  # the changed patch is at the yellow end of cividis
    assert green > blue


def test_keys_move_frame_and_threshold_and_the_words_follow(open_views):
    grid = GRIDS["landscape"]
    clip = noisy(grid)
    page = open_views(pruning.data(clip, grid, USED))
    said = page.locator(".pruning .spoken")
    page.get_by_label("Frame", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(READOUT).inner_text().startswith("Frame 2 of 9")
    assert said.inner_text() == page.locator(READOUT).inner_text()
    assert page.locator(".badge").inner_text() == ""
    page.locator("body").click(position={"x": 3, "y": 3})
    for _ in range(6):
        page.keyboard.press("]")
    threshold = 0.2  # 0.1 * 10 ** 0.3, in three digits
    assert page.locator(".levels").inner_text() == "0.2 · about 0.1 grey levels"
    assert page.locator(".badge").inner_text() == "Preview – not used yet"
    kept = int(prune(to_patches([clip], [grid]), threshold=threshold).keep_M.sum())
    assert f"clip {kept} of" in said.inner_text().replace("\u00a0", "")
    assert f"clip {kept} of" in page.locator("canvas.frame").get_attribute("aria-label")
    for _ in range(6):
        page.keyboard.press("[")
    assert page.locator(".badge").inner_text() == ""
    page.locator("canvas.frame").click()
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press(".")
    assert page.locator(READOUT).inner_text().startswith("Frame 3 of 9")
    page.locator(".pruning summary").click()
    cells = texts_of(page.locator(".pruning tbody tr").nth(2))
    kept_here = prune(to_patches([clip], [grid])).kept_per_frame[0][2]
    assert cells[:4] == ["3", "0:01.0", str(kept_here), str(15 - kept_here)]


def test_a_bar_is_a_way_to_its_frame_and_events_are_told(open_views):
    grid = GRIDS["landscape"]
    data = pruning.data(noisy(grid), grid, USED)
    page = open_views(data)
    assert page.get_by_role("button", name="Apply to next answer").count() == 0
    with_module(page)
    page.evaluate(
        """(data) => { window.told = [];
            const emit = (name, detail) => told.push([name, detail]);
            window.view = look.mount(document.getElementById("view-0"), data, emit); }""",
        data,
    )
    bars = page.locator("canvas.bars")
    width = bars.bounding_box()["width"]
    bars.click(position={"x": width * 4.5 / 9, "y": 20})
    assert page.locator(READOUT).inner_text().startswith("Frame 5 of 9")
    page.get_by_label("Compare with").select_option("last_kept")
    drag(page, "Threshold", 200)
    apply = page.get_by_role("button", name="Apply to next answer")
    apply.click()
    chosen = {"threshold": 1, "mode": "last_kept", "keep": "earlier"}
    assert page.evaluate("told") == [["frame", 4], ["apply", chosen]]
    assert page.locator(".badge").inner_text() == "Used from the next answer on"
    assert apply.is_disabled()
    page.evaluate("(used) => view.update({ used })", USED | chosen)
    assert page.locator(".badge").inner_text() == ""
    page.evaluate("view.update({ frame: 7 })")
    assert page.locator(READOUT).inner_text().startswith("Frame 8 of 9")
    assert len(page.evaluate("told")) == 2  # who is told of a frame does not answer with it
    page.evaluate("view.destroy()")
    assert page.locator("#view-0").inner_html() == ""
    page.keyboard.press("]")


def test_pruning_off_and_an_image_say_so_in_words(open_views):
    video, image = GRIDS["landscape"], GRIDS["image"]
    page = open_views(
        pruning.data(noisy(video), video, None), pruning.data(noisy(image), image, USED)
    )
    first, second = page.locator(".pruning").all()
    assert "Pruning is off: the model sees every patch." in first.inner_text()
    assert first.locator(".badge").inner_text() == "Preview – not used yet"
    assert "An image is never pruned" in second.inner_text()
    assert "The model sees all 24 patches." in second.inner_text()
    assert second.locator("input").count() == 0


def test_a_clip_too_long_for_pairs_says_what_it_cannot_show(open_views):
    grid = GRIDS["landscape"]
    data = pruning.data(noisy(grid), grid, USED | {"mode": "last_kept"}) | {"pairs": None}
    page = open_views(data)
    assert "too many frames to show the model's rule" in page.locator(".pruning").inner_text()
    assert page.locator(".badge").inner_text() == "Preview – not used yet"
    assert page.get_by_label("Drift", exact=True).is_disabled()
    assert page.get_by_label("Compare with").locator("option").count() == 2


def test_a_video_of_one_frame_is_kept_whole(open_views):
    grid = Grid(frames=1, rows=4, cols=6, merge=2)
    frames = np.zeros((1, 56, 84, 3), np.uint8)
    clip = Clip(frames_TYX3=frames, times_s=(0.0,), source="short")
    page = open_views(pruning.data(clip, grid, USED))
    assert page.locator(READOUT).inner_text().startswith("Frame 1 of 1 · kept 6 of 6")
    page.get_by_label("Drift", exact=True).check()
    assert page.get_by_label("Compare with").locator("option").count() == 3


def views_of(grid: Grid, source: str = "a clip") -> list[dict]:
    clip = noisy(grid, source=source)
    keep = prune(to_patches([clip], [grid]), threshold=2.0)
    spans, at = [], 14
    for kept in keep.kept_per_frame[0]:
        spans.append((at + 9, kept))
        at += 9 + kept
    return [
        pruning.data(clip, grid, USED | {"threshold": 2.0}),
        positions.data(
            grid, 72, spans=spans, keep_M=keep.keep_M.numpy(), times_s=clip.times_s, source=source
        ),
    ]


def test_positions_are_the_encoders_and_a_click_chooses_the_patch(open_views):
    grid = GRIDS["landscape"]
    data = views_of(grid)[1]
    page = open_views(data)
    with_module(page)
    position_N2 = patch_positions(grid)
    angle_NR = angles(position_N2, 72)
    for patch in (0, 17, 59):
        row, col = position_N2[patch].tolist()
        found = page.evaluate(
            "([data, row, col]) => look.rope(data).similarity(row, col)", [data, row, col]
        )
        rows, cols = position_N2.T
        expected = positions.similarity(angle_NR, patch).numpy()
        assert np.array(found)[rows, cols] == pytest.approx(expected, abs=1e-6)
    map_ = page.locator("canvas.map").nth(2)
    box = map_.bounding_box()
    map_.click(position={"x": box["width"] * 8.5 / 10, "y": box["height"] * 1.5 / 6})
    assert "Patch row 1, column 8 of 6 × 10" in page.locator(".positions .readout").inner_text()
    assert page.get_by_label("Column", exact=True).input_value() == "8"
    page.get_by_label("Frequency", exact=True).focus()
    page.keyboard.press("End")
    assert "frequency 18 of 18" in page.locator(".positions .readout").inner_text()
    drag(page, "Frame", 1)
    first, last = data_range(data, 1)
    assert f"positions {first} to {last} with every patch" in page.locator(
        ".positions"
    ).inner_text().replace("\u00a0", "")


def data_range(data: dict, frame: int) -> tuple[int, int]:
    tokens = data["language"]["tokens"]
    before = np.frombuffer(base64.b64decode(data["language"]["before"]), "<i4")
    return int(before[frame * tokens]), int(before[(frame + 1) * tokens - 1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_and_targets_are_large(open_views, scheme):
    page = open_views(*views_of(GRIDS["landscape"]), scheme=scheme)
    for summary in page.locator("summary").all():
        summary.click()
    page.wait_for_timeout(200)
    assert serious(page) == []
    targets = page.locator(".vl3-look :is(button, select, input[type=range], summary)").all()
    assert len(targets) > 10
    for target in targets:
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 24, target.evaluate("node => node.outerHTML")
    for canvas in page.locator(".vl3-look canvas").all():
        assert canvas.get_attribute("role") == "img"
        assert canvas.get_attribute("aria-label")


@pytest.mark.parametrize("grid", ["landscape", "portrait"])
def test_a_phone_shows_everything_without_sideways_scrolling(open_views, grid):
    page = open_views(*views_of(GRIDS[grid]), width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    frame = page.locator("canvas.frame").bounding_box()
    shape = GRIDS[grid]
    assert frame["height"] / frame["width"] == pytest.approx(shape.rows / shape.cols, rel=0.03)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(open_views, name):
    page = open_views(*views_of(GRIDS["landscape"], source=name), title=name)
    page.wait_for_timeout(200)
    assert page.locator("h1").inner_text() == re.sub(r"\s+", " ", name)
    assert name in page.locator("canvas.frame").get_attribute("aria-label")
    assert page.evaluate("[window.p, window.pwnd]") == [None, None]
    assert page.locator("main img").count() == 0


@pytest.mark.slow
def test_dragging_keeps_up_with_the_screen(open_views, capsys):
    """180 frames of 144 tokens: milliseconds from a slider's step to the finished picture."""
    grid = Grid(frames=180, rows=18, cols=32, merge=2)
    time, y, x = np.ogrid[:180, : 18 * 14, : 32 * 14]
    waves = 128 + 100 * np.sin(x / 40 + time / 9) * np.cos(y / 50 - time / 31)
    frames = np.repeat(waves.astype(np.uint8)[..., None], 3, axis=-1)
    clip = Clip(frames_TYX3=frames, times_s=tuple(range(180)), source="long")
    data = pruning.data(clip, grid, USED)
    page = open_views(data)
    told = {}
    for mode in MODES:
        page.get_by_label("Compare with").select_option(mode)
        page.wait_for_timeout(300)
        times_ms = page.get_by_label("Threshold", exact=True).evaluate(
            """async (slider) => { const times = [];
                for (let i = 0; i < 60; i++) {
                  slider.value = 60 + 4 * i;
                  const start = performance.now();
                  slider.dispatchEvent(new Event("input"));
                  await new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)));
                  times.push(performance.now() - start);
                }
                return times.sort((a, b) => a - b); }"""
        )
        told[mode] = times_ms[len(times_ms) // 2]
        assert told[mode] < 1000 / 30
    with capsys.disabled():
        shown = ", ".join(f"{mode} {time_ms:.1f} ms" for mode, time_ms in told.items())
        megabytes = len(json.dumps(data)) / 1e6
        print(f"\n180 x 144 tokens, {megabytes:.1f} MB of data; median step: {shown}")
