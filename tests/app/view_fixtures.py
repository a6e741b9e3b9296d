"""The one-file page of views in a browser, and what tests do with it."""

from __future__ import annotations

import pytest

from vl3.viz import export


@pytest.fixture
def open_views(browser, tmp_path):
    """Opens the one-file page; at the end nothing was asked of anywhere, nothing went wrong."""
    asked, problems, contexts = [], [], []

    def open_page(*views, width=1280, height=900, scheme="light", title="a clip"):
        file = tmp_path / "views.html"
        file.write_text(export.page(*views, title=title), encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda told: problems.append(told.text) if told.type == "error" else None
        )
        page.goto(file.as_uri())
        page.locator(".vl3-look").first.wait_for()
        page.wait_for_timeout(300)  # the sheet is decoded, everything is drawn
        return page

    yield open_page
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    for context in contexts:
        context.close()
    assert outside == []
    assert problems == []
