"""No event is lost between two event streams: ASGI middleware behind access control.

A browser receives its events on one stream, which the server ends after the last of them. It opens
another only when it knows that it has none: an event that joins after the server has ended the
stream, and is answered before the browser has read that end, would not be received.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from vl3.webapp.access import API, path_in

STREAM, JOIN = f"{API}queue/data", f"{API}queue/join"
LAST_WORD = b'"msg":"close_stream"'
PATIENCE_S = 5.0  # with a browser that reads slowly, or goes through a proxy that keeps its stream


class EventStreams:
    """Tells a browser that its event has joined once it has left the stream that came to an end.

    It leaves the stream when it has read the last word, and this is how the server knows.
    """

    def __init__(self, app: Any) -> None:
        self.app = app
        self._ending: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        path = path_in(scope)
        if scope["type"] == "http" and path == STREAM:
            await self._stream(scope, receive, send)
        elif scope["type"] == "http" and path == JOIN:
            await self._join(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _stream(self, scope: dict, receive: Callable, send: Callable) -> None:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        session, left = query.get("session_hash", [""])[0], asyncio.Event()

        async def send_until_left(message: dict) -> None:
            if LAST_WORD in message.get("body", b""):
                self._ending[session] = left
            is_end = message["type"] == "http.response.body" and not message.get("more_body")
            if is_end and self._ending.get(session) is left:
                with suppress(TimeoutError):
                    await asyncio.wait_for(_disconnected(receive), PATIENCE_S)
            await send(message)

        try:
            await self.app(scope, receive, send_until_left)
        finally:
            left.set()
            if self._ending.get(session) is left:
                del self._ending[session]

    async def _join(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_later(message: dict) -> None:
            ending = self._ending.get(scope["state"]["session"])
            if ending and message["type"] == "http.response.start":
                await ending.wait()
            await send(message)

        await self.app(scope, receive, send_later)


async def _disconnected(receive: Callable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
