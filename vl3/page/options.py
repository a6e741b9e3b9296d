"""The command line of the page: what can be asked for, and what is refused."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORTS_TRIED = 50


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; ends the program with a sentence where they do not fit."""
    parser = argparse.ArgumentParser(
        prog="python app.py",
        description="Opens a browser page to ask a video-language model about videos and images. "
        "Without a model it runs nano, a small bundled one that knows coloured shapes only.",
    )
    _add_model(parser.add_argument_group("model"))
    _add_server(parser.add_argument_group("server"))
    options = parser.parse_args(arguments)
    if options.auth and not all(options.auth.partition(":")):
        parser.error("--auth takes user:password, both not empty")
    if options.share and not options.auth:
        parser.error("--share makes the page public; give it a lock with --auth user:password")
    if options.host not in LOOPBACK and not options.auth:
        parser.error(
            f"--host {options.host} lets other machines in; give the page a lock with "
            "--auth user:password, or stay on 127.0.0.1"
        )
    return options


def _add_model(group) -> None:
    group.add_argument("--model", metavar="PATH_OR_ID", help="folder or hub id; default: nano")
    group.add_argument(
        "--quantize", choices=("nf4", "int8", "nf4+int8"),
        help="4- or 8-bit language model; nf4+int8: and the rest in 8 bits",
    )  # fmt: skip
    group.add_argument(
        "--memory", metavar="SIZE",
        help="what the model may take, like 8GB, or auto for what is free: quantized as little as "
        "will do, then fewer visual tokens",
    )  # fmt: skip
    group.add_argument("--adapter", metavar="PATH", help="folder of a LoRA adapter to put on top")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    group.add_argument("--offline", action="store_true", help="never ask a hub; local files only")
    group.add_argument(
        "--features-gb", type=float, default=0.0, metavar="GB",
        help="keep so much of encoded videos on disk, so that none is encoded twice; default 0",
    )  # fmt: skip


def _add_server(group) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on; default loopback")
    group.add_argument("--port", type=int, default=7860, help="the next free one is taken if busy")
    group.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for these")
    group.add_argument("--share", action="store_true", help="public link; needs --auth")
    group.add_argument("--open", action="store_true", help="open the page in a browser")
    group.add_argument("--max-upload", default="2gb", help="largest file; default 2gb")
    group.add_argument(
        "--data-dir", type=Path, default=data_dir(), help="where uploads are kept while in use"
    )
    group.add_argument(
        "--keep-gb", type=float, default=10.0, help="uploads kept at most; the oldest go first"
    )


def data_dir() -> Path:
    """The default folder of uploads: in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vl3" / "uploads"


def free_port(host: str, wanted: int) -> int:
    """The wanted port, or the next one that nobody listens on.

    Raises: OSError where none of the next ports is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {wanted} to {wanted + PORTS_TRIED - 1}; choose --port")
