import random

import pytest
from transformers import AutoTokenizer

from vl3.bundled import NANO
from vl3.toyworld.hearing import SOUND_FAMILIES
from vl3.toyworld.questions import ask
from vl3.toyworld.tokenizer import (
    PLAIN,
    SOUND_WORDS,
    SPECIAL,
    VISUAL,
    add_sound_words,
    train_tokenizer,
    world_text,
)
from vl3.toyworld.world import Level, sample_scene


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(world_text(0, 300)).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_added_tokens_follow_the_ordinary_ones_in_qwen_order(tokenizer):
    names = [*SPECIAL, *PLAIN, *VISUAL]
    assert len(names) == 25
    ids = tokenizer.convert_tokens_to_ids(names)
    assert ids == list(range(len(tokenizer) - 25, len(tokenizer)))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


@pytest.mark.parametrize("text", ["Ünïcode 你好 🙂\t\n  x", "The red circle.", "don't <b>", "\x00"])
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_digits_stand_alone_and_world_words_are_whole(tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer("From 10 to 256 seconds.").input_ids]
    assert pieces == ["From", " ", "1", "0", " to", " ", "2", "5", "6", " seconds", "."]


def test_chat_markers_are_single_tokens(tokenizer):
    ids = tokenizer("<|im_start|>user\n<image><|im_end|>").input_ids
    assert len(ids) == 5
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


@pytest.fixture(scope="module")
def hearing():
    """The bundled nano's tokenizer as it is, and with words for sounds."""
    silent, hearing = (AutoTokenizer.from_pretrained(NANO) for _ in range(2))
    assert add_sound_words(hearing) == len(SOUND_WORDS) == 20
    return silent, hearing


def test_words_for_sounds_leave_every_text_of_the_silent_world_as_it_was(hearing):
    silent, heard = hearing
    texts = list(world_text(3, 200))
    assert len(texts) > 3000
    assert silent(texts).input_ids == heard(texts).input_ids
    assert silent("What makes the beep?").input_ids != heard("What makes the beep?").input_ids


def test_questions_about_sound_come_back_and_cost_a_quarter_less(hearing):
    rng, level = random.Random(0), Level(seconds=(3, 9), sprites=(1, 3), sound=1.0, voices=0.1)
    scenes = [sample_scene(rng, level) for _ in range(60)]
    asked = [qa for s in scenes for f in SOUND_FAMILIES if (qa := ask(s, rng, f)) is not None]
    texts = [f"{qa.question}\n{qa.answer}" for qa in asked]
    costs = []
    for tokenizer in hearing:
        ids = tokenizer(texts).input_ids
        assert [tokenizer.decode(each) for each in ids] == texts
        costs.append(sum(map(len, ids)))
    assert costs[1] < 0.75 * costs[0]
    pieces = [hearing[1].decode([i]) for i in hearing[1]("Is the low beep soft?").input_ids]
    assert pieces[-5:] == [" the", " low", " beep", " soft", "?"]
