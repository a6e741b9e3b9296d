"""Who may come in, and what of whose: requests as browsers, other pages and scripts make them."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from page_fixtures import fake_controller
from serving import serving
from steps import toast, upload

from vl3.webapp import access, text_format, uploads

pytest_plugins = ["page_fixtures"]


class Browser:
    """A browser as the server knows one: an address, a cookie and a session."""

    def __init__(self, url: str, session: str = "") -> None:
        self.place, self.session, self.cookie = urlsplit(url).netloc, session, ""

    def ask(self, method, path, body=None, headers=None, host=None):
        """Status, headers and text of the answer."""
        connection = http.client.HTTPConnection(self.place, timeout=20)
        connection.putrequest(method, path, skip_host=True)
        sent = {"Host": host or self.place, "Cookie": self.cookie, **(headers or {})}
        body = json.dumps(body).encode() if isinstance(body, dict | list) else body
        if isinstance(body, bytes):
            sent = {"Content-Type": "application/json", "Content-Length": str(len(body)), **sent}
        for name, value in sent.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def open(self):
        """Opens the page, keeps its cookie, gives the headers."""
        status, headers, _ = self.ask("GET", "/")
        assert status == 200
        self.cookie = headers.get("set-cookie", "").partition(";")[0] or self.cookie
        return headers

    def bring(self, name: str, content: bytes, **options):
        """Uploads a file."""
        edge = "edge"
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        )
        body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        headers |= options.pop("headers", {})
        if options.pop("chunked", False):
            headers |= {"Transfer-Encoding": "chunked", "Content-Length": ""}
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return self.ask("POST", "/gradio_api/upload", body, headers, **options)


@pytest.fixture
def mine(server, script):
    browser = Browser(server.url, "session-of-mine")
    browser.open()
    return browser


@pytest.fixture
def other(server, script):
    browser = Browser(server.url, "session-of-another")
    browser.open()
    return browser


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:7860", "", "localhost.", "a b"]
)
def test_a_name_that_is_not_ours_is_refused(mine, host):
    status, _, text = mine.ask("GET", "/config", host=host or " ")
    assert (status, "--allowed-host" in text) == (421, True) or status == 400
    assert "components" not in text


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "192.168.1.7:7860", "[::1]:7860"])
def test_names_of_this_machine_are_let_in(mine, host):
    assert mine.ask("GET", "/config", host=host)[0] == 200
    assert mine.ask("GET", "/config", host=f"{socket.gethostname()}:7860")[0] == 200


def test_a_proxy_gives_its_own_name(server):
    with serving(server.controller, allowed=["vl3.example"]) as running:
        browser = Browser(running.url)
        assert browser.ask("GET", "/config", host="vl3.example")[0] == 200
        assert browser.ask("GET", "/config", host="www.vl3.example")[0] == 421
        headers = {"Origin": "https://vl3.example"}
        assert browser.ask("GET", "/config", headers=headers)[0] == 200
        assert browser.bring("a.txt", b"a", headers=headers)[0] == 200


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_page_can_do_nothing(mine, server, headers):
    before = set(server.controller.uploads.folder.rglob("*"))
    assert mine.bring("a.mp4", b"a", headers=headers)[0] == 403
    call = {"data": [None] * 9, "session_hash": "x", "fn_index": 0}
    for path in ("queue/join", "call/ask", "run/ask", "component_server", "cancel"):
        assert mine.ask("POST", f"/gradio_api/{path}", call, headers)[0] == 403, path
    assert mine.ask("GET", "/gradio_api/heartbeat/x", headers=headers)[0] == 403
    assert set(server.controller.uploads.folder.rglob("*")) == before


def test_its_own_pages_and_links_to_it_work(mine, server):
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert mine.bring("a.mp4", b"a", headers=own)[0] == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert mine.ask("GET", "/?link=x", headers=link)[0] == 200


def test_nobody_may_frame_it(mine):
    headers = mine.open()
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_a_cookie_is_given_once_and_scripts_cannot_read_it(server):
    browser = Browser(server.url)
    given = browser.open()["set-cookie"]
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given
    assert "set-cookie" not in browser.open()


def path_of(brought) -> str:
    status, _, text = brought
    assert status == 200, text
    return json.loads(text)[0]


def file(browser, path: str) -> int:
    return browser.ask("GET", f"/gradio_api/file={quote(path)}")[0]


def test_an_upload_is_its_browsers_alone(server, mine, other, clip):
    path = path_of(mine.bring("mine.mp4", clip.read_bytes()))
    assert path_of(other.bring("mine.mp4", clip.read_bytes())) != path, "not found by its content"
    assert file(mine, path) == 200
    assert mine.ask("GET", f"/gradio_api/file/{quote(path)}")[0] == 200
    for reader in (other, Browser(server.url)):
        assert file(reader, path) == 403
        assert file(reader, f"{Path(path).parent}/../{Path(path).parent.name}/mine.mp4") == 403
        named = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "What?"]}
        for way in ("call/ask", "run/ask"):
            assert reader.ask("POST", f"/gradio_api/{way}", named)[0] == 403
        deep = {"data": [{"files": [{"path": path}]}], "session_hash": "s", "fn_index": 0}
        assert reader.ask("POST", "/gradio_api/queue/join", deep)[0] == 403


def test_a_session_is_its_browsers_alone(server, mine, other, script):
    server.controller.visitors.get(mine.session, access.owner_of(mine.cookie.partition("=")[2]))
    call = {"data": [], "session_hash": mine.session, "fn_index": 0}
    assert other.ask("POST", "/gradio_api/queue/join", call)[0] == 403
    for path in (f"heartbeat/{mine.session}", f"queue/data?session_hash={mine.session}"):
        assert other.ask("GET", f"/gradio_api/{path}")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "file=http://127.0.0.1:1/x",
        "file=https://example.org/x.png",
        "proxy=https://example.org/x",
        "file=/etc/hostname",
        "file=../../etc/hostname",
        "file=%00",
        "file=" + "a" * 5000,
        "deep_link?session_hash=x",
        "file=",
        "file=.",
        "runs",
        "run-history/records",
    ],
)
def test_it_fetches_and_reads_nothing_else(mine, path, capfd):
    status, _, text = mine.ask("GET", f"/gradio_api/{path}")
    assert status in (403, 404)
    assert len(text) < 200
    assert capfd.readouterr().err == ""


def test_long_and_broken_requests_are_refused(mine, capfd):
    many = b'{"data": ["' + b"a" * 9_000_000 + b'"]}'
    status, _, text = mine.ask("POST", "/gradio_api/queue/join", many)
    assert (status, text) == (413, "A request has at most 8 MB; upload files instead.")
    for body in (b"{", b"{" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}"):
        assert mine.ask("POST", "/gradio_api/queue/join", body)[0] in (400, 422)
    assert "Traceback" not in capfd.readouterr().err


NAMES = [
    "ünïcode – 名前.mp4",
    "a" * 400 + ".mp4",
    "../../x.mp4",
    "..",
    ".lock",
    "con\x01trol.mp4",
    "\u202egpj.mp4",
    "a/b\\c.mp4",
    "💥" * 60 + ".mp4",
    "",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_stays_inside_and_leaves_nothing_else(mine, server, name):
    before = set(server.controller.uploads.folder.rglob("*"))
    status, _, text = mine.bring(name, b"content")
    assert status in (200, 400)
    new = [path for path in server.controller.uploads.folder.rglob("*") if path not in before]
    files = [path for path in new if path.is_file()]
    assert len(files) == (1 if status == 200 else 0)
    if status == 200:
        assert file(mine, json.loads(text)[0]) == 200


def rest_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_an_upload_that_ends_early_leaves_nothing(mine, server, capfd):
    folder = server.controller.uploads.folder
    before = rest_of(folder)
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
    head += f"Cookie: {mine.cookie}\r\nContent-Type: multipart/form-data; boundary=e\r\n\r\n"
    part = '--e\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    host, _, port = mine.place.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}{part}".encode() + bytes(2_000_000))
        deadline_s = time.monotonic() + 10
        while rest_of(folder) == before:
            assert time.monotonic() < deadline_s, "nothing was written meanwhile"
            time.sleep(0.02)
    deadline_s = time.monotonic() + 10
    while rest_of(folder) != before:
        assert time.monotonic() < deadline_s, "something was left"
        time.sleep(0.02)
    assert "Traceback" not in capfd.readouterr().err
    assert mine.bring("a.mp4", b"a")[0] == 200


def test_a_file_that_is_too_large_is_said_and_leaves_nothing(mine, server):
    before = rest_of(server.controller.uploads.folder)
    status, _, text = mine.bring("large.mp4", bytes(22_000_000))
    assert (status, text) == (413, "The file is larger than 20 MB, the most that this page takes.")
    status, _, text = mine.bring("large.mp4", bytes(20_500_000))  # within what surrounds a file
    assert (status, text) == (413, "The file is larger than 20 MB, the most that this page takes.")
    assert rest_of(server.controller.uploads.folder) == before


def test_a_disk_that_gets_full_is_said_and_recovers(tmp_path, capfd):
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(disk)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with serving(fake_controller(disk)) as running, pytest.MonkeyPatch.context() as patch:
            patch.setattr(uploads, "SPARE_BYTES", 0)
            browser = Browser(running.url)
            # Told beforehand by the length of the request; and met while writing where it has none.
            for options in ({}, {"chunked": True}):
                status, _, text = browser.bring("a.mp4", bytes(5_000_000), **options)
                assert (status, text) == (507, text_format.FULL)
                assert rest_of(disk) == set()
            assert browser.bring("a.mp4", bytes(1_000_000))[0] == 200
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_is_said_in_the_page_and_recovers(page, clip, script, monkeypatch):
    monkeypatch.setattr(uploads, "SPARE_BYTES", 10**18)
    page.locator("#drop input[type=file]").set_input_files(str(clip))
    assert text_format.FULL in toast(page)
    monkeypatch.undo()
    upload(page, clip)
