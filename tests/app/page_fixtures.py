"""Fixtures of the page: one server a module, a page a test; nothing may leave this machine.

A plugin and not a conftest, since tests elsewhere import from the conftest above.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serving import REPO, Server, serving

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_IS_E2E_TEST", "1")
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--mute-audio",
    # A request for anywhere else cannot leave, even where the page allows one by mistake.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
# gradio asks how far an upload is before a busy server has heard of it, and prints the Response
# (its 404, and the status of an upload that is refused, are told by their address, below).
ALLOWED_CONSOLE = ("Method not implemented.", "Response")


@pytest.fixture(scope="module")
def upload_folder(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("uploads")
    before = os.environ.get("GRADIO_TEMP_DIR")
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["GRADIO_TEMP_DIR"]
    else:
        os.environ["GRADIO_TEMP_DIR"] = before


def fake_controller(folder: Path):
    """A controller on a fake studio; what it says is in its script."""
    from fake import FakeOutOfMemory, FakeStudio, Script

    import vl3.video
    from vl3.webapp.controller import Controller
    from vl3.webapp.uploads import Uploads

    script = Script()
    refusals = {
        FakeOutOfMemory: "Out of memory",
        vl3.video.VideoError: "Cannot read this file",
        ValueError: "Not possible",
    }
    made = Controller(
        lambda **chosen: FakeStudio(script), Uploads(folder, vl3.video, 10**9), refusals
    )
    made.script = script
    return made


@pytest.fixture
def controller(tmp_path):
    """A controller without a page."""
    return fake_controller(tmp_path)


@pytest.fixture(scope="module")
def server(upload_folder) -> Iterator[Server]:
    """The page on a fake studio whose script the tests rewrite."""
    controller = fake_controller(upload_folder)
    with serving(controller) as running:
        running.script = controller.script
        yield running


@pytest.fixture
def script(server):
    """The script of the fake studio, as it was before the test once the test is over."""
    from fake import Script

    vars(server.script).update(vars(Script()))
    yield server.script
    vars(server.script).update(vars(Script()))


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def profile(browser):
    """The context that most tests share, so that the page's scripts are loaded once."""
    context = browser.new_context(accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def new_page(browser, profile):
    """Opens pages; at the end nothing may have gone wrong or have asked another machine.

    Pages `apart` have a context of their own, like the browsers of two people.
    """
    opened, apart_contexts, asked_outside, problems = [], [], [], []

    def note_request(request) -> None:
        url = request.url
        if not url.startswith(("data:", "blob:")) and urlsplit(url).hostname != "127.0.0.1":
            asked_outside.append(url)

    def note_message(message) -> None:
        is_upload = "/gradio_api/upload" in message.location["url"]
        if message.type == "error" and not is_upload and message.text not in ALLOWED_CONSOLE:
            problems.append(message.text)

    def open_page(server: Server, width=1280, height=900, scheme="light", apart=False, query=""):
        context = profile
        if apart:
            context = browser.new_context(accept_downloads=True)
            apart_contexts.append(context)
        page = context.new_page()
        opened.append(page)
        page.set_default_timeout(30_000)
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.on("request", note_request)
        page.on("console", note_message)
        page.on("pageerror", lambda error: problems.append(str(error)))
        # What earlier tests left in the shared context; a reload of the page keeps what it stored.
        page.add_init_script(
            "if (!sessionStorage.getItem('test')) localStorage.clear();"
            "sessionStorage.setItem('test', 'begun');"
            # A page that is left aborts its open streams, and gradio says so in the console.
            "addEventListener('beforeunload', () => { console.error = () => {}; });"
        )
        page.goto(f"{server.url}/{query}")
        page.locator("#ask textarea").wait_for()
        page.locator("#header h1").wait_for()
        page.wait_for_function("sessionStorage.getItem('vl3-run')")  # what was kept is back
        return page

    yield open_page
    for page in opened:
        page.close()
    for context in apart_contexts:
        context.close()
    assert asked_outside == []
    assert problems == []


@pytest.fixture
def page(new_page, server, script):
    return new_page(server)


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """A clip of 4 s at 12 frames per second that browsers can play."""
    import clips

    path = tmp_path_factory.mktemp("media") / "four seconds.mp4"
    return clips.write_clip(path, 48, 12, size=(96, 160))


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory) -> Path:
    import clips

    path = tmp_path_factory.mktemp("media") / "two.mp4"
    return clips.write_clip(path, 24, 12, size=(96, 160))
