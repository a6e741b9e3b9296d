"""Access control: ASGI middleware that checks each request before the page handles it.

A page on this machine can be reached by every web page that its user opens. So a request has to
name this server (DNS rebinding), come from its own page (CSRF), and refer only to files and
sessions of its own browser. A refused request gets one sentence and is not logged.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Collection, Iterator
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/gradio_api/"
FILE = (f"{API}file=", f"{API}file/")
UPLOAD = f"{API}upload"
# Parts of the page's toolkit that this page does not use, and that fetch, write or tell something.
CLOSED = tuple(
    f"{API}{name}"
    for name in (
        "proxy=",
        "deep_link",
        "vibe",
        "undo-vibe",
        "process_recording",
        "stream/",
        "dev/",
        "run-history",
        "runs",
        "custom_component",
    )
)
MOST_BYTES = 8_000_000  # of a request that is no upload
ANYONE = "anyone"  # scripts have no cookie: what they bring is found by its unguessable name alone
PORTS = {"http": 80, "https": 443}


class Refusal(Exception):
    """A request that is not answered. status: of HTTP; str(): one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def own_names(host: str, allowed: Collection[str] = (), is_shared: bool = False) -> set[str]:
    """The names under which browsers may reach a page that listens on the host.

    A name that begins with a dot stands for all that end in it.
    """
    machine = socket.gethostname().lower()
    names = {"localhost", ".localhost", host, machine, f"{machine}.local", *allowed}
    return {name.lower() for name in names | ({".gradio.live"} if is_shared else set())}


class AccessControl:
    """Lets in what belongs here.

    names: as of own_names; proxied: of these the ones that an Origin may be though the Host is
    another; may_read(owner, path): whether that browser may have the file; is_of(session, owner):
    whether the session belongs to that browser, or does not exist
    """

    def __init__(
        self,
        app: Any,
        names: Collection[str],
        proxied: Collection[str],
        may_read: Callable[[str, str], bool],
        is_of: Callable[[str, str], bool],
    ) -> None:
        self.app, self.names = app, names
        self.proxied = {name.lower() for name in proxied}
        self.may_read, self.is_of = may_read, is_of

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        name = f"vl3-{scope['server'][1] if scope.get('server') else 0}"
        known = _cookie(headers.get("cookie", ""), name)
        given = secrets.token_urlsafe(24) if known is None and path_in(scope) == "/" else None
        owner = owner_of(known or given)
        scope.setdefault("state", {})["owner"] = owner
        try:
            self._check_host(headers)
            self._check_origin(headers, scope)
            self._check_address(scope, owner)
            if scope["method"] == "POST" and path_in(scope).rstrip("/") != UPLOAD:
                body = await _body(receive, headers)
                scope["state"]["session"] = self._check_body(body, owner)
                receive = _again(body, receive)
        except Refusal as refused:
            await _refuse(send, refused)
            return

        async def send_cookie(message: dict) -> None:
            if given and message["type"] == "http.response.start":
                secure = "; Secure" if scope.get("scheme") == "https" else ""
                cookie = f"{name}={given}; HttpOnly; SameSite=Lax; Path=/{secure}"
                headers = [*message.get("headers", []), (b"set-cookie", cookie.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_cookie)

    def _check_host(self, headers: dict) -> None:
        name = _name(f"//{headers.get('host', '')}")
        if not name or not (_is_number(name) or _is_among(name, self.names)):
            raise Refusal(
                421,
                "This server does not go by that name; whoever runs it can add the name with "
                "--allowed-host.",
            )

    def _check_origin(self, headers: dict, scope: dict) -> None:
        """Only its own pages ask; what a person opens, by a link from anywhere, is no question."""
        origin, host = headers.get("origin"), headers.get("host", "")
        if origin is not None:
            is_own = _place(origin) == _place(f"{urlsplit(origin).scheme}://{host}")
            if not (is_own or _is_among(_name(origin), self.proxied)):
                raise Refusal(403, "Another web page may not use this one.")
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        is_opened = mode == "navigate" and not path_in(scope).startswith(API)
        if site in ("cross-site", "same-site") and origin is None and not is_opened:
            raise Refusal(403, "Another web page may not use this one.")

    def _check_address(self, scope: dict, owner: str) -> None:
        path = path_in(scope)
        if path.startswith(CLOSED):
            raise Refusal(404, "There is nothing here.")
        for prefix in FILE:
            if path.startswith(prefix) and not self.may_read(owner, path.removeprefix(prefix)):
                raise Refusal(403, "There is no such file, or it is not yours.")
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        sessions = query.get("session_hash", [])
        if path.startswith(f"{API}heartbeat/"):
            sessions = [path.removeprefix(f"{API}heartbeat/")]
        self._check_sessions(sessions, owner)

    def _check_body(self, body: bytes, owner: str) -> str | None:
        """The session that asks, if the body names one."""
        try:
            asked = json.loads(body) if body.lstrip()[:1] == b"{" else None
            if asked is None:
                return None
            paths = list(_paths(asked))
        except (ValueError, RecursionError):
            raise Refusal(400, "This is no request of the page.") from None
        session = asked.get("session_hash")
        self._check_sessions([session], owner)
        for path in paths:
            if not (isinstance(path, str) and self.may_read(owner, path)):
                raise Refusal(403, "The file is gone, or it is not yours. Upload it again.")
        return session if isinstance(session, str) else None

    def _check_sessions(self, sessions: list, owner: str) -> None:
        for session in sessions:
            if isinstance(session, str) and not self.is_of(session, owner):
                raise Refusal(403, "This page was opened in another browser. Reload it.")


def path_in(scope: dict) -> str:
    """The path of a request inside of the page, whether or not a proxy left its own before it."""
    path, below = scope.get("path", ""), scope.get("root_path", "").rstrip("/")
    is_whole = below and (path == below or path.startswith(f"{below}/"))
    return path[len(below) :] or "/" if is_whole else path


def owner_of(cookie: str | None) -> str:
    """The name of a browser's own folder: the cookie cannot be found from it."""
    return hashlib.sha256(cookie.encode()).hexdigest()[:24] if cookie else ANYONE


def _cookie(header: str, name: str) -> str | None:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return None
    return found.value if found and found.value else None


def _name(address: str) -> str:
    """The host of an address, in small letters; nothing where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _place(address: str) -> tuple[str, int | None]:
    """Host and port of an address; Origin "null" has none, and equals nothing."""
    try:
        parts = urlsplit(address)
        return parts.hostname or address, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return address, None


def _is_number(name: str) -> bool:
    """Whether it is a numeric address, which no DNS name can stand for."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_among(name: str, names: Collection[str]) -> bool:
    return name in names or any(each[:1] == "." and name.endswith(each) for each in names)


def _paths(value: object) -> Iterator[object]:
    """The paths of all files that a request names, at any depth."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        for each in value.values():
            yield from _paths(each)
    elif isinstance(value, list):
        for each in value:
            yield from _paths(each)


async def _body(receive: Callable, headers: dict) -> bytes:
    """The body of a request; what is too long is not kept."""
    parts: list[bytes] = []
    size = 0
    length = headers.get("content-length", "")
    is_long = length.isdigit() and int(length) > MOST_BYTES
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "The request ended early.")
        part = message.get("body", b"")
        size += len(part)
        is_long = is_long or size > MOST_BYTES
        if is_long:
            parts.clear()
            if size > 4 * MOST_BYTES:  # read on for a while, so that a browser gets to the answer
                break
        else:
            parts.append(part)
        if not message.get("more_body"):
            break
    if is_long:
        raise Refusal(413, f"A request has at most {MOST_BYTES / 1e6:g} MB; upload files instead.")
    return b"".join(parts)


def _again(body: bytes, receive: Callable) -> Callable:
    """The body as if it had not been read yet; then whatever comes."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def read() -> dict:
        return messages.pop() if messages else await receive()

    return read


async def _refuse(send: Callable, refused: Refusal) -> None:
    body = str(refused).encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
