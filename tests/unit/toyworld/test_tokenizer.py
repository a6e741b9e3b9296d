import pytest
from transformers import AutoTokenizer

from vl3.toyworld.tokenizer import PLAIN, SPECIAL, VISUAL, train_tokenizer, world_text


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
