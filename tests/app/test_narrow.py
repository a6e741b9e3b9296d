"""Narrow and low windows: who asks sees that something happens."""

from __future__ import annotations

import pytest
from steps import answer, expect, serious, type_and_send, upload

pytest_plugins = ["page_fixtures"]

# Of the conversation, the part that the window shows.
SEEN = """() => {
    const { top, bottom, height } = document.querySelector('#chat').getBoundingClientRect();
    return (Math.min(bottom, innerHeight) - Math.max(top, 0)) / Math.min(height, innerHeight);
}"""


@pytest.fixture(scope="module")
def server(upload_folder):
    from page_fixtures import fake_controller
    from serving import REPO, serving

    controller = fake_controller(upload_folder)
    controller.add_examples(REPO / "assets" / "clips")
    with serving(controller) as running:
        running.script = controller.script
        yield running


def test_a_tapped_question_takes_a_phone_to_its_answer(new_page, server, script):
    page = new_page(server, width=390, height=844)
    script.stage_s = 0.2
    page.locator("#gallery .card").first.click()
    question = page.locator("#gallery .question").first
    question.click()
    page.wait_for_function(f"({SEEN})() > 0.6")
    expect(page.locator("#chat .user-row").last).to_contain_text(question.inner_text())
    expect(page.locator("#ask textarea")).to_be_in_viewport()
    answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("size", [(844, 390), (720, 450), (390, 844)])
def test_who_types_a_question_sees_the_conversation(new_page, server, script, clip, size):
    page = new_page(server, width=size[0], height=size[1])
    upload(page, clip)
    type_and_send(page, "What?")
    answer(page)
    assert page.evaluate(SEEN) > 0.6
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_where_the_conversation_is_in_sight_nothing_moves(new_page, server, script, clip):
    page = new_page(server, width=1440, height=900)
    upload(page, clip)
    type_and_send(page, "What?")
    answer(page)
    assert page.evaluate("scrollY") == 0


@pytest.mark.slow
def test_notices_are_free_of_serious_findings(new_page, server, script, clip, browser):
    for scheme in ("light", "dark"):
        page = new_page(server, scheme=scheme)
        script.notes = ("32 of 200 frames could not be read.",)
        upload(page, clip)
        type_and_send(page, "What?")
        answer(page)
        page.get_by_label("Token budget", exact=True).fill("50")
        expect(page.locator("#budget .remark").first).to_contain_text("Above the budget")
        page.locator(".sidebar .toggle-button").click()
        page.get_by_label("Temperature", exact=True).fill("-3")
        expect(page.locator("#faults p")).to_be_visible()
        assert serious(page) == []
