"""An exported folder, read with its own settings by the classes it is for."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from transformers.utils.chat_template_utils import render_jinja_template

from vl3.processor import VL3Processor
from vl3.weights import merge
from vl3.weights.export import export
from vl3.weights.load import load


@pytest.fixture(scope="module")
def nano():
    return load(device="cpu")


@pytest.fixture(scope="module")
def native(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("native")
    return folder, export(nano.model, nano.processor, folder, "native")


def test_what_a_layout_cannot_hold_is_said(nano, native, tmp_path):
    _, notes = native
    assert "frame_tokens 16 (there None)" in notes[0]
    assert "system_prompt False (there True)" in notes[0]
    assert "pass fps=1" in notes[1]
    (official,) = export(nano.model, nano.processor, tmp_path / "official", "official")
    assert "frame_tokens 16 (there None)" in official
    assert export(nano.model, nano.processor, tmp_path / "own", "own") == ()


@pytest.mark.parametrize(("layout", "says"), [("native", True), ("official", True), ("own", False)])
def test_a_written_folder_is_seen_with_its_own_settings(tmp_path, layout, says):
    written = merge.export_checked(None, tmp_path / "out", layout)
    text = " ".join(written.notes)
    here, there = (
        len(merge.prompt(VL3Processor.from_pretrained(folder))["keep_mask"])
        for folder in (load(device="cpu").folder, tmp_path / "out")
    )
    assert (here != there) == says
    assert (f"the bundled clip is {there} visual tokens" in text) == says


def test_the_native_settings_leave_the_number_of_frames_to_the_caller(native):
    folder, _ = native
    videos = json.loads((folder / "processor_config.json").read_text("utf-8"))["video_processor"]
    assert "fps" not in videos, "the class refuses num_frames beside it"
    assert videos["do_sample_frames"] is False


def test_rows_of_a_table_keep_their_pictures(native):
    folder, _ = native
    template = (folder / "chat_template.jinja").read_text("utf-8")
    row = [
        {
            "role": "user",
            "content": [
                {"type": "image", "text": None, "video": None},
                {"type": "video", "text": "", "image": None},
                {"type": "text", "text": "What?", "image": None, "video": None},
            ],
        }
    ]
    (text,), _ = render_jinja_template([row], chat_template=template, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\n<|image_pad|>\n<|video_pad|>\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.skipif(not importlib.util.find_spec("torchvision"), reason="needs torchvision")
@pytest.mark.parametrize(
    ("options", "frames"), [({"num_frames": 4}, 4), ({"fps": 1.0}, 8), ({}, 16)]
)
def test_transformers_own_processor_reads_the_folder(native, options, frames):
    from transformers import AutoProcessor, VideoLlama3Processor
    from transformers.video_utils import VideoMetadata

    processor = AutoProcessor.from_pretrained(native[0])
    assert type(processor) is VideoLlama3Processor
    row = [
        {
            "role": "user",
            "content": [{"type": "video", "text": None}, {"type": "text", "text": "?"}],
        }
    ]
    noise = np.random.default_rng(0).integers(0, 256, (16, 3, 56, 84), dtype=np.uint8)
    whole = VideoMetadata(total_num_frames=16, fps=2.0, frames_indices=list(range(16)))
    inputs = processor(
        text=[processor.apply_chat_template(row)],
        videos=[torch.from_numpy(noise)],
        video_metadata=[whole],
        return_tensors="pt",
        do_sample_frames=bool(options),
        **options,
    )
    assert inputs["video_grid_thw"][0, 0] == frames
