"""Receives uploads: each into a folder of its own, whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from vl3.units import format_bytes as size
from vl3.webapp import text_format, uploads

SLACK_BYTES = 1_000_000  # of a request beside its file

Store = Callable[[Request, Path, int, str | None], Awaitable[list[str]]]


class Receiver:
    """Takes uploads.

    store(request, place, most_bytes, upload_id): writes the files of the request into the place
    and gives their paths; make_room(): removes unused files
    """

    def __init__(
        self, folder: Path, most_bytes: int, store: Store, make_room: Callable[[], None]
    ) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._store, self._make_room = store, make_room

    async def receive(self, request: Request) -> Response:
        if not _is_let_in(request):
            return PlainTextResponse("Log in first.", status_code=401)
        if refused := self._without_room(request):
            await _read_on(request, self.most_bytes)  # else browsers do not get to the answer
            return refused
        place = uploads.new_place(self.folder / request.state.owner)
        is_stored = False
        try:
            upload_id = request.query_params.get("upload_id")
            paths = await self._store(request, place, self.most_bytes, upload_id)
            is_stored = bool(paths)
            return JSONResponse([str(path) for path in paths])
        except (MultiPartException, HTTPException) as error:
            if "maximum allowed size" in str(error):
                return self._too_large()
            return PlainTextResponse("This is no upload of a file.", status_code=400)
        except ClientDisconnect:
            return Response(status_code=400)
        except OSError as error:
            if not uploads.is_full(error):
                raise
            return PlainTextResponse(text_format.FULL, status_code=507)
        finally:
            if not is_stored:
                uploads.remove(place)

    def _without_room(self, request: Request) -> Response | None:
        length = request.headers.get("content-length", "")
        bytes_ = int(length) if length.isdigit() else 0
        if bytes_ > self.most_bytes + SLACK_BYTES:
            return self._too_large()
        if bytes_ > uploads.free_bytes(self.folder):
            self._make_room()
        if bytes_ > uploads.free_bytes(self.folder):
            return PlainTextResponse(text_format.FULL, status_code=507)
        return None

    def _too_large(self) -> Response:
        sentence = (
            f"The file is larger than {size(self.most_bytes)}, the most that this page takes."
        )
        return PlainTextResponse(sentence, status_code=413)


def _is_let_in(request: Request) -> bool:
    """Whether the request has the token that the page's toolkit gave at log-in."""
    app = request.app
    if app.auth is None:
        return True
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(request.cookies.get(name) in app.tokens for name in names)


async def _read_on(request: Request, most_bytes: int) -> None:
    size_bytes = 0
    try:
        async for part in request.stream():
            size_bytes += len(part)
            if size_bytes > most_bytes:
                break
    except ClientDisconnect:
        pass
