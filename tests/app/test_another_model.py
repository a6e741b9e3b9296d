"""Another model for everybody: who answered is said everywhere, and everybody is told."""

from __future__ import annotations

import json

import pytest
from fake import CARD, FakeStudio
from steps import ask, expect, open_tab, toast, type_and_send, upload
from test_controller import READING, SETTINGS, uploaded

from vl3.webapp import chat_rows, text_format, transcript, widget_values
from vl3.webapp.errors import UserError
from vl3.webapp.tabs import draw_tab

pytest_plugins = ["page_fixtures"]

LARGE = {**CARD, "name": "DAMO-NLP-SG/VideoLLaMA3-2B", "quantize": "nf4", "is_nano": False}
LARGE["defaults"] = {**CARD["defaults"], "max_frames": 8, "budget_tokens": 2048}
CHANGED = "The model was changed to VideoLLaMA3-2B · nf4"


@pytest.fixture
def large(server, script):
    """The controller loads a large model until the test ends, then the one before again."""
    controller, load = server.controller, server.controller.models.load
    controller.models.load = lambda **chosen: FakeStudio(script, "large", LARGE)
    yield
    controller.models.load = load
    controller.load("", "none", "")


def test_a_model_is_named_by_its_last_name_its_numbers_and_its_adapter():
    card = {**CARD, "name": "nano"}
    assert text_format.model(card) == "nano · float32"
    assert text_format.model(LARGE) == "VideoLLaMA3-2B · nf4"
    trained = {**card, "adapter": "/home/me/runs/mine/checkpoint-200"}
    assert text_format.model(trained) == "nano · float32 · adapter mine/checkpoint-200"


@pytest.mark.slow
def test_everybody_sees_the_new_model_and_every_answer_says_whose_it_is(
    new_page, server, clip, large
):
    first, second = new_page(server, apart=True), new_page(server, apart=True)
    for page in (first, second):
        upload(page, clip)
        assert "fake · float32" in ask(page, "When?")
    second.get_by_label("Max frames", exact=True).fill("3")
    expect(second.locator("#budget p").first).to_contain_text("3 frames")
    first.locator(".sidebar .toggle-button").click()
    first.get_by_role("button", name="Load", exact=True).click()
    expect(first.locator("#header")).to_contain_text("VideoLLaMA3-2B·5.2 M parameters·nf4")
    expect(first.locator("#chat .event")).to_have_text(f"{CHANGED}.")
    assert f"{CHANGED} by another visitor." in toast(second)
    expect(second.locator("#header")).to_contain_text("VideoLLaMA3-2B·5.2 M parameters·nf4")
    expect(second.locator("#chat .event")).to_have_text(f"{CHANGED} by another visitor.")
    expect(second.get_by_label("Token budget", exact=True)).to_have_value("2048")
    expect(second.get_by_label("Max frames", exact=True)).to_have_value("3")  # typed, so it stays
    open_tab(second, "Run details")
    expect(second.locator("#panel-run")).to_contain_text("given by fake · float32, which is not")
    assert "VideoLLaMA3-2B · nf4" in ask(second, "And now?", 2)
    expect(second.locator("#panel-run")).to_contain_text("Python")
    expect(second.locator("#chat .bot-row").first).to_contain_text("fake · float32")
    with second.expect_download() as download:
        second.get_by_role("button", name="Markdown", exact=True).click()
    with open(download.value.path(), encoding="utf-8") as file:
        text = file.read()
    for sentence in ("· fake · float32*", f"*{CHANGED} by another visitor.*", "B · nf4*"):
        assert sentence in text


@pytest.mark.slow
def test_an_answer_that_was_cut_off_by_another_model_is_stopped_and_says_why(
    new_page, server, script, clip, large
):
    page = new_page(server, apart=True)
    script.answer, script.word_s = " ".join(f"word{n}" for n in range(400)), 0.05
    upload(page, clip)
    type_and_send(page, "Tell me everything")
    expect(page.locator("#chat .bot-row")).to_contain_text("word3")
    server.controller.load("large", "nf4", "")
    expect(page.locator("#chat .bot-row")).to_contain_text("(stopped")
    expect(page.locator("#chat .event")).to_have_text(f"{CHANGED} by another visitor.")
    expect(page.locator("#ask .submit-button")).to_be_visible()
    expect(page.locator("#chat .problem")).to_have_count(0)


def asked(controller, clip):
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "When?", [], READING, SETTINGS)
    list(controller.answer(visitor, SETTINGS))
    return visitor


def test_exports_and_links_name_the_model_of_every_answer(controller, clip):
    visitor = asked(controller, clip)
    controller.models.load = lambda **chosen: FakeStudio(controller.script, "large", LARGE)
    controller.load("large", "nf4", "")
    visitor = controller.visitors.get("one")
    controller.ask(visitor, "And now?", [], READING, SETTINGS)
    list(controller.answer(visitor, SETTINGS))
    record = json.loads(transcript.as_json(visitor.turns, controller.card))
    assert [turn["model"]["name"] for turn in record["turns"]] == ["fake", LARGE["name"]]
    assert record["turns"][0]["events"] == [f"{CHANGED} by another visitor."]
    stranger = controller.visitors.get("two")
    controller.open(stranger, controller.share(visitor), None)
    feet = [row["content"] for row in chat_rows.rows(stranger.turns)[1::2]]
    assert "fake · float32" in feet[0]
    assert CHANGED in feet[0]
    assert "VideoLLaMA3-2B · nf4" in feet[1]


@pytest.mark.parametrize("tab", ["attention", "run"])
def test_an_answer_of_another_model_is_not_looked_into_with_this_one(controller, clip, tab):
    visitor = asked(controller, clip)
    controller.models.load = lambda **chosen: FakeStudio(controller.script, "large", LARGE)
    controller.load("large", "nf4", "")
    visitor = controller.visitors.get("one")
    visitor.tab = tab
    assert list(draw_tab(controller, visitor, None)) == [{"note": text_format.of_another(CARD)}]


def test_a_model_that_cannot_be_loaded_changes_nothing_and_announces_nothing(controller, clip):
    visitor = asked(controller, clip)
    number = controller.models_loaded

    def load(**chosen):
        if chosen.get("model") == "broken":
            raise OSError("no such folder")
        return FakeStudio(controller.script)

    controller.models.load = load
    with pytest.raises(UserError, match="no such folder"):
        controller.load("broken", "none", "", visitor)
    visitor = controller.visitors.get("one")
    assert (visitor.news, visitor.turns[-1].told) == ("", ())
    assert widget_values.header(controller.card, number)["facts"][0] == "fake"
