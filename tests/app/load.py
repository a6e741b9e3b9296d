"""Many people on the running page at once: python tests/app/load.py people | tabs

people: clients that speak as the page's own script does (no browser; 30 take little): each uploads,
changes settings, asks, looks inside and chooses examples until the time is over, then leaves.
Prints what was refused or lost, how questions were answered, how long light events took, and the
server's memory before and after.
tabs: opens and closes the page in a real browser, and prints the server's CPU seconds.
The page is started on this machine with the bundled model; --app FOLDER starts that of another
checkout.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from serving import REPO

CLIP = REPO / "assets" / "clips" / "circle_then_star.mp4"
QUESTIONS = ("What shape is it?", "What colour is it?", "What happens in the video?")
LIGHT_S = 60.0  # a light event that takes longer is lost


class Page:
    """What a page's script knows of the server: where its events are."""

    def __init__(self, config: dict) -> None:
        self.parts = {part["id"]: part for part in config["components"]}
        self.events = config["dependencies"]
        self.names = {
            part["props"].get("elem_id"): part["id"]
            for part in config["components"]
            if part["props"].get("elem_id")
        }

    def event(self, element: str, kind: str) -> dict:
        """What happens first on that event of the element."""
        target = [self.names[element], kind]
        return next(event for event in self.events if target in map(list, event["targets"]))

    def loads(self) -> list[dict]:
        """What a page that was opened asks for."""
        return [
            event for event in self.events if any(kind == "load" for _, kind in event["targets"])
        ]

    def after(self, event: dict) -> list[dict]:
        """What follows an event that went well."""
        return [each for each in self.events if each.get("trigger_after") == event["id"]]

    def values(self, event: dict) -> list:
        return [self.parts[part]["props"].get("value") for part in event["inputs"]]


@dataclass
class Seen:
    """What all people saw together."""

    light_s: list[float] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    problems: Counter = field(default_factory=Counter)


class Person:
    """One person with a browser."""

    def __init__(self, url: str, seen: Seen, clip: bytes) -> None:
        limits = httpx.Limits(max_connections=None)
        self.client = httpx.AsyncClient(base_url=url, timeout=300, limits=limits)
        self.session = f"{random.getrandbits(60):x}"
        self.seen, self.clip = seen, clip
        self.held: asyncio.Task | None = None

    async def open(self) -> None:
        (await self.client.get("/")).raise_for_status()
        self.page = Page((await self.client.get("/config")).json())
        self.held = asyncio.create_task(self._hold())
        for event in self.page.loads():
            if event["backend_fn"]:
                await self.light(event, [{}] * len(event["inputs"]))

    async def leave(self) -> None:
        if self.held:
            self.held.cancel()
            with suppress(asyncio.CancelledError):
                await self.held
        await self.client.aclose()

    async def _hold(self) -> None:
        """The connection by which the server knows that the page is open."""
        async with self.client.stream("GET", f"/gradio_api/heartbeat/{self.session}") as beats:
            async for _ in beats.aiter_lines():
                pass

    async def light(self, event: dict, data: list, detail: dict | None = None) -> bool:
        """An event that nobody should have to wait for; whether it was answered."""
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(LIGHT_S):
                done = await self.call(event, data, detail)
        except (TimeoutError, httpx.HTTPError) as error:
            done = {"problem": type(error).__name__}
        if problem := done.get("problem"):
            self.seen.problems[f"light: {problem}"] += 1
            return False
        self.seen.light_s.append(time.monotonic() - begun_s)
        self.seen.counts["light events"] += 1
        for next_ in self.page.after(event):
            if next_["backend_fn"] and not next_["trigger_only_on_failure"]:
                self.seen.counts["follow-ups"] += 1
                await self.light(next_, self.page.values(next_))
        return True

    async def call(self, event: dict, data: list, detail: dict | None = None) -> dict:
        """Sends an event as the page does; places and problem that came back."""
        body = {
            "data": data,
            "fn_index": event["id"],
            "session_hash": self.session,
            "event_data": detail,
            "trigger_id": None,
        }
        if event["queue"] is False:
            answer = await self.client.post("/gradio_api/run/predict", json=body)
            return {} if answer.status_code == 200 else {"problem": f"HTTP {answer.status_code}"}
        answer = await self.client.post("/gradio_api/queue/join", json=body)
        if answer.status_code != 200:
            return {"problem": f"HTTP {answer.status_code} {answer.text[:60]}"}
        return await self._wait(answer.json()["event_id"], event)

    async def _wait(self, event_id: str, event: dict) -> dict:
        queue = self.page.names.get("queue")
        place = event["outputs"].index(queue) if queue in event["outputs"] else None
        told = []
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        async with self.client.stream("GET", address) as messages:
            async for line in messages.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                kind = message["msg"]
                if kind == "process_generating" and place is not None and message["success"]:
                    said = str(message["output"]["data"][place])  # whole, or what changed
                    told += [said] if "before you" in said else []
                if kind == "process_completed":
                    output = message["output"] or {}
                    if message["success"]:
                        return {"told": told}
                    return {"told": told, "problem": f"error {output.get('error')}"[:90]}
                if kind in ("unexpected_error", "server_stopped"):
                    return {"problem": f"{kind} {message.get('message')}"}
        return {"problem": "the stream ended"}

    async def ask(self) -> None:
        """A question, answered or told how many are before it."""
        event = self.page.event("ask", "submit")
        data = self.page.values(event)
        box = event["inputs"].index(self.page.names["ask"])
        data[box] = {"text": random.choice(QUESTIONS), "files": []}
        begun_s = time.monotonic()
        begun = await self.call(event, data)
        self.seen.counts["questions"] += 1
        if problem := begun.get("problem"):
            self.seen.problems[f"question: {problem}"] += 1
            return
        run = next(each for each in self.page.after(event) if each["trigger_only_on_success"])
        done = await self.call(run, self.page.values(run))
        if problem := done.get("problem"):
            self.seen.problems[f"answer: {problem}"] += 1
            return
        self.seen.counts["answered"] += 1
        self.seen.counts["told their place"] += bool(done["told"])
        self.seen.answers_s.append(time.monotonic() - begun_s)
        for ended in self.page.after(run):
            if ended["backend_fn"] and not ended["trigger_only_on_failure"]:
                await self.light(ended, self.page.values(ended))

    async def upload(self) -> None:
        files = {"files": (f"clip {self.session}.mp4", self.clip, "video/mp4")}
        answer = await self.client.post("/gradio_api/upload", files=files)
        if answer.status_code != 200:
            self.seen.problems[f"upload: HTTP {answer.status_code}"] += 1
            return
        event = self.page.event("drop", "upload")
        data = self.page.values(event)
        data[0] = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
        await self.light(event, data)

    async def look(self) -> None:
        event = self.page.event("tabs", "open")
        await self.light(event, self.page.values(event), {"tab": random.choice(("pruning", "run"))})

    async def choose(self) -> None:
        event = self.page.event("gallery", "example")
        clips = self.page.parts[self.page.names["gallery"]]["props"]["value"]["clips"]
        if clips:
            await self.light(
                event, self.page.values(event), {"index": random.randrange(len(clips))}
            )

    async def set(self) -> None:
        event = next(
            each
            for each in self.page.events
            if not each["queue"]
            and each["backend_fn"]
            and any(kind == "change" for _, kind in each["targets"])
        )
        await self.light(event, self.page.values(event))

    async def stay(self, until_s: float) -> None:
        await self.open()
        await self.upload()
        await self.ask()
        while time.monotonic() < until_s:
            step = random.choice(
                (self.ask, self.ask, self.look, self.choose, self.set, self.upload)
            )
            await step()
            await asyncio.sleep(random.uniform(0.1, 1.0))


async def people(url: str, count: int, seconds: float) -> Seen:
    """What the people saw who came at once and left together."""
    seen, clip = Seen(), CLIP.read_bytes()
    crowd = [Person(url, seen, clip) for _ in range(count)]
    until_s = time.monotonic() + seconds
    ended = await asyncio.gather(*(each.stay(until_s) for each in crowd), return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            seen.problems[f"gone: {error!r}"[:100]] += 1
    await asyncio.gather(*(each.leave() for each in crowd))
    return seen


def report(seen: Seen) -> str:
    light = sorted(seen.light_s) or [0.0]
    lines = [
        ", ".join(f"{count} {name}" for name, count in seen.counts.items()),
        f"light events: median {statistics.median(light):.2f} s, "
        f"95 % within {light[int(0.95 * (len(light) - 1))]:.2f} s, longest {light[-1]:.2f} s",
        f"questions: median {statistics.median(seen.answers_s or [0]):.1f} s to the end, "
        f"longest {max(seen.answers_s, default=0):.1f} s",
        f"refused or lost: {dict(seen.problems) or 'nothing'}",
    ]
    return "\n".join(lines)


@contextmanager
def started(repo: Path, model: str | None = None):
    """The address of a page of its own and its process, ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = tempfile.mkdtemp()
    command = [sys.executable, "app.py", "--port", str(port), "--data-dir", data, "--offline"]
    process = subprocess.Popen(
        command + (["--model", model] if model else []),
        cwd=repo,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(repo)},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + 120
        while True:
            try:
                httpx.get(f"{url}/config", timeout=5)
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline_s or process.poll() is not None:
                    raise
                time.sleep(0.3)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)
        shutil.rmtree(data, ignore_errors=True)


def cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def run_people(options, url: str, process: psutil.Process) -> None:
    asyncio.run(people(url, 4, 15))  # what a first answer brings stays
    time.sleep(5)
    before, begun_s = process.memory_info().rss, cpu_s(process)
    seen = asyncio.run(people(url, options.count or 30, options.seconds))
    most = process.memory_info().rss
    print(report(seen))
    print(f"server: {cpu_s(process) - begun_s:.0f} s of CPU")
    after, deadline_s = most, time.monotonic() + 200
    while after > 1.05 * before and time.monotonic() < deadline_s:
        time.sleep(2)
        after = process.memory_info().rss
    print(
        f"memory: {before / 1e6:.0f} MB before, {most / 1e6:.0f} MB with them, "
        f"{after / 1e6:.0f} MB after ({100 * (after / before - 1):+.1f} %)"
    )


def run_tabs(options, url: str, process: psutil.Process) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    count = options.count or 20
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--mute-audio"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        context = browser.new_context()  # one browser, which fetches the scripts once

        def tab() -> float:
            """Opens the page, closes it; the CPU seconds until it was there."""
            page, begun_s = context.new_page(), cpu_s(process)
            page.goto(url)
            page.locator("#ask textarea").wait_for(timeout=60_000)
            page.wait_for_function("sessionStorage.getItem('vl3-run')", timeout=60_000)
            took_s = cpu_s(process) - begun_s
            page.close()  # at once: a browser keeps six connections to a server, and tabs hold one
            return took_s

        tab()
        time.sleep(3)
        begun_s, began_s = cpu_s(process), time.monotonic()
        opening_s = sum(tab() for _ in range(count))
        time.sleep(3)
        passed_s = time.monotonic() - began_s
        ended_s = cpu_s(process)
        browser.close()
    time.sleep(3)
    idle_s = cpu_s(process)
    time.sleep(10)
    idle = (cpu_s(process) - idle_s) / 10
    own = ended_s - begun_s - idle * passed_s
    print(
        f"{count} tabs opened and closed: {ended_s - begun_s:.2f} s of CPU in {passed_s:.0f} s "
        f"(opening {opening_s:.2f} s); idle takes {100 * idle:.1f} %, "
        f"without it {own:.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("people", "tabs"))
    parser.add_argument("--count", type=int, help="how many; default 30 people, 20 tabs")
    parser.add_argument("--seconds", type=float, default=120, help="how long people stay")
    parser.add_argument("--model", help="another model than the bundled nano")
    parser.add_argument("--app", type=Path, default=REPO, help="the checkout whose page it is")
    options = parser.parse_args()
    with started(options.app, options.model) as (url, process):
        (run_people if options.what == "people" else run_tabs)(options, url, process)


if __name__ == "__main__":
    main()
