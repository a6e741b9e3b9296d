"""Takes the pictures of the page: python tests/app/screenshots.py OUT_DIR [--clip FILE]

Starts the page on this machine with the bundled model and clips, asks in a real browser, and saves
PNG files: light, dark, phone, settings, the tabs of Inspect; with --clip a file and its pruning, in
patches as small as the released models have, which nano does without.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

REPO = Path(__file__).resolve().parents[2]
SIZES = {"light": (1440, 900), "dark": (1440, 900), "phone": (390, 844), "clip": (1440, 900)}


@contextmanager
def running(model: str | None):
    """The address of a page of its own, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tempfile.mkdtemp()
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", data, "--offline"]
    process = subprocess.Popen(
        command + (["--model", model] if model else []),
        cwd=REPO,
        start_new_session=True,
        env={**os.environ, "GRADIO_IS_E2E_TEST": "1"},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(data, ignore_errors=True)


def wait_for(url: str, limit_s: float = 120) -> None:
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.3)


def converse(page, clip: Path | None = None) -> None:
    """Two questions about the clip, or about the first bundled example; one in its words."""
    asked = ["What happens in the video?", "How many shapes are there?"]
    if clip is None:
        page.locator("#gallery .card").first.click()
        questions = page.locator("#gallery .question")
        questions.first.wait_for()
        asked[0] = questions.first.inner_text()
    else:
        page.locator("#drop input[type=file]").set_input_files(str(clip))
    page.locator("#player video").wait_for()
    for question in asked:
        ask(page, question)
    page.locator("#player video").evaluate("video => { video.currentTime = video.duration / 2; }")
    page.locator("#ask textarea").evaluate("field => field.blur()")
    page.wait_for_timeout(900)


def ask(page, question: str) -> None:
    number = page.locator("#chat .bot-row").count()
    page.locator("#ask textarea").fill(question)
    page.locator("#ask textarea").press("Enter")
    expect(page.locator("#chat .bot-row").nth(number).locator(".foot").first).to_be_visible()
    expect(page.locator("#ask .submit-button")).to_be_visible()


def picture(browser, url: str, name: str, folder: Path, clip: Path | None = None) -> None:
    width, height = SIZES[name]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if name == "dark" else "light",
        device_scale_factor=2 if name == "phone" else 1,
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(url)
    page.locator("#ask textarea").wait_for()
    page.wait_for_timeout(800)
    if name == "light":
        page.screenshot(path=folder / "page-empty.png")
    converse(page, clip)
    page.screenshot(path=folder / f"page-{name}.png", full_page=name == "phone")
    if name == "clip":
        context.close()
        return
    ask(page, "What happens in the video?")
    inspect(page, folder, "" if name == "light" else f"-{name}")
    if name == "light":
        page.locator("#header h1").click()
        page.locator(".sidebar .toggle-button").click()
        page.wait_for_timeout(700)
        page.screenshot(path=folder / "page-settings.png")
    context.close()


def inspect(page, folder: Path, suffix: str) -> None:
    """A picture of every tab, each at a moment that shows something."""
    for tab in ("Pruning", "Positions", "Attention", "Compare", "Run details"):
        page.get_by_role("tab", name=tab).click()
        if tab == "Compare":
            page.get_by_role("button", name="Run both").click()
        panel = page.get_by_role("tabpanel")
        panel.locator(".vl3-look").wait_for()
        if tab == "Attention":
            panel.get_by_role("button", name="Strongest frame").click()
        page.wait_for_timeout(900)
        name = tab.lower().replace(" ", "-")
        page.locator("#inspect").screenshot(path=folder / f"inspect-{name}{suffix}.png")


@contextmanager
def with_small_patches(model: str | None):
    """A copy of the model without its bound on the tokens of a frame."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(model or REPO / "assets/nano", Path(folder) / "model")
        settings = json.loads((copy / "processor_config.json").read_text("utf-8"))
        settings["frame_tokens"] = None
        (copy / "processor_config.json").write_text(json.dumps(settings), "utf-8")
        yield str(copy)


def pruned(browser, url: str, folder: Path, clip: Path) -> None:
    """The clip's pruning at a threshold that camera footage feels."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(url)
    page.locator("#drop input[type=file]").set_input_files(str(clip))
    expect(page.locator("#player .facts")).to_contain_text(clip.name)
    page.get_by_role("tab", name="Pruning").click()
    panel = page.get_by_role("tabpanel")
    panel.locator(".vl3-look").wait_for()
    frames = panel.get_by_label("Frame", exact=True)
    for field, value in ((panel.get_by_label("Threshold", exact=True), 270), (frames, 1)):
        field.evaluate(
            "(slider, value) => { slider.value = value;"
            "for (const type of ['input', 'change']) slider.dispatchEvent(new Event(type)); }",
            value,
        )
    page.mouse.move(0, 0)
    page.wait_for_timeout(1500)
    page.locator("#inspect").screenshot(path=folder / "inspect-pruning.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--clip", type=Path, help="a video for page-clip.png and inspect-pruning.png"
    )
    parser.add_argument("--model", help="another model than the bundled nano")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    expect.set_options(timeout=120_000)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with running(options.model) as url, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--mute-audio"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        for name in ("light", "dark", "phone"):
            picture(browser, url, name, options.folder)
        if options.clip:
            picture(browser, url, "clip", options.folder, options.clip)
            with with_small_patches(options.model) as copy, running(copy) as fine:
                pruned(browser, fine, options.folder, options.clip)
        browser.close()
    for path in sorted(options.folder.glob("*.png")):
        print(path)


if __name__ == "__main__":
    main()
