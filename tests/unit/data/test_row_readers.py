"""Rows as users of other tools have them: each is read, or refused for that row alone."""

import json
import os

import numpy as np
import pytest
from clips import numbered, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vl3.data.checks import walk
from vl3.data.formats import detect
from vl3.data.normalize import to_row
from vl3.data.readers import open_records
from vl3.data.rules import RULES
from vl3.training.samples import build
from vl3.values import IGNORE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.mp4 of 8 s, p.png, and what is no medium: a pipe, a folder, an empty file, a text."""
    folder = tmp_path_factory.mktemp("rows")
    write_clip(folder / "a.mp4", 32, 4)
    Image.fromarray(numbered(7)).save(folder / "p.png")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dir.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video")
    return folder


def walked(path, processor):
    return list(walk(open_records(path, name="set"), processor))


def written(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


ANSWER = {"role": "assistant", "content": "A"}
PATH = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Q"}]


def said(content, **more):
    return {"messages": [{"role": "user", "content": content}, ANSWER], **more}


def llava(question="<image>Q", answer="A", **more):
    return {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
        **more,
    }


def with_video(**options):
    return said([PATH[0] | options, PATH[1]])


READ = {
    # LLaVA and the official trainer
    "image": (llava(image="p.png"), []),
    "images": (llava("<image><image>Q", image=["p.png", "p.png"]), []),
    "video": (llava("<video>\nQ", video="a.mp4"), []),
    "video, image tag": (llava("<image>\nQ", video=["a.mp4"]), []),
    "no tag": (llava("Q", image="p.png"), ["W111"]),
    "facts": (llava(image="p.png", id=1, data_source="x", width=96, duration=3.2), []),
    "greeting": (
        {"conversations": [{"from": "gpt", "value": "Hi"}, *llava("Q")["conversations"]]},
        ["W112"],
    ),
    "roles": ({"conversations": said("Q")["messages"]}, []),
    "system prompt": (llava(image="p.png", system_prompt="Be short."), []),
    "range of the row": (llava("<video>Q", video="a.mp4", video_start=1, end_time=3, fps=2), []),
    # LLaMA-Factory
    "lf columns": (llava("<image>Q", images=["p.png"], system="S", tools=""), []),
    "lf videos": (said("<video>Q", videos=["a.mp4"]), []),
    "lf tools": (llava("Q", tools="[{}]"), ["W115"]),
    # ms-swift
    "swift dicts": (said("<image>Q", images=[{"bytes": None, "path": "p.png"}]), []),
    "swift frames": (said("<video>Q", videos=[["p.png", "p.png"]]), []),
    "swift options": (said("<video>Q", videos=[{"path": "a.mp4", "fps": 2}]), []),
    "swift objects": (
        said("<image>find <bbox>", images=["p.png"], objects={"bbox": [[1, 2]]}),
        ["W115"],
    ),
    "swift rejected": (said("Q", rejected_response="B"), ["W115"]),
    # OpenAI
    "url": (said([{"type": "image_url", "image_url": {"url": "p.png", "detail": "auto"}}]), []),
    "low": (
        said([{"type": "image_url", "image_url": {"url": "p.png", "detail": "low"}}]),
        ["W115"],
    ),
    "developer": (
        {"messages": [{"role": "developer", "content": "S"}, *said("Q")["messages"]]},
        [],
    ),
    "name": ({"messages": [{"role": "user", "content": "Q", "name": "Bo"}, ANSWER]}, []),
    "tool calls": (
        {"messages": [*said("Q")["messages"], ANSWER | {"tool_calls": [{"id": "x"}]}]},
        ["W115"],
    ),
    # Qwen-VL
    "qwen sizes": (with_video(fps=2.0, max_pixels=9, min_pixels=3), ["W115", "W115"]),
    "qwen nframes": (with_video(nframes=4, video_start=1.0, video_end=6.5), []),
    "qwen frames": (said([{"type": "video", "video": ["p.png", "p.png"], "sample_fps": 2}]), []),
    "qwen without type": (said([{"video": "a.mp4"}, {"text": "Q"}]), []),
    # Hugging Face, TRL, Arrow
    "arrow": (
        said(
            [
                {"type": "video", "video": "a.mp4", "text": None, "fps": None},
                {"type": "text", "text": "Q", "video": ""},
            ]
        ),
        [],
    ),
    "columns": (said([{"type": "image"}, {"type": "text", "text": "Q"}], images=["p.png"]), []),
    "tag in a part": (said([{"type": "text", "text": "<video>\nQ"}], videos=["a.mp4"]), []),
    "tag and part": (
        said([{"type": "image"}, {"type": "text", "text": "<image>\nQ"}], images=["p.png"]),
        ["W116"],
    ),
    "ends with a question": (
        {"messages": [*said("Q")["messages"], {"role": "user", "content": "R"}]},
        ["W112"],
    ),
    "slip beside": (with_video(fsp=4), ["W115"]),
    "slip of the row": (llava("<video>Q", video="a.mp4", max_frame=4), ["W115"]),
}

BAD = {
    "pipe": (llava("<video>Q", video="pipe.mp4"), "E121", "is a device or pipe"),
    "device": (llava(image="/dev/zero"), "E121", "is a device or pipe"),
    "folder": (llava("<video>Q", video="dir.mp4"), "E121", "is a folder"),
    "empty": (llava("<video>Q", video="empty.mp4"), "E121", "is empty (0 bytes)"),
    "text": (llava("<video>Q", video="text.mp4"), "E121", "0 decodable frames"),
    "backslashes": (llava(image="sub\\p.png"), "E120", "It has backslashes, as on Windows"),
    "web": (said([{"type": "image", "url": "https://x.org/a.png"}]), "E120", "is a web address"),
    "null": (None, "E101", "null instead of an object"),
    "list of turns": ([ANSWER], "E101", "a list instead of an object"),
    "nested turns": ({"messages": [[ANSWER]]}, "E102", "turn 1 must be an object - got a list"),
    "nested parts": (said([["a"]]), "E102", "a part is a text or a dict"),
    "too long": (said("word " * 30_000), "E130", "; shorten its text or raise batch.max_tokens"),
    "calls": (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]},
        "E102",
        "got null",
    ),
    "function": ({"conversations": [{"from": "function_call", "value": "{}"}]}, "E103", "role"),
    "preferences": (
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        "E102",
        'Write "prompt" for "prompt" and "completion" for "chosen"',
    ),
    "alpaca": ({"instruction": "Q", "input": "", "output": "A"}, "E102", 'for "instruction" and'),
    "query": ({"query": "Q", "response": "A"}, "E102", 'Write "prompt" for "query"'),
    "slip": ({"mesages": []}, "E102", "Did you mean messages?"),
    "system": (said("Q", system=["S"]), "E102", '"system" must be a text - got a list'),
    "times of a file": (with_video(timestamps=[1, 2]), "E102", "belongs to a list of frames"),
    "backwards": (with_video(start=5, end=2), "E123", "clip 5.0–2.0 s is empty"),
    "two options": (with_video(fps=1, nframes=2), "E102", "leave one of them out"),
}


@pytest.mark.parametrize("name", READ)
def test_rows_of_other_tools_are_read(folder, tiny_processor, name):
    row, codes = READ[name]
    (outcome,) = walked(written(folder / "one.jsonl", [row]), tiny_processor)
    assert outcome.error is None
    assert [note.code for note in outcome.notes] == codes
    letters = "".join(
        part["text"]
        for turn in outcome.record.conversations[0]
        if not isinstance(turn["content"], str)
        for part in turn["content"]
        if part["type"] == "text"
    )
    assert "<image>" not in letters
    assert "<video>" not in letters
    assert len(build(outcome.record, tiny_processor, 400).ids_L) <= outcome.size.tokens


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_one_sentence_and_the_rows_beside_it_are_read(folder, tiny_processor, name):
    row, code, words = BAD[name]
    format = detect(row) if isinstance(row, dict) else None
    good = {"llava": llava("Q"), "hf": with_video()}.get(format, said("Q"))
    path = written(folder / "three.jsonl", [good, row, good])
    before, outcome, after = walked(path, tiny_processor)
    assert (before.error, after.error) == (None, None)
    assert outcome.error.code == code
    assert words in str(outcome.error)
    assert str(outcome.error).startswith("three.jsonl:2: ")
    assert "\n" not in str(outcome.error)


def test_what_a_row_says_is_what_is_taken(folder, tiny_processor):
    rows = [READ[name][0] for name in ("qwen nframes", "qwen sizes")]
    first, second = walked(written(folder / "taken.jsonl", rows), tiny_processor)
    video = {"path": str(folder / "a.mp4"), "start": 1.0, "end": 6.5, "num_frames": 4}
    assert first.record.conversations[0][0]["content"][0] == {"type": "video", "video": video}
    assert second.record.conversations[0][0]["content"][0]["video"]["fps"] == 2.0
    assert build(first.record, tiny_processor, 400).grids[0].frames <= 4
    (frames,) = walked(written(folder / "frames.jsonl", [READ["qwen frames"][0]]), tiny_processor)
    assert frames.record.conversations[0][0]["content"][0]["video"].times_s == (0.0, 0.5)
    (system,) = walked(written(folder / "s.jsonl", [READ["system prompt"][0]]), tiny_processor)
    assert system.record.conversations[0][0] == {"role": "system", "content": "Be short."}
    turns = [{"role": "user", "content": "Q"}, ANSWER | {"weight": 0}] * 2
    (weights,) = walked(
        written(folder / "w.jsonl", [{"messages": [*turns[:3], ANSWER]}]), tiny_processor
    )
    assert [turn.get("loss") for turn in weights.record.conversations[0]] == [
        None,
        False,
        None,
        None,
    ]


def test_letters_of_a_tag_in_a_learned_prompt_are_noted_or_gone(folder, tiny_processor):
    rows = [
        said([{"type": "image", "image": "p.png"}, {"type": "text", "text": "What is <image>?"}]),
        said([{"type": "text", "text": "What is <image>?"}]),
    ]
    for outcome in walked(written(folder / "letters.jsonl", rows), tiny_processor):
        assert [note.code for note in outcome.notes] == ["W116"]
        assert outcome.record.conversations[0][0]["content"][-1:] in (
            [{"type": "text", "text": "What is <image>?"}],
            "?",
        )


@pytest.mark.parametrize("name", [*READ, "letters", "timestamp"])
def test_what_fix_writes_of_it_gives_the_same_record(folder, tiny_processor, name):
    letters = [{"type": "image", "image": "p.png"}, {"type": "text", "text": "What is <image>?"}]
    more = {"letters": said(letters), "timestamp": said([letters[0] | {"time": 2}, "Q"])}
    row = more[name] if name in more else READ[name][0]
    (outcome,) = walked(written(folder / "first.jsonl", [row]), tiny_processor)
    fixed = to_row(outcome.record, folder, folder / "nowhere")
    (again,) = walked(written(folder / "fixed.jsonl", [fixed]), tiny_processor)
    ids = [build(o.record, tiny_processor, 400).ids_L.tolist() for o in (outcome, again)]
    assert ids[0] == ids[1]
    assert {note.code for note in again.notes} <= {"W116"} & {note.code for note in outcome.notes}


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_objects_over_several_lines_are_rows(folder, tiny_processor, name):
    path, row = folder / name, llava(image="p.png")
    path.write_text(json.dumps(row, indent=4))
    assert [outcome.error for outcome in walked(path, tiny_processor)] == [None]
    path.write_text("\ufeff" + "\n".join(json.dumps(row, indent=2) for _ in range(3)))
    records = open_records(path, name="set")
    assert [records.place(index) for index in range(3)] == [f"{name}:{n}" for n in (1, 2, 3)]
    path.write_text(json.dumps(row, indent=4)[:-9])
    with pytest.raises(ValueError, match=r"is not valid JSON \(.* at line \d+, column \d+\)"):
        open_records(path, name="set")
    path.write_text(json.dumps({"version": 1, "data": [row, row]}, indent=1))
    with pytest.raises(ValueError, match="one object with its rows under 'data'; write that list"):
        open_records(path, name="set")
    path.write_text('{"a": \n' + json.dumps(row) + "\n" + json.dumps(row))
    codes = [outcome.error and outcome.error.code for outcome in walked(path, tiny_processor)]
    assert codes == ["E101", None, None]


def test_files_that_hold_no_rows_are_refused_in_one_sentence(folder, tmp_path):
    line = json.dumps(said("Q"))
    (tmp_path / "wide.jsonl").write_bytes((line + "\n").encode("utf-16"))
    (tmp_path / "bare.jsonl").write_bytes((line + "\n").encode("utf-16-le"))
    (tmp_path / "table.csv").write_text("image,text\np.png,A\n")
    np.save(tmp_path / "rows.npy", np.zeros(3))
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, words in [
        ("wide.jsonl", "is UTF-16; save it as UTF-8"),
        ("bare.jsonl", "is a binary"),
        ("table.csv", "is no JSON; write its rows"),
        ("rows.npy", "is no JSON"),
        ("pipe.jsonl", "is a device or pipe; write it to a file first"),
    ]:
        with pytest.raises(ValueError, match=words) as caught:
            open_records(tmp_path / name, name="set")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is a binary file and no JSON"):
        open_records(folder / "a.mp4", name="set")
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode())
    assert open_records(tmp_path / "marked.jsonl", name="set")[0]


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
SOURCES = st.sampled_from(
    [
        "a.mp4",
        "p.png",
        "pipe.mp4",
        "dir.mp4",
        "empty.mp4",
        "text.mp4",
        "/dev/zero",
        "gone.png",
        "",
        None,
        ["p.png", "p.png"],
        ["a.mp4"],
        {"path": "p.png"},
        "data:,x",
        "https://x.org/a.png",
        "file:///x",
        ["a.mp4", "p.png"],
    ]
)
NAMES = (
    "fps",
    "max_frames",
    "nframes",
    "start",
    "video_end",
    "sample_fps",
    "timestamps",
    "mode",
    "text",
    "max_pixels",
    "timestamp",
    "fsp",
)
OPTIONS = dict.fromkeys(NAMES, VALUES | st.sampled_from([1, 2, 0.5, [0, 1], [0.0]]))
MEDIUM = st.one_of(
    [
        st.fixed_dictionaries({"type": st.just(kind)}, optional={kind: SOURCES, **OPTIONS})
        for kind in ("image", "video")
    ]
)
TEXT = st.sampled_from(["Q", "<image>Q", "<video> and <image>", "", "[1, 2, 3, 4]", "at 90 s"])
PART = MEDIUM | TEXT | TEXT.map(lambda text: {"type": "text", "text": text})
CONTENT = TEXT | st.lists(PART, max_size=3)
ROW = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["user", "assistant", "system", "stream"]),
                    "content": CONTENT,
                }
            ),
            max_size=4,
        )
    },
    optional={
        "images": SOURCES | st.lists(SOURCES),
        "videos": SOURCES,
        "image": SOURCES,
        "video": SOURCES,
        "system_prompt": VALUES,
        "id": VALUES,
        **OPTIONS,
    },
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(row=ROW)
def test_any_row_leaves_a_report_and_a_good_one_makes_a_sample(folder, tiny_processor, row):
    path = written(folder / "any.jsonl", [row])
    (outcome,) = walk(open_records(path, name="set", format="canonical"), tiny_processor)
    if outcome.error is None:
        sample = build(outcome.record, tiny_processor, 400)
        assert (sample.labels_L != IGNORE).any()
    else:
        assert outcome.error.code in RULES
        assert "\n" not in str(outcome.error)
