"""How the page is served: what it may read and send, its style sheets and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import Route

from vl3.bundled import HOME, WEB
from vl3.viz import export
from vl3.webapp.access import UPLOAD, AccessControl, own_names
from vl3.webapp.controller import Controller
from vl3.webapp.csp import OnlyThisServer
from vl3.webapp.event_streams import EventStreams
from vl3.webapp.line import MOST_WAITING
from vl3.webapp.upload_receiver import Receiver, Store

FONT = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
FONT_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]


def options(
    controller: Controller,
    max_bytes: int,
    store: Store,
    host: str = "127.0.0.1",
    allowed: Sequence[str] = (),
    is_shared: bool = False,
) -> dict:
    """The closed settings of a page: no telemetry, no folders, nothing from elsewhere.

    store: as of Receiver; host, allowed, is_shared: as of own_names
    """
    receiver = Receiver(controller.uploads.folder, max_bytes, store, controller.make_room)
    door: dict[str, Any] = {
        "names": own_names(host, allowed, is_shared),
        "proxied": allowed,
        "may_read": controller.may_read,
        "is_of": controller.visitors.is_of,
    }
    inside = {
        "middleware": [
            Middleware(OnlyThisServer),
            Middleware(AccessControl, **door),
            Middleware(EventStreams),
        ],
        "routes": [Route(UPLOAD, receiver.receive, methods=["POST"])],
    }
    return {
        "max_file_size": max_bytes,
        "allowed_paths": [],
        "blocked_paths": [str(HOME)],
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "quiet": True,
        "max_threads": 2 * MOST_WAITING,  # one for each who waits, and as many for what is light
        "state_session_capacity": 64,
        "footer_links": ["api"],
        "ssr_mode": False,
        "app_kwargs": inside,
        "css_paths": WEB / "page.css",
        "head": head(),
    }


def head() -> str:
    """The script of the page with its views, from this server like all of it.

    One script that runs at once, since Gradio's own look for window.vl3 as soon as they are there.
    The style of the views stands here too: as one of Gradio's style sheets it would lose the rules
    that depend on a view's own width.
    """
    script = export.joined("page/main.js")
    return f"<script>(() => {{\n{script}\n}})();</script><style>{export.style()}</style>"
