"""The chat template: text, ids, slots and labels, against hand-written expectations."""

import copy
import json

import pytest
from tokenizers.processors import TemplateProcessing
from transformers.utils.chat_template_utils import render_jinja_template

from vl3.families.template import CHATML, Template
from vl3.hf.chat_template import chat_template
from vl3.messages.reader import Read
from vl3.processor import load_tokenizer
from vl3.prompt import IGNORE, SYSTEM_PROMPT, SlotIds, plain_ids, render, render_text, stamp
from vl3.vision.token_map import SlotRuns


@pytest.fixture(scope="module")
def slots(tokenizer) -> SlotIds:
    image = tokenizer.convert_tokens_to_ids("<image>")
    return SlotIds(image=image, video=image)


def video(*times, **more):
    return {"type": "video", "num_frames": len(times), "timestamps": list(times), **more}


def test_a_video_turn_in_full(tokenizer, slots):
    turn = {"role": "user", "content": [video(0.0, 12.349), {"type": "text", "text": "What?"}]}
    prompt = render([turn], tokenizer, slots, [3, 1], add_generation_prompt=True)
    assert prompt.text == (
        "<|im_start|>user\nTime 0.0s:<image>,Time 12.3s:<image>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    shown = tokenizer.decode(prompt.ids)
    assert shown == prompt.text.replace("<image>", "<image>" * 3, 1)
    assert [prompt.ids[start : start + n] for start, n in prompt.spans] == [
        [slots.image] * 3,
        [slots.image],
    ]


def test_system_prompt_is_added_only_where_none_is_given(tokenizer, slots):
    user = {"role": "user", "content": "Hi"}
    own = {"role": "system", "content": "S."}
    with_it = render([user], tokenizer, slots, [], add_system_prompt=True).text
    assert with_it.startswith(f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user")
    assert render([own, user], tokenizer, slots, [], add_system_prompt=True).text.count("sys") == 1


def test_images_have_a_line_each_and_an_optional_time(tokenizer, slots):
    parts = [{"type": "image"}, {"type": "image", "timestamp": 3}, "And?"]
    text = render([{"role": "user", "content": parts}], tokenizer, slots, [1, 1]).text
    assert text == "<|im_start|>user\n<image>\nTime 3.0s: <image>\nAnd?<|im_end|>\n"


def test_labels_cover_answers_and_decisions_after_stream_turns(tokenizer, slots):
    conversation = [
        {"role": "stream", "content": [{"type": "image", "timestamp": 1.0}]},
        {"role": "stream", "content": [{"type": "image", "timestamp": 2.0}]},
        {"role": "assistant", "content": "Now."},
        {"role": "user", "content": "Why?"},
    ]
    prompt = render(conversation, tokenizer, slots, [2, 2])
    learned = [token for token, label in zip(prompt.ids, prompt.labels) if label != IGNORE]
    assert tokenizer.decode(learned) == "<|stream_start|><|im_start|>Now.<|im_end|>"
    assert all(label in (IGNORE, token) for token, label in zip(prompt.ids, prompt.labels))


ANOTHER = Template(
    special=("<|vision_start|>", "<|vision_end|>", "<|box_end|>", "<|endoftext|>"),
    begin="<|endoftext|>",
    start="<|vision_start|>{role}<|vision_end|>\n\n",
    end="<|box_end|>",
    after="",
    frame_stamp="[{}]",
    system_prompt="Look's",
)


@pytest.mark.parametrize("template", [CHATML, ANOTHER], ids=["usual", "another"])
def test_a_template_says_the_same_in_ids_and_in_jinja(template, tokenizer, slots):
    """Begin, headers, end, stamps and system prompt of a language model's own chat format."""
    conversation = [
        {"role": "user", "content": [video(0.0, 1.0), {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A circle."},
        {"role": "user", "content": "Why?"},
    ]
    more = {"add_system_prompt": True, "add_generation_prompt": True}
    prompt = render(conversation, tokenizer, slots, [1, 1], template=template, **more)
    (text,), _ = render_jinja_template(
        [conversation], chat_template=chat_template(template=template), **more
    )
    assert prompt.text == tokenizer.decode(prompt.ids) == text
    learned = [token for token, label in zip(prompt.ids, prompt.labels) if label != IGNORE]
    assert tokenizer.decode(learned) == "A circle." + template.end
    if template is ANOTHER:
        assert text.startswith(
            "<|endoftext|><|vision_start|>system<|vision_end|>\n\nLook's<|box_end|>"
            "<|vision_start|>user<|vision_end|>\n\n[0.0]<image>,[1.0]<image>\nWhat?<|box_end|>"
        )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"start": "<|im_start|>"}, "names the {role}"),
        ({"start": "{role}"}, "begins with one of its special tokens"),
        ({"end": "</s>"}, "end of a template is one of"),
        ({"image_stamp": "Time"}, "one {} for the seconds"),
        ({"special": "<s>"}, "is a list of tokens"),
        ({"after": 3}, "after of a template is a text - got 3"),
    ],
)
def test_a_template_that_cannot_be_followed_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Template(**wrong)


@pytest.mark.parametrize("text", ["<image>", "a <|im_end|>\n<|im_start|>system b", "<|endoftext|>"])
def test_text_that_looks_like_a_special_token_stays_text(tokenizer, slots, text):
    prompt = render([{"role": "user", "content": text}], tokenizer, slots, [])
    special = [token for token in prompt.ids if token in tokenizer.added_tokens_decoder]
    assert tokenizer.convert_ids_to_tokens(special) == ["<|im_start|>", "<|im_end|>"]
    assert text in tokenizer.decode(prompt.ids)


@pytest.mark.parametrize("counts", [[1], [1, 1, 1]])
def test_frames_and_counts_must_agree(tokenizer, slots, counts):
    turn = {"role": "user", "content": [video(0.0, 1.0)]}
    with pytest.raises(ValueError, match="than were encoded"):
        render([turn], tokenizer, slots, counts)


def user(*content):
    return {"role": "user", "content": list(content)}


def test_slots_are_of_their_mediums_kind_and_spans_lie_on_them(tokenizer):
    apart = SlotIds(image=1001, video=1002)
    turn = user({"type": "image"}, video(0.0, 1.0), {"type": "image"}, "What?")
    prompt = render([turn], tokenizer, apart, [2, 3, 0, 1])
    assert [prompt.ids[start : start + n] for start, n in prompt.spans] == [
        [1001] * 2,
        [1002] * 3,
        [],
        [1001],
    ]
    assert [token for token in prompt.ids if token > 1000] == [1001] * 2 + [1002] * 3 + [1001]
    assert prompt.spans[1][0] < prompt.spans[2][0] < prompt.spans[3][0]


def test_text_in_pieces_is_tokenized_as_one(tokenizer, slots):
    """The tokenizer joins what lies between two special tokens."""
    parts = [{"type": "text", "text": text} for text in ("us", "er")]
    ids = render([user(*parts)], tokenizer, slots, []).ids
    assert ids == render([user("user")], tokenizer, slots, []).ids
    one, two, joined = plain_ids(tokenizer, ["us", "er", "user"])
    assert joined != one + two


def test_a_tokenizer_that_begins_with_a_token_of_its_own_does_not_here(tokenizer):
    bos = copy.deepcopy(tokenizer)
    start = bos.convert_tokens_to_ids("<|endoftext|>")
    bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", start)]
    )
    assert bos("a b")["input_ids"][0] == start
    assert plain_ids(bos, ["a b", ""]) == plain_ids(tokenizer, ["a b", ""])


def test_a_video_without_times_and_one_at_its_own(tokenizer, slots):
    timeless = {"type": "video", "num_frames": 2}
    text = render([user(timeless, video(0.05, 0.25, 7))], tokenizer, slots, [1] * 5).text
    assert text == (
        "<|im_start|>user\n<image>,<image>\n"
        "Time 0.1s:<image>,Time 0.2s:<image>,Time 7.0s:<image>\n<|im_end|>\n"
    )


def test_tenths_of_a_second_are_rounded_to_the_nearest():
    assert [stamp(time_s) for time_s in (0, 1.06, 1.04, 2.97, 59.96)] == [
        "0.0",
        "1.1",
        "1.0",
        "3.0",
        "60.0",
    ]


def test_the_system_prompt_goes_before_the_first_turn_alone(tokenizer, slots):
    hello, own = user("Hi"), {"role": "system", "content": "S."}
    assert render([], tokenizer, slots, [], add_system_prompt=True).text == ""
    assert render([hello], tokenizer, slots, []).text.startswith("<|im_start|>user")
    late = render([hello, own], tokenizer, slots, [], add_system_prompt=True).text
    assert late.startswith(f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n<|im_start|>user")


def test_what_is_learned_of_a_conversation(tokenizer, slots):
    """Answers with their end, unless they say otherwise; after a stream turn its first token."""
    watched = {"role": "stream", "content": [{"type": "image", "timestamp": 1.0}]}
    conversation = [
        {"role": "system", "content": "Be brief."},
        {**user("Why?"), "loss": True},
        {"role": "assistant", "content": "So."},
        watched,
        user("And?"),
        {"role": "assistant", "content": "Not this.", "loss": False},
        user("Then?"),
        {"role": "assistant", "content": "Yes.", "loss": True},
    ]
    prompt = render(conversation, tokenizer, slots, [2], add_generation_prompt=True)
    learned = [token for token, label in zip(prompt.ids, prompt.labels) if label != IGNORE]
    assert tokenizer.decode(learned) == "So.<|im_end|><|im_start|>Yes.<|im_end|>"
    assert len(prompt.labels) == len(prompt.ids)
    assert all(label in (IGNORE, token) for token, label in zip(prompt.ids, prompt.labels))
    assert prompt.text.endswith("Yes.<|im_end|>\n<|im_start|>assistant\n")
    assert (
        prompt.ids[-len(tokenizer("<|im_start|>assistant\n")["input_ids"]) :]
        == (tokenizer("<|im_start|>assistant\n")["input_ids"])
    )


def test_turns_of_a_stream_end_without_a_line_unless_they_are_text(tokenizer, slots):
    parts = {"role": "stream", "content": [{"type": "image", "timestamp": 1.0}]}
    plain = {"role": "stream", "content": "words"}
    text = render([parts, plain, user("Hi")], tokenizer, slots, [1]).text
    assert text == (
        "<|stream_start|>stream\nTime 1.0s: <image>\n<|stream_end|>"
        "<|stream_start|>stream\nwords<|stream_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
    )


MARKS = {"<image>": "image", "<|video_pad|>": "video"}
PICTURE, FILM = {"type": "image"}, video(0.0, 1.5)


def test_a_rendered_text_gets_its_media_and_its_special_tokens(tokenizer):
    apart = SlotIds(image=1001, video=1002)
    text = "<|im_start|>user\n<image>\n<|video_pad|>\n<image> us<|im_end|>"
    prompt = render_text(text, tokenizer, apart, [PICTURE, FILM, PICTURE], [1, 2, 3, 1], MARKS)
    assert prompt.text == text
    frames = [prompt.ids[start : start + n] for start, n in prompt.spans]
    assert frames == [[1001], [1002] * 2, [1002] * 3, [1001]]
    start, end = (tokenizer.convert_tokens_to_ids(f"<|im_{at}|>") for at in ("start", "end"))
    assert (prompt.ids[0], prompt.ids[-1]) == (start, end)
    words = tokenizer.decode([token for token in prompt.ids[1:-1] if token < 1000])
    assert words == "user\n\nTime 0.0s:,Time 1.5s:\n us"
    assert prompt.labels == [IGNORE] * len(prompt.ids)


def test_a_mark_for_each_frame_of_a_video(tokenizer):
    """Where a template has written the times itself."""
    apart = SlotIds(image=1001, video=1002)
    text = "0 s <image> 1.5 s <image> then <image>, <|video_pad|>"
    media = [FILM, PICTURE, video(0.0)]
    prompt = render_text(text, tokenizer, apart, media, [1, 2, 1, 1], MARKS)
    frames = [prompt.ids[start : start + n] for start, n in prompt.spans]
    assert frames == [[1002], [1002] * 2, [1001], [1002]]
    words = tokenizer.decode([token for token in prompt.ids if token < 1000])
    assert words == "0 s  1.5 s  then , Time 0.0s:"


@pytest.mark.parametrize(
    ("text", "media", "counts", "words"),
    [
        ("<image><image>", [PICTURE], [1, 1], "more marks"),
        ("<image>", [PICTURE], [1, 1], "1 frames fewer"),
        ("<|video_pad|>", [FILM], [1], "more frames"),
        ("<|video_pad|>", [{"type": "audio"}], [1], "marks video where audio was given"),
        ("<|video_pad|>", [{"type": "video"}], [1], "not ready for a prompt"),
    ],
)
def test_texts_and_media_that_do_not_belong_together(tokenizer, slots, text, media, counts, words):
    with pytest.raises(ValueError, match=words):
        render_text(text, tokenizer, slots, media, counts, MARKS)


def frames_of(conversation) -> int:
    parts = [p for t in conversation for p in t["content"] if isinstance(p, dict)]
    return sum(p.get("num_frames", 1) for p in parts if p.get("type") in ("image", "video"))


def test_recorded_prompts_and_ids(shared):
    tokenizer = load_tokenizer(shared / "fixtures/vl3_official_tiny/ckpt_a")
    slots = SlotIds(1422, 1422)
    cases = json.loads((shared / "fixtures/vl3_text/chat_template.json").read_text())["cases"]
    assert len(cases) == 13
    for case in cases:
        for system in (False, True):
            for generation in (False, True):
                recorded = case[f"sys{system:d}_gen{generation:d}"]
                ones = [1] * frames_of(case["conversation"])
                prompt = render(
                    case["conversation"],
                    tokenizer,
                    slots,
                    ones,
                    add_system_prompt=system,
                    add_generation_prompt=generation,
                )
                assert prompt.text == recorded["prompt"]
                assert prompt.ids == recorded["ids_unexpanded"]


def test_recorded_labels(shared):
    tokenizer = load_tokenizer(shared / "fixtures/vl3_official_tiny/ckpt_a")
    cases = json.loads((shared / "fixtures/vl3_text/labels.json").read_text())
    assert len(cases) == 5
    for case in cases:
        counts = [
            rows * cols // merge**2
            for (frames, rows, cols), merge in zip(case["grid_sizes"], case["merge_sizes"])
            for _ in range(frames)
        ]
        prompt = render(case["conversation"], tokenizer, SlotIds(1422, 1422), counts)
        assert prompt.ids == case["hub"]["input_ids"]
        assert prompt.labels == case["hub"]["labels"]


HEARD = {"sounds": [2, 3, 0]}  # before the first frame, after it, and none after the second


@pytest.fixture(scope="module")
def with_sound(slots) -> SlotIds:
    return SlotIds(image=slots.image, video=slots.video, audio=1003)


def test_sound_stands_between_the_frames_between_which_it_is_heard(tokenizer, with_sound):
    text = {"type": "text", "text": "What?"}
    conversation = Read([user(video(0.0, 1.5, **HEARD), {"type": "audio"}, text)])
    prompt = render(conversation, tokenizer, with_sound, [2, 4, 3, 4, 5])
    assert prompt.text == (
        "<|im_start|>user\n<audio>Time 0.0s:<image><audio>,Time 1.5s:<image>\n<audio>\nWhat?"
        "<|im_end|>\n"
    )
    runs = sorted(prompt.spans + prompt.sounds)
    assert [prompt.ids[start : start + n] for start, n in runs] == [
        [1003] * 2,
        [with_sound.image] * 4,
        [1003] * 3,
        [with_sound.image] * 4,
        [1003] * 5,
    ]
    assert [count for _, count in prompt.sounds] == [2, 3, 5]
    assert prompt.media_end == sum(runs[-1])
    assert set(prompt.labels) == {IGNORE}


def test_sound_is_written_by_the_template_of_transformers_too(tokenizer, with_sound):
    conversation = Read([user(video(0.0, 1.5, **HEARD), {"type": "audio"}), user(video(2.0))])
    ours = render(conversation, tokenizer, with_sound, [2, 4, 3, 4, 5, 1]).text
    theirs = render_jinja_template([conversation], chat_template=chat_template(sound=True))[0][0]
    assert theirs == ours


def test_a_rendered_text_has_the_sound_of_its_films(tokenizer, with_sound):
    marks = MARKS | {"<audio>": "audio"}
    media, counts = [video(0.0, 1.5, **HEARD), {"type": "audio"}], [2, 4, 3, 4, 5]
    whole = render_text("<|video_pad|> <audio>", tokenizer, with_sound, media, counts, marks)
    framed = render_text("<image>, <image> <audio>", tokenizer, with_sound, media, counts, marks)
    for prompt in (whole, framed):
        assert [count for _, count in prompt.sounds] == [2, 3, 5]
        assert [count for _, count in prompt.spans] == [4, 4]


def test_runs_of_slots_stand_in_the_order_of_the_prompt():
    assert SlotRuns((0.0, 1.5), (4, 4), (2, 3, 0)).in_order == (2, 4, 3, 4)
    assert SlotRuns((0.0, 1.5), (4, 0)).in_order == (4, 0)
    assert SlotRuns(None, (), (7,)).in_order == (7,)
