"""python app.py: what it says, what it refuses, what it opens."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from serving import REPO

from vl3.page import options


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "app.py", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)


def test_help_explains_every_option():
    shown = run("--help")
    assert shown.returncode == 0
    for name in ("model", "quantize", "adapter", "device", "dtype", "offline", "host", "port"):
        assert f"--{name}" in shown.stdout
    for name in ("auth", "share", "open", "max-upload", "data-dir", "keep-gb"):
        assert f"--{name}" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--share"], "--auth user:password"),
        (["--host", "0.0.0.0"], "--auth user:password"),
        (["--auth", "nopassword"], "user:password"),
        (["--auth", "user:"], "user:password"),
        (["--quantize", "int3"], "invalid choice"),
    ],
)
def test_open_doors_are_refused(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_closed_doors_are_the_default():
    chosen = options.parse([])
    assert chosen.host == "127.0.0.1"
    assert not chosen.share
    assert options.parse(["--host", "0.0.0.0", "--auth", "me:secret"]).auth == "me:secret"


def test_a_taken_port_gives_the_next_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert options.free_port("127.0.0.1", port) > port


def test_it_starts_says_where_and_leaves_no_uploads(tiny_folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    stale = data / "999999999"
    stale.mkdir()
    (stale / "old.mp4").write_bytes(b"old")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "app.py", "--model", str(tiny_folder), "--device", "cpu"]
        command += ["--port", str(port), "--data-dir", str(data), "--offline"]
        process = subprocess.Popen(
            command,
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            assert "is taken, using" in process.stdout.readline()
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            deadline_s = time.monotonic() + 60
            while not _answers(url):
                assert time.monotonic() < deadline_s, "the page did not come up"
                time.sleep(0.2)
            assert data.stat().st_mode & 0o777 == 0o700
            assert not stale.exists()
            assert [folder.name for folder in data.iterdir()] == [str(process.pid)]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
    assert list(data.iterdir()) == []
    assert "Traceback" not in errors
    assert "Warning" not in errors


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False
