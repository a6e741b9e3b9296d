"""The page below a path of another server, as a reverse proxy serves it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from page_fixtures import fake_controller
from serving import serving
from steps import ask, expect, upload
from test_access import Browser
from test_film_strip import with_pictures

pytest_plugins = ["page_fixtures"]

BELOW = "/models/vl3"


def carry(source: socket.socket, target: socket.socket) -> None:
    """Hands on what comes until the source or the target ends."""
    try:
        while part := source.recv(65536):
            target.sendall(part)
    except OSError:
        pass
    finally:
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def serve_one(client: socket.socket, place: tuple[str, int], strips: bool) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        part = client.recv(65536)
        if not part:
            return client.close()
        head += part
    if strips:
        head = head.replace(f" {BELOW}".encode(), b" ", 1)
    head = head.replace(b"\r\n", b"\r\nX-Forwarded-Proto: http\r\n", 1)
    head = head.replace(b"Connection: keep-alive", b"Connection: close", 1)
    with client, socket.create_connection(place) as server:
        server.sendall(head)
        back = threading.Thread(target=carry, args=(server, client), daemon=True)
        back.start()
        carry(client, server)
        back.join()


@contextmanager
def proxy(url: str, strips: bool) -> Iterator[str]:
    """The address of a server that has the page of the url below a path.

    strips: whether it asks for the page without that path
    """
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                given = (client, (parts.hostname, parts.port), strips)
                threading.Thread(target=serve_one, args=given, daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{BELOW}"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.parametrize("strips", [True, False], ids=["stripped", "whole"])
def test_the_page_works_below_a_path(new_page, upload_folder, clip, strips):
    with (
        serving(fake_controller(upload_folder), root_path=BELOW) as running,
        proxy(running.url, strips) as url,
    ):
        page = new_page(replace(running, url=url))
        upload(page, clip)
        with_pictures(page)
        expect(page.locator("#player video")).to_have_js_property("error", None)
        page.wait_for_function("document.querySelector('#player video').readyState > 0")
        ask(page, "What moves?")
        page.reload()
        expect(page.locator("#chat .bot-row")).to_have_count(1)
        page.close()  # while it is served


def test_the_door_is_closed_below_a_path_as_well(upload_folder):
    with serving(fake_controller(upload_folder), root_path=BELOW) as running:
        mine, other = Browser(running.url), Browser(running.url)
        for browser in (mine, other):
            browser.open()
        path = mine.bring("a.txt", b"mine")[2].split('"')[1]
        for below in ("", BELOW):
            assert mine.ask("GET", f"{below}/gradio_api/file={path}")[0] == 200
            assert other.ask("GET", f"{below}/gradio_api/file={path}")[0] == 403
            assert other.ask("GET", f"{below}/gradio_api/runs")[0] == 404
            body = {"data": [{"path": path}], "session_hash": "x", "fn_index": 0}
            assert other.ask("POST", f"{below}/gradio_api/queue/join", body)[0] == 403
