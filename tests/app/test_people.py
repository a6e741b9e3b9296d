"""Two people at once, people who leave, and people who mean harm."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from serving import serving
from steps import answer, ask, expect, open_tab, toast, type_and_send, upload

from vl3.webapp import launch

pytest_plugins = ["page_fixtures"]

LONG = " ".join(f"word{number}" for number in range(400))
PAYLOADS = [
    "${Object.assign(window,{pwnd:7})}",
    "`+(window.p=1)+`",
    '<img src=x onerror="window.p=1">',
    "[x](javascript:window.p=1)",
    "{{constructor}}",
    "<script>window.p=1</script>",
    "![x](http://evil.example/x.png)",
    "[link](http://evil.example/) <http://evil.example/> https://evil.example/",
    '[a]: javascript:window.p=1\n\n<a href="javascript:window.p=1">a</a>',
    "<style>body{display:none}</style><iframe src=/></iframe>",
    # What the page's toolkit would draw, fetch or run
    "\n\n```mermaid\ngraph TD\nA[rich]-->B\n```\n",
    "\n\n> ~~~ Mermaid\n> graph TD\n> A[rich]-->B\n> ~~~\n",
    "\n\n```html\n<img src=x onerror=window.p=1><b>rich</b>\n```\n",
    "$$\\href{javascript:window.p=1}{rich}$$ \\(x^2\\) \\[rich\\] $x$",
    "![a][b] [a][b]\n\n[b]: http://evil.example/x.png",
    "<math><mi>x</mi></math> <svg onload=window.p=1> <details open ontoggle=window.p=1>",
    "&lt;img src=x onerror=window.p=1&gt; data:text/html,<b>rich</b> //evil.example/x.png",
]
RICH = ".mermaid, .latex-block, .katex, .prose :is(script, style, iframe, img, math, details)"
HURT = "window.p === undefined && window.pwnd === undefined"


@pytest.mark.slow
def test_two_people_never_see_each_other(new_page, server, script, clip, other_clip):
    first, second = new_page(server, apart=True), new_page(server, apart=True)
    script.answer = "Alpha answer."
    upload(first, clip)
    ask(first, "Alpha question?")
    expect(second.locator("#chat .user-row")).to_have_count(0)
    type_and_send(second, "What do you see?")
    assert "Upload a video" in toast(second)
    script.answer = "Beta answer."
    upload(second, other_clip)
    ask(second, "Beta question?")
    assert "Alpha" not in second.locator("#chat").inner_text()
    assert "Beta" not in first.locator("#chat").inner_text()
    answered = [entry for entry in script.log if entry[0] == "answered"]
    assert len({entry[1] for entry in answered}) == 2
    assert "Alpha" not in str(answered[-1][2])
    assert clip.name not in str(answered[-1][2])


@pytest.mark.slow
def test_one_waits_for_the_other_and_can_stop_waiting(new_page, server, script, clip, other_clip):
    first, second = new_page(server, apart=True), new_page(server, apart=True)
    script.answer, script.word_s = LONG, 0.05
    upload(first, clip)
    upload(second, other_clip)
    type_and_send(first, "Tell me everything")
    expect(first.locator("#chat .bot-row")).to_contain_text("word3")
    type_and_send(second, "And me")
    expect(second.locator("#ask .stop-button")).to_be_visible()
    expect(second.locator("#queue")).to_have_text("1 person is before you.")
    expect(second.locator("#chat .stage")).to_have_text("Waiting")
    second.locator("#ask .stop-button").click()
    expect(second.locator("#chat .bot-row")).to_contain_text("(stopped after 0 tokens)")
    expect(second.locator("#ask .submit-button")).to_be_visible()
    expect(second.locator("#queue")).to_have_text("")
    expect(first.locator("#chat .bot-row")).to_contain_text("word15")
    first.locator("#ask .stop-button").click()
    answer(first)
    script.answer = "Short."
    assert ask(second, "Now?", 2).startswith("Short.")


def test_a_closed_page_frees_what_it_held(new_page, server, script, clip):
    script.answer, script.word_s = LONG, 0.05
    page = new_page(server, apart=True)
    upload(page, clip)
    type_and_send(page, "Tell me everything")
    expect(page.locator("#chat .bot-row")).to_contain_text("word3")
    fork = [entry[1] for entry in script.log if entry[0] == "fork"][-1]
    visitors = server.controller.visitors
    (held,) = [visitor for visitor in visitors._visitors.values() if visitor.studio is fork]
    assert fork.running.is_set()
    assert fork.caches
    begin_s = time.monotonic()
    page.context.close()
    while fork.running.is_set() or fork.caches or held.left_s is None:
        assert time.monotonic() - begin_s < 3, "something was not freed"
        time.sleep(0.02)
    assert fork.released == 1
    assert held.paths() <= visitors.paths()
    (key,) = [key for key, visitor in visitors._visitors.items() if visitor is held]
    kept = server.demo.state_holder.session_data
    launch.forget_left(server.demo, visitors, after_s=0)
    assert key in kept  # a lost connection may come back
    visitors.sweep(left_s=0)
    assert held not in visitors._visitors.values()
    assert launch.forget_left(server.demo, visitors, after_s=60) == 0
    assert launch.forget_left(server.demo, visitors, after_s=0) > 0
    assert key not in kept
    assert set(kept) <= set(visitors._visitors)  # pages that are open are as they were


@pytest.mark.slow
def test_payloads_do_nothing_as_question_and_answer(page, clip, script):
    upload(page, clip)
    chat = page.locator("#chat")
    for number, payload in enumerate(PAYLOADS, 1):
        script.answer = f"Before {payload} after"
        ask(page, payload, number)
        assert page.evaluate(HURT), payload
        shown = chat.locator(".bot-row").last.inner_text().replace("\u200b", "")
        if not set("\n`\\") & set(payload):
            assert payload in shown
    open_tab(page, "Run details")
    assert page.evaluate(HURT)
    assert chat.locator("iframe").count() == 0
    assert chat.locator(RICH).evaluate_all("found => found.map((each) => each.outerHTML)") == []
    assert chat.locator(".prose a:not([href^='#t='])").count() == 0
    expect(page.locator("#panel-run pre").nth(1)).to_contain_text("<iframe src=/>")


@pytest.mark.slow
def test_payloads_do_nothing_as_file_name(page, clip, tmp_path, script):
    for number, payload in enumerate(PAYLOADS[:4]):
        name = payload.replace("/", "_")[:80] + ".mp4"
        path = tmp_path / name
        path.write_bytes(clip.read_bytes())
        page.locator("#drop input[type=file]").set_input_files(str(path))
        expect(page.locator("#player .facts")).to_contain_text(".mp4")
        ask(page, f"Question {number}?", number + 1)
        path.write_bytes(b"no video")
        page.locator("#drop input[type=file]").set_input_files(str(path))
        toast(page)
    assert page.evaluate(HURT)
    assert page.locator("#chat script, #player script").count() == 0


def test_payloads_do_nothing_as_model_and_adapter_names(page):
    page.locator(".sidebar .toggle-button").click()
    page.locator("#settings").get_by_label("Model", exact=True).fill(PAYLOADS[2])
    page.locator("#settings").get_by_label("Adapter", exact=True).fill(PAYLOADS[0])
    page.wait_for_timeout(300)
    assert page.evaluate(HURT)


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_file_outside_the_upload_folder_is_served(server):
    repo = Path(__file__).resolve().parents[2]
    for path in ("/etc/passwd", repo / "app.py", repo / "vl3" / "values.py", Path.home()):
        assert status(f"{server.url}/gradio_api/file={path}") in (403, 404)
    with urllib.request.urlopen(server.url) as reply:
        policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_a_locked_page_opens_only_for_who_has_the_key(browser, server):
    with serving(server.controller, auth=("me", "secret")) as locked:
        assert status(f"{locked.url}/config") == 401
        assert status(f"{locked.url}/gradio_api/info") == 401
        assert status(f"{locked.url}/gradio_api/file={server.controller.uploads.folder}") in (
            401,
            403,
        )
        page = browser.new_context().new_page()
        page.goto(locked.url)
        page.get_by_label("username").fill("me")
        page.get_by_label("password").fill("secret")
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#header h1")).to_have_text("vl3")
        page.context.close()
