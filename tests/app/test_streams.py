"""Event streams that end while another event begins: nobody waits for ever."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from load import Page
from steps import answer, ask, expect, open_tab, type_and_send, upload

pytest_plugins = ["page_fixtures"]

# A browser that is slow to read the last word of a stream, as a busy machine makes it.
SLOW = """(() => {
    const fetching = window.fetch;
    window.ends = 0;
    const late = async (chunk, out) => {
        const text = new TextDecoder().decode(chunk), at = text.indexOf('"close_stream"');
        const before = at < 0 ? text.length : text.lastIndexOf('data:', at);
        const bytes = (part) => out.enqueue(new TextEncoder().encode(part));
        bytes(text.slice(0, before));
        if (at < 0) return;
        window.ends += 1;
        await new Promise((done) => setTimeout(done, 700));
        bytes(text.slice(before));
    };
    window.fetch = async (address, options) => {
        const answer = await fetching(address, options);
        if (!String(address?.url || address).includes('/queue/data')) return answer;
        const body = answer.body.pipeThrough(new TransformStream({ transform: late }));
        return new Response(body, { headers: answer.headers });
    };
})()"""


@pytest.mark.slow
def test_a_question_asked_while_a_stream_ends_is_answered(page, clip, script):
    page.add_init_script(SLOW)
    page.reload()
    page.locator("#ask textarea").wait_for()
    upload(page, clip)
    ask(page, "What moves?")
    for number in (2, 3):
        page.wait_for_timeout(1500)  # every stream has ended
        ends = page.evaluate("window.ends")
        open_tab(page, "Run details" if number == 2 else "Pruning")
        page.wait_for_function("before => window.ends > before", arg=ends)
        type_and_send(page, "And now?")
        expect(page.locator("#chat .user-row .message-content").nth(number - 1)).to_be_visible(
            timeout=10_000
        )
        answer(page, number)


def test_a_join_is_answered_once_the_stream_before_it_was_left(server, script, monkeypatch):
    place = urlsplit(server.url).netloc
    page = Page(json.loads(get(place, "/config")))
    event = page.event("tabs", "open")
    body = {
        "data": page.values(event),
        "fn_index": event["id"],
        "session_hash": "leaves",
        "event_data": {"tab": "run"},
        "trigger_id": None,
    }
    assert join(place, body) < 2
    for leaves, patience_s in ((True, 60), (False, 0.7)):
        monkeypatch.setattr("vl3.webapp.event_streams.PATIENCE_S", patience_s)
        stream = http.client.HTTPConnection(place, timeout=20)
        stream.request("GET", "/gradio_api/queue/data?session_hash=leaves")
        answer, line = stream.getresponse(), b""
        while b'"close_stream"' not in line:
            line = answer.readline()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(join, place, body)
            time.sleep(0.5)
            assert not asking.done()
            if leaves:
                answer.close()
                stream.close()
            assert 0.4 < asking.result(timeout=10) < 5
        stream.close()


def get(place: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(place, timeout=20)
    connection.request("GET", path)
    return connection.getresponse().read()


def join(place: str, body: dict) -> float:
    """Seconds until the server says that the event has joined."""
    begun_s = time.monotonic()
    connection = http.client.HTTPConnection(place, timeout=20)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/gradio_api/queue/join", json.dumps(body), headers)
    assert connection.getresponse().status == 200
    return time.monotonic() - begun_s
