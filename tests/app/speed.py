"""Measures the views on the running page: python tests/app/speed.py [--clip FILE]

Starts the page on this machine with the bundled model, uploads a video that gives 180 frames, and
prints how many threshold steps a second a drag shows, and how long an attention map takes from the
click to the picture. Without --clip the video is made: three minutes of slides with a speaker.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright
from screenshots import ask, running

from train_cli.bench import clips

STEPS, MAPS = 240, 8

# One step of the slider for every picture the browser paints.
DRAG = """async (slider, steps) => {
  const painted = () => new Promise(requestAnimationFrame);
  const times = [await painted()];
  for (let i = 0; i < steps; i++) {
    slider.value = Number(slider.max) * i / steps;
    slider.dispatchEvent(new Event("input"));
    times.push(await painted());
  }
  return times.slice(1).map((time, i) => time - times[i]);
}"""
# From the click on a token to the picture after its map came; a note says that it is on its way.
MAP_MS = """async ([token, note]) => {
  const painted = () => new Promise(requestAnimationFrame);
  const begun = performance.now();
  token.click();
  if (!note.textContent) throw new Error("the map of this token was here already");
  while (note.textContent) await painted();
  await painted();
  return performance.now() - begun;
}"""


def drag(page) -> str:
    page.get_by_role("tab", name="Pruning").click()
    panel = page.get_by_role("tabpanel")
    panel.locator(".vl3-look").wait_for()
    slider = panel.get_by_label("Threshold", exact=True)
    slider.evaluate(DRAG, 20)
    gaps_ms = slider.evaluate(DRAG, STEPS)
    longest_ms = statistics.quantiles(gaps_ms, n=20)[-1]
    per_second = 1000 * len(gaps_ms) / sum(gaps_ms)
    return f"threshold drag: {per_second:.0f} steps a second, 95 % within {longest_ms:.0f} ms"


def maps(page) -> str:
    """Each of another token, which the server computes then: all its heads in one or all layers."""
    page.get_by_role("tab", name="Attention").click()
    panel = page.get_by_role("tabpanel")
    panel.locator(".vl3-look").wait_for()
    note = panel.locator("p.note.words")
    panel.get_by_label("Source").select_option("language")
    expect(note).to_have_text("")
    tokens = panel.locator("button.token[aria-pressed=false]").element_handles()[:MAPS]
    times_ms = [page.evaluate(MAP_MS, [token, note.element_handle()]) for token in tokens]
    return (
        f"attention map: median {statistics.median(times_ms):.0f} ms, "
        f"longest {max(times_ms):.0f} ms of {len(times_ms)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, help="a video of three minutes or more")
    parser.add_argument("--model", help="another model than the bundled nano")
    options = parser.parse_args()
    expect.set_options(timeout=300_000)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with (
        tempfile.TemporaryDirectory() as folder,
        running(options.model) as url,
        sync_playwright() as playwright,
    ):
        clip = options.clip or clips.write("mix", Path(folder), 180)
        flags = ["--no-sandbox", "--disable-gpu", "--mute-audio"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(url)
        page.locator("#ask textarea").wait_for()
        page.locator("#drop input[type=file]").set_input_files(str(clip))
        expect(page.locator("#budget p")).to_contain_text("180 frames")
        print(drag(page))
        ask(page, "What happens in the video?")
        print(maps(page))
        browser.close()


if __name__ == "__main__":
    main()
