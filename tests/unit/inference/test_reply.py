"""The books of a reply: what it cost, how it was stopped, what was tried when memory was short."""

import gc
import threading
import time
import weakref
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from clips import noise_clip as clip

import vl3
from vl3.families.settings import ProcessorSettings
from vl3.families.template import CHATML
from vl3.inference import asking
from vl3.inference import reply as replies
from vl3.inference.asking import Request, TooLong, end_tokens
from vl3.inference.engine import Stopped
from vl3.inference.reply import MEDIA_SETTINGS, ReplyState, shrunk
from vl3.settings import Decoding
from vl3.values import Clip, Progress

SHORT = {"max_new_tokens": 3}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


def picture() -> Clip:
    return replace(clip(9, 1), times_s=None, source="picture")


def ask(*media, question="What happens?"):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


# the ledger


def test_every_figure_of_a_cold_a_mixed_and_a_warm_answer(studio):
    cold = studio.reply(ask(clip(0)), **SHORT)
    one, two = studio.open(clip(0)), studio.new_session().open(clip(1, 2))
    kept = int(one.keep.keep_M.sum())
    mixed = studio.reply(ask(clip(0), clip(1, 2)), **SHORT)
    warm = studio.reply(ask(clip(0), clip(1, 2)), **SHORT)
    both, shown = kept + int(two.keep.keep_M.sum()), (0, one.grid.num_tokens)
    shown = (*shown, shown[1] + two.grid.num_tokens)
    for reply, media, tokens, here, anew in (
        (cold, 1, kept, 0, 1),
        (mixed, 2, both, 1, 1),
        (warm, 2, both, 2, 0),
    ):
        books = reply.ledger
        assert (books.frames, books.visual_tokens) == ((0, 3, 5)[media], shown[media])
        assert books.kept_tokens == tokens < books.visual_tokens
        assert (books.reused_clips, books.encoded_clips) == (here, anew)
        assert (books.prompt_tokens, books.new_tokens) == (len(reply.prompt_ids), 3)
        assert (books.decode_s > 0, books.encode_s > 0) == (anew > 0, anew > 0)
        assert books.prune_s > 0
        assert books.peak_memory_bytes > 1e6
    assert cold.ledger.reused_tokens == 0 < mixed.ledger.reused_tokens < warm.ledger.reused_tokens
    assert [seen.times_s for seen in warm.seen] == [(0.0, 1.0, 2.0), (0.0, 1.0)]


def test_seconds_spent_on_clips_that_were_here_are_not_this_replys(studio):
    first = studio.reply(ask(clip(0)), **SHORT).ledger
    video = studio._encoded._videos.popitem()[1]
    spent = dict.fromkeys(("decode_s", "encode_s", "prune_s"), 1000.0)
    studio._encoded._videos[video.key] = replace(video, ledger=replace(video.ledger, **spent))
    mixed = studio.reply(ask(clip(0), clip(1)), **SHORT).ledger
    assert 0 < first.decode_s < 100
    assert 0 < mixed.decode_s < 100
    assert 0 < mixed.encode_s < 100
    assert 0 < mixed.prune_s < 100, "of both, as often as they are pruned"


def test_the_first_token_is_timed_when_it_comes(studio):
    stream, shown = studio.stream(ask(clip()), max_new_tokens=8), []
    for event in stream:
        if isinstance(event, str) and not shown:
            shown.append(time.perf_counter())
            time.sleep(0.1)
    books = event.ledger
    assert books.total_s - books.first_token_s >= 0.1
    assert 0 < books.prefill_s < books.first_token_s


def test_a_reply_says_every_setting_that_it_was_made_with(studio):
    asked = {
        "max_new_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "repetition_penalty": 1.5,
        "seed": 7,
    }
    reply = studio.reply(ask(clip()), budget_tokens=123, prune={"threshold": 4.0}, **asked)
    expected = ("fps", "max_frames", "budget_tokens", "sampling", "prune")
    assert reply.settings.keys() == {*expected, *(each.name for each in fields(Decoding))}
    assert {name: reply.settings[name] for name in asked} == asked
    own = studio.settings
    assert (own.fps, own.max_frames, own.sampling) == tuple(
        reply.settings[name] for name in ("fps", "max_frames", "sampling")
    )
    assert reply.settings["budget_tokens"] == 123
    assert reply.settings["prune"]["threshold"] == 4.0
    assert {*expected} == {*MEDIA_SETTINGS}


def test_the_system_prompt_is_the_processors_to_choose(studio, monkeypatch):
    for wanted in (True, False):
        settings = replace(studio.processor.settings, system_prompt=wanted)
        monkeypatch.setattr(studio.processor, "settings", settings)
        prompt = studio.reply(ask(clip()), **SHORT).prompt
        assert prompt.startswith("<|im_start|>system\n") == wanted


# the end of an answer


def test_an_answer_that_ends_by_itself_is_whole(studio, monkeypatch):
    said = studio.reply(ask(clip()), max_new_tokens=6)
    end = said.token_ids[3]
    before = said.token_ids[: said.token_ids.index(end)]
    monkeypatch.setattr(studio.model.generation_config, "eos_token_id", [end])
    whole = studio.reply(ask(clip()), max_new_tokens=6)
    assert whole.token_ids == before
    assert (whole.truncated, said.truncated) == (False, True)
    cut = studio.reply(ask(clip()), max_new_tokens=max(1, len(before)))
    assert cut.truncated, "nobody knows whether it would have ended here"


@pytest.mark.parametrize(
    ("configured", "end"), [(7, {7, 8, 9}), ([6, 7], {6, 7, 8, 9}), (None, {8, 9})]
)
def test_what_ends_an_answer(configured, end):
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    tokenizer = SimpleNamespace(eos_token_id=8, convert_tokens_to_ids={"<|im_end|>": 9}.get)
    processor = SimpleNamespace(tokenizer=tokenizer, template=CHATML)
    assert end_tokens(model, processor) == end
    tokenizer.eos_token_id = None
    assert end_tokens(model, processor) == end - {8}


def test_the_context_bounds_prompt_and_answer(studio, monkeypatch):
    length = studio.reply(ask(clip()), **SHORT).ledger.prompt_tokens
    text = studio.model.config.text_config
    for room in (2, 1):
        monkeypatch.setattr(text, "max_position_embeddings", length + room)
        reply = studio.reply(ask(clip()), **SHORT)
        assert len(reply.token_ids) == room
        assert reply.truncated
    monkeypatch.setattr(text, "max_position_embeddings", length)
    with pytest.raises(TooLong, match=f"{length} tokens exceed the limit {length}. Lower frames"):
        studio.reply(ask(clip()), **SHORT)


@pytest.mark.parametrize(
    ("media", "advice"),
    [
        ((picture(),), "Lower the token budget, or show fewer"),
        ((), "Shorten the text"),
        ((picture(), clip()), "Lower frames per second"),
    ],
)
def test_what_is_too_long_has_advice_that_helps(studio, media, advice):
    with pytest.raises(TooLong, match=advice):
        studio.reply(ask(*media, question="why " * 5000), **SHORT)


def test_a_token_of_number_0_is_a_token(studio):
    request = Request([], studio.settings, Decoding(), lambda: False)
    state = ReplyState()
    list(replies._write(iter([0, 5]), studio.processor, request, state))
    assert state.token_ids == [0, 5]


# stopping


@pytest.mark.parametrize("words", [0, 1])
def test_an_answer_stops_with_the_word_at_which_it_is_stopped(studio, words):
    stop, pieces = threading.Event(), []
    for event in studio.stream(ask(clip()), max_new_tokens=2, stop=stop):
        if isinstance(event, str):
            pieces.append(event)
        if (event == Progress("Answering", kind="answering") and words == 0) or len(
            pieces
        ) == words > 0:
            stop.set()
    assert event.stopped
    assert not event.truncated
    assert event.text == "".join(pieces)
    assert len(pieces) == words
    assert len(event.token_ids) >= words
    if words == 0:
        assert event.token_ids == ()
        assert event.ledger.first_token_s == event.ledger.total_s > 0


def test_work_beside_ends_at_its_next_stage_when_it_is_stopped_or_left():
    told, ended, is_stopped = [], [], threading.Event()

    def work(on_stage, stopped):
        try:
            for number in range(2000):
                on_stage(Progress("Reading", number))
                told.append(number)
                time.sleep(0.001)
        finally:
            time.sleep(0.1)
            ended.append(True)

    with pytest.raises(Stopped):
        [is_stopped.set() for _ in asking.staged(work, is_stopped.is_set)]
    assert len(told) < 1000
    told.clear(), ended.clear()
    staged = asking.staged(work, lambda: False)
    next(staged)
    staged.close()
    assert ended, "whoever leaves waits until the other thread has let go of the model"
    assert len(told) < 1000


def test_work_beside_gives_its_stages_its_value_and_its_error():
    def work(on_stage, stopped):
        assert not stopped()
        on_stage(Progress("One"))
        on_stage(Progress("Two"))
        return "value"

    def whole():
        values.append((yield from asking.staged(work, lambda: False)))

    values = []
    assert list(whole()) == [Progress("One"), Progress("Two")]
    assert values == ["value"]
    with pytest.raises(KeyError, match="own"):
        list(asking.staged(lambda *_: {}["own"], lambda: False))


# memory


def test_half_of_everything_but_at_least_something():
    half = shrunk(ProcessorSettings(max_frames=10, budget_tokens=100, min_tokens=16))
    assert (half.max_frames, half.budget_tokens) == (5, 50)
    least = shrunk(ProcessorSettings(max_frames=1, budget_tokens=20, min_tokens=16))
    assert (least.max_frames, least.budget_tokens) == (1, 16)


@pytest.fixture
def short_of_memory(studio):
    """Makes the next passes of a part of the model run out of memory; tells how many were begun."""
    handles = []

    def arrange(part, how_often):
        begun = []

        def fail(*_):
            begun.append(part)
            if len(begun) <= how_often:
                raise torch.OutOfMemoryError("no")

        handles.append(part.register_forward_pre_hook(fail))
        return begun

    yield arrange
    for handle in handles:
        handle.remove()


def test_a_clip_that_was_only_opened_is_given_up_first(studio, short_of_memory):
    studio.open(clip(0))
    begun = short_of_memory(studio.model.vision, 1)
    reply = studio.reply(ask(clip(1)), **SHORT)
    assert not reply.notes
    assert len(begun) == 2
    assert len(studio._encoded) == 1


def test_a_prompt_whose_clips_are_gone_is_given_up_first(studio, short_of_memory):
    beside = studio.new_session(share_encoded=True)
    beside.reply(ask(clip(0)), **SHORT)
    beside._encoded.clear()
    assert beside._encoded.nbytes == 0 < beside._prefix.nbytes
    short_of_memory(studio.model.vision, 1)
    assert not beside.reply(ask(clip(1)), **SHORT).notes


def test_with_nothing_to_give_up_the_plan_gets_smaller_at_once(studio, short_of_memory):
    begun = short_of_memory(studio.model.vision, 1)
    reply = studio.reply(ask(clip()), budget_tokens=200, **SHORT)
    assert len(begun) == 2
    assert reply.notes == (
        "Memory was short: answered with at most 90 frames and 100 visual tokens.",
    )
    assert (reply.settings["max_frames"], reply.settings["budget_tokens"]) == (90, 100)


def test_after_words_were_said_there_is_no_other_attempt(studio, short_of_memory):
    """What was shown cannot be taken back."""
    stream = studio.stream(ask(clip()), max_new_tokens=9)
    assert next(event for event in stream if isinstance(event, str))
    begun = short_of_memory(studio.model.language.model, 1)
    with pytest.raises(torch.OutOfMemoryError):
        list(stream)
    assert len(begun) == 1


def test_memory_is_given_back_before_another_attempt(studio, short_of_memory):
    class Held:
        pass

    held = Held()
    held.itself, there = held, weakref.ref(held)
    gc.disable()
    try:
        del held
        assert there() is not None
        short_of_memory(studio.model.vision, 1)
        studio.reply(ask(clip()), **SHORT)
        assert there() is None
    finally:
        gc.enable()


def test_the_least_plan_is_what_the_refusal_names(studio, short_of_memory, monkeypatch):
    monkeypatch.setattr(
        studio.processor, "settings", replace(studio.processor.settings, max_frames=2)
    )
    short_of_memory(studio.model.vision, 2)
    with pytest.raises(replies.OutOfMemory, match=r"The computer ran out.*Try max frames 1 or"):
        studio.reply(ask(clip()), **SHORT)
