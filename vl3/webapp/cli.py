"""The command line of the page: what can be asked for, and what is refused."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from vl3.arguments import number, shown, whole
from vl3.bundled import PAGE_COMMAND, PAGE_MODEL
from vl3.units import parse_memory
from vl3.webapp import uploads

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORTS_TRIED = 50
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; ends the program with a sentence where they do not fit."""
    parser = _Parser(
        prog=PAGE_COMMAND,
        description="Opens a browser page to ask a video-language model about videos and images. "
        "Without a model it runs nano-av, a small bundled one that knows a toy world of coloured "
        "shapes and sounds only.",
    )
    _add_model(parser.add_argument_group("model"))
    _add_server(parser.add_argument_group("server"))
    options = parser.parse_args(arguments)
    if options.model is None and options.adapter is None:
        options.model = PAGE_MODEL
    try:
        if options.memory not in (None, "auto"):
            size("--memory", options.memory)
        options.max_upload = size("--max-upload", options.max_upload)
        options.port = whole("--port", _plain(options.port), low=1, high=65535)
        options.keep_gb = number("--keep-gb", _plain(options.keep_gb), low=0, unit="GB")
        options.features_gb = number("--features-gb", _plain(options.features_gb), low=0, unit="GB")
    except ValueError as error:
        parser.error(str(error))
    if options.auth is not None and not all(options.auth.partition(":")):
        parser.error("--auth takes user:password, both not empty")
    if options.root_path and not options.root_path.startswith("/"):
        parser.error(f"--root-path is a path like /vl3 - got {shown(options.root_path)}")
    if options.share and options.offline:
        parser.error("--share needs the network that --offline forbids; leave one of them out")
    if options.share and not options.auth:
        parser.error("--share makes the page public; give it a lock with --auth user:password")
    if options.host not in LOOPBACK and not options.auth:
        parser.error(
            f"--host {options.host} lets other machines in; give the page a lock with "
            "--auth user:password, or stay on 127.0.0.1"
        )
    return options


def ready(
    arguments: Sequence[str] | None = None, check: Callable[..., None] = lambda *model: None
) -> tuple[argparse.Namespace, Path]:
    """The options with a free port, and the folder made for uploads.

    check(model, adapter, device, dtype) raises ValueError where no model can come of these.
    Ends the program as parse does. wanted_port: the port that was asked for
    """
    options = parse(arguments)
    try:
        check(options.model, options.adapter, options.device, options.dtype)
        options.wanted_port, options.port = options.port, free_port(options.host, options.port)
        if options.features_gb:
            _check_writable(cache_dir() / "features")
        return options, uploads.prepare(options.data_dir)
    except ValueError as error:
        fail(error)


def fail(error: object) -> NoReturn:
    """Ends the program with one sentence on standard error."""
    _Parser(prog=PAGE_COMMAND).error(" ".join(str(error).split()))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")  # without the usage: one sentence


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--features-gb keeps encoded videos in {folder}, which cannot be written to "
            f"({error.strerror}); set XDG_CACHE_HOME to a folder of yours, or leave it out"
        ) from None


def size(name: str, text: str) -> int:
    """Bytes of a size like 500MB. Raises: ValueError in one sentence that names the option."""
    try:
        found = int(parse_memory(text))
    except ValueError:
        found = 0
    if found < 1:
        raise ValueError(f"{name} is a size like 500MB or 2GB - got {shown(text)}")
    return found


def _plain(text: str) -> object:
    """The number that the text spells, or the text."""
    try:
        return float(text)
    except ValueError:
        return text


def _add_model(group) -> None:
    group.add_argument(
        "--model",
        metavar="PATH_OR_ID",
        help=f"folder or hub id; default: the bundled {PAGE_MODEL}, with --adapter assets/nano",
    )
    group.add_argument(
        "--quantize",
        choices=("nf4", "int8", "nf4+int8"),
        help="4- or 8-bit language model; nf4+int8: and the rest in 8 bits",
    )
    group.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the model may take, like 8GB, or auto for what is free: quantized as little as "
        "will do, then fewer visual tokens",
    )
    group.add_argument("--adapter", metavar="PATH", help="folder of a LoRA adapter to put on top")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16")
    group.add_argument("--offline", action="store_true", help="never ask a hub; local files only")
    group.add_argument(
        "--features-gb",
        default="0",
        metavar="GB",
        help="keep so much of encoded videos on disk, so that none is encoded twice; default 0",
    )


def _add_server(group) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on; default loopback")
    group.add_argument("--port", default="7860", help="the next free one is taken if busy")
    group.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for these")
    group.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which browsers reach the page, as that of a proxy before it; numeric "
        "addresses and this machine's own names always are; may be given again",
    )
    group.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="where a proxy has the page, like /vl3, if not at its root",
    )
    group.add_argument("--share", action="store_true", help="public link; needs --auth")
    group.add_argument("--open", action="store_true", help="open the page in a browser")
    group.add_argument(
        "--max-upload", default="2GB", metavar="SIZE", help="largest file, like 500MB; default 2GB"
    )
    group.add_argument(
        "--data-dir",
        type=Path,
        default=cache_dir() / "uploads",
        metavar="FOLDER",
        help="where uploads are kept while in use, in a folder of their own in there; "
        "default %(default)s",
    )
    group.add_argument(
        "--keep-gb",
        default="10",
        metavar="GB",
        help="uploads kept at most, the oldest go first; default 10",
    )


def cache_dir() -> Path:
    """Where what can be made again is kept, in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vl3"


def address(host: str, port: int) -> str:
    """Where a browser on this machine finds the page."""
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def free_port(host: str, wanted: int, tried: int = PORTS_TRIED) -> int:
    """The wanted port, or the next free one.

    Raises: ValueError in one sentence where there is none, or the host is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(wanted, min(wanted + tried, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError:
                raise ValueError(
                    f"--port {port} is for administrators; choose one from 1024 on"
                ) from None
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno in _NOT_HERE:
                    raise ValueError(
                        f"--host {host} is no address of this machine; take 127.0.0.1, or 0.0.0.0 "
                        "for all it has"
                    ) from None
                continue
            return port
    last = min(wanted + tried, 65536) - 1
    raise ValueError(f"port {wanted} and those up to {last} are taken; choose another --port")
