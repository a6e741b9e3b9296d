"""The validate command: what it prints, writes and returns; the page it makes."""

import argparse
import html.parser
import json
import os
import re

import numpy as np
import pytest
from clips import write_clip

from train_cli.__main__ import main
from train_cli.validate import _Pages
from vl3 import video
from vl3.data.checks import Outcome
from vl3.data.html_report import html_report
from vl3.data.readers import open_records
from vl3.data.records import Record
from vl3.data.report import Report
from vl3.values import Clip

EVIL = "<script>alert('&amp;')</script>"


def row(path, question="What?", answer="Yes.", **more):
    return {
        "video": path,
        "conversations": [
            {"from": "human", "value": f"<video>{question}"},
            {"from": "gpt", "value": answer},
        ],
        **more,
    }


@pytest.fixture
def data(tmp_path):
    """train.jsonl: three good rows, one of them mended, a doubled one and three bad ones."""
    write_clip(tmp_path / "a.mp4", 16, 4, size=(64, 96))
    mended = row("a.mp4", "Why?", "Because — 星形 🙂.")
    mended["conversations"].insert(0, {"from": "gpt", "value": "Hello"})
    rows = [
        row("a.mp4", id="first"),
        mended,
        row("a.mp4", EVIL, EVIL, id=EVIL),
        row("a.mp4", id="again"),
        row("gone.mp4"),
        row("a.mp4", answer=" "),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in rows) + "{\n", encoding="utf-8")
    return path


@pytest.fixture
def validate(tiny_folder, capsys):
    def run(*arguments, model=True):
        extra = ["--model", str(tiny_folder)] if model else []
        code = main(["validate", *map(str, arguments), *extra])
        return code, *capsys.readouterr()

    return run


def test_a_report_and_exit_code_3(validate, data):
    code, out, err = validate(data)
    assert (code, err) == (3, "")
    assert out.startswith("train: 7 samples, 3 bad\n  E101  not valid JSON")
    assert "E120  train.jsonl:5: video not found: " in out
    assert "W150  train.jsonl:4: duplicate of line 1." in out
    assert out.endswith("3 of 7 samples cannot be learned from; --fix FILE writes the good ones\n")


def test_fix_writes_what_is_good_and_leaves_the_input_alone(validate, data, tmp_path):
    before, fixed = data.read_bytes(), tmp_path / "fixed.jsonl"
    code, out, _ = validate(data, "--fix", fixed, "--quarantine", tmp_path / "bad.jsonl")
    assert code == 3
    assert "fixed.jsonl: 3 samples written" in out
    assert data.read_bytes() == before
    records, original = open_records(fixed, name="set"), open_records(data, name="set")
    assert records.format == "canonical"
    for index in range(3):
        assert records[index].conversations == original[index].conversations
        assert records.read(index)[1] == []
    assert json.loads(fixed.read_text("utf-8").splitlines()[0])["media"][0]["path"] == "a.mp4"
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text("utf-8").splitlines()]
    assert [entry["code"] for entry in bad] == ["E120", "E105", "E101"]
    assert list(bad[0]) == ["dataset", "index", "id", "code", "message"]
    assert (bad[0]["index"], bad[0]["id"]) == (4, "train.jsonl:5")
    assert validate(fixed)[0] == 0
    code, _, err = validate(data, "--fix", fixed)
    assert code == 2
    assert err == f"error: --fix: {fixed} exists already; choose another name\n"


def test_json_quiet_strict_and_sample(validate, data, tmp_path):
    code, out, _ = validate(data, "--json")
    found = json.loads(out)
    assert (code, found["samples"], found["bad"]) == (3, 7, 3)
    assert validate(data, "--quiet") == (3, "", "")
    assert json.loads(validate(data, "--json", "--strict")[1])["bad"] == 5
    assert json.loads(validate(data, "--json", "--sample", 3)[1])["samples"] == 3
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps(row("a.mp4")))
    code, out, _ = validate(good, data, model=False)
    assert code == 3
    assert "good: 1 sample, 0 bad" in out
    assert validate(good, "--strict")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.jsonl"], "there is no file nothing.jsonl"),
        (["train.jsonl", "--sample", "0"], "--sample is at least 1 - got 0"),
        (["train.jsonl", "--html", "no/where.html"], "--html: there is no folder no"),
        (["train.jsonl", "--html", "train.jsonl"], "--html would overwrite the data"),
        (["train.jsonl", "--html", "."], "--html: . cannot be written: is a directory"),
        (["train.jsonl", "--fix", "a" * 300], "a cannot be written: file name too long"),
        (["train.jsonl", "--media-root", "no"], "--media-root: there is no folder no"),
        (["train.jsonl", "--media-root", "train.jsonl"], "--media-root: there is no folder train"),
        (["train.jsonl", "--model", "no such model"], "no such model"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(validate, data, monkeypatch, arguments, words):
    monkeypatch.chdir(data.parent)
    code, out, err = validate(*arguments, model="--model" not in arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_an_unknown_format_names_the_choices(validate, data, capsys):
    with pytest.raises(SystemExit) as caught:
        validate(data, "--format", "lava")
    assert caught.value.code == 2
    assert "invalid choice: 'lava' (choose from" in capsys.readouterr().err


def test_a_file_without_samples_is_bad_data(validate, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    code, _, err = validate(tmp_path / "empty.jsonl")
    assert code == 3
    assert err.endswith("empty.jsonl holds no samples.\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf://", "its name is not like hf://owner/name"),
        ("https://x.org/a.jsonl", "is a web address; download it first"),
        ("a.mp4", "a.mp4 is a binary file and no JSON"),
        ("/dev/null", "is a device or pipe"),
    ],
)
def test_what_is_no_file_of_rows_is_one_sentence(validate, data, monkeypatch, name, words):
    monkeypatch.chdir(data.parent)
    code, out, err = validate(name)
    assert (code, out) == (3, "")
    assert words in err
    assert err.count("\n") == 1


def test_one_row_of_a_pipe_or_an_empty_file_leaves_a_report_on_the_others(validate, data, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "empty.mp4").touch()
    rows = [row("pipe.mp4"), row("a.mp4"), row("empty.mp4"), row("."), row("/dev/zero")]
    data.write_text("\n".join(map(json.dumps, rows)))
    code, out, err = validate(data, "--html", tmp_path / "out.html")
    assert (code, err) == (3, "")
    assert out.startswith("train: 5 samples, 4 bad\n  E121  file cannot be decoded")
    assert "media: 0 images, 1 videos" in out
    for place, what in (
        (1, "pipe.mp4 is a device or pipe"),
        (3, "empty.mp4 is empty (0 bytes)"),
        (4, "is a folder"),
        (5, "/dev/zero is a device or pipe"),
    ):
        line = next(line for line in out.splitlines() if f"train.jsonl:{place}: " in line)
        assert what in line


def test_frames_that_are_lost_in_decoding_are_told(validate, data, tmp_path):
    clip = (tmp_path / "a.mp4").read_bytes()
    middle = clip.index(b"mdat") + 600
    (tmp_path / "a.mp4").write_bytes(clip[:middle] + bytes(200) + clip[middle + 200 :])
    data.write_text(json.dumps(row("a.mp4")))
    (note,) = video.read(tmp_path / "a.mp4").notes
    code, out, _ = validate(data, "--html", tmp_path / "out.html")
    assert code == 0
    assert f"W125  train.jsonl:1: a.mp4: {note}" in out
    assert f'<p class="note">{note}</p>' in (tmp_path / "out.html").read_text("utf-8")


def test_what_shows_only_in_decoding_is_in_report_and_page(tiny_processor):
    clip = Clip(
        frames_TYX3=np.zeros((2, 64, 96, 3), np.uint8),
        times_s=(0.0, 1.0),
        source="a.ts",
        notes=("32 of 200 frames <lost>.",),
    )
    asked = [{"type": "video", "video": clip}, {"type": "text", "text": "Q"}]
    conversation = [{"role": "user", "content": asked}, {"role": "assistant", "content": "A"}]
    record = Record(id="x", dataset="set", conversations=(conversation,))
    report, pages = Report(), _Pages(argparse.Namespace(html="x", visual_tokens=400), [])
    pages.picked = [Outcome(index=0, place="f:1", dataset="set", record=record)]
    page = html_report(report, pages.views(tiny_processor, report), files=["f"], model="nano")
    assert report.codes == {("set", "W125"): 1}
    assert report.first == {"W125": ["f:1: a.ts: 32 of 200 frames <lost>."]}
    assert '<p class="note">32 of 200 frames &lt;lost&gt;.</p>' in page
    assert "f:1: a.ts: 32 of 200 frames &lt;lost&gt;." in page


class Elements(html.parser.HTMLParser):
    """Names of the elements, the texts in them, and what the page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.texts, self.sources = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_shows_samples_and_runs_nothing(validate, data, tmp_path):
    validate(data, "--html", tmp_path / "out.html", "--quiet")
    page = (tmp_path / "out.html").read_text("utf-8")
    found = Elements(page)
    assert not {"script", "link", "iframe", "object", "form"} & set(found.names)
    assert found.names.count("img") == 4 * 4  # four good samples of four frames
    assert all(source.startswith("data:image/webp;base64,") for source in found.sources)
    assert "http" not in re.sub("http-equiv", "", page)
    text = "".join(found.texts)
    assert "As the model sees them" in text
    assert "Because — 星形 🙂." in text
    assert EVIL in text
    assert "3 of 7 samples cannot be learned from" in text
    learned = "".join(re.findall(r'class="t l(?: s)?">([^<]*)', page))
    assert learned.count("Yes.&lt;|im_end|&gt;") == 2
    assert "What?" not in learned


def test_the_page_of_real_clips(validate, shared, tmp_path):
    media = shared / "media"
    rows = [row(file.name) for file in sorted(media.glob("*.mp4"))]
    assert rows
    rows.append(row("waterview.jpg", answer="A lake."))  # a still picture for a video
    (tmp_path / "real.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    html_file = tmp_path / "out.html"
    code, out, _ = validate(
        tmp_path / "real.jsonl", "--media-root", media, "--html", html_file, model=False
    )
    assert code == 0, out
    assert html_file.read_text("utf-8").count("<img") > len(rows)
