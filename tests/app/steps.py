"""What a person does on the page, one function a step."""

from __future__ import annotations

from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
Page, expect = sync_api.Page, sync_api.expect
expect.set_options(timeout=30_000)  # a busy machine is not a failure


def upload(page: Page, path: Path) -> None:
    """Uploads and waits until the page says what the file is."""
    page.locator("#drop input[type=file]").set_input_files(str(path))
    expect(page.locator("#player .facts")).to_contain_text(path.name)


def type_and_send(page: Page, question: str) -> None:
    page.locator("#ask textarea").fill(question)
    page.locator("#ask textarea").press("Enter")


def ask(page: Page, question: str, number: int = 1) -> str:
    """Asks, waits for the end of the number-th answer, and gives its text."""
    type_and_send(page, question)
    return answer(page, number)


def answer(page: Page, number: int = 1) -> str:
    """The text of the number-th answer, once it has ended."""
    row = page.locator("#chat .bot-row").nth(number - 1)
    expect(row.locator(".foot, .problem").first).to_be_visible()
    expect(page.locator("#ask .submit-button")).to_be_visible()
    return row.locator(".message-content").inner_text()


def open_tab(page: Page, name: str) -> None:
    """Opens a tab of Inspect; what it draws may come later."""
    page.get_by_role("tab", name=name, exact=True).click()
    expect(page.get_by_role("tabpanel", name=name)).to_be_visible()


def toast(page: Page) -> str:
    """The text of the message that popped up; closes it."""
    body = page.get_by_test_id("toast-body").first
    expect(body).to_be_visible()
    text = body.locator(".toast-messages").inner_text()
    body.locator(".toast-close").click()
    expect(page.get_by_test_id("toast-body")).to_have_count(0)
    return text


def serious(page) -> list[str]:
    """The serious and critical findings of axe on the page as it is, one line each."""
    axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe_module.Axe().run(page).response["violations"]
    return [
        f"{item['id']} ({item['impact']}): {item['nodes'][0]['html'][:200]}"
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
