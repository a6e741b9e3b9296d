"""A record as it is shown: frames with what was pruned, tokens with what is learned."""

import io

import numpy as np
import pytest
from clips import numbered, numbers, write_clip
from PIL import Image

from vl3.data.preview import DIMMED, MOST_FRAMES, picture, preview
from vl3.data.records import Record
from vl3.values import IGNORE


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("views") / "a.mp4", 40, 1, size=(56, 112)))


def record(*conversations):
    return Record(id="a", dataset="set", conversations=tuple(conversations))


def asked(*content, answer="Yes, 星 it does."):
    return [
        {"role": "user", "content": [*content, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": answer},
    ]


def test_the_pieces_are_the_prompt(path, tiny_processor):
    messages = asked({"type": "video", "video": {"path": path, "end": 3}})
    shown = preview(record(messages), "f:1", tiny_processor, 400)
    inputs = tiny_processor(messages, return_labels=True)
    (pieces,) = shown.conversations
    assert sum(piece.count for piece in pieces) == inputs["input_ids"].shape[1] == shown.tokens
    assert sum(piece.count for piece in pieces if piece.learned) == shown.learned
    assert shown.learned == (inputs["labels"] != IGNORE).sum()
    text = "".join(piece.text for piece in pieces)
    assert "Time 0.0s:,Time 1.0s:,Time 2.0s:\nWhat?<|im_end|>\n" in text
    learned = "".join(piece.text for piece in pieces if piece.learned)
    assert learned == "Yes, 星 it does.<|im_end|>"
    visual = [piece.count for piece in pieces if piece.visual]
    assert visual == [frame.kept for frame in shown.media[0].frames]
    assert (shown.media[0].name, shown.media[0].count) == ("a.mp4, end 3", 3)


def test_frames_carry_their_pixels_and_what_is_pruned_is_faint():
    kept_RC = np.array([[True, False], [False, True]])
    image = Image.open(io.BytesIO(picture(numbered(5, 56, 56), kept_RC)))
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (image.size, image.mode) == ((56, 56), "RGBA")
    assert alpha[:28, :28].min() == alpha[28:, 28:].min() == 255
    assert alpha[:28, 28:].max() == alpha[28:, :28].max() == DIMMED
    whole = Image.open(io.BytesIO(picture(numbered(1365, 56, 224), np.ones((2, 8), bool))))
    assert numbers(np.asarray(whole.convert("RGB"))[None]) == [1365]


def test_a_stream_is_one_strip_and_long_clips_are_thinned(path, tiny_processor):
    frames = [
        {"type": "video", "video": {"path": path, "start": t, "end": t + 1, "max_frames": 1}}
        for t in range(5)
    ]
    turns = [{"role": "stream", "content": [frame]} for frame in frames]
    shown = preview(record([*turns, *asked()]), "f:1", tiny_processor, 400)
    (look,) = shown.media
    assert [frame.time_s for frame in look.frames] == [0, 1, 2, 3, 4]
    assert (look.name, look.count) == ("a.mp4, frame by frame", 5)
    shown = preview(record(asked({"type": "video", "video": path})), "f:1", tiny_processor, 400)
    assert (shown.media[0].count, len(shown.media[0].frames)) == (40, MOST_FRAMES)


def test_text_alone_has_no_media(tiny_processor):
    shown = preview(record(asked(), asked()), "f:1", tiny_processor, 400)
    assert (shown.media, len(shown.conversations)) == ((), 2)
