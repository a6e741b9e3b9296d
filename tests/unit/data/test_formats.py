"""Every format gives the same record: who says what, which media where, what is learned."""

import base64
import gc
import io
import json
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from clips import numbered, numbers, write_clip
from PIL import Image
from torch.utils.data import DataLoader

from vl3.data.checks import walk
from vl3.data.normalize import to_row
from vl3.data.readers import open_records
from vl3.data.records import BadSample
from vl3.training.samples import build, measure
from vl3.values import IGNORE, Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of media: a.mp4, b.mp4 of 8 s at 4 frames per second, p.png, q.png, f0.png ..."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("a.mp4", "b.mp4"):
        write_clip(folder / name, 32, 4)
    for name in ("p.png", "q.png"):
        Image.fromarray(numbered(7)).save(folder / name)
    for number in range(4):
        Image.fromarray(numbered(number)).save(folder / f"f{number}.png")
    return folder


def write(folder, rows, name="train.jsonl"):
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def one(folder, row, **options):
    """The record of a file with this one row, and the codes of what was mended."""
    records = open_records(write(folder, [row]), name="set", **options)
    record, notes = records.read(0)
    return record, [note.code for note in notes]


def conversation(record):
    """The only conversation in short: role, then texts and file names."""
    (turns,) = record.conversations
    return [(turn["role"], *map(short, parts(turn))) for turn in turns]


def parts(turn):
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def short(part):
    if part["type"] == "text":
        return part["text"]
    source = part[part["type"]]
    path = source["path"] if isinstance(source, dict) else source
    return part["type"], path.rpartition("/")[2]


VIDEO, IMAGE = ("video", "a.mp4"), ("image", "p.png")
ANSWERED = ("assistant", "Yes.")
TURNS = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "Yes."}]
SAID = [{"role": "user", "content": "<video>What?"}, {"role": "assistant", "content": "Yes."}]


def asks(*content):
    return [{"role": "user", "content": list(content)}, {"role": "assistant", "content": "Yes."}]


WHAT = {"type": "text", "text": "What?"}

SAME = {
    "canonical": {"messages": SAID, "media": [{"type": "video", "path": "a.mp4"}]},
    "LLaVA, a path": {"video": "a.mp4", "conversations": TURNS},
    "LLaVA, a list": {"video": ["a.mp4"], "conversations": TURNS},
    "LLaVA-Video": {
        "video": "a.mp4",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, TURNS[1]],
    },
    "nulls of a table": {"video": "a.mp4", "image": None, "system": None, "conversations": TURNS},
    "ShareGPT": {"videos": ["a.mp4"], "images": [], "conversations": TURNS},
    "swift": {"messages": SAID, "videos": ["a.mp4"]},
    "swift, singular": {"messages": SAID, "video": "a.mp4"},
    "Hugging Face": {"messages": asks({"type": "video", "video": "a.mp4"}, WHAT)},
    "Hugging Face, path": {"messages": asks({"type": "video", "path": "a.mp4"}, WHAT)},
    "Hugging Face, column": {"messages": asks({"type": "video"}, WHAT), "videos": ["a.mp4"]},
    "OpenAI": {"messages": asks({"type": "video_url", "video_url": {"url": "a.mp4"}}, WHAT)},
    "TRL, texts": {"prompt": "<video>What?", "completion": "Yes.", "video": "a.mp4"},
    "TRL, messages": {"prompt": SAID[:1], "completion": SAID[1:], "videos": ["a.mp4"]},
}


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_record(folder, name):
    record, notes = one(folder, SAME[name])
    assert conversation(record) == [("user", VIDEO, "What?"), ANSWERED]
    assert (record.id, record.dataset, notes) == ("train.jsonl:1", "set", [])


@pytest.mark.parametrize("name", SAME)
def test_what_fix_writes_reads_the_same(folder, name):
    record, _ = one(folder, SAME[name])
    row = to_row(record, folder, folder / "nowhere")
    again, notes = one(folder, row)
    assert conversation(again) == conversation(record)
    assert notes == []
    assert row["media"] == [{"type": "video", "path": "a.mp4"}]


@pytest.mark.parametrize(
    ("row", "format"),
    [
        (SAME["LLaVA, a path"], "llava"),
        (SAME["ShareGPT"], "sharegpt"),
        (SAME["swift"], "swift"),
        (SAME["Hugging Face"], "hf"),
        (SAME["OpenAI"], "openai"),
        (SAME["canonical"], "canonical"),
        (SAME["TRL, texts"], "trl"),
    ],
)
def test_the_format_is_told_by_the_keys(folder, row, format):
    assert open_records(write(folder, [{"a": 1}, row]), name="set").format == format


def test_format_overrides_and_names_the_choices(folder):
    path = write(folder, [SAME["swift"] | {"conversations": TURNS}])
    assert open_records(path, name="set", format="llava").read(0)[0]
    with pytest.raises(ValueError, match="format is one of canonical, hf"):
        open_records(path, name="set", format="lava")


def test_tags_say_where_media_stand(folder):
    turns = [
        {"from": "human", "value": "First <image>\nthen <image>, which?"},
        {"from": "gpt", "value": "The second."},
        {"from": "human", "value": "And <image>?"},
        {"from": "gpt", "value": "Also."},
    ]
    record, notes = one(folder, {"image": ["p.png", "q.png", "f0.png"], "conversations": turns})
    assert conversation(record) == [
        ("user", "First", ("image", "p.png"), "then", ("image", "q.png"), ", which?"),
        ("assistant", "The second."),
        ("user", "And", ("image", "f0.png"), "?"),
        ("assistant", "Also."),
    ]
    assert notes == []


def test_media_without_a_tag_stand_in_front(folder):
    row = {
        "videos": ["a.mp4"],
        "images": ["p.png"],
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "What?"}, SAID[1]],
    }
    record, notes = one(folder, row)
    assert conversation(record) == [
        ("system", "Be brief."),
        ("user", IMAGE, VIDEO, "What?"),
        ANSWERED,
    ]
    assert notes == ["W111", "W111"]


def test_mixed_media_in_one_row(folder):
    row = {
        "messages": [{"role": "user", "content": "<video> or <image>?"}, SAID[1]],
        "media": [
            {"type": "image", "path": "p.png"},
            {"type": "video", "path": "a.mp4", "start": 1, "end": 3.5, "fps": 2, "max_frames": 4},
        ],
    }
    record, _ = one(folder, row)
    video = record.conversations[0][0]["content"][0]["video"]
    assert conversation(record)[0] == ("user", VIDEO, "or", IMAGE, "?")
    assert video == {
        "path": str(folder / "a.mp4"),
        "start": 1,
        "end": 3.5,
        "fps": 2,
        "max_frames": 4,
    }
    assert to_row(record, folder, folder / "nowhere")["media"] == [
        {"type": "video", "path": "a.mp4", "start": 1, "end": 3.5, "fps": 2, "max_frames": 4},
        {"type": "image", "path": "p.png"},
    ]


def test_text_alone_is_a_sample(folder):
    turns = [{"from": "human", "value": " Two and two? "}, {"from": "gpt", "value": "Four."}]
    record, notes = one(folder, {"conversations": turns})
    assert conversation(record) == [("user", "Two and two?"), ("assistant", "Four.")]
    assert record.conversations[0][0]["content"] == "Two and two?"
    assert notes == []


def test_which_answers_are_learned(folder):
    turns = []
    for text, loss in (("a", {"loss": False}), ("b", {"loss_scale": 0}), ("c", {"loss": 1.0})):
        turns.append({"role": "user", "content": "?"})
        turns.append({"role": "assistant", "content": text, **loss})
    record, _ = one(folder, {"messages": turns})
    assert [turn.get("loss") for turn in record.conversations[0]] == [
        None,
        False,
        None,
        False,
        None,
        None,
    ]
    asked = [*turns[:1], {"role": "assistant", "content": "a"}, turns[2]]
    record, _ = one(folder, {"prompt": asked, "completion": "b"})
    assert [turn.get("loss") for turn in record.conversations[0]] == [None, False, None, None]


def test_talks_about_the_same_media(folder):
    row = {
        "media": [{"type": "video", "path": "a.mp4"}],
        "message_lists": [SAID, [{"role": "user", "content": "Why?"}, SAID[1]]],
    }
    record, notes = one(folder, row)
    first, second = record.conversations
    assert [short(part) for part in first[0]["content"]] == [VIDEO, "What?"]
    assert [short(part) for part in second[0]["content"]] == [VIDEO, "Why?"]
    assert first[0]["content"][0] is second[0]["content"][0]
    assert notes == []
    again, _ = one(folder, to_row(record, folder, folder / "nowhere"))
    assert again.conversations == record.conversations


def test_talks_about_other_media_are_bad(folder):
    row = {
        "message_lists": [
            asks({"type": "video", "video": "a.mp4"}, WHAT),
            asks({"type": "video", "video": "b.mp4"}, WHAT),
        ]
    }
    with pytest.raises(BadSample, match="not about the same media"):
        one(folder, row)


FRAMES = [f"f{number}.png" for number in range(4)]


@pytest.mark.parametrize(
    "row",
    [
        {"video": FRAMES, "timestamps": [0, 0.5, 2, 7], "conversations": TURNS},
        {"videos": [FRAMES], "times": [0, 0.5, 2, 7], "messages": SAID},
        {"media": [{"type": "video", "frames": FRAMES, "times": [0, 0.5, 2, 7]}], "messages": SAID},
        {"messages": asks({"type": "video", "video": FRAMES, "times": [0, 0.5, 2, 7]}, WHAT)},
    ],
)
def test_a_list_of_pictures_is_a_video_with_times(folder, row):
    record, _ = one(folder, row)
    clip = record.conversations[0][0]["content"][0]["video"]
    assert isinstance(clip, Clip)
    assert (numbers(clip.frames_TYX3), clip.times_s) == ([0, 1, 2, 3], (0.0, 0.5, 2.0, 7.0))
    again, _ = one(folder, to_row(record, folder, folder / "nowhere"))
    other = again.conversations[0][0]["content"][0]["video"]
    assert np.array_equal(other.frames_TYX3, clip.frames_TYX3)
    assert other.times_s == clip.times_s


def test_pictures_without_times_follow_each_other_at_fps(folder):
    row = {
        "media": [{"type": "video", "frames": FRAMES, "fps": 2, "max_frames": 2}],
        "messages": SAID,
    }
    record, notes = one(folder, row)
    clip = record.conversations[0][0]["content"][0]["video"]
    assert (clip.times_s, numbers(clip.frames_TYX3), notes) == ((0.0, 1.5), [0, 3], ["W124"])


def test_a_stream_is_a_turn_for_every_frame(folder, tiny_processor):
    row = {
        "stream": True,
        "video": ["a.mp4"],
        "start_time": 1,
        "end_time": 6,
        "conversation": [
            {"role": "user", "content": "Tell me.", "time": 1},
            {"role": "assistant", "content": "Now.", "time": 3.5},
        ],
    }
    record, _ = one(folder, row)
    roles = [turn["role"] for turn in record.conversations[0]]
    assert roles == ["stream", "user", "stream", "stream", "assistant"]
    starts = [
        part["video"]["start"]
        for turn in record.conversations[0]
        if turn["role"] == "stream"
        for part in turn["content"]
    ]
    assert starts == [1, 2, 3]
    inputs = tiny_processor(record.conversations[0], return_labels=True)
    text = tiny_processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.count("<|stream_start|>") == 3
    assert [stamp in text for stamp in ("Time 1.0s:", "Time 2.0s:", "Time 3.0s:")] == [True] * 3
    assert inputs["grid_thw"][:, 0].tolist() == [1, 1, 1]
    again, _ = one(folder, to_row(record, folder, folder / "nowhere"))
    assert again.conversations == record.conversations


def test_data_urls_and_bytes_are_read(folder):
    picture = (folder / "p.png").read_bytes()
    url = "data:image/png;base64," + base64.b64encode(picture).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    records = open_records(write(folder, [{"messages": asks(part, WHAT)}]), name="set")
    path = records[0].conversations[0][0]["content"][0]["image"]
    with open(path, "rb") as file:
        assert file.read() == picture
    row = to_row(records[0], folder, records.spool.folder)
    again = open_records(write(folder, [row]), name="set")
    with open(again[0].conversations[0][0]["content"][0]["image"], "rb") as file:
        assert file.read() == picture
    where = records.spool.folder
    del records
    assert not where.exists()


def test_relative_paths_begin_at_media_root_or_beside_the_file(folder, tmp_path):
    path = write(tmp_path, [SAME["swift"]])
    assert open_records(path, name="set", media_root=folder)[0]
    assert open_records(write(folder, [SAME["swift"]]), name="set")[0]
    file_url = {"messages": SAID, "videos": [(folder / "a.mp4").as_uri()]}
    assert open_records(write(tmp_path, [file_url], "url.jsonl"), name="set")[0]
    with pytest.raises(BadSample, match="video not found"):
        open_records(path, name="set")[0]


def test_a_json_list_and_lines_in_a_json_file(folder):
    path = folder / "list.json"
    path.write_text("\ufeff" + json.dumps([SAME["swift"], SAME["canonical"]]), encoding="utf-8")
    records = open_records(path, name="set")
    assert [records.place(index) for index in range(len(records))] == ["list.json:1", "list.json:2"]
    assert records[1].conversations == records[0].conversations
    lines = open_records(write(folder, [SAME["swift"]] * 3, "lines.json"), name="set")
    assert len(lines) == 3


def test_rows_can_be_read_in_other_processes(folder):
    records = pickle.loads(pickle.dumps(open_records(write(folder, [SAME["swift"]]), name="set")))
    assert conversation(records[0])[0][1] == VIDEO


# Shards


def shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_webdataset_shards(folder, tmp_path):
    clip, picture = (folder / "a.mp4").read_bytes(), (folder / "p.png").read_bytes()
    shard(
        tmp_path / "s-000.tar",
        {
            "x/0001.json": json.dumps({"conversations": TURNS}).encode(),
            "x/0001.mp4": clip,
            "x/0002.txt": b"A caption.",
            "x/0002.png": picture,
        },
    )
    shard(
        tmp_path / "s-001.tar",
        {
            "0003.json": json.dumps({"video": "0003.mp4", "conversations": TURNS}).encode(),
            "0003.mp4": clip,
            "0004.png": picture,
        },
    )
    for path in (tmp_path, tmp_path / "s-*.tar"):
        records = open_records(path, name="set", format=None)
        assert len(records) == 4
        assert records[0].id == "s-000.tar:x/0001"
        for index in (0, 2):
            video = records[index].conversations[0][0]["content"][0]["video"]
            with open(video, "rb") as file:
                assert file.read() == clip
        with pytest.raises(BadSample, match=r"s-001\.tar:0004: no \.json and no \.txt of"):
            records[3]


def test_captions_in_shards(folder, tmp_path):
    picture = (folder / "p.png").read_bytes()
    path = shard(
        tmp_path / "c.tar",
        {
            "1.txt": b"A caption.",
            "1.png": picture,
            "2.json": b'{"caption": "Another.", "url": "x"}',
            "2.jpg": picture,
        },
    )
    records = open_records(path, name="set")
    for index, caption in enumerate(("A caption.", "Another.")):
        record, notes = records.read(index)
        user, assistant = record.conversations[0]
        assert [part["type"] for part in user["content"]] == ["image"]
        assert (assistant["content"], notes) == (caption, [])


def test_the_spool_is_bounded(monkeypatch):
    from vl3.messages import spool as spools

    monkeypatch.setattr(spools, "SPOOL_FILES", 2)
    spool = spools.Spool(most_bytes=100)
    paths = [spool.keep(bytes([number]) * 60) for number in range(5)]
    kept = [path for path in paths if Path(path).exists()]
    assert kept == paths[-2:]
    assert spool.keep(bytes([4]) * 60) == paths[-1]


# Hugging Face data sets


def test_parquet_and_folders(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    picture = (folder / "p.png").read_bytes()
    messages = [{"role": "user", "content": "<image>What?"}, SAID[1]]
    rows = [{"images": [{"bytes": picture, "path": None}], "messages": messages}]
    role = {"role": datasets.Value("string"), "content": datasets.Value("string")}
    features = {"images": datasets.List(datasets.Image()), "messages": datasets.List(role)}
    data = datasets.Dataset.from_list(rows * 2, features=datasets.Features(features))
    data.to_parquet(tmp_path / "t.parquet")
    data.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "t.parquet", tmp_path / "saved"):
        records = open_records(path, name="set")
        assert (len(records), records.place(1)) == (2, f"{path.name}:2")
        image = records[1].conversations[0][0]["content"][0]["image"]
        with open(image, "rb") as file:
            assert file.read() == picture


def test_without_the_package_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ImportError, match=r"install it with pip install 'vl3\[data\]'"):
        open_records(tmp_path / "t.parquet", name="set")


def test_a_file_that_is_missing_or_packed_is_refused_in_words(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_records(tmp_path / "gone.jsonl", name="set")
    with pytest.raises(FileNotFoundError, match="no tar file matches"):
        open_records(tmp_path / "s-*.tar", name="set")
    (tmp_path / "t.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="is compressed; unpack it first"):
        open_records(tmp_path / "t.jsonl.gz", name="set")
    (tmp_path / "t.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="is not a plain tar file"):
        open_records(tmp_path / "t.tar", name="set")


# The engine


MADE = {
    "conversations": {
        "media": [{"type": "video", "path": "a.mp4"}],
        "message_lists": [SAID, [{"role": "user", "content": "Why so?"}, SAID[1]]],
    },
    "stream": {
        "stream": True,
        "video": "a.mp4",
        "end_time": 6,
        "conversation": [
            {"role": "user", "content": "Tell me.", "time": 1},
            {"role": "assistant", "content": "Now.", "time": 3},
        ],
    },
    "pictures": {"video": FRAMES, "conversations": TURNS},
    "mixed": {"messages": SAID, "videos": ["a.mp4"], "images": ["p.png"]},
    "text": {"prompt": "2+2?", "completion": "4"},
}


@pytest.mark.parametrize("name", MADE)
def test_samples_are_built_from_every_record(folder, tiny_processor, name):
    record, _ = one(folder, MADE[name])
    sample = build(record, tiny_processor, 400)
    assert (sample.labels_L != IGNORE).any()
    measured = measure(record, tiny_processor, 400)
    assert len(sample.ids_L) <= measured.tokens
    records = open_records(write(folder, [MADE[name]]), name="set")
    (outcome,) = walk(records, tiny_processor, visual_tokens=400)
    assert 0 <= outcome.size.tokens - measured.tokens <= 4  # common words after the media


def test_workers_read_shards_at_the_same_time(folder, tmp_path):
    clip = (folder / "a.mp4").read_bytes()
    files = {
        f"{i}.{end}": data
        for i in range(12)
        for end, data in (("mp4", clip + bytes([i])), ("txt", b"A caption."))
    }
    records = open_records(shard(tmp_path / "s.tar", files), name="set")
    gc.collect()  # PyAV's frames of earlier tests: freed in a forked process they hang
    loaded = DataLoader(records, batch_size=None, num_workers=2)
    assert [len(read.conversations[0][0]["content"]) for read in loaded] == [1] * 12
    del loaded
    assert len({path.parent for path in records.spool.folder.rglob("*") if path.is_file()}) == 2


def test_a_row_is_read_without_torch(folder):
    row = {
        "conversations": [
            {"from": "human", "value": "<video>\n<video>\nWhat?"},
            {"from": "gpt", "value": "Noise."},
        ],
        "video": ["a.mp4", ["f0.png", "f1.png"]],
    }
    script = (
        "import sys\n"
        "from vl3.data.readers import open_records\n"
        "record = open_records(sys.argv[1], name='set')[0]\n"
        "assert 'f1.png' in repr(record)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(write(folder, [row], "light.jsonl"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
