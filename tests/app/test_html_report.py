"""The page that validate writes, in a browser: nothing fetched, nothing run, readable by all."""

import json

import pytest

from train_cli.__main__ import main

pytest_plugins = ["page_fixtures"]

axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    from clips import write_clip

    folder = tmp_path_factory.mktemp("sheet")
    write_clip(folder / "a.mp4", 160, 4, size=(96, 128))
    turns = [
        {"role": "user", "content": "<video>What?<script>document.title='x'</script>"},
        {"role": "assistant", "content": "A long answer. " * 60},
    ]
    rows = [{"video": name, "messages": turns} for name in ("a.mp4", "gone.mp4")]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert (
        main(["validate", str(folder / "t.jsonl"), "--html", str(folder / "out.html"), "--quiet"])
        == 3
    )
    return (folder / "out.html").as_uri()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_opens_alone_and_is_accessible(browser, address, scheme, width):
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}, offline=True, bypass_csp=True
    )
    page, messages, requests = context.new_page(), [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    assert page.title() == "Data check: t.jsonl"
    assert page.locator("figure img").count() == 24
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert [url for url in requests if not url.startswith("data:")] == [address]
    found = axe_module.Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"][:200]) for item in found] == []
    assert messages == []
    context.close()
