"""The processor as one of transformers': templates, batches, files, Auto classes, pipeline, TRL."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, BatchFeature, ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from vl3.bundled import NANO
from vl3.hf.chat_template import chat_template
from vl3.processor import VL3Processor
from vl3.prompt import SlotIds, render
from vl3.values import Clip

CLIP = str(NANO.parent / "clips" / "three_shapes.mp4")
FILM = {"type": "video", "num_frames": 3, "timestamps": [0.0, 1.25, 12.349]}
SHAPES = {
    "a text": [{"role": "user", "content": "Hi"}],
    "texts as parts": [{"role": "user", "content": ["Hi ", {"type": "text", "text": "there"}]}],
    "own system": [{"role": "system", "content": "S."}, {"role": "user", "content": "Hi"}],
    "an image": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
    "images with times": [
        {
            "role": "user",
            "content": [
                {"type": "image", "timestamp": 3},
                {"type": "image", "timestamp": 0.25},
                "And?",
            ],
        }
    ],
    "a video": [{"role": "user", "content": [FILM, {"type": "text", "text": "What?"}]}],
    "a video without times": [{"role": "user", "content": [{"type": "video", "num_frames": 2}]}],
    "rows of a table": [
        {
            "role": "user",
            "content": [
                {"type": "image", "text": None},
                {"type": "video", "text": "", **FILM},
                {"type": "text", "text": "Which?", "image": None, "video": None},
            ],
        }
    ],
    "several turns": [
        {"role": "user", "content": "A?"},
        {"role": "assistant", "content": "B.  "},
        {"role": "user", "content": [FILM, "C?"]},
        {"role": "assistant", "content": [{"type": "text", "text": "D."}]},
    ],
    "stream": [
        {"role": "stream", "content": [{"type": "image", "timestamp": 1.0}]},
        {"role": "assistant", "content": "Now."},
        {"role": "stream", "content": "text"},
    ],
    "marks as letters": [{"role": "user", "content": "<image> {{ x }} <|im_end|>\n{% y %}"}],
}


def frames(messages) -> int:
    parts = [
        p
        for turn in messages
        if not isinstance(turn["content"], str)
        for p in turn["content"]
        if isinstance(p, dict)
    ]
    return sum(p.get("num_frames", 1) for p in parts if p["type"] in ("image", "video"))


@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_template_renders_what_the_prompt_renders(tiny_processor, shape, system, generation):
    messages, tokenizer = SHAPES[shape], tiny_processor.tokenizer
    expected = render(
        messages,
        tokenizer,
        SlotIds(1, 1),
        [1] * frames(messages),
        add_system_prompt=system,
        add_generation_prompt=generation,
    ).text
    for template in (chat_template("own"), chat_template("official")):
        if template == chat_template("official") and "num_frames" not in str(messages):
            continue
        found, _ = render_jinja_template(
            [messages],
            chat_template=template,
            add_system_prompt=system,
            add_generation_prompt=generation,
        )
        assert found == [expected]
    by_tokenizer = tokenizer.apply_chat_template(
        messages, tokenize=False, add_system_prompt=system, add_generation_prompt=generation
    )
    assert by_tokenizer == expected


def test_nano_brings_the_template_for_programs_that_read_its_folder():
    assert (NANO / "chat_template.jinja").read_text("utf-8") == chat_template()


@pytest.mark.parametrize("kind", ["own", "official", "native"])
def test_a_template_starts_with_the_system_prompt_where_the_model_does(kind):
    for default in (False, True):
        template = chat_template(kind, system_prompt=default)
        (text,), _ = render_jinja_template([SHAPES["a text"]], chat_template=template)
        assert text.startswith("<|im_start|>system") == default


def picture(seed=1) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def clip(frames=4) -> Clip:
    noise = np.random.default_rng(0).integers(0, 256, (frames, 56, 84, 3), dtype=np.uint8)
    return Clip(frames_TYX3=noise, times_s=tuple(map(float, range(frames))), source="noise")


def ask(*media, question="What?"):
    parts = [{"type": kind, kind: source} for kind, source in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


TALKS = [
    ask(("image", picture()), ("video", clip())),
    ask(("video", clip(2)), ("image", picture(2)), question="Which of them?"),
    ask(question="No picture."),
]


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


def test_it_is_a_processor_that_gives_a_batch_feature(tiny_processor):
    inputs = tiny_processor(TALKS, add_generation_prompt=True)
    assert isinstance(tiny_processor, ProcessorMixin)
    assert isinstance(inputs, BatchFeature)
    moved = inputs.to("meta")
    assert {tensor.device.type for tensor in moved.values()} == {"meta"}
    assert tiny_processor.model_input_names == list(inputs)


def test_apply_chat_template_is_the_call_itself(tiny_processor):
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    expected = tiny_processor(TALKS, add_generation_prompt=True)
    found = tiny_processor.apply_chat_template(TALKS, return_tensors="pt", **options)
    assert same(found, expected)
    lists = tiny_processor.apply_chat_template(TALKS, **options)
    assert lists["input_ids"] == expected["input_ids"].tolist()
    ids = tiny_processor.apply_chat_template(TALKS[2], tokenize=True, return_tensors="pt")
    assert torch.equal(ids, tiny_processor(TALKS[2])["input_ids"])


def test_a_rendered_text_with_its_media_is_the_call_itself(tiny_processor):
    texts = tiny_processor.apply_chat_template(TALKS, add_generation_prompt=True)
    assert texts[0].count("<image>") == texts[0].count("<video>") == 1
    expected = tiny_processor(TALKS, add_generation_prompt=True)
    shared_out = {"images": [picture(), picture(2)], "videos": [clip(), clip(2)]}
    nested = {"images": [[picture()], [picture(2)], []], "videos": [[clip()], [clip(2)], []]}
    for media in (shared_out, nested):
        assert same(tiny_processor(text=texts, **media), expected)
    with pytest.raises(ValueError, match=r"1 <image> and 1 <video> - got 0 images and 1 videos"):
        tiny_processor(text=texts[0], videos=[clip()])
    with pytest.raises(ValueError, match="0 <image> and 0 <video> - got 1 images"):
        tiny_processor(text=texts[2], images=[picture()])


def test_a_template_of_the_callers_own_is_used(tiny_processor):
    foreign = (
        "{%- for turn in messages -%}<|im_start|>{{- turn['role'] + '\n' -}}"
        "{%- for part in turn['content'] -%}{{- part['text'] if part['type'] == 'text'"
        " else '<' + part['type'] + '>' -}}{%- endfor -%}<|im_end|>\n{%- endfor -%}"
    )
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    found = tiny_processor.apply_chat_template(TALKS[1], chat_template=foreign, **options)
    expected = tiny_processor(TALKS[1])
    assert torch.equal(found["pixel_values"], expected["pixel_values"])
    assert found["input_ids"].shape[1] < expected["input_ids"].shape[1], "fewer line ends"
    slots = (found["input_ids"] == tiny_processor.image_token_id).sum()
    assert slots == expected["keep_mask"].sum()


def test_answers_are_masked_as_they_are_learned(tiny_processor):
    conversation = [*TALKS[0], {"role": "assistant", "content": "A circle."}]
    found = tiny_processor.apply_chat_template(
        conversation,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
    )
    learned = tiny_processor(conversation, return_labels=True)["labels"] != -100
    assert torch.equal(found["assistant_masks"].bool(), learned)
    ids = found["input_ids"][found["assistant_masks"].bool()]
    assert tiny_processor.decode(ids, skip_special_tokens=False) == "A circle.<|im_end|>"
    by_template = tiny_processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}, conversation[-1]],
        return_assistant_tokens_mask=True,
        return_dict=True,
        tokenize=True,
    )
    marked = [i for i, m in zip(by_template["input_ids"], by_template["assistant_masks"]) if m]
    assert marked == ids.tolist()


def test_an_answer_that_was_begun_is_gone_on_with(tiny_processor):
    conversation = [*TALKS[2], {"role": "assistant", "content": "A ci"}]
    begun = tiny_processor(conversation, continue_final_message=True)["input_ids"][0]
    assert tiny_processor.decode(begun, skip_special_tokens=False).endswith("assistant\nA ci")


def test_padding_and_truncation_are_those_of_tokenizers(tiny_processor):
    left, right = (tiny_processor(TALKS, padding_side=side) for side in ("left", "right"))
    assert left["attention_mask"][2, 0] == right["attention_mask"][2, -1] == 0
    long = tiny_processor(TALKS, pad_to_multiple_of=64)["input_ids"]
    assert long.shape[1] % 64 == 0
    short = tiny_processor(TALKS[2], truncation=True, max_length=4)["input_ids"]
    assert short.tolist() == tiny_processor(TALKS[2])["input_ids"][:, :4].tolist()
    with pytest.raises(ValueError, match=r"visual ones up to position .* max_length 4 cuts"):
        tiny_processor(TALKS[0], truncation=True, max_length=4)


def test_options_of_a_call(tiny_processor):
    film = [{"role": "user", "content": [{"type": "video", "video": CLIP}]}]
    assert tiny_processor(film, num_frames=3)["grid_thw"][0, 0] == 3
    assert tiny_processor(film, videos_kwargs={"max_frames": 2})["grid_thw"][0, 0] == 2
    with pytest.raises(ValueError, match="no option 'max_frame'; did you mean max_frames"):
        tiny_processor(film, max_frame=3)
    for wrong, words in (
        ({"budget_tokens": 0}, "budget_tokens is"),
        ({"fps": -1}, "fps is"),
        ({"num_frames": 0.5}, "num_frames is"),
        ({"prune": False}, "prune is"),
        ({"padding_side": "top"}, "padding_side is"),
        ({"return_tensors": "np"}, "return_tensors"),
    ):
        with pytest.raises(ValueError, match=words):
            tiny_processor(film, **wrong)
    for empty in ([], ()):
        with pytest.raises(ValueError, match="no messages"):
            tiny_processor(empty)
    with pytest.raises(ValueError, match="messages or text"):
        tiny_processor()
    with pytest.raises(ValueError, match="pass it as text="):
        tiny_processor("What?")


def test_decoding(tiny_processor):
    ids = tiny_processor(TALKS[2], add_generation_prompt=True)["input_ids"]
    whole = tiny_processor.decode(ids[0], skip_special_tokens=False)
    assert whole == tiny_processor.apply_chat_template(TALKS[2], add_generation_prompt=True)
    assert tiny_processor.batch_decode(ids) == [tiny_processor.decode(ids[0])]
    assert "<|im_start|>" not in tiny_processor.decode(ids[0])


def test_it_is_saved_and_comes_back_without_a_model(tiny_processor, tmp_path):
    tiny_processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text("utf-8") == tiny_processor.chat_template
    for loaded in (VL3Processor, AutoProcessor):
        again = loaded.from_pretrained(tmp_path)
        assert type(again) is VL3Processor
        assert again.to_dict() == tiny_processor.to_dict()
        assert same(again(TALKS), tiny_processor(TALKS))
    fewer = VL3Processor.from_pretrained(tmp_path, budget_tokens=40)
    assert fewer.settings.budget_tokens == 40
    with pytest.raises(ValueError, match="no setting 'budget_token'; did you mean budget_tokens"):
        VL3Processor.from_pretrained(tmp_path, budget_token=40)
    json.loads((tmp_path / "processor_config.json").read_text("utf-8"))
    assert "image_token_id" in repr(again)


AUTO = """
import sys
{first}
assert "torch" not in sys.modules or {late}, "import vl3 stays light"
{second}
processor = AutoProcessor.from_pretrained({folder!r})
model = AutoModelForImageTextToText.from_pretrained({folder!r})
config = AutoConfig.from_pretrained({folder!r})
print(type(processor).__name__, type(model).__name__, type(config).__name__, model.dtype)
"""
AUTO_CLASSES = "from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor"


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_auto_classes_know_it_in_either_order(late):
    first, second = ("import vl3", AUTO_CLASSES)[:: -1 if late else 1]
    code = AUTO.format(first=first, second=second, late=late, folder=str(NANO))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    expected = "VL3Processor VL3ForConditionalGeneration VL3Config torch.float32"
    assert done.stdout.strip() == expected, done.stderr


ENTRANCES = (
    "vision",
    "families.settings",
    "messages.media",
    "interpret",
    "video",
    "studio",
    "weights.load",
    "training.trainer",
)


@pytest.mark.slow
def test_every_part_can_be_imported_first_and_the_auto_classes_know_it_then():
    """In the middle of an import of ours, transformers' Auto classes are imported too."""
    code = "import vl3.{}; " + AUTO_CLASSES + "; print(AutoProcessor.from_pretrained({!r}))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code.format(part, str(NANO))],
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for part in ENTRANCES
    ]
    for part, process in zip(ENTRANCES, started):
        said, wrong = process.communicate(timeout=250)
        assert said.startswith("VL3Processor"), f"{part}: {wrong[-600:]}"


def test_the_pipeline_answers():
    from transformers import pipeline

    pipe = pipeline("image-text-to-text", model=str(NANO), dtype=torch.float32)
    conversation = [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": CLIP},
                {"type": "text", "text": "What happens in the video?"},
            ],
        }
    ]
    (told,) = pipe(text=conversation, max_new_tokens=40, return_full_text=False)
    assert "triangle" in told["generated_text"]
    begun = [
        *conversation,
        {"role": "assistant", "content": [{"type": "text", "text": "A yellow"}]},
    ]
    (told,) = pipe(text=begun, max_new_tokens=3, return_full_text=False)
    assert told["generated_text"].startswith(" triangle")
