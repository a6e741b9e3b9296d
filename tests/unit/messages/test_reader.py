"""One reader of messages: every shape of the peers is read, or refused in one sentence."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import numbered, numbers, write_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vl3 import video
from vl3.data.checks import walk
from vl3.data.readers import open_records
from vl3.messages.media import MediaInfo, annotate, find_media
from vl3.messages.reader import read, read_part
from vl3.prompt import SlotIds, render
from vl3.studio import load
from vl3.training.samples import build
from vl3.values import Clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a.mp4 of 8 s at 4 frames per second, pictures p.png, f0.png ... that carry numbers."""
    folder = tmp_path_factory.mktemp("messages")
    write_clip(folder / "a.mp4", 32, 4)
    Image.fromarray(numbered(7)).save(folder / "p.png")
    for number in range(4):
        Image.fromarray(numbered(number)).save(folder / f"f{number}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def there(folder):
    """Relative paths begin in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def data_url(path):
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


WHAT = {"type": "text", "text": "What?"}
NULLS = {"text": None, "image": None, "fps": None, "max_frames": None, "timestamp": None}

# One video of 8 frames at 0, 1, ... 7 s, as each peer writes it.
VIDEOS = {
    "plain": {"type": "video", "video": "a.mp4"},
    "Arrow, empty text": {"type": "video", "video": "a.mp4", "text": ""},
    "Arrow, nulls": {"type": "video", "video": "a.mp4", **NULLS},
    "pandas, NaN": {"type": "video", "video": "a.mp4", **dict.fromkeys(NULLS, float("nan"))},
    "a dict": {"type": "video", "video": {"path": "a.mp4"}},
    "official": {"type": "video", "video": {"video_path": "a.mp4", "fps": 1, "max_frames": 180}},
    "transformers, path": {"type": "video", "path": "a.mp4"},
    "transformers, url": {"type": "video", "url": "a.mp4"},
    "OpenAI": {"type": "video_url", "video_url": {"url": "a.mp4"}},
    "OpenAI, text": {"type": "video_url", "video_url": "a.mp4"},
    "Responses": {"type": "input_video", "video_url": "a.mp4"},
    "Qwen, no type": {"video": "a.mp4", "fps": 1.0},
    "a list of one": {"type": "video", "video": ["a.mp4"]},
    "numpy": {"type": "video", "video": "a.mp4", "fps": np.int64(1), "max_frames": np.float32(99)},
}
RANGES = {
    "beside": {"type": "video", "video": "a.mp4", "start": 2, "end": 6, "fps": 2, "max_frames": 4},
    "inside": {
        "type": "video",
        "video": {"path": "a.mp4", "start": 2, "end": 6, "fps": 2, "max_frames": 4},
    },
    "official": {
        "type": "video",
        "video": {"video_path": "a.mp4", "start_time": 2, "end_time": 6, "fps": 2, "max_frames": 4},
    },
    "Qwen": {
        "type": "video",
        "video": "a.mp4",
        "video_start": 2.0,
        "video_end": 6.0,
        "fps": 2,
        "max_frames": 4,
    },
    "in an address": {
        "type": "video_url",
        "video_url": {"url": "a.mp4", "fps": 2},
        "start": 2,
        "end": 6,
        "max_frames": 4,
    },
}
FRAMES = [f"f{number}.png" for number in range(4)]
LISTS = {
    "Qwen": {"type": "video", "video": FRAMES, "sample_fps": 2},
    "fps": {"type": "video", "video": FRAMES, "fps": 2.0},
    "timestamps": {"type": "video", "video": FRAMES, "timestamps": [0, 0.5, 1, 1.5]},
    "official": {"type": "video", "video": FRAMES, "num_frames": 4, "timestamps": [0, 0.5, 1, 1.5]},
    "frames": {"type": "video", "frames": FRAMES, "times": [0, 0.5, 1, 1.5]},
}
IMAGES = {
    "plain": {"type": "image", "image": "p.png"},
    "Arrow": {"type": "image", "image": "p.png", "text": "", "video": None},
    "official": {"type": "image", "image": {"image_path": "p.png"}},
    "transformers, path": {"type": "image", "path": "p.png"},
    "transformers, url": {"type": "image", "url": "p.png"},
    "Hugging Face": {"type": "image", "image": {"bytes": None, "path": "p.png"}},
    "OpenAI": {"type": "image_url", "image_url": {"url": "p.png", "detail": "auto"}},
    "OpenAI, text": {"type": "image_url", "image_url": "p.png"},
    "Responses": {"type": "input_image", "image_url": "p.png", "detail": "high"},
    "Qwen, no type": {"image": "p.png"},
    "a list of one": {"type": "image", "image": ["p.png"]},
}


def asks(*parts):
    return [{"role": "user", "content": list(parts)}]


def learned(*parts):
    return [*asks(*parts), {"role": "assistant", "content": "Yes."}]


def row_of(folder, messages):
    """The record of a row with these messages, what was noted, and what was wrong."""
    path = folder / "row.jsonl"
    path.write_text(json.dumps({"messages": messages}))
    return open_records(path, name="set")


def library_ids(messages, processor):
    return processor(messages)["input_ids"][0].tolist()


SHAPES = [
    (plain, name, part)
    for plain, shapes in (
        (VIDEOS["plain"], VIDEOS),
        (RANGES["beside"], RANGES),
        (LISTS["timestamps"], LISTS),
        (IMAGES["plain"], IMAGES),
    )
    for name, part in shapes.items()
]


@pytest.mark.parametrize(("plain", "name", "part"), SHAPES, ids=lambda value: str(value)[:30])
def test_a_shape_gives_the_same_ids_in_the_library_and_in_training(
    folder, tiny_processor, plain, name, part
):
    wanted = library_ids(learned(plain, WHAT), tiny_processor)
    assert library_ids(learned(part, WHAT), tiny_processor) == wanted
    if name == "numpy":
        part = part | {"fps": 1, "max_frames": 99}
    record, notes = row_of(folder, learned(part, WHAT)).read(0)
    sample = build(record, tiny_processor, tiny_processor.settings.budget_tokens)
    assert (sample.ids_L.tolist(), notes) == (wanted, [])


def test_one_prompt_from_the_studio_the_processor_and_training(folder, tiny_folder):
    studio = load(tiny_folder)
    texts = [" What? ", "What?\n", [" What ", {"type": "input_text", "text": "happens? "}]]
    parts = (VIDEOS["Arrow, empty text"], RANGES["official"], LISTS["Qwen"], IMAGES["OpenAI"])
    contents = [*texts, *([part, WHAT] for part in parts)]
    for content in contents:
        asked = [{"role": "developer", "content": "Look."}, {"role": "user", "content": content}]
        answered = [*asked, {"role": "assistant", "content": "Yes."}]
        reply = studio.reply(asked, max_new_tokens=1)
        ids = studio.processor(asked, add_generation_prompt=True)["input_ids"][0].tolist()
        assert list(reply.prompt_ids) == ids
        record, notes = row_of(folder, answered).read(0)
        sample = build(record, studio.processor, studio.settings.budget_tokens)
        assert sample.ids_L[: len(ids)].tolist() == ids
        assert notes == []


def test_a_range_is_what_is_read(tiny_processor):
    (medium,) = find_media(asks(RANGES["beside"]))
    measured = medium.measure(tiny_processor.settings)
    assert measured.times_s == (2.0, 3.0, 4.0, 5.5)  # eight instants thinned to four
    (medium,) = find_media(asks({"type": "video", "video": "a.mp4", "nframes": 3, "end_time": 4}))
    assert medium.measure(tiny_processor.settings).times_s == (0.0, 1.75, 3.75)


def test_sources_that_are_no_paths(folder):
    picture = Image.open("p.png")
    encoded = io.BytesIO()
    picture.save(encoded, "png")
    same = [
        "p.png",
        Path("p.png"),
        (folder / "p.png").as_uri(),
        data_url("p.png"),
        encoded.getvalue(),
        picture,
        np.asarray(picture),
        np.asarray(picture).transpose(2, 0, 1),
        torch.from_numpy(np.array(picture)).permute(2, 0, 1),
        torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255,
        {"bytes": encoded.getvalue()},
        video.read("p.png"),
    ]
    parts = [{"type": "image", "image": source} for source in same]
    parts.append({"type": "image", "base64": data_url("p.png").partition(",")[2]})
    for part in parts:
        (medium,) = find_media(asks(part))
        source = medium.source
        clip = source if isinstance(source, Clip) else video.read_image(source)
        assert medium.kind == "image"
        assert np.array_equal(clip.frames_TYX3[0], np.asarray(picture))
    clip_url = "data:video/mp4;base64," + base64.b64encode(Path("a.mp4").read_bytes()).decode()
    for part in (
        {"type": "video_url", "video_url": {"url": clip_url}},
        {"type": "video", "video": Path("a.mp4").read_bytes()},
    ):
        (medium,) = find_media(asks(part))
        assert numbers(video.read(medium.source, fps=1).frames_TYX3) == list(range(0, 32, 4))


def test_frames_in_every_form_are_the_same_clip():
    pictures = [np.asarray(Image.open(name)) for name in FRAMES]
    for source in (
        FRAMES,
        tuple(FRAMES),
        [Path(name) for name in FRAMES],
        pictures,
        np.stack(pictures),
        np.stack(pictures).transpose(0, 3, 1, 2),
        torch.from_numpy(np.stack(pictures)),
        torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
        list(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)),
        [Image.fromarray(picture) for picture in pictures],
        [data_url(name) for name in FRAMES],
        [{"bytes": Path(name).read_bytes()} for name in FRAMES],
    ):
        (medium,) = find_media(asks({"type": "video", "video": source, "sample_fps": 2}))
        assert numbers(medium.source.frames_TYX3) == [0, 1, 2, 3]
        assert medium.source.times_s == (0.0, 0.5, 1.0, 1.5)
    part = {"type": "video", "video": FRAMES, "sample_fps": 2, "start": 0.5, "max_frames": 2}
    assert find_media(asks(part))[0].source.times_s == (0.5, 1.5)
    one = {"type": "video", "video": FRAMES[:1], "sample_fps": 2}
    assert find_media(asks(one))[0].kind == "video"


def test_options_take_a_part_of_a_clip_that_was_read():
    clip = video.read("a.mp4", fps=4)
    whole, some = (
        find_media(asks({"type": "video", "video": clip, **options}))[0]
        for options in ({}, {"start": 2, "end": 6, "fps": 1})
    )
    assert whole.source is clip
    assert some.source.times_s == (2.0, 3.0, 4.0, 5.0)
    assert numbers(some.source.frames_TYX3) == [8, 12, 16, 20]


def test_times_of_pictures_reach_the_prompt_from_messages_and_rows(folder, tiny_processor):
    parts = [{"type": "image", "image": "p.png", key: 3} for key in ("timestamp", "time")]
    parts.append({"type": "image", "image": "p.png", "timestamps": [3.0]})
    for part in parts:
        text = tiny_processor.tokenizer.decode(library_ids(asks(part, WHAT), tiny_processor))
        assert "Time 3.0s: " in text
        record, _ = row_of(folder, learned(part, WHAT)).read(0)
        assert record.conversations[0][0]["content"][0]["timestamp"] == 3.0


def test_reading_what_was_read_gives_the_same_again(tiny_processor):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [part for _, _, part in SHAPES] + ["And?"]},
        {"role": "assistant", "content": {"type": "output_text", "text": "Yes."}, "loss": False},
    ]
    once = read(messages)
    assert read(once) == once
    assert [turn["role"] for turn in once] == ["system", "user", "assistant"]
    assert once[2] == {
        "role": "assistant",
        "content": [{"type": "text", "text": "Yes."}],
        "loss": False,
    }
    media = find_media(once)
    sizes = [medium.measure(tiny_processor.settings) for medium in media]
    ready = annotate(once, media, sizes)
    assert read(ready) == ready == annotate(messages, media, sizes)


def test_the_same_part_twice_is_two_media(tiny_processor):
    part = {"type": "video", "video": "a.mp4", "max_frames": 2}
    twice = library_ids(asks(part, part, WHAT), tiny_processor)
    apart = library_ids(asks(part, dict(part), WHAT), tiny_processor)
    assert twice == apart


V = {"type": "video", "video": "a.mp4"}
REFUSED = [
    (V | {"fsp": 2}, "'fsp' beside a video is not used; did you mean fps?"),
    (V | {"max_frame": 2}, "'max_frame' beside a video is not used; did you mean max_frames?"),
    (V | {"speed": 2}, "'speed' beside a video is not used; used are fps, max_frames, num_frames"),
    (V | {"max_pixels": 9}, "'max_pixels' beside a video is not used: the size follows from the"),
    (V | {"min_frames": 4}, "fps, max_frames or num_frames say how many"),
    ({"type": "image_url", "image_url": {"url": "p.png", "detail": "low"}}, "'detail' beside"),
    ({"type": "input_image", "file_id": "file-1"}, "give a path or a data: URL"),
    (V | {"text": "What?"}, "one part of type video holds text; write a part for each"),
    ({"type": "text", "text": "What?", "video": "a.mp4"}, "holds text and video; write a part for"),
    ({"video": "a.mp4", "text": "What?"}, "one part holds video and text; write a part for each"),
    ({"type": "image", "video": "a.mp4"}, "one part of type image holds video"),
    (
        {"type": "vido", "vido": "a.mp4"},
        "a part is of type text, image, video or audio - got 'vido'; did you mean video?",
    ),
    (
        {"type": "tool_use", "input": 1},
        "a part is of type text, image, video or audio - got 'tool_use'",
    ),
    ({"path": "a.mp4"}, "a part says its type, text, image, video or audio - got the keys 'path'"),
    ({"type": "text", "content": "x"}, "has its words under \"text\" - got the keys 'content'"),
    ({"type": "image", "source": {"type": "base64", "data": "x"}}, "'source' beside an image is"),
    ({"type": "video", "video": {"file": "a.mp4"}}, "under path - got the keys 'file'"),
    (V | {"url": "b.mp4"}, "a video has one source - got video, url"),
    ({"type": "video", "video": {"path": "a.mp4", "fps": 1}, "fps": 2}, "fps is given twice: 1"),
    (V | {"start": 1, "start_time": 2}, "start_time is given twice: 1.0 and 2.0"),
    (V | {"fps": 1, "nframes": 4}, "num_frames and fps both say how many frames are taken"),
    (V | {"fps": 0}, "fps is a number above 0 and at most 1000 - got 0"),
    (V | {"fps": "2"}, "fps is a number above 0 and at most 1000 - got '2'"),
    (V | {"max_frames": 2.5}, "max_frames is a whole number, 1 or more - got 2.5"),
    (V | {"video_start": -1}, "video_start is a number of seconds, 0 or more - got -1"),
    (V | {"end": True}, "end is a number of seconds above 0 - got True"),
    (V | {"mode": "oficial"}, "mode is one of exact, official - got 'oficial'; did you mean off"),
    (V | {"timestamps": [0, 1]}, "timestamps belongs to a list of frames"),
    (V | {"sample_fps": 1}, "sample_fps belongs to a list of frames"),
    ({"type": "video", "video": FRAMES, "timestamps": [0, 1]}, "4 frames but 2 timestamps"),
    ({"type": "video", "video": FRAMES, "timestamps": [0, 2, 1, 3]}, "do not ascend"),
    ({"type": "video", "video": FRAMES, "start": 9}, "no frame lies between start 9 s and"),
    ({"type": "image", "image": ["p.png", "f0.png"]}, "an image part holds one image - got 2"),
    ({"type": "image", "image": 7}, "the source of an image is a path, a file: or data: URL"),
    ({"type": "video", "video": {1, 2}}, "the source of a video is a path, a file: or data: URL"),
    ({"type": "image"}, "a part of type image without image; give its path under image"),
    ({"type": "image", "url": "https://x.org/a.png"}, "is a web address; only files and data: URL"),
    ({"type": "video", "video": "s3://bucket/a.mp4"}, "is a web address"),
    ({"type": "image", "image": "data:image/png;base64,!"}, "cannot be read: its base64 is damage"),
    ({"type": "image", "image": "data:image/png;base64,aGk="}, "is not a picture that can be read"),
    ({"type": "input_audio", "input_audio": {"data": "aGk="}}, "sound is not read by this model"),
    ({"type": "audio_url", "audio_url": "a.wav"}, "sound is not read by this model"),
    ({"type": "video", "video": "gone.mp4"}, "There is no file named gone.mp4"),
    ({"type": "video", "video": "."}, "is a folder, not a video"),
    (None, 'a part is a text or a dict like {"type": "image"} - got None'),
    (["a"], 'a part is a text or a dict like {"type": "image"} - got a list'),
]


@pytest.mark.parametrize(("part", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_what_is_not_read_is_refused_in_one_sentence(tiny_processor, part, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        tiny_processor(asks("Look: ", part))
    text = str(caught.value)
    assert words in text
    assert "\n" not in text
    in_a_file = isinstance(caught.value, video.VideoError) or "folder" in text
    if not in_a_file and "message 1" in text:
        assert text.startswith("message 1: part 2: ")


MESSAGES = [
    ("hi", 'messages are a list of {"role": "user"'),
    ({"role": "user", "content": "hi"}, 'messages are a list of {"role": "user"'),
    (None, 'messages are a list of {"role": "user"'),
    (["hi"], 'message 1: a message is {"role": ..., "content": ...} - got \'hi\''),
    ([{"role": "user", "content": None}], "message 1: content is a text or a list of parts - got"),
    ([{"role": "user", "contents": "x"}], "did you mean content?"),
    ([{"role": "usr", "content": "x"}], "- got 'usr'; did you mean user?"),
    ([{"role": "human", "content": "x"}], "- got 'human'; write 'user'"),
    ([{"role": "tool", "content": "x"}], "role is one of system, developer, user, assistant"),
    ([{"content": "x"}], "role is one of system, developer, user, assistant, stream - got None"),
    ([{"from": "human", "value": "hi"}], 'written as LLaVA does (from, value); write {"role": '),
    (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "tool_calls": [1]},
        ],
        "message 2: 'tool_calls' of a message is not used",
    ),
    ([{"role": "user", "content": "a", "loss": 0.5}], "loss is True or False - got 0.5"),
]


@pytest.mark.parametrize(("messages", "words"), MESSAGES, ids=lambda value: str(value)[:50])
def test_messages_that_are_none_are_refused_in_one_sentence(tokenizer, messages, words):
    for use in (read, find_media, lambda m: render(m, tokenizer, SlotIds(1, 1), [])):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
            use(messages)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_labels_of_other_tools_are_no_options():
    history = [
        {
            "role": "user",
            "metadata": {"title": None},
            "options": None,
            "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}],
        }
    ]
    assert read(history) == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


def test_unused_keys_can_be_collected_instead():
    told = []
    part = read_part(V | {"max_pixels": 9, "fps": 2}, told.append)
    assert part == V | {"fps": 2.0}
    assert len(told) == 1


KEYS = st.sampled_from(
    [
        "type",
        "text",
        "image",
        "video",
        "audio",
        "image_url",
        "video_url",
        "video_path",
        "path",
        "url",
        "bytes",
        "base64",
        "frames",
        "fps",
        "max_frames",
        "nframes",
        "num_frames",
        "start",
        "end",
        "start_time",
        "video_end",
        "timestamps",
        "timestamp",
        "times",
        "sample_fps",
        "mode",
        "detail",
        "role",
        "content",
        "from",
        "value",
        "loss",
        "max_pixels",
        "id",
    ]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.binary(max_size=6)
    | st.sampled_from(
        [
            "user",
            "assistant",
            "text",
            "image",
            "video",
            "p.png",
            "a.mp4",
            "f0.png",
            "official",
            "data:,x",
            "file:///x",
            "https://x",
            np.float32(1),
            np.int64(2),
            np.zeros((4, 4, 3), np.uint8),
            np.zeros((2, 4, 4, 3), np.uint8),
            np.zeros(3),
            10**400,
        ]
    )
)
ANY = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=10,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "video", "image_url"])},
    optional={
        "text": ANY,
        "image": ANY,
        "video": ANY,
        "image_url": ANY,
        "fps": VALUES,
        "start": VALUES,
        "end": VALUES,
        "nframes": VALUES,
        "sample_fps": VALUES,
        "timestamps": ANY,
        "timestamp": VALUES,
        "max_frames": VALUES,
        "mode": VALUES,
    },
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]) | ANY,
        "content": st.lists(PART | ANY, max_size=3) | ANY,
    },
    optional={"loss": ANY, "name": ANY, "from": ANY},
)


CALM = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=150, deadline=None, suppress_health_check=CALM)
@given(messages=st.lists(MESSAGE, max_size=2) | ANY)
def test_any_messages_are_media_or_a_value_error(messages):
    try:
        media = find_media(messages)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    sizes = [MediaInfo(1, 14, 14, None if medium.kind == "image" else (0.0,)) for medium in media]
    assert len(annotate(messages, media, sizes)) == len(messages)


def test_rows_of_any_of_these_shapes_are_checked_without_a_fall(folder, tiny_processor):
    """What the library refuses is an error or a note about that row alone."""
    rows = [learned("Look: ", part) for part, _ in REFUSED if json_able(part)]
    path = folder / "refused.jsonl"
    path.write_text("\n".join(json.dumps({"messages": row}) for row in [*rows, learned("Q")]))
    *outcomes, last = walk(open_records(path, name="set"), tiny_processor)
    assert len(outcomes) > 40
    for row, outcome in zip(rows, outcomes):
        assert outcome.error is not None or outcome.notes, row
    assert last.error is None


def json_able(part):
    try:
        json.dumps(part)
    except TypeError:
        return False
    return True
