"""From a prompt to tokens: every setting changes the answer, every step is taken once."""

from dataclasses import fields
from functools import partial

import numpy as np
import pytest
import torch
from clips import noise_clip

import vl3
from vl3.inference import generation
from vl3.inference.engine import Stopped
from vl3.inference.generation import (
    PrefixCache,
    PreparedPrompt,
    logits_processors,
    stream_text,
)
from vl3.settings import COLDEST, Decoding

PLAIN = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


clip = partial(noise_clip, still=False)


def ask(*media, question="What happens?"):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


# For each setting two values that give other answers, and the others that it needs.
SETTINGS = {
    "max_new_tokens": ({}, 2, 5),
    "temperature": ({"seed": 1}, 0.0, 3.0),
    "top_p": ({"temperature": 3.0, "seed": 1}, 1.0, 0.3),
    "repetition_penalty": ({}, 1.0, 50.0),
    "seed": ({"temperature": 3.0}, 1, 2),
}


@pytest.mark.parametrize("name", [each.name for each in fields(Decoding)])
def test_every_setting_is_used(studio, name):
    others, *values = SETTINGS[name]
    options = [{"max_new_tokens": 12, **others, name: value} for value in values]
    one, other = (studio.reply(ask(clip()), **each) for each in options)
    assert one.token_ids != other.token_ids
    assert (one.settings[name], other.settings[name]) == tuple(values)
    assert studio.reply(ask(clip()), **options[0]).token_ids == one.token_ids


def test_the_smallest_share_is_the_likeliest_token(studio):
    greedy = studio.reply(ask(clip()), **PLAIN).token_ids
    warm = {"temperature": 3.0, "seed": 1, **PLAIN}
    assert studio.reply(ask(clip()), **warm).token_ids != greedy
    assert studio.reply(ask(clip()), top_p=1e-6, **warm).token_ids == greedy


@pytest.mark.parametrize("temperature", [0.9, 0.5])
def test_below_1_is_drawn_too(studio, temperature):
    warm = {"temperature": temperature, "max_new_tokens": 12}
    said = {studio.reply(ask(clip()), seed=seed, **warm).token_ids for seed in range(12)}
    assert len(said) > 1


def left(prompt, new, logits, **settings) -> torch.Tensor:
    """Probabilities after these tokens, as the next one is drawn from them."""
    sequence, scores = torch.tensor([[*prompt, *new]]), torch.tensor([logits]).log()
    return logits_processors(Decoding(**settings), len(prompt))(sequence, scores).softmax(-1)[0]


def test_what_each_setting_does_to_the_probabilities():
    shares = [0.5, 0.3, 0.15, 0.05]
    plain = left([0], [], shares)
    torch.testing.assert_close(plain, torch.tensor(shares))
    two = left([0], [], shares, temperature=1.0, top_p=0.6)
    torch.testing.assert_close(two, torch.tensor([0.625, 0.375, 0.0, 0.0]))
    flat = left([0], [], shares, temperature=2.0)
    torch.testing.assert_close(
        flat, torch.tensor(shares).sqrt() / torch.tensor(shares).sqrt().sum()
    )
    assert torch.equal(left([0], [], shares, top_p=0.6), plain), "greedy has no share to cut"
    for penalty, says in ((4.0, torch.lt), (0.25, torch.gt)):
        after = left([0, 3], [1], shares, repetition_penalty=penalty)
        assert says(after[1] / after[0], plain[1] / plain[0]), "the last of the new tokens counts"
        torch.testing.assert_close(after[3] / after[0], plain[3] / plain[0])  # of the prompt
        both = left([0], [1, 2], shares, repetition_penalty=penalty)
        assert says(both[1] / both[0], plain[1] / plain[0]), "and so does the first"


def test_the_coldest_temperature_is_kept_and_a_colder_one_is_none():
    assert Decoding(temperature=COLDEST).temperature == COLDEST == 1e-5
    assert Decoding(temperature=COLDEST * 0.99).temperature == 0


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("seed", (-(2**63), 2**64 - 1)),
        ("repetition_penalty", (0.01, 100)),
        ("top_p", (1e-9, 1)),
        ("max_new_tokens", (1, 10**9)),
        ("temperature", (0, 1e9)),
    ],
)
def test_the_ends_of_a_range_are_within_it(name, ends):
    for end in ends:
        assert getattr(Decoding(**{name: end}), name) == end


@pytest.mark.parametrize(
    ("name", "beyond"),
    [
        ("seed", -(2**63) - 1),
        ("seed", 2**64),
        ("repetition_penalty", 0.009),
        ("repetition_penalty", 101),
        ("top_p", 0),
        ("top_p", 1.01),
    ],
)
def test_and_what_lies_beyond_is_refused(name, beyond):
    with pytest.raises(ValueError, match=name):
        Decoding(**{name: beyond})


@pytest.fixture
def steps(monkeypatch):
    """Positions of each step from now on."""
    lengths, step = [], generation._step

    def counting(model, cache, embeds_BLE):
        lengths.append(embeds_BLE.shape[1])
        return step(model, cache, embeds_BLE)

    monkeypatch.setattr(generation, "_step", counting)
    return lengths


def test_one_step_for_each_token_but_the_last(studio, steps):
    reply = studio.reply(ask(clip()), **PLAIN)
    assert len(reply.token_ids) == 6
    prefill = reply.seen[0].kept_tokens, reply.ledger.prompt_tokens
    assert len(steps) == 2 + 5, "up to the end of the clip, the text after it, five tokens"
    assert sum(steps[:2]) == prefill[1]
    assert steps[0] > prefill[0]
    assert steps[2:] == [1] * 5


def test_a_long_prompt_is_taken_in_bounded_steps(studio, steps, monkeypatch):
    whole = studio.reply(ask(clip()), **PLAIN)
    studio.release()
    steps.clear()
    monkeypatch.setitem(generation.PREFILL_TOKENS, "cpu", 16)
    bounded = studio.reply(ask(clip()), **PLAIN)
    assert bounded.token_ids == whole.token_ids
    assert max(steps) == 16
    assert sum(steps) == whole.ledger.prompt_tokens + 5


def test_logits_are_made_for_one_position_a_step(studio):
    rows = []
    head = studio.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, given: rows.append(given[0].shape[1]))
    try:
        studio.reply(ask(clip()), **PLAIN)
    finally:
        handle.remove()
    assert set(rows) == {1}


def test_both_of_two_clips_are_reused_up_to_the_end_of_the_second(studio, steps):
    first = studio.reply(ask(clip(0), clip(1)), **PLAIN)
    slots = np.isin(first.prompt_ids, studio.model.config.slot_token_ids)
    end = int(np.flatnonzero(slots)[-1]) + 1
    steps.clear()
    again = studio.reply(ask(clip(0), clip(1), question="And why is that?"), **PLAIN)
    assert again.ledger.reused_tokens == end
    assert steps[0] == again.ledger.prompt_tokens - end
    steps.clear()
    other = studio.reply(ask(clip(0), clip(2)), **PLAIN)
    middle = int(np.flatnonzero(slots)[first.seen[0].kept_tokens - 1]) + 1
    assert other.ledger.reused_tokens == middle < end
    assert steps[:2] == [end - middle, other.ledger.prompt_tokens - end]
    alone = studio.reply(ask(clip(0)), **PLAIN)
    assert alone.ledger.reused_tokens == middle
    for reply, media in ((again, (0, 1)), (other, (0, 2)), (alone, (0,))):
        question = "And why is that?" if reply is again else "What happens?"
        cold = studio.new_session().reply(ask(*map(clip, media), question=question), **PLAIN)
        assert cold.token_ids == reply.token_ids


def test_questions_without_media_follow_one_another(studio):
    for question in ("Hello?", "What is red?", "Hello?"):
        reply = studio.reply(ask(question=question), **PLAIN)
        assert (
            reply.token_ids == studio.new_session().reply(ask(question=question), **PLAIN).token_ids
        )
        assert reply.ledger.reused_tokens == 0
    assert studio._prefix.nbytes == 0, "nothing of them is of use"


def test_what_is_kept_ends_with_the_last_clip(studio):
    reply = studio.reply(ask(clip(0), clip(1)), **PLAIN)
    prefix = studio._prefix
    lengths = {layer.get_seq_length() for layer in prefix.cache.layers}
    assert lengths == {prefix.ends[-1]}
    assert prefix.ends[-1] < reply.ledger.prompt_tokens
    assert len(prefix.keys) == len(prefix.ends) == 2
    assert prefix.nbytes == sum(layer.nbytes for layer in prefix.cache.layers) > 0
    prefix.clear()
    assert (prefix.keys, prefix.ends, prefix.nbytes) == ((), (), 0)


def test_a_prompt_stopped_at_its_second_clip_keeps_the_first(studio):
    """Keys are noted down when their part is there, not before."""
    engine, prefix = studio.engine, PrefixCache()

    def embeds(index):
        if index:
            raise Stopped
        return torch.zeros(2, engine.model.config.text_config.hidden_size)

    slot = engine.model.config.slot_token_ids[0]
    question = PreparedPrompt([5, slot, slot, 6, slot, 7], (3, 5), ("one", "two"), embeds)
    with pytest.raises(Stopped):
        next(generation.tokens(engine, question, Decoding(), prefix, ()))
    assert (len(prefix.keys), prefix.ends) == (1, (3,))


def test_keys_of_a_prompt_depend_on_all_that_stands_before_their_end():
    def keys(ids=(1, 2, 3, 4, 5), media=("a", "b"), model="m"):
        return PreparedPrompt(list(ids), (2, 4), media, lambda _: None, model).keys()

    plain = keys()
    assert plain == keys()
    assert keys(ids=(1, 2, 3, 4, 9)) == plain, "what follows the last medium is no part of it"
    for first in (keys(ids=(9, 2, 3, 4, 5)), keys(media=("c", "b")), keys(model="n")):
        assert not {*first} & {*plain}
    for second in (keys(ids=(1, 2, 9, 4, 5)), keys(media=("a", "c"))):
        assert second[0] == plain[0]
        assert second[1] != plain[1]
    assert not {*keys(model=None)} & {*keys(model=None)}, "good for once"


@pytest.mark.parametrize("part", ["vision", "language"])
def test_a_pass_ends_at_its_next_layer(studio, part):
    model, reached = studio.model, []
    blocks = model.vision.blocks if part == "vision" else model.language.model.layers

    def run():
        if part == "vision":
            model.encode_vision(torch.zeros(24, 588, dtype=torch.uint8), [[1, 4, 6]], [2])
        else:
            model(input_ids=torch.tensor([[5, 6]]))

    handles = [
        block.register_forward_hook(lambda *_, n=n: reached.append(n))
        for n, block in enumerate(blocks)
    ]
    try:
        with studio.engine.turn(lambda: len(reached) == 1), pytest.raises(Stopped):
            run()
        assert reached == [0], "the layer at work is finished"
        run()
        assert reached == [0, 0, 1], "afterwards nothing stops it"
    finally:
        for handle in handles:
            handle.remove()
    assert not any(block._forward_pre_hooks for block in blocks)


def test_characters_that_stay_incomplete_are_written_at_the_end():
    texts = {1: "a", 2: "a\ufffd", 3: "a\ufffd\ufffd"}
    written = list(stream_text(iter([7, 8, 9]), lambda ids: texts[len(ids)]))
    assert written == [(7, "a"), (8, ""), (9, ""), (None, "\ufffd\ufffd")]
    assert list(stream_text(iter([]), lambda ids: "never")) == []
