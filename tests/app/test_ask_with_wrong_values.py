"""The page's endpoint for scripts with wrong values: a sentence, and nothing of it in the log."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request

import pytest
from page_fixtures import REPO
from serving import serving

pytest_plugins = ["page_fixtures"]

client_module = pytest.importorskip("gradio_client")
if not (REPO / "assets" / "nano" / "model.safetensors").is_file():
    pytest.skip("needs the bundled model", allow_module_level=True)

NAMES = (
    "file",
    "question",
    "fps",
    "max_frames",
    "start",
    "end",
    "max_new_tokens",
    "temperature",
    "seed",
)
SECRET = "words-of-a-caller"  # in every wrong text: the log must not hold it
VALUES = {
    "question": (None, "", "  ", 5, [SECRET], {"a": SECRET}, True, "x" * 200_000),
    "fps": (SECRET, -1, 0, math.nan, math.inf, 1e9, [], {}, [SECRET]),
    "max_frames": (SECRET, -1, 0, 1.5, math.nan, 2**70, [], {"a": SECRET}),
    "start": (SECRET, -1, 99, math.nan, math.inf, [SECRET]),
    "end": (SECRET, -1, 0, math.nan, {"a": SECRET}),
    "max_new_tokens": (SECRET, 0, -1, 1.5, None, [], 2**70),
    "temperature": (SECRET, -1, None, math.nan, math.inf, [SECRET]),
    "seed": (SECRET, 1.5, None, 2**70, [], {"a": SECRET}),
}
ALL = {("max_frames", 2**70), ("max_new_tokens", 2**70)}  # as many as there are: these work
RAW = ("has no attribute", "NoneType", "not subscriptable", "Traceback", "unsupported operand")


@pytest.fixture(scope="module")
def page(upload_folder):
    import vl3
    from vl3.webapp import launch
    from vl3.webapp.controller import Controller
    from vl3.webapp.uploads import Uploads

    media = Uploads(upload_folder, vl3.video, 10**9)
    controller = Controller(
        lambda **chosen: vl3.load(offline=True, device="cpu"), media, launch.refusals()
    )
    with serving(controller) as running:
        yield running


@pytest.fixture(scope="module")
def uploaded(page, clip) -> dict:
    """The clip as the server knows it after an upload."""
    client = client_module.Client(page.url, verbose=False)
    sent = client_module.handle_file(str(clip))
    client.predict(sent, "What?", max_new_tokens=1, api_name="/ask")
    (name,) = _upload(page.url, clip)
    return {"path": name, "meta": {"_type": "gradio.FileData"}}


def _upload(url: str, path) -> list[str]:
    body = (
        b'--line\r\nContent-Disposition: form-data; name="files"; filename="clip.mp4"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" + path.read_bytes() + b"\r\n--line--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=line"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}/gradio_api/upload", body, headers)
    ) as reply:
        return json.load(reply)


def asked(url: str, **values) -> str:
    """What the server answers to the values, by name."""
    return sent(url, {"data": [values[name] for name in NAMES]})


def sent(url: str, body: object) -> str:
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{url}/gradio_api/call/ask", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(call, timeout=60) as reply:
            event = json.load(reply)["event_id"]
    except urllib.error.HTTPError as refused:
        return f"event: error\ndata: refused with {refused.code}"
    with urllib.request.urlopen(f"{url}/gradio_api/call/ask/{event}", timeout=60) as reply:
        return reply.read().decode()


def right(uploaded: dict) -> dict:
    spans = dict.fromkeys(("fps", "max_frames", "start", "end"))
    return {
        "file": uploaded,
        "question": "What?",
        **spans,
        "max_new_tokens": 1,
        "temperature": 0.0,
        "seed": 0,
    }


def test_right_values_are_answered(page, uploaded):
    assert "event: complete" in asked(page.url, **right(uploaded))


@pytest.mark.parametrize("name", VALUES)
def test_wrong_values_are_sentences(page, uploaded, name, capfd):
    for value in VALUES[name]:
        said = asked(page.url, **right(uploaded) | {name: value})
        if not isinstance(value, list | dict) and (name, value) in ALL:
            assert "event: complete" in said
            continue
        assert "event: error" in said, (name, value, said)
        told = json.loads(said.partition("data: ")[2].splitlines()[0])
        words = told["error"] if isinstance(told, dict) else told
        assert words, (name, value)
        assert 15 <= len(words) <= 400, (name, value, words)
        assert "\n" not in words
        assert not [raw for raw in RAW if raw in words], words
    log = "".join(capfd.readouterr())
    assert "Traceback" not in log
    assert SECRET not in log


def test_files_that_are_none(page, uploaded, capfd):
    for file in (
        None,
        SECRET,
        7,
        [],
        {},
        {"path": 7},
        {"path": f"/etc/{SECRET}"},
        {"path": None},
        {"path": SECRET, "meta": {"_type": "gradio.FileData"}},
    ):
        assert "event: error" in asked(page.url, **right(uploaded) | {"file": file})
    log = "".join(capfd.readouterr())
    assert "Traceback" not in log
    assert SECRET not in log


def test_too_few_and_too_many_values(page, capfd):
    for body in ({"data": []}, {"data": [1] * 40}, {"data": SECRET}, {"nothing": SECRET}, []):
        said = sent(page.url, body)
        assert "event: error" in said
        assert "refused with 5" not in said
    log = "".join(capfd.readouterr())
    assert "Traceback" not in log
    assert SECRET not in log
