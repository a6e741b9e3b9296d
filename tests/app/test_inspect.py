"""Inspect: what the tabs show is what the model saw, and only its visitor finds it."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from serving import REPO, serving
from steps import ask, expect, open_tab, serious, upload
from test_view_models import WRONG_RULES
from view_steps import HOSTILE

import vl3
import vl3.video
from vl3.pipeline import to_patches
from vl3.settings import PruneSettings
from vl3.values import VisualContext
from vl3.vision.prune import prune
from vl3.webapp import tabs, text_format
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError
from vl3.webapp.uploads import Uploads

pytest_plugins = ["page_fixtures"]
RULE = asdict(PruneSettings())

NANO = REPO / "assets" / "nano"
CLIP = REPO / "assets" / "clips" / "three_shapes.mp4"
TABS = ("Pruning", "Positions", "Attention", "Compare", "Run details")
HURT = "[window.p, window.pwnd].every((each) => each === undefined)"


# without a browser


@pytest.fixture
def visitor(controller, clip):
    one = controller.visitors.get("one")
    path = controller.uploads.folder / "hash" / clip.name
    path.parent.mkdir()
    shutil.copyfile(clip, path)
    controller.choose_upload(one, str(path))
    return one


def opened(controller) -> int:
    return sum(entry[0] == "opened" for entry in controller.script.log)


def shown(controller, visitor, tab, rule=RULE) -> dict:
    tabs.opened(visitor, tab)
    return list(tabs.draw_tab(controller, visitor, rule))[-1]


def file_of(controller, value: dict) -> Path:
    return Path(value["url"].removeprefix("gradio_api/file="))


def test_nothing_is_made_before_a_tab_is_opened_and_then_once(controller, visitor):
    assert list(tabs.draw_tab(controller, visitor, RULE)) == []
    assert opened(controller) == 0
    first = shown(controller, visitor, "pruning")
    data = json.loads(file_of(controller, first).read_text())
    assert (data["view"], data["source"], data["frames"]) == ("pruning", visitor.current.name, 4)
    assert str(controller.uploads.folder) not in json.dumps(data)
    again = shown(controller, visitor, "pruning", {**RULE, "threshold": 9.0})
    assert again["url"] == first["url"]
    assert again["used"]["threshold"] == 9.0
    visitor.current = replace(visitor.current, fps=2.0)
    other = shown(controller, visitor, "pruning")
    assert other["url"] != first["url"]
    assert not file_of(controller, first).exists()
    assert file_of(controller, other).is_file()


def test_what_was_made_has_a_name_that_cannot_be_guessed_and_goes_with_its_visitor(
    controller, visitor
):
    paths = [
        file_of(controller, shown(controller, visitor, tab)) for tab in ("pruning", "positions")
    ]
    assert len({path.parent.name for path in paths}) == 2
    assert all(len(path.parent.name) >= 20 for path in paths)
    assert {str(path) for path in paths} <= visitor.paths()
    controller.uploads._limit_bytes = 0
    controller.clean_up()
    assert all(path.is_file() for path in paths)
    controller.visitors.leave("one")
    assert not any(path.exists() or path.parent.exists() for path in paths)
    # What is finished only after the visitor left does not stay either.
    late = file_of(controller, shown(controller, visitor, "pruning"))
    assert not late.exists()


def test_without_a_video_or_an_answer_the_tabs_say_what_to_do(controller):
    nobody = controller.visitors.get("two")
    assert shown(controller, nobody, "pruning") == {"note": text_format.NO_VIDEO}
    assert shown(controller, nobody, "positions") == {"note": text_format.NO_VIDEO}
    assert shown(controller, nobody, "attention") == {"note": text_format.NO_ANSWER}
    assert shown(controller, nobody, "run") == {"note": text_format.NO_ANSWER}
    assert shown(controller, nobody, "compare") == {"note": text_format.NO_RUNS}
    for wrong in (None, "", "prune", ["pruning"], 1):
        with pytest.raises(UserError):
            tabs.opened(nobody, wrong)


def test_a_file_that_cannot_be_read_is_said_in_the_tab(controller, visitor):
    Path(visitor.current.path).write_bytes(b"no video any more")
    note = shown(controller, visitor, "pruning")["note"]
    assert "three" not in note
    assert note.endswith(".")
    assert "/" not in note


@pytest.mark.parametrize("detail", [{}, *WRONG_RULES[3:]])
def test_wrong_settings_save_nothing(controller, visitor, detail):
    with pytest.raises(UserError):
        tabs.save(controller, visitor, {"kind": "png", "frame": 0, **detail})


@pytest.mark.parametrize("change", [{"kind": "exe"}, {"kind": []}, {"frame": 4}, {"frame": "0"}])
def test_wrong_kinds_and_frames_save_nothing(controller, visitor, change):
    wanted = {"kind": "png", "frame": 0, "threshold": 1, "mode": "rlt", "keep": "earlier"}
    assert tabs.save(controller, visitor, wanted)["name"] == "four seconds pruning.png"
    with pytest.raises(UserError):
        tabs.save(controller, visitor, wanted | change)


def test_maps_are_for_who_knows_the_address_alone(controller, visitor):
    for need in (None, [], {}, {"of": None}, {"of": "gradio_api/file=/etc/passwd"}, {"of": {}}):
        assert tabs.maps(controller, need) is None


def compared(controller, visitor, question="What?"):
    reading = {"start": "", "end": "", "fps": None, "max_frames": None, "budget_tokens": None}
    answers = [{"max_new_tokens": 500, "prune": prune} for prune in ("model", None)]
    return tabs.compare(controller, visitor, question, reading, answers, (None, None), "")


def test_a_comparison_ends_when_its_visitor_leaves(controller, visitor):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    notes = []
    runs = threading.Thread(target=lambda: notes.extend(compared(controller, visitor)))
    runs.start()
    while not any(
        entry[1].running.is_set() for entry in controller.script.log if entry[0] == "fork"
    ):
        time.sleep(0.01)
    controller.visitors.leave("one")
    runs.join(timeout=3)
    assert not runs.is_alive()
    assert visitor.turns == []
    assert visitor.working.acquire(blocking=False)
    assert "Stopped" in notes[-1]["note"]


def test_what_a_comparison_needs_is_said(controller, visitor):
    with pytest.raises(UserError, match="question that both"):
        next(compared(controller, visitor, " "))
    with pytest.raises(UserError, match="Upload a video"):
        next(compared(controller, controller.visitors.get("two")))


def test_the_budget_says_what_the_settings_of_the_page_will_leave(controller, visitor):
    reading = {"start": "", "end": "", "fps": None, "max_frames": None, "budget_tokens": None}
    answer = {"max_new_tokens": 16, "prune": {"mode": "official", "keep": "earlier"}}
    assert controller.budget(visitor, reading, answer).pruned == ""
    rule = controller.rule(answer["prune"] | {"threshold": 100.0})
    shown(controller, visitor, "pruning", rule)
    known = answer | {"prune": {**answer["prune"], "threshold": 100.0}}
    assert controller.budget(visitor, reading, known).pruned.startswith("after pruning: ")
    assert controller.budget(visitor, reading, answer).pruned == ""


def test_seen_is_what_the_pruner_leaves(controller, visitor):
    rule = {**RULE, "threshold": 3.0}
    shown(controller, visitor, "pruning", rule)
    item, known_rule, seen = visitor.foreseen
    assert (item, known_rule) == (visitor.current, rule)
    assert isinstance(seen, VisualContext)
    assert seen.kept_per_frame[0] == seen.tokens_per_frame


def test_words_for_what_the_last_answer_used():
    assert text_format.used(RULE, dict(RULE)) == (
        "The last answer used official at 0.1, and so will the next one."
    )
    later = {"mode": "last_kept", "threshold": 2.0, "min_tokens": 1, "keep": "later"}
    assert text_format.used(RULE, later).endswith(
        "the next one will use last kept at 2, keep the later."
    )
    assert text_format.used(None, RULE).startswith("The last answer used no pruning, the next")


# in a browser, on nano


@pytest.fixture(scope="module")
def nano():
    return vl3.load(NANO, device="cpu", offline=True)


@pytest.fixture(scope="module")
def real(nano, upload_folder):
    from vl3.webapp import launch

    media = Uploads(upload_folder, vl3.video, 10**9)
    with serving(Controller(lambda **chosen: nano, media, launch.refusals())) as running:
        yield running


@pytest.fixture
def page(new_page, real):
    page = new_page(real)
    page.set_default_timeout(30_000)
    return page


def visitor_of(server, path: Path):
    visitors = server.controller.visitors._visitors.values()
    return [each for each in visitors if each.current and each.current.name == path.name][-1]


def view(page, name: str):
    """The view of a tab, once it is drawn."""
    found = page.locator(f"#panel-{name} .vl3-look")
    found.wait_for()
    return found


def kept_in(readout: str) -> int:
    return int(re.search(r"clip ([\d\s]+) of", readout)[1].replace("\u00a0", ""))


def drag(page, label: str, value: int) -> None:
    """Moves a slider of the open tab as a hand does."""
    page.get_by_role("tabpanel").get_by_label(label, exact=True).first.evaluate(
        "(slider, value) => { slider.value = value;"
        "for (const type of ['input', 'change']) slider.dispatchEvent(new Event(type)); }",
        value,
    )


@pytest.mark.slow
def test_counts_shown_are_the_models_and_apply_changes_the_next_answer(page, real, nano):
    upload(page, CLIP)
    open_tab(page, "Pruning")
    readout = view(page, "pruning").locator(".readout")
    first = kept_in(readout.inner_text())
    expect(page.locator("#budget p")).to_contain_text(f"(after pruning: {first},")
    ask(page, "What happens?")
    visitor = visitor_of(real, CLIP)
    ledger = visitor.turns[-1].reply.ledger
    assert (ledger.kept_tokens, ledger.reused_clips) == (first, 1)
    told = page.locator("#panel-pruning .told")
    expect(told).to_have_text("The last answer used official at 0.1, and so will the next one.")

    drag(page, "Threshold", 340)  # 0.01 * 10 ** 3.4
    page.locator("#panel-pruning").get_by_label("Compare with").select_option("last_kept")
    page.locator("#panel-pruning").get_by_label("Of two alike").select_option("later")
    second = kept_in(readout.inner_text())
    assert second < first
    badge = page.locator("#panel-pruning .badge")
    expect(badge).to_have_text("Preview – not used yet")
    page.get_by_role("button", name="Apply to next answer").click()
    expect(page.locator("#budget p")).to_contain_text(f"(after pruning: {second},")
    expect(told).to_contain_text("used official at 0.1, the next one will use last kept at 25.1")
    expect(badge).to_have_text("")
    ask(page, "What happens now?", 2)
    reply = visitor.turns[-1].reply
    rule = {"mode": "last_kept", "threshold": 25.1, "min_tokens": 1, "keep": "later"}
    assert reply.settings["prune"] == rule
    assert reply.ledger.kept_tokens == second == kept_in(readout.inner_text())
    video = nano.new_session().open(CLIP, fps=1, max_frames=180)
    assert int(prune(to_patches([video.clip], [video.grid]), **rule).keep_M.sum()) == second

    page.reload()
    assert kept_in(view(page, "pruning").locator(".readout").inner_text()) == second
    expect(page.get_by_role("tab", name="Pruning")).to_have_attribute("aria-selected", "true")
    page.locator(".sidebar .toggle-button").click()
    expect(page.locator("#settings").get_by_label("Threshold", exact=True)).to_have_value("25.1")
    chosen = page.locator("#settings").get_by_label("Compare with", exact=True)
    expect(chosen).to_have_value("Last kept: the last kept version")


def test_the_frame_is_one_for_player_strip_and_views(page):
    upload(page, CLIP)
    open_tab(page, "Pruning")
    readout = view(page, "pruning").locator(".readout")
    drag(page, "Frame", 5)
    page.wait_for_function(
        "Math.abs(document.querySelector('#player video').currentTime - 5) < 0.05"
    )
    expect(page.locator("#player .strip p")).to_contain_text("Frame 6 of 12")
    page.locator("#player .cells button").nth(2).click()
    expect(readout).to_contain_text("Frame 3 of 12")
    page.locator("#header h1").click()
    page.keyboard.press(".")
    expect(readout).to_contain_text("Frame 4 of 12")
    page.keyboard.press("]")
    expect(page.locator("#panel-pruning .badge")).to_have_text("Preview – not used yet")


def test_what_is_saved_is_the_mask_of_the_shown_settings(page, nano, tmp_path, open_file):
    from PIL import Image

    upload(page, CLIP)
    open_tab(page, "Pruning")
    view(page, "pruning")
    drag(page, "Threshold", 300)  # 10
    video = nano.new_session().open(CLIP, fps=1, max_frames=180)
    keep = prune(to_patches([video.clip], [video.grid]), threshold=10.0)
    saved = {}
    for name in ("PNG", "GIF", "MP4", "Mask"):
        with page.expect_download() as download:
            page.locator("#panel-pruning .save").get_by_role("button", name=name).click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        saved[path.suffix] = path
    assert saved[".npz"].name == "three_shapes pruning.npz"
    with np.load(saved[".npz"]) as mask:
        assert mask["keep"].ravel().tolist() == keep.keep_M.tolist()
        assert float(mask["threshold"]) == 10.0
    size = video.clip.frames_TYX3.shape[2], video.clip.frames_TYX3.shape[1]
    with Image.open(saved[".png"]) as one, Image.open(saved[".gif"]) as moving:
        assert one.size == moving.size == size
    assert len(vl3.video.read(saved[".mp4"], fps=1).times_s) == 12

    open_tab(page, "Positions")
    view(page, "positions")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as HTML").click()
    whole = tmp_path / download.value.suggested_filename
    download.value.save_as(whole)
    alone = open_file(whole)
    assert alone.locator(".vl3-look").count() == 2
    assert alone.locator("main > p").all_inner_texts() == ["nano · float32"]
    assert "Frame 1 of 12" in alone.locator(".pruning .readout").inner_text()
    alone.get_by_label("Frame", exact=True).first.press("ArrowRight")
    assert "Frame 2 of 12" in alone.locator(".pruning .readout").inner_text()


@pytest.fixture
def open_file(browser):
    """Opens a file in a browser without any server; at the end it asked for nothing."""
    asked, contexts = [], []

    def open_it(path: Path):
        context = browser.new_context()
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.locator(".vl3-look").first.wait_for()
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_attention_of_an_answer_one_click_from_word_to_patches(page, real):
    upload(page, CLIP)
    open_tab(page, "Attention")
    expect(page.locator("#panel-attention .note").first).to_have_text(text_format.NO_ANSWER)
    ask(page, "What happens?")
    shown = view(page, "attention")
    visitor = visitor_of(real, CLIP)
    tokens = shown.locator(".token")
    expect(tokens).to_have_count(len(visitor.turns[-1].reply.token_ids))
    shown.get_by_label("Source").select_option("language")
    expect(shown.locator(".heads button")).to_have_count(5)  # nano's heads and their mean
    tokens.nth(2).click()
    expect(shown.locator(".readout")).to_contain_text("Token 3 of")
    page.wait_for_function("document.querySelectorAll('#panel-attention .heads canvas').length > 1")
    page.keyboard.press("ArrowRight")
    expect(shown.locator(".readout")).to_contain_text("Token 4 of")
    address = page.locator(".vl3-attention").evaluate("root => root.url")
    need = {"of": address, "source": "language", "token": 1, "layer": 0}
    assert tabs.maps(real.controller, need)["tokens"] == [1]
    for wrong in ({"token": 99_999}, {"token": "1"}, {"source": "../x"}, {"layer": -1}, {"of": 1}):
        assert tabs.maps(real.controller, need | wrong) is None
    # What was made for the answer before answers no more.
    ask(page, "How many shapes are there?", 2)
    expect(tokens).to_have_count(len(visitor.turns[-1].reply.token_ids))
    assert tabs.maps(real.controller, need) is None


def test_two_runs_are_compared_and_the_conversation_stays_as_it_is(page, real):
    upload(page, CLIP)
    ask(page, "What happens?")
    open_tab(page, "Compare")
    page.get_by_role("button", name="Run both", exact=True).click()
    shown = view(page, "compare")
    kept = visitor_of(real, CLIP).turns[-1].reply.ledger.kept_tokens
    row = shown.get_by_role("row", name="Visual tokens kept")
    expect(row).to_contain_text(str(kept))
    expect(row).to_contain_text("192")
    expect(page.locator("#chat .bot-row")).to_have_count(1)
    assert len(visitor_of(real, CLIP).turns) == 1
    assert "/" not in shown.locator("canvas").first.get_attribute("aria-label")


def test_positions_know_the_prompt_once_there_is_one(page, real):
    upload(page, CLIP)
    open_tab(page, "Positions")
    heading = page.get_by_role("heading", name="Positions in the language model")
    view(page, "positions")
    expect(heading).to_have_count(0)
    ask(page, "What happens?")
    expect(heading).to_be_visible()
    reply = visitor_of(real, CLIP).turns[-1].reply
    slot_ids = real.controller.visitors.studio.model.config.slot_token_ids
    slots = np.flatnonzero(np.isin(reply.prompt_ids, slot_ids))
    assert f"positions {slots[0]} to" in page.locator("#panel-positions").inner_text()


@pytest.mark.slow
def test_every_tab_by_key_without_findings_in_both_themes_and_on_a_phone(page):
    upload(page, CLIP)
    ask(page, "What happens?")
    page.locator("#header h1").click()
    names = ("pruning", "positions", "attention", "compare", "run")
    for number, (name, label) in enumerate(zip(names, TABS, strict=True), 1):
        page.keyboard.press(str(number))
        tab = page.get_by_role("tab", name=label, exact=True)
        expect(tab).to_be_focused()
        expect(tab).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("tabpanel", name=label)).to_be_visible()
        if name != "compare":
            view(page, name)
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Pruning")).to_be_focused()
    page.get_by_role("tab", name="Compare").click()
    page.get_by_role("button", name="Run both", exact=True).click()
    view(page, "compare")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(
            "scheme => document.body.classList.contains('dark') === (scheme === 'dark')", arg=scheme
        )
        for label in TABS:
            open_tab(page, label)
            assert serious(page) == [], (scheme, label)
    page.set_viewport_size({"width": 390, "height": 844})
    open_tab(page, "Pruning")
    assert page.locator("#panel-pruning canvas.frame").bounding_box()["width"] > 300
    for label in TABS:
        open_tab(page, label)
        page.wait_for_timeout(150)
        wide = "document.documentElement.scrollWidth - window.innerWidth"
        assert page.evaluate(wide) <= 0, label
        targets = page.get_by_role("tabpanel").locator("button:visible, select:visible")
        for target in targets.all()[:40]:
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 24, target.evaluate("node => node.outerHTML")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Tabs of Inspect")


@pytest.mark.slow
def test_names_and_questions_stay_text_in_every_tab_and_in_the_file(
    page, tmp_path, clip, open_file
):
    path = tmp_path / '<img src=x onerror="window.p=1">.mp4'.replace("/", "")
    shutil.copyfile(clip, path)
    page.locator("#drop input[type=file]").set_input_files(str(path))
    expect(page.locator("#player .facts")).to_contain_text("mp4")
    ask(page, " ".join(HOSTILE))
    for name, label in (("pruning", "Pruning"), ("attention", "Attention"), ("run", "Run details")):
        open_tab(page, label)
        view(page, name)
    assert page.evaluate(HURT)
    assert page.locator("#inspect img").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as HTML").click()
    whole = tmp_path / "whole.html"
    download.value.save_as(whole)
    alone = open_file(whole)
    assert alone.locator(".vl3-look").count() == 3
    assert alone.evaluate(HURT)
    assert alone.locator("main img").count() == 0
