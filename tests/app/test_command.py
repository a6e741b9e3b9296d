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
from contextlib import contextmanager

import pytest
from serving import REPO

from vl3.webapp import cli, uploads

client_module = pytest.importorskip("gradio_client")


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
    assert "--allowed-host" in shown.stdout
    assert "--root-path" in shown.stdout


WRONG = [
    (["--share"], "--auth user:password"),
    (["--host", "0.0.0.0"], "--auth user:password"),
    (["--host", "10.0.0.300", "--auth", "a:b"], "--host 10.0.0.300 is no address of this machine"),
    (["--host", "no such name", "--auth", "a:b"], "--host no such name is no address"),
    (["--auth", "nopassword"], "user:password"),
    (["--auth", "user:"], "user:password"),
    (["--auth", ""], "user:password"),
    (["--share", "--offline", "--auth", "a:b"], "--share needs the network"),
    (["--quantize", "int3"], "invalid choice"),
    (["--max-upload", "banana"], "--max-upload is a size like 500MB or 2GB - got 'banana'"),
    (["--root-path", "vl3"], "--root-path is a path like /vl3 - got 'vl3'"),
    (["--max-upload", "0GB"], "--max-upload is a size"),
    (["--max-upload", ""], "--max-upload is a size"),
    (["--memory", "lots"], "--memory is a size"),
    (["--port", "99999"], "--port is a whole number from 1 to 65535 - got 99999"),
    (["--port", "0"], "--port is a whole number"),
    (["--port", "web"], "--port is a whole number from 1 to 65535 - got 'web'"),
    (["--keep-gb", "-1"], "--keep-gb is a number of GB, 0 or more - got -1"),
    (["--keep-gb", "nan"], "--keep-gb is a number"),
    (["--features-gb", "inf"], "--features-gb is a number"),
    (["--data-dir", "app.py"], "--data-dir app.py is no folder; choose"),
    (["--data-dir", "app.py/below"], "--data-dir app.py/below is no folder; choose"),
    (["--data-dir", "/proc/here"], "--data-dir /proc/here cannot be written to"),
    (["--data-dir", "/dev/full"], "--data-dir /dev/full is no folder"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_what_does_not_fit_is_refused_in_a_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.chdir(REPO)
    with pytest.raises(SystemExit) as ended:
        cli.ready(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_cache_that_cannot_be_written_to_is_said(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for arguments in ([], ["--features-gb", "1", "--data-dir", str(tmp_path)]):
        with pytest.raises(SystemExit):
            cli.ready(arguments)
        assert "/file/vl3" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs file modes")
def test_a_full_disk_is_said_before_anything_is_loaded(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "none", str(disk)]
    if subprocess.run(mounted, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        began_s = time.monotonic()
        shown = run("--data-dir", str(disk))
        assert time.monotonic() - began_s < 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert shown.returncode == 2
    assert shown.stderr.endswith("choose a folder of your own for uploads\n")
    assert "is on a disk without free space" in shown.stderr


def test_an_adapter_alone_goes_on_the_model_that_adapters_are_trained_on():
    assert cli.parse([]).model == "assets/nano-av"
    assert cli.parse(["--adapter", "mine"]).model is None
    assert cli.parse(["--adapter", "mine", "--model", "base"]).model == "base"


def test_closed_doors_are_the_default():
    chosen = cli.parse([])
    assert chosen.host == "127.0.0.1"
    assert not chosen.share
    assert cli.parse(["--host", "0.0.0.0", "--auth", "me:secret"]).auth == "me:secret"


def test_a_taken_port_gives_the_next_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.free_port("127.0.0.1", port) > port
        with pytest.raises(ValueError, match="taken; choose another --port"):
            cli.free_port("127.0.0.1", port, tried=1)


@contextmanager
def started(*arguments: str, **environment: str):
    """The program, started; what it prints may be read."""
    process = subprocess.Popen(
        [sys.executable, "app.py", "--device", "cpu", "--offline", *arguments],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_it_starts_says_where_and_leaves_no_uploads(tiny_folder, tmp_path):
    data, temporary = tmp_path / "data of alice", tmp_path / "tmp"
    data.mkdir(mode=0o755)
    temporary.mkdir()
    theirs = data / "999999999"
    theirs.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = ["--model", str(tiny_folder), "--port", str(port), "--data-dir", str(data)]
        with started(*arguments, TMPDIR=str(temporary)) as process:
            assert "is taken, using" in process.stdout.readline()
            url = re.search(r"http://\S+", process.stdout.readline())[0]
            assert _answers(url), "it says where it is once it is there"
            with urllib.request.urlopen(f"{url}/config") as reply:
                assert "alice" not in reply.read().decode()
            assert data.stat().st_mode & 0o777 == 0o755
            (own,) = (data / uploads.OURS).glob(f"{process.pid}-*")
            client = client_module.Client(url, verbose=False)
            file = client_module.handle_file(REPO / "assets" / "clips" / "circle_then_star.mp4")
            assert client.predict(file, "What?", max_new_tokens=8, api_name="/ask")
            job = client.submit(file, "What?", max_new_tokens=100_000, api_name="/ask")
            while not job.running():
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            begun_s = time.monotonic()
            _, errors = process.communicate(timeout=30)
            assert time.monotonic() - begun_s < 3
    assert process.returncode == 0, errors[-1500:]
    assert not own.exists()
    assert {path.name for path in data.iterdir()} == {"999999999", uploads.OURS}
    assert list(temporary.glob("vl3-*")) == []
    assert "Traceback" not in errors
    assert "Warning" not in errors


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False
