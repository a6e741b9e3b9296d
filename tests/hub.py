"""A hub on this machine: what huggingface_hub asks for, answered from folders.

with hub({"models/owner/name": folder}) as address: ...   # HF_ENDPOINT=address
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0" * 39 + "1"


class _Handler(BaseHTTPRequestHandler):
    repos: dict[str, Path]
    asked: list[str]

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(with_body=True, body=body)

    def _answer(self, with_body: bool, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.asked.append(f"{self.command} {path}")
        for name, folder in self.repos.items():
            kind, _, repo = name.partition("/")
            if path.startswith(f"api/{name}"):
                return self._about(kind, repo, folder, path.removeprefix(f"api/{name}"), body)
            files = f"{repo if kind == 'models' else name}/resolve/"
            if path.startswith(files):
                _, _, file = path.removeprefix(files).partition("/")
                return self._file(folder / file, with_body)
        self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _about(self, kind: str, repo: str, folder: Path, what: str, body: bytes) -> None:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        listed = [
            {
                "type": "file",
                "path": p.relative_to(folder).as_posix(),
                "oid": _oid(p),
                "size": p.stat().st_size,
            }
            for p in files
        ]
        if what.startswith("/tree/"):
            under = what.removeprefix("/tree/").partition("/")[2]
            found = [one for one in listed if one["path"].startswith(under)]
        elif what.startswith("/paths-info/"):
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else unquote(body.decode())
            found = [one for one in listed if one["path"] in wanted]
        else:
            siblings = [{"rfilename": one["path"], "size": one["size"]} for one in listed]
            found = {"id": repo, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path, with_body: bool) -> None:
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        raw = path.read_bytes()
        head = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": COMMIT}
        start, stop = 0, len(raw)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(raw)
            head["Content-Range"] = f"bytes {start}-{stop - 1}/{len(raw)}"
        self._send(206 if wanted else 200, raw[start:stop], head, with_body)

    def _send(self, status: int, raw: bytes, head: dict, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(raw)


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def hub(repos: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it is asked for. repos: models/owner/name or datasets/owner/name."""
    handler = type("Handler", (_Handler,), {"repos": repos, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
