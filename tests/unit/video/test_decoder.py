"""Decoding in a process of its own: the same frames, and whatever happens there is one sentence."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path

import decoder_jobs as jobs
import numpy as np
import pytest
from clips import numbered, write_animation, write_clip
from heic import write_heic

from vl3 import video
from vl3.families.settings import ProcessorSettings
from vl3.messages.media import find_media
from vl3.pipeline import plan
from vl3.video import decoder, images, limits, timeline
from vl3.video.probe import read_header

pytestmark = pytest.mark.skipif(os.name != "posix", reason="decoded in the same process there")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """40 s at 25 fps with a keyframe every 2 s."""
    return write_clip(tmp_path_factory.mktemp("decoder") / "film.mp4", 1000, gop=50)


@pytest.fixture
def fresh(monkeypatch):
    """No process is there that a test before has left."""
    pool = decoder._Pool()
    monkeypatch.setattr(decoder, "_POOL", pool)
    yield pool
    pool.close()


def is_running(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def script(code, *arguments, **more):
    """A program that Ctrl-C ends, also where these tests run in the background of a shell."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **more,
    )


KINDS = {
    "mp4": lambda path: write_clip(path / "a.mp4", 100, gop=10),
    "mkv": lambda path: write_clip(path / "a.mkv", 100, gop=10),
    "wide": lambda path: write_clip(path / "w.mp4", 20, pixel_aspect=Fraction(2), clockwise_deg=90),
    "gif": lambda path: write_animation(path / "a.gif", [100] * 5),
    "webp": lambda path: write_animation(path / "a.webp", [100] * 5),
    "heic": lambda path: write_heic(path / "a.heic", numbered(7, 80, 240), 64),
    "png": lambda path: write_animation(path / "a.png", [100]),
}


def at_mean(picture_YX3, size):
    return np.full((*size, 3), picture_YX3.mean(), np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_this_process(tmp_path, monkeypatch, kind):
    path = KINDS[kind](tmp_path)
    sizes = [{}, {"size": (40, 60)}, {"size": lambda n, y, x: (y // 2 + n, x)}]

    def read(mode):
        monkeypatch.setenv("VL3_DECODER", mode)
        for known in (timeline.scan, read_header, images.picture_header):
            known.forget()
        clips = [video.read(path, fps=10, **more) for more in (*sizes, {"resize": at_mean})]
        shown = video.probe(path), video.schedule(path), video.is_image(path)
        if not video.is_image(path):
            clips.append(video.thumbnails(path, [(0.0, 0.0, 1.0)], None))
            clips.append(video.read(path, fps=5, mode="official"))
        return clips, shown

    there, here = read("process"), read("thread")
    assert there[1] == here[1]
    for one, other in zip(there[0], here[0], strict=True):
        assert np.array_equal(one.frames_TYX3, other.frames_TYX3)
        assert (one.times_s, one.notes) == (other.times_s, other.notes)


def test_real_clips_are_read_within_their_memory(shared):
    for path in sorted((shared / "media").glob("*.mp4")):
        assert len(video.read(path, fps=4)) > 10


def test_a_hundred_pictures_of_changing_size_come_in_order(film):
    found = []
    for count, height, width in ((100, 30, 40), (5, 1000, 2000), (40, 7, 9)):
        for picture in decoder.run(film, 30.0, partial(jobs.pictures, count, height, width)):
            assert picture.pixels_YX3.shape == (height, width, 3)
            assert (picture.pixels_YX3 == picture.wanted % 256).all()
            found.append(picture.wanted)
    assert found == [*range(100), *range(5), *range(40)]


def test_it_asks_the_caller(film):
    asked = []
    job = partial(jobs.ask)
    assert decoder.result(film, 30.0, job, ask=lambda n: asked.append(n) or n * n) == [0, 1, 4]
    assert asked == [0, 1, 2]


def test_it_is_another_process_kept_warm_that_knows_no_torch(film):
    first = decoder.result(film, 30.0, partial(jobs.process))
    assert first != os.getpid()
    assert decoder.result(film, 30.0, partial(jobs.process)) == first
    video.read(film)
    known = decoder.result(film, 30.0, partial(jobs.modules))
    assert {"av", "numpy", "PIL", "vl3"} <= set(known)
    assert not {"torch", "transformers", "gradio", "plotly"} & set(known)


# What goes wrong there


def test_a_decoder_that_is_killed_is_one_sentence_and_the_next_read_is_fine(film, fresh):
    right = video.read(film, fps=25, max_frames=None)

    def kill(done, total):
        if done == 100:
            os.kill(fresh.processes()[0], signal.SIGKILL)

    killed = fresh.processes()
    with pytest.raises(video.VideoError, match=r"^Reading film.mp4 was given up: its decoder was"):
        video.read(film, fps=25, max_frames=None, on_frame=kill)
    again = video.read(film, fps=25, max_frames=None)
    assert np.array_equal(again.frames_TYX3, right.frames_TYX3)
    assert not set(killed) & set(fresh.processes())


def test_one_that_was_killed_while_it_waited_is_replaced(film, fresh):
    video.read(film)
    (waiting,) = fresh.processes()
    os.kill(waiting, signal.SIGKILL)
    wait_until(lambda: fresh._idle[0].process.poll() is not None)
    assert len(video.read(film)) == 40


def test_a_crash_takes_nobody_with_it(film, fresh):
    found = decoder.run(film, 30.0, partial(jobs.crash))
    assert next(found) == "first"
    with pytest.raises(video.VideoError, match=r"film.mp4 was given up: .* crashed \(SIGSEGV\)"):
        next(found)
    assert len(video.read(film)) == 40


def test_a_mistake_there_is_raised_here_with_its_place(film):
    with pytest.raises(RuntimeError, match=r"(?s)LookupError: a mistake.*decoder_jobs.py"):
        decoder.result(film, 30.0, partial(jobs.fail))


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit elsewhere")
def test_memory_is_limited(film, fresh, monkeypatch):
    monkeypatch.setattr(limits, "decoder_bytes", lambda area_px: 300 << 20)
    eaten = partial(jobs.eat, 100 << 20)
    assert decoder.result(film, 30.0, eaten) == 96 << 20
    process = decoder.result(film, 30.0, partial(jobs.process))
    with pytest.raises(video.VideoError, match=r"takes more than the 300 MiB of memory"):
        decoder.result(film, 30.0, partial(jobs.eat, 1 << 30))
    assert decoder.result(film, 30.0, partial(jobs.process)) == process, "it goes on"
    assert len(video.read(film)) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="no such limit elsewhere")
def test_a_clip_that_takes_too_much_memory_is_one_sentence(tmp_path, fresh, monkeypatch):
    path = write_clip(tmp_path / "large.mp4", 3, pictures=[numbered(1, 1080, 1920)] * 3)
    assert len(video.read(path, fps=25)) == 3
    monkeypatch.setattr(limits, "decoder_bytes", lambda area_px: 1 << 20)
    with pytest.raises(video.VideoError, match=r"^Reading large.mp4 was given up: .*1 MiB"):
        video.read(path, fps=25)
    monkeypatch.undo()
    assert len(video.read(path, fps=25)) == 3


@pytest.mark.parametrize(
    ("job", "timeout_s", "read_s", "sentence"),
    [
        (jobs.hang, 0.3, 60.0, r"no progress for 0\.3 s"),
        (jobs.hang, 9.0, 0.3, "longer than a file of its size may"),
        (jobs.go_on, 9.0, 0.3, "longer than a file of its size may"),
    ],
)
def test_what_hangs_or_goes_on_is_ended(film, fresh, monkeypatch, job, timeout_s, read_s, sentence):
    monkeypatch.setattr(limits, "READ_S", read_s)
    monkeypatch.setattr(limits, "READ_S_PER_MB", 0.0)
    found = decoder.run(film, timeout_s, partial(job))
    process, started_s = next(found), time.monotonic()
    with pytest.raises(video.VideoError, match=f"film.mp4 was given up: .*{sentence}"):
        next(found)
    assert time.monotonic() - started_s < 2
    assert not is_running(process)
    assert process not in fresh.processes()


def test_a_caller_that_is_slow_between_two_values_is_no_stall(film):
    for _ in decoder.run(film, 0.2, partial(jobs.pictures, 3, 1000, 2000)):
        time.sleep(0.4)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("job", [jobs.hang, jobs.go_on])
def test_who_waits_can_stop_it(film, fresh, job):
    stop = threading.Event()

    def look():
        if stop.is_set():
            raise Stopped

    found = decoder.run(film, 30.0, partial(job), on_wait=look)
    process = next(found)
    threading.Timer(0.1, stop.set).start()
    stop.wait()
    with pytest.raises(Stopped):
        next(found)
    started_s = time.monotonic()
    assert not is_running(process)
    assert time.monotonic() - started_s < 0.3


def test_a_read_and_an_answer_can_be_stopped_before_a_frame_comes(film, monkeypatch, decoding_here):
    original, ended = timeline.packets, threading.Event()

    def stalling(container, stream, beat):
        yield next(original(container, stream, beat))
        ended.wait(20)

    monkeypatch.setattr("vl3.video.decode.packets", stalling)
    (medium,) = find_media([{"role": "user", "content": [{"type": "video", "video": film}]}])
    settings = ProcessorSettings(max_frames=4)
    (grid,) = plan([medium], settings).grids
    told, stop = [], threading.Event()

    def stopping(*done):
        told.append(done)
        if stop.is_set():
            raise Stopped

    for read in (
        lambda: video.read(film, on_wait=stopping),
        lambda: medium.read(settings, grid, stopping),
    ):
        stop.clear()
        threading.Timer(0.25, stop.set).start()
        started_s = time.monotonic()
        with pytest.raises(Stopped):
            read()
        assert time.monotonic() - started_s < 2
    ended.set()
    assert set(told) == {(), (1, 4)}
    assert told.count((1, 4)) > 1, "one frame came, and then it was asked again"


def test_who_leaves_ends_it(film, fresh):
    found = decoder.run(film, 30.0, partial(jobs.go_on))
    process = next(found)
    found.close()
    assert not is_running(process)


def test_nothing_is_left_open(film, fresh):
    def stop(done, total):
        raise Stopped

    def opened():
        gc.collect()
        return len(os.listdir("/proc/self/fd")), len(fresh.processes())

    video.read(film)
    before = opened()
    for _ in range(5):
        with pytest.raises(Stopped):
            video.read(film, on_frame=stop)
        video.read(film)
    assert opened() == before


# Callers of all kinds


def test_threads_read_side_by_side(film, fresh):
    right = video.read(film, fps=5)
    with ThreadPoolExecutor(6) as threads:
        clips = list(threads.map(lambda _: video.read(film, fps=5), range(12)))
    assert all(np.array_equal(clip.frames_TYX3, right.frames_TYX3) for clip in clips)
    assert 1 <= len(fresh.processes()) <= 2, "the others are ended once they are not needed"


def test_a_crash_beside_a_read_is_nobody_elses(film, fresh):
    def crash(_):
        with pytest.raises(video.VideoError, match="crashed"):
            list(decoder.run(film, 30.0, partial(jobs.crash)))

    with ThreadPoolExecutor(4) as threads:
        crashes = threads.map(crash, range(4))
        clips = list(threads.map(lambda _: video.read(film, fps=5), range(8)))
        list(crashes)
    assert {len(clip) for clip in clips} == {180}


def _read_in_worker(path, line):
    line.put((len(video.read(path)), decoder.processes(), os.getpid()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_worker_has_a_process_of_its_own(film, fresh, method):
    video.read(film)
    ours, context = fresh.processes(), multiprocessing.get_context(method)
    line = context.SimpleQueue()
    worker = context.Process(target=_read_in_worker, args=(film, line), daemon=True)
    worker.start()
    count, theirs, process = line.get()
    worker.join(10)
    assert (count, worker.exitcode, process) == (40, 0, worker.pid)
    assert len(theirs) == 1
    assert not set(theirs) & set(ours)
    wait_until(lambda: not is_running(theirs[0]))
    assert len(video.read(film)) == 40, "ours is as it was"
    assert fresh.processes() == ours


SCRIPT = """
import sys, vl3
from vl3 import video
from vl3.families.settings import ProcessorSettings
from vl3.messages.media import find_media
from vl3.pipeline import plan
from vl3.video import decoder
print("once", len(video.read(sys.argv[1])), *decoder.processes())
"""


@pytest.mark.slow
def test_a_script_without_a_guard(film, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(film)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    once, count, process = done.stdout.split()
    assert (once, count, done.stderr, done.returncode) == ("once", "40", "", 0)
    assert not is_running(process)


WAITING = """
import sys
from functools import partial
from pathlib import Path
import decoder_jobs as jobs
from vl3.video import decoder
for process in decoder.run(Path(sys.argv[1]), 60.0, partial(jobs.go_on)):
    print(process, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_program(film, how):
    program = script(WAITING, film, start_new_session=True)
    process = int(program.stdout.readline())
    assert is_running(process)
    os.killpg(program.pid, how)  # as Ctrl-C does
    _, said = program.communicate(timeout=20)
    assert program.returncode == -how
    assert said.count("Traceback") == (how == signal.SIGINT)
    wait_until(lambda: not is_running(process))


def test_where_none_can_be_started_it_is_done_here_and_said(film, fresh, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.warns(UserWarning, match="decoded in this process: .* could not be started"):
        assert decoder.result(film, 30.0, partial(jobs.process)) == os.getpid()
    assert len(video.read(film)) == 40
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(fresh, "_works", None)
    assert decoder.result(film, 30.0, partial(jobs.process)) == os.getpid()


def test_the_setting(film, monkeypatch):
    monkeypatch.setenv("VL3_DECODER", "thread")
    assert decoder.result(film, 30.0, partial(jobs.process)) == os.getpid()
    monkeypatch.setenv("VL3_DECODER", "threads")
    with pytest.raises(video.VideoError, match=r"^VL3_DECODER is one of process, thread - got"):
        video.read(film)
