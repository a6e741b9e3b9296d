"""Every rule with its exact sentence, as a file brings it about."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from clips import write_clip
from PIL import Image

from vl3.data.checks import check_length, walk
from vl3.data.quarantine import Bad, quarantine
from vl3.data.readers import open_records
from vl3.data.records import Record
from vl3.data.report import check, histogram
from vl3.data.rules import RULES
from vl3.values import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.mp4 lasts 8 s, cut.mp4 is broken, text.png no picture; the others are of odd shapes."""
    folder = tmp_path_factory.mktemp("rules")
    write_clip(folder / "a.mp4", 32, 4, size=(64, 96))
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:600])
    for name, (width, height) in {"p": (64, 64), "thin": (3, 900), "long": (9000, 40)}.items():
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "text.png").write_text("no picture")
    (folder / "a.wav").write_bytes(b"RIFF")
    return folder


def said(question="What?", answer="Yes.", **more):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        **more,
    }


def turns(*pairs):
    return {"conversations": [{"from": role, "value": text} for role, text in pairs]}


def video(path="a.mp4", **options):
    return {"media": [{"type": "video", "path": path, **options}]}


def stream(*times, end=8):
    said = [{"role": "assistant", "content": "Now.", "time": time} for time in times]
    return {
        "stream": True,
        "video": "a.mp4",
        "start_time": 0,
        "end_time": end,
        "conversation": said,
    }


V, ASKED, ANSWERED = "<video>What?", ("human", "What?"), ("gpt", "Yes.")

ERRORS = [
    ('{"a" 1}', "not valid JSON (Expecting ':' at column 6). Each line must be one JSON object."),
    (
        "[]",
        "not valid JSON (a list instead of an object at column 1). "
        "Each line must be one JSON object.",
    ),
    (
        {"id": 1, "text": "x"},
        'E102 cannot tell the format; expected one of "messages", '
        '"conversations", "prompt"+"completion", "stream". Found keys: id, text.',
    ),
    (
        {"convesations": []},
        'E102 cannot tell the format; expected one of "messages", '
        '"conversations", "prompt"+"completion", "stream". Found keys: convesations. Did you mean '
        "conversations?",
    ),
    (
        {"instruction": "?", "output": "!"},
        "E102 cannot tell the format; expected one of "
        '"messages", "conversations", "prompt"+"completion", "stream". Found keys: instruction, '
        'output. Write "prompt" for "instruction" and "completion" for "output".',
    ),
    ({"messages": [7]}, "E102 turn 1 must be an object - got 7."),
    (
        {"messages": [{"role": "user", "content": None}]},
        "E102 the content of turn 1 must be a text or a list of parts - got null.",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool", "x": 1}]}]},
        "E102 the content of turn 1: a part is of type text, image, video or audio - got 'tool'.",
    ),
    (said(V, **video(fps=0)), "E102 medium 1: fps is a number above 0 and at most 1000 - got 0."),
    (
        turns(ASKED, ("bot", "x")),
        'E103 turn 2 has role "bot"; use system, user/human or assistant/gpt.',
    ),
    (turns(ASKED), 'E104 nothing to learn from: the last turn is "user".'),
    (turns(), "E104 nothing to learn from: there are no turns."),
    (
        {
            "messages": [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "!", "loss": False},
            ]
        },
        'E104 nothing to learn from: every assistant turn has "loss" false.',
    ),
    (turns(("system", "s"), ASKED, ("gpt", " \n")), "E105 assistant turn 3 is empty."),
    (
        said("<image> <image>?", image="p.png"),
        "E110 2 <image> tags but 1 image listed. Add the path or remove the tag.",
    ),
    (said("<video>?"), "E110 1 <video> tag but 0 videos listed. Add the path or remove the tag."),
    (
        said(V, media=[{"type": "video", "frames": ["p.png", "p.png"], "times": [1]}]),
        "E110 2 frames but 1 times listed. Give one time in seconds per frame.",
    ),
    (
        turns(ASKED, ("gpt", "a"), ASKED, ("gpt", "an <image>")),
        'E113 "<image>" inside the answer of turn 4; answers must not hold media tags.',
    ),
    (
        {"image": "p.png", "video": "a.mp4", **turns(ASKED, ANSWERED)},
        'E114 both "image" and "video" set; use "media" (canonical) for mixed samples.',
    ),
    (said(V, **video("v/abc.mp4")), "E120 video not found: ROOT/v/abc.mp4 (media_root=ROOT)."),
    (
        said("<image>", image="https://x.org/a.png"),
        "E120 https://x.org/a.png is a web address; "
        "only files and data: URLs are read, so download it and give the path.",
    ),
    (
        said(V, **video("cut.mp4")),
        "E121 ROOT/cut.mp4: 0 decodable frames (cut.mp4 is incomplete or "
        "was still uploading: its index is missing; wait for the upload or copy the file again).",
    ),
    (
        said("<image>", image="text.png"),
        "E121 ROOT/text.png: 0 decodable frames (text.png is not a picture that can be read).",
    ),
    (
        said("<image>", image="data:image/png;base64,!"),
        "E121 data:image/png;base64,!: 0 decodable frames (its base64 is damaged).",
    ),
    (
        said("?", audio="a.wav"),
        "E121 ROOT/a.wav: sound is not read by this model; take the audio out of the sample.",
    ),
    (
        said("<image>", image="thin.png"),
        "E122 image 3×900 is too thin; smallest side must be ≥ 14 px.",
    ),
    (
        said("<image>", image="long.png"),
        "E122 image 9000×40 is too thin; smallest side must be ≥ 14 px.",
    ),
    (said(V, **video(start=12, end=8)), "E123 clip 12.0–8.0 s is empty; video lasts 8.0 s."),
    (said(V, **video(start=9, end=12)), "E123 clip 9.0–12.0 s is empty; video lasts 8.0 s."),
    (said(V, **video(end=30)), "E123 clip 0.0–30.0 s is out of range; video lasts 8.0 s."),
    (
        said("x" * 2000 + V, **video()),
        "E130 N tokens (N visual) > 1 000; lower media.visual_tokens or raise batch.max_tokens.",
    ),
    (stream(2, 6, 4), "E140 message 3 at 4.0 s comes after one at 6.0 s."),
    (stream(2, 9), "E140 message 2 at 9.0 s is outside the clip (0.0–8.0 s)."),
    (
        said(V, media=[{"type": "video", "frames": ["p.png", "p.png"], "times": [6, 4]}]),
        "E140 frame 2 at 4.0 s comes after one at 6.0 s.",
    ),
]

NOTES = [
    (
        said(**video()),
        "W111 no <video> tag; put in front of the first user turn (as the official trainer does).",
    ),
    (turns(("gpt", "Hello"), ASKED, ANSWERED), "W112 dropped 1 leading assistant turn(s)."),
    (
        said(V, **video(fps=4, max_frames=5)),
        "W124 8 s at 4 fps = 32 frames; 5 will be sampled uniformly.",
    ),
    (said("<image>" * 30, images=["p.png"] * 30), "W131 visual tokens 750 → 480."),
    (said(V, **video(fsp=2)), "W115 'fsp' beside a video is not used; did you mean fps?"),
    (
        said(V, **video(max_pixels=9)),
        "W115 'max_pixels' beside a video is not used: the size "
        "follows from the token budget (budget_tokens).",
    ),
    (said("Q", tools=["a"]), "W115 'tools' of a row is not used."),
    (said("Q", max_frame=3), "W115 'max_frame' of a row is not used; did you mean max_frames?"),
    (
        {
            "messages": [
                {"role": "user", "content": "Q", "contnt": "x"},
                {"role": "assistant", "content": "A"},
            ]
        },
        "W115 'contnt' of turn 1 is not used; did you mean content?",
    ),
    (
        said([{"type": "image"}, {"type": "text", "text": "<image>\nQ"}], image="p.png"),
        "W116 1 <image> in a text beside as many parts of type image; the letters were taken out.",
    ),
    (
        said([{"type": "image", "image": "p.png"}, {"type": "text", "text": "<image>\nQ"}]),
        "W116 1 <image> in the text of a part is read as letters; a part of its own stands for a "
        "medium.",
    ),
    (
        {"messages": [*said("Q")["messages"], {"role": "user", "content": "And?"}]},
        "W112 dropped 1 turn after the last answer.",
    ),
    (said(V, "It ends at 12.0 s.", **video()), "W160 time 12.0 s beyond the video (8.0 s)."),
    (said(V, "From 3 to 12 seconds.", **video()), "W160 end time 12.0 s beyond the video (8.0 s)."),
    (
        said("<image>", "Here: [10, 20, 1200, 40]", image="p.png"),
        "W160 box [10, 20, 1200, 40] beyond 0-1000.",
    ),
]


@pytest.fixture
def outcomes(folder, tiny_processor):
    """What is known of the rows of a file; a budget of 480 visual tokens, 1 000 in all."""

    def known(*rows, **options):
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path = folder / "train.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        records = open_records(path, name="set")
        options = {"visual_tokens": 480, "max_tokens": 1000} | options
        return list(walk(records, tiny_processor, **options))

    return known


@pytest.mark.parametrize(("row", "sentence"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors(outcomes, folder, row, sentence):
    (outcome,) = outcomes(row)
    expected = sentence if sentence[:1] == "E" else f"E101 {sentence}"
    found = f"{outcome.error.code} {str(outcome.error).removeprefix('train.jsonl:1: ')}"
    found = found.replace(str(folder), "ROOT")
    found = re.sub(r"E130 [\d ]+ tokens \(\d+ visual", "E130 N tokens (N visual", found)
    assert found == expected
    assert str(outcome.error).startswith("train.jsonl:1: ")


@pytest.mark.parametrize(("row", "sentence"), NOTES, ids=lambda value: str(value)[:40])
def test_notes(outcomes, row, sentence):
    (outcome,) = outcomes(row)
    assert outcome.error is None
    assert [f"{code} {text.removeprefix('train.jsonl:1: ')}" for code, text in outcome.notes] == [
        sentence
    ]


def test_every_rule_is_tried():
    tried = {sentence.split()[0] for _, sentence in (*ERRORS, *NOTES)}
    without_code = {"E101", "W125", "W150"}
    assert {code for code in RULES if code not in tried} == without_code


def test_what_could_not_be_read_exactly_is_a_note(tiny_processor):
    clip = Clip(
        frames_TYX3=np.zeros((2, 64, 96, 3), np.uint8),
        times_s=(0.0, 1.0),
        source="a.ts",
        notes=("32 of 200 frames could not be read.",),
    )
    content = [{"type": "video", "video": clip}, {"type": "text", "text": "Q"}]
    conversation = [{"role": "user", "content": content}, {"role": "assistant", "content": "A"}]
    notes = []
    check_length(
        Record(id="x", dataset="set", conversations=(conversation,)),
        tiny_processor,
        tiny_processor.settings,
        1000,
        notes,
    )
    assert notes == [("W125", "a.ts: 32 of 200 frames could not be read.")]


def test_duplicates(outcomes):
    first = said(V, **video())
    rows = [
        first | {"id": "a"},
        said("Other " + V, **video()) | {"id": "a"},
        first | {"id": "b"},
        said("2+2?"),
        said("2+2?"),
        said("2+2?") | {"id": 1},
        said("3+3?") | {"id": 1},
        said("2+2?") | {"id": 1},
    ]
    found = [
        [text for code, text in outcome.notes if code == "W150"] for outcome in outcomes(*rows)
    ]
    assert found == [
        [],
        [],
        ["train.jsonl:3: duplicate of line 1."],
        [],
        [],
        [],
        [],
        ["train.jsonl:8: duplicate of line 6."],
    ]


def test_good_samples_are_silent(outcomes):
    rows = [
        said(V, "A dog runs from 3 to 8 seconds.", **video()),
        said("2+2?", "4 or [1, 2]"),
        said(V, "In 2030 it takes 90 s.", **video(start=1, end=8)),
    ]
    assert [(outcome.error, outcome.notes) for outcome in outcomes(*rows)] == [(None, ())] * 3


def test_tokens_are_what_the_processor_makes(outcomes, tiny_processor):
    processor = replace_settings(tiny_processor, prune=None)
    (outcome,) = outcomes(said(V, **video(fps=2)))
    inputs = processor(outcome.record.conversations[0], budget_tokens=480)
    assert outcome.size.tokens == inputs["input_ids"].shape[1]
    assert outcome.size.visual == (inputs["input_ids"] == processor.slot_ids.image).sum()
    lists = {"message_lists": [said("<video>A?")["messages"], said("B?")["messages"]]} | video()
    (shared,) = outcomes(lists)
    alone = [
        processor(conversation, budget_tokens=480)["input_ids"].shape[1]
        for conversation in shared.record.conversations
    ]
    assert shared.size.visual < shared.size.tokens < sum(alone)


def replace_settings(processor, **changes):
    settings = replace(processor.settings, **changes)
    made = type(processor)(processor.tokenizer, settings, image_token_id=processor.slot_ids.image)
    return made


def test_pruning_may_save_a_long_sample(outcomes, folder):
    still = [np.full((64, 96, 3), 90, np.uint8)] * 64
    write_clip(folder / "still.mp4", fps=4, pictures=still, codec_options={"qp": "0"})
    (outcome,) = outcomes(said(V, **video("still.mp4", fps=2)), max_tokens=700)
    assert outcome.size.tokens > 700
    assert outcome.error is None


def test_a_report_counts(folder, tiny_processor, outcomes):
    rows = [said(V, **video()), said("2+2?"), turns(ASKED), "{", said(**video())]
    outcomes(*rows)
    records = open_records(folder / "train.jsonl", name="set")
    seen = []
    report = check(records, tiny_processor, on_sample=seen.append)
    assert (report.total, report.total_bad, len(seen)) == (5, 2, 5)
    found = report.as_dict()
    assert json.loads(json.dumps(found)) == found | {
        "tokens": found["tokens"]
        | {
            name: [list(stretch) for stretch in found["tokens"][name]]
            for name in ("text_histogram", "visual_histogram")
        }
    }
    codes = {"E101": 1, "E102": 1, "W111": 1, "W150": 1}
    assert found["datasets"]["set"] == {"samples": 5, "bad": 2, "codes": codes}
    assert [entry["place"] for entry in found["longest"]][-1] == "train.jsonl:2"
    assert (report.images, report.videos, report.seconds) == (0, 2, pytest.approx(16))
    strict = check(records, tiny_processor, strict=True)
    assert strict.total_bad == 3
    some = check(records, tiny_processor, indices=[1, 3])
    assert (some.total, some.total_bad) == (2, 1)


def test_stretches_of_a_histogram():
    assert histogram(Counter()) == []
    assert histogram(Counter({0: 2, 3: 1, 5: 4})) == [(0, 0, 2), (4, 7, 1), (8, 15, 0), (16, 31, 4)]


def test_quarantine_is_a_line_per_sample(tmp_path):
    file = tmp_path / "bad.jsonl"
    first = Bad(dataset="set", index=0, id="a:1", code="E105", message="a:1: turn 3 is empty.")
    quarantine(file, [])
    assert not file.exists()
    quarantine(file, [first])
    quarantine(file, [Bad(dataset="set", index=1, id="b", code="E101", message="ü")])
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert lines[0] == {
        "dataset": "set",
        "index": 0,
        "id": "a:1",
        "code": "E105",
        "message": "a:1: turn 3 is empty.",
    }
    assert lines[1]["message"] == "ü"
    assert len(lines) == 2
