"""Accessibility, themes and narrow screens."""

from __future__ import annotations

import pytest
from steps import ask, expect, open_tab, serious, upload

pytest_plugins = ["page_fixtures"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(new_page, server, script, clip, scheme):
    page = new_page(server, scheme=scheme)
    assert ("dark" in (page.locator("body").get_attribute("class") or "")) == (scheme == "dark")
    assert serious(page) == []
    upload(page, clip)
    ask(page, "When?")
    open_tab(page, "Run details")
    assert serious(page) == []
    page.locator(".sidebar .toggle-button").click()
    expect(page.get_by_label("Temperature", exact=True)).to_be_visible()
    page.wait_for_timeout(400)
    assert serious(page) == []


def test_a_phone_shows_everything_in_order_without_sideways_scrolling(
    new_page, server, script, clip
):
    page = new_page(server, width=390, height=844)
    wide = "document.documentElement.scrollWidth - window.innerWidth"
    assert page.evaluate(wide) <= 0
    upload(page, clip)
    ask(page, "When?")
    assert page.evaluate(wide) <= 0
    tops = [page.locator(name).bounding_box()["y"] for name in ("#player", "#ask", "#chat")]
    assert tops == sorted(tops)
    assert len(set(tops)) == 3
    open_tab(page, "Run details")
    assert page.evaluate(wide) <= 0


def test_no_answer_is_too_wide(page, script, clip):
    script.answer = "<|special_token|>" * 60 + " " + "x" * 900
    upload(page, clip)
    ask(page, "y" * 300)
    for width in (1440, 1280, 820, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        box = page.locator("#chat .bot-row .prose").bounding_box()
        assert box["x"] + box["width"] <= width


def test_theme_follows_the_choice(page):
    page.locator(".sidebar .toggle-button").click()
    page.get_by_label("Dark", exact=True).check()
    page.wait_for_function("document.body.classList.contains('dark')")
    background = "getComputedStyle(document.querySelector('#chat')).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_label("System", exact=True).check()
    page.wait_for_function("!document.body.classList.contains('dark')")
    assert page.evaluate(background) != dark
    page.get_by_role("button", name="Light or dark", exact=True).click()
    expect(page.get_by_label("Dark", exact=True)).to_be_checked()
