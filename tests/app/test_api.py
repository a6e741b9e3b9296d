"""What scripts may call, and what they get."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest
from serving import REPO

pytest_plugins = ["page_fixtures"]

client_module = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def client(server):
    return client_module.Client(server.url, verbose=False)


def test_exactly_one_endpoint_is_public(client):
    endpoints = client.view_api(return_format="dict", print_info=False)
    assert set(endpoints["named_endpoints"]) == {"/ask"}
    assert endpoints["unnamed_endpoints"] == {}
    names = [item["parameter_name"] for item in endpoints["named_endpoints"]["/ask"]["parameters"]]
    assert names == [
        "file",
        "question",
        "fps",
        "max_frames",
        "start",
        "end",
        "max_new_tokens",
        "temperature",
        "seed",
    ]


def test_ask_answers(client, clip, script):
    script.answer = "It is an answer."
    file = client_module.handle_file(str(clip))
    reading = {"fps": 2.5, "max_frames": 5, "start": 1.0, "end": 2.5}
    text = client.predict(
        file, "What?", **reading, max_new_tokens=3, temperature=0.75, seed=7, api_name="/ask"
    )
    assert text == "It is an"
    *_, (_, _, messages, settings) = [entry for entry in script.log if entry[0] == "answered"]
    video = messages[0]["content"][0]["video"]
    assert {name: video[name] for name in reading} == reading
    assert (settings["temperature"], settings["seed"]) == (0.75, 7)


def sent(url: str, data: list) -> str:
    """What the server answers to the call with these values."""
    body = json.dumps({"data": data}).encode()
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{url}/gradio_api/call/ask", body, headers)
    try:
        with urllib.request.urlopen(call) as reply:
            event = json.load(reply)["event_id"]
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode()}"
    with urllib.request.urlopen(f"{url}/gradio_api/call/ask/{event}") as reply:
        return reply.read().decode()


def posted(url: str, file: object) -> str:
    """The same for a request that names a file without having uploaded it."""
    return sent(url, [file, "What?", None, None, None, None, 9, 0.0, 0])


OUTSIDE = ["/etc/hostname", "../../etc/passwd", str(REPO / "app.py"), "http://127.0.0.1/x.mp4"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_of_the_server_can_be_named(server, path, script, capfd):
    for file in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}):
        assert posted(server.url, file).startswith("403 The file is gone, or it is not yours.")
    assert [entry for entry in script.log if entry[0] == "answered"] == []
    assert capfd.readouterr().err == ""


def test_nonsense_in_place_of_a_file_is_an_error(server, script):
    for file in (None, "text", 7, [], {}, {"path": 7}, {"path": None}):
        said = posted(server.url, file)
        assert "event: error" in said or said.startswith("403")


def test_what_a_caller_wrote_does_not_enter_the_log(server, client, clip, script, capfd):
    text = "caller's own text"
    path = client_module.handle_file(str(clip))
    for data in ([], [text], [text] * 9, [text] * 30, [{text: text}] * 9, [[text]] * 9):
        assert sent(server.url, data)[:3] in ("eve", "422")
    with pytest.raises(Exception, match=r"."):
        client.predict(path, 7, fps=text, max_frames={text: 1}, api_name="/ask")
    logged = capfd.readouterr().err
    assert text not in logged
    assert "Traceback" not in logged
    assert "A call that the page does not make was refused: ValueError." in logged


def test_errors_are_sentences(client, tmp_path, clip, script):
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    with pytest.raises(Exception, match=r"broken\.mp4 is not a video") as raised:
        client.predict(client_module.handle_file(str(broken)), "What?", api_name="/ask")
    assert "<" not in str(raised.value)
    with pytest.raises(Exception, match="Write a question first"):
        client.predict(client_module.handle_file(str(clip)), " ", api_name="/ask")


def test_a_script_that_leaves_ends_its_answer(server, script, clip):
    script.answer, script.word_s = "word " * 300, 0.05
    file = {"path": upload_file(server.url, clip), "meta": {"_type": "gradio.FileData"}}
    body = json.dumps({"data": [file, "What?", None, None, None, None, 300, 0, 0]}).encode()
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{server.url}/gradio_api/call/ask", body, headers)
    with urllib.request.urlopen(call) as reply:
        event = json.load(reply)["event_id"]
    listening = urllib.request.urlopen(f"{server.url}/gradio_api/call/ask/{event}", timeout=20)
    until_s = time.monotonic() + 10
    while not len(server.controller.line) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert len(server.controller.line) == 1
    listening.close()
    begun_s = time.monotonic()
    while len(server.controller.line) and time.monotonic() < begun_s + 20:
        time.sleep(0.05)
    assert time.monotonic() - begun_s < 5  # of 15 s


def upload_file(url: str, path) -> str:
    """Where the server put the file."""
    edge = "edge"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    body = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    call = urllib.request.Request(f"{url}/gradio_api/upload", body, headers)
    with urllib.request.urlopen(call) as reply:
        return json.load(reply)[0]
