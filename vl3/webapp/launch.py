"""The page with its model, served until a signal asks for its end: what `python app.py` runs."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Container
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
# Figures for a page that is switched off, computed with pandas at the end of every event.
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)

import gradio as gr
from gradio import route_utils, routes

import vl3
import vl3.audio
import vl3.studio
import vl3.video
from vl3.bundled import CLIPS
from vl3.families.layouts import LayoutError
from vl3.inference.engine import give_back_memory
from vl3.inference.memory import usable_bytes
from vl3.webapp import cli, server, text_format, uploads
from vl3.webapp.call_log import log_briefly
from vl3.webapp.controller import Controller
from vl3.webapp.page import Page
from vl3.webapp.sessions import settle
from vl3.webapp.uploads import Uploads
from vl3.weights.load import pick_device

SWEEP_S = 30.0
END_S = 1.5
LOOK_S = 0.2
M_ARENA_MAX = -8  # of malloc.h


def build(controller: Controller, can_load: bool = True, estimate: Callable = vl3.studio.estimate):
    """The page as a Gradio application, its queue included.

    can_load: whether visitors choose the model
    estimate(model, quantize=...) says what another model will take (vl3.studio.estimate)
    """
    demo = Page(controller, can_load, partial(needed, estimate)).demo
    # No bound on events: they are light. Work waits in the controller's line, which has a bound.
    demo.queue(max_size=None, default_concurrency_limit=4, api_open=False)
    # It looks for work that often, a thousand times a second by itself: 6 % of a core for nothing.
    demo._queue.sleep_when_free, demo._queue.progress_update_sleep_when_free = 0.01, 0.1
    return demo


def forget_left(demo: gr.Blocks, visitors: Container[str], after_s: float = SWEEP_S) -> int:
    """Drops what Gradio keeps of pages that are open no more; of how many.

    It keeps the values of all fields of each, 0.2 to 0.6 MB, of ten thousand pages.
    after_s: a page whose first event is under way is no visitor yet
    """
    holder, until = demo.state_holder, datetime.now() - timedelta(seconds=after_s)
    left = [
        key
        for key in list(holder.session_data)
        if key not in visitors and holder.time_last_used.get(key, until) <= until
    ]
    for key in left:
        holder.session_data.pop(key, None)
        holder.time_last_used.pop(key, None)
    return len(left)


async def store(request, place: Path, most_bytes: int, upload_id: str | None) -> list[str]:
    """Writes the files of an upload into the place; their paths."""
    tracked = routes.file_upload_statuses if upload_id else None
    try:
        paths, _, _ = await route_utils.upload_fn(
            request, str(place), most_bytes, upload_id, upload_progress=tracked
        )
        return paths
    finally:
        if tracked and upload_id:
            tracked.set_done(upload_id)


def launch_options(controller: Controller, max_bytes: int, **names) -> dict:
    """The arguments of launch(), but for address and lock; names as of launch.options."""
    theme = gr.themes.Monochrome(
        font=server.FONT, font_mono=server.FONT_MONO, radius_size="md", spacing_size="sm"
    ).set(  # a button under the mouse fades otherwise, as if it could not be pressed
        button_secondary_text_color_hover="*button_secondary_text_color",
        button_secondary_background_fill_hover="*neutral_100",
    )
    return {"theme": theme, **server.options(controller, max_bytes, store, **names)}


def refusals() -> dict[type[Exception], str]:
    """The errors that a user can mend, with the title they are shown under."""
    return {
        vl3.studio.OutOfMemory: "Out of memory",
        vl3.studio.TooLong: "Video too long for this setting",
        vl3.video.VideoError: "Cannot read this file",
        ValueError: "Not possible",
    }


def needed(estimate: Callable, model: str | None, quantize: str | None) -> str:
    """What another model will take, in words."""
    try:
        return text_format.needed(estimate(model, quantize=quantize))
    except (LayoutError, OSError):  # their words hold the name, maybe markup
        return text_format.UNKNOWN_SIZE
    except ValueError as error:
        return f"{error}."


def fits_beside(
    model: str | None, quantize: str | None, adapter: str | None, *, memory: str | None, **fitting
) -> bool:
    """Whether another model fits beside what is in memory, with an answer of each of two.

    memory: what the page's model may take; where it has a bound one model has it whole
    False too where nobody can tell what the model takes.
    """
    if memory not in (None, "auto"):
        return False
    try:
        need = vl3.studio.estimate(model, quantize=quantize, **fitting).need
    except (LayoutError, OSError, ValueError):
        return False
    free = usable_bytes("auto", pick_device(fitting["device"]))
    return need.weights + 2 * (need.kept + need.passing) <= free


def serve(options: Namespace, folder: Path) -> None:
    """Serves the page until a signal asks for its end; what came as of cli.ready."""
    _on_end(signal.default_int_handler)
    with ExitStack() as made, suppress(KeyboardInterrupt):  # before the page was up
        made.callback(uploads.remove, folder)
        _serve(options, made.enter_context(uploads.nameless(folder)), made)


def _serve(options: Namespace, folder: Path, made: ExitStack) -> None:
    """Serves the page until a signal asks for its end; made: what goes with it."""
    _share_heaps()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    fitting = {"device": options.device, "dtype": options.dtype, "memory": options.memory}
    load = partial(vl3.load, **fitting, offline=options.offline, features_gb=options.features_gb)
    estimate = partial(vl3.studio.estimate, **fitting)
    first = {"model": options.model, "quantize": options.quantize, "adapter": options.adapter}
    media = Uploads(folder, vl3.video, int(options.keep_gb * 1e9), vl3.audio)
    try:
        fits = partial(fits_beside, **fitting)
        controller = Controller(load, media, refusals(), fits, give_back_memory, **first)
    except (ValueError, ImportError, OSError, RuntimeError) as error:  # one sentence each
        cli.fail(error)
    controller.add_examples(CLIPS)
    if options.port != options.wanted_port:
        print(f"Port {options.wanted_port} is taken, using {options.port}.", flush=True)
    log_briefly()
    demo = build(controller, options.auth is None, estimate)

    def clean_up_regularly() -> None:
        while True:
            time.sleep(SWEEP_S)
            controller.clean_up()
            if forget_left(demo, controller.visitors):
                give_back_memory()  # here alone: it stops every thread for as long as it takes

    threading.Thread(target=clean_up_regularly, daemon=True).start()
    names = {"host": options.host, "allowed": options.allowed_host, "is_shared": options.share}
    demo.launch(
        server_name=f"[{options.host}]" if ":" in options.host else options.host,
        server_port=options.port,
        share=options.share,
        auth=tuple(options.auth.split(":", 1)) if options.auth else None,
        inbrowser=options.open,
        root_path=options.root_path.rstrip("/") or None,
        prevent_thread_lock=True,
        **launch_options(controller, options.max_upload, **names),
    )
    settle()
    print(f"vl3 is at {cli.address(options.host, options.port)}", flush=True)
    if options.share and not demo.share_url:
        print("There is no public link: the network does not let one be made.", flush=True)
    ending = threading.Event()
    _on_end(lambda number, frame: ending.set())
    while not ending.wait(LOOK_S):  # a signal that another thread got is handled at the next look
        pass
    controller.close()

    _end(demo, made)


def _end(demo: gr.Blocks, made: ExitStack) -> None:
    """Ends the program with what was made for it.

    What does not end by itself in time, a layer or a slow reader, ends with the process. The
    interpreter is not taken down first: torch aborts the process where a thread of an answer comes
    back to it.
    """

    def end() -> None:
        made.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    last = threading.Timer(END_S, end)
    last.daemon = True
    last.start()
    demo.close(verbose=False)
    last.cancel()
    end()


def _share_heaps() -> None:
    """Lets all threads allocate from two heaps of glibc, where it is the allocator.

    By itself it makes eight a core, and each keeps what was freed in it: with 30 people on nano's
    page for 40 s 922 MB instead of 785, and after they had left 6 % more than before instead of
    1 %.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _on_end(handle: Callable) -> None:
    """What the signals do that ask the program to end, also where the shell had them ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        is_nohup = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
        if number and not is_nohup:
            signal.signal(number, handle)
