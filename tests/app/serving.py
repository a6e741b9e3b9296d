"""The page served in this process, for a test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """A running page: address, controller, and the script that a fake studio follows."""

    url: str
    controller: object
    script: object = None
    demo: object = None


@contextmanager
def serving(controller, allowed=(), **options) -> Iterator[Server]:
    """Serves the page of the controller on a free loopback port, in this process.

    allowed: further names of it; options: of launch()
    """
    from vl3.webapp import launch

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch.log_briefly()
    demo = launch.build(controller)
    demo.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        **{**launch.launch_options(controller, 20_000_000, allowed=allowed), **options},
    )
    try:
        yield Server(f"http://127.0.0.1:{port}", controller, demo=demo)
    finally:
        demo.close()
