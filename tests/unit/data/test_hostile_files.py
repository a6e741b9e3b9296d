"""Files that are damaged or made to break a reader: bad samples with a place, nothing else."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vl3.data.formats import FORMATS
from vl3.data.readers import open_records
from vl3.data.records import BadSample
from vl3.data.rules import RULES

GOOD = b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"!"}]}'


def outcomes(path, **options):
    """ "ok" or the code of every sample of a file."""
    records = open_records(path, name="set", **options)
    return [outcome(records, index) for index in range(len(records))]


def outcome(records, index):
    try:
        record = records[index]
    except BadSample as error:
        starts = str(error).startswith(f"{records.place(index)}: ")
        return error.code if starts and error.code in RULES else f"unplaced {error}"
    learns = all(turns[-1]["role"] == "assistant" for turns in record.conversations)
    return "ok" if learns and record.conversations else "nothing to learn"


LINES = {
    "not UTF-8": b'{"messages": "\xff"}',
    "UTF-16": GOOD.decode().encode("utf-16"),
    "half a surrogate pair": GOOD.replace(b"?", b"\\ud800"),
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "a long number": b'{"messages": ' + b"9" * 10_000 + b"}",
    "null": b"null",
    "a number": b"17",
    "cut off": GOOD[:-4],
    "NUL": b'{"\x00": 1}',
}


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_is_one_bad_sample(tmp_path, name):
    path = tmp_path / "train.jsonl"
    line = LINES[name].replace(b"\n", b"")
    path.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD)
    assert outcomes(path) == ["ok", "E101", "ok"]


VALUES = [
    None,
    True,
    0,
    -1,
    1e400,
    float("nan"),
    10**400,
    "",
    "\x00",
    "a" * 100_000,
    [],
    [[]],
    {},
    {"type": "video"},
    [None],
    [{"type": "image", "image": None}],
    ["\ud7ff"],
]
KEYS = [
    "messages",
    "conversations",
    "media",
    "image",
    "images",
    "video",
    "videos",
    "audio",
    "id",
    "system",
    "message_lists",
    "prompt",
    "completion",
    "stream",
    "conversation",
    "start_time",
    "end_time",
    "weight",
    "meta",
    "dataset",
    "times",
    "fps",
    "caption",
]


@pytest.mark.parametrize("key", KEYS)
def test_values_of_the_wrong_type(tmp_path, key):
    good = json.loads(GOOD)
    starts = {
        "messages": good,
        "conversations": {"conversations": good["messages"]},
        "stream": {"stream": True, "video": "a.mp4", "end_time": 3, "conversation": []},
        "prompt": {"prompt": "?", "completion": "!"},
    }
    for start in starts.values():
        path = tmp_path / "train.jsonl"
        rows = [start, *(start | {key: value} for value in VALUES)]
        path.write_text("\n".join(map(json.dumps, rows)))
        for found in outcomes(path)[1:]:
            assert found in ("ok", "E101", "E102", "E104", "E105", "E110", "E120", "E121", "E123")


def test_byte_order_mark_crlf_and_blank_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\r\n{\r\n\n" + GOOD)
    records = open_records(path, name="set")
    assert [records.place(index) for index in range(4)] == [
        "train.jsonl:1",
        "train.jsonl:4",
        "train.jsonl:5",
        "train.jsonl:7",
    ]
    assert outcomes(path) == ["ok", "ok", "E101", "ok"]


def test_a_line_of_ten_megabytes(tmp_path):
    path = tmp_path / "train.jsonl"
    long = GOOD.replace(b"?", b"x" * 10_000_000)
    path.write_bytes(long + b"\n" + b'{"video": "' + b"y" * 10_000_000 + b'"}\n' + GOOD)
    assert outcomes(path) == ["ok", "E102", "ok"]
    rows = {"video": "y" * 10_000_000, "messages": json.loads(GOOD)["messages"]}
    path.write_text(json.dumps(rows))
    with pytest.raises(BadSample) as caught:
        open_records(path, name="set")[0]
    assert len(str(caught.value)) < 1000


def test_messages_show_no_control_characters(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "\x1b[2J\nx", "content": ""}]}))
    with pytest.raises(BadSample, match=r'role "\?\[2J\?x"'):
        open_records(path, name="set")[0]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \n"),
        ("a.json", b"[]"),
        ("a.json", b"[1,"),
        ("a.json", b"[\xff]"),
        ("a.json", b"[" * 100_000),
        ("a.tar", b""),
        ("a.tar", b"x" * 4096),
    ],
)
def test_a_file_without_samples_is_one_clear_error(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.(jsonl|json|tar)") as caught:
        open_records(tmp_path / name, name="set")
    assert not isinstance(caught.value, BadSample)
    assert "\n" not in str(caught.value)


def test_an_index_does_not_hold_the_rows(tmp_path):
    import tracemalloc

    path = tmp_path / "train.jsonl"
    row = GOOD.replace(b"?", b"x" * 900)
    path.write_bytes(b"".join(row + b"\n" for _ in range(50_000)))  # 49 MB
    tracemalloc.start()
    begin_s = time.perf_counter()
    records = open_records(path, name="set")
    assert len(records) == 50_000
    assert records[49_999].id == "train.jsonl:50000"
    assert time.perf_counter() - begin_s < 20
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    [
        *KEYS,
        "role",
        "content",
        "from",
        "value",
        "type",
        "text",
        "path",
        "frames",
        "start",
        "end",
        "max_frames",
        "loss",
        "loss_scale",
        "time",
        "image_url",
        "url",
        "bytes",
        "user",
        "assistant",
        "human",
        "gpt",
        "<image>",
        "<video>",
        "video_url",
    ]
)
JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=6),
    max_leaves=12,
)
TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system", "stream", "bot"]),
        "content": st.sampled_from(["<image>a", "b", "<video>"]) | JSON,
    },
    optional={"loss": JSON, "time": SCALARS},
)
MEDIUM = st.fixed_dictionaries(
    {"type": st.sampled_from(["image", "video", "audio"]), "path": st.just("none.png") | JSON},
    optional={
        "start": SCALARS,
        "end": SCALARS,
        "fps": SCALARS,
        "max_frames": SCALARS,
        "frames": JSON,
        "times": JSON,
    },
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(TURN, max_size=4) | JSON,
        "conversations": st.lists(TURN, max_size=4),
        "conversation": st.lists(TURN, max_size=3),
        "message_lists": st.lists(st.lists(TURN)),
        "prompt": st.lists(TURN, max_size=2) | JSON,
        "completion": st.lists(TURN) | JSON,
        "media": st.lists(MEDIUM, max_size=3) | JSON,
        "images": JSON,
        "videos": JSON,
        "image": JSON,
        "video": JSON,
        "stream": st.booleans(),
        "start_time": SCALARS,
        "end_time": SCALARS,
        "id": JSON,
        "system": JSON,
        "weight": JSON,
        "meta": JSON,
        "times": JSON,
    },
)


CALM = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=150, deadline=None, suppress_health_check=CALM)
@given(row=ROW | JSON, format=st.none() | st.sampled_from(sorted(FORMATS)))
def test_any_row_is_a_record_or_a_bad_sample(tmp_path, row, format):
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert outcomes(path, format=format)[0] in ("ok", *RULES)


@settings(max_examples=150, deadline=None, suppress_health_check=CALM)
@given(data=st.binary(max_size=200), name=st.sampled_from(["a.jsonl", "a.json", "a.tar", "a"]))
def test_any_bytes_are_samples_or_one_clear_error(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    try:
        found = outcomes(tmp_path / name)
    except ValueError as error:
        found = [] if name in str(error) else [str(error)]
    assert set(found) <= {"ok", "E101", "E102"}
