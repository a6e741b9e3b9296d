"""One question under two settings: what both runs give, and that nobody's conversation notices."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from clips import write_clip

import vl3
from vl3.inference.asking import TooLong
from vl3.inference.registry import Registry
from vl3.webapp.compare import LOADING, names, run_both, view
from vl3.webapp.conversation import Attachment, Turn, messages

OFF, ON = {"prune": None, "max_new_tokens": 6}, {"prune": {"threshold": 20.0}, "max_new_tokens": 6}
REFUSALS = (ValueError, TooLong)


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


@pytest.fixture(scope="module")
def turn(tmp_path_factory):
    path = write_clip(tmp_path_factory.mktemp("film") / "film.mp4", 6, 1, size=(96, 144))
    item = Attachment(path=str(path), name="film.mp4", key="film", max_frames=5)
    return Turn(question="What happens?", attachments=(item,))


def both(studio, turn, first=OFF, second=ON, stop=None, **options):
    """All pairs of run_both."""
    stop = stop or threading.Event()
    return list(run_both(studio, turn, first, second, stop, refusals=REFUSALS, **options))


def test_both_answers_are_those_of_the_settings_and_the_clip_is_encoded_once(studio, turn):
    runs = both(studio, turn)[-1]
    assert [run.turn.reply.ledger.encoded_clips for run in runs] == [1, 0]
    asked = messages((), turn)
    for run, settings in zip(runs, (OFF, ON), strict=True):
        alone = studio.new_session().reply(asked, **settings)
        assert run.turn.reply.token_ids == alone.token_ids
        assert run.side.reply.ledger.kept_tokens == alone.ledger.kept_tokens
        kept = run.side.keeps[0].kept_per_frame[0]
        assert sum(kept) == alone.ledger.kept_tokens == sum(alone.seen[0].kept_per_frame)
    first, second = (run.side.reply.ledger for run in runs)
    assert first.kept_tokens == first.visual_tokens > second.kept_tokens
    assert first.encode_s == second.encode_s > 0 == runs[1].turn.reply.ledger.encode_s
    assert second.total_s > runs[1].turn.reply.ledger.total_s
    data = view(runs, frame=2)
    assert [side["name"] for side in data["sides"]] == ["Pruning off", "Pruning at 20"]
    assert data["question"] == "What happens?"
    assert len(data["sheets"]) == 1


def test_progress_is_told_run_by_run(studio, turn):
    pairs = both(studio, turn)
    lines = list(dict.fromkeys((first.line, second.line) for first, second in pairs))
    assert lines[0] == ("Reading frames 0/5", "Waiting")
    assert ("Answering", "Waiting") in lines
    assert ("Done", "Video already encoded, reused") in lines
    assert lines[-1] == ("Done", "Done")
    assert view(pairs[0]) is None


def test_the_visitors_next_question_finds_its_prompt_as_it_was(studio, turn):
    asked = messages((), turn)
    studio.reply(asked, max_new_tokens=2)
    prompt_bytes = studio.cached_bytes
    both(studio, turn)
    assert studio.cached_bytes == prompt_bytes
    assert studio.reply(asked, max_new_tokens=2).ledger.reused_tokens > 0


@pytest.mark.parametrize("when", ["Encoding video 0/5", "Answering"])
def test_a_stop_ends_the_run_at_work_and_the_other_never_begins(studio, turn, when):
    stop = threading.Event()
    for runs in run_both(studio, turn, OFF, ON, stop, refusals=REFUSALS):
        if runs[0].line == when:
            stop.set()
    assert [run.line for run in runs] == ["Stopped", "Stopped"]
    assert runs[1].turn.reply is None
    assert view(runs) is None
    assert studio.reply(messages((), turn), max_new_tokens=1).ledger.new_tokens == 1


def test_what_one_run_cannot_do_is_a_sentence_and_the_other_goes_on(studio, turn):
    refused, done = both(studio, turn, {**OFF, "temperature": -1.0}, ON)[-1]
    assert refused.line == "temperature is a number, 0 or more - got -1.0"
    assert refused.turn.status == "failed"
    assert done.line == "Done"
    assert view((refused, done)) is None


def alone(load) -> Registry:
    """Models of which no two have room."""
    return Registry(load, lambda **chosen: False, gc.collect)


def test_a_model_that_has_room_stays_for_the_next_comparison(studio, turn, tiny_folder):
    loaded = []

    def load(**chosen):
        loaded.append(chosen)
        return vl3.load(tiny_folder)

    models = Registry(load, lambda **chosen: True, gc.collect)
    named = {"model": str(tiny_folder), "quantize": None, "adapter": None}
    for _ in range(2):
        runs = both(studio, turn, {**OFF, "load": named}, {**ON, "load": named}, models=models)[-1]
        assert [run.line for run in runs] == ["Done", "Done"]
    assert loaded == [named]


def test_another_model_is_loaded_for_its_run_and_gone_afterwards(studio, turn, tiny_folder):
    models, wanted = [], []

    def load(**chosen):
        assert not any(model() for model in models)
        wanted.append(chosen)
        other = vl3.load(tiny_folder)
        models.append(weakref.ref(other.model))
        return other

    named = {"model": str(tiny_folder), "quantize": None, "adapter": None}
    pairs = both(studio, turn, {**OFF, "load": named}, {**ON, "load": named}, models=alone(load))
    runs = pairs[-1]
    assert pairs[0][0].line == LOADING
    assert wanted == [named, named]
    gc.collect()
    assert not any(model() for model in models)
    assert not studio.engine.is_busy
    asked = messages((), turn)
    for run, settings in zip(runs, (OFF, ON), strict=True):
        assert run.turn.reply.token_ids == studio.reply(asked, **settings).token_ids
    assert view(runs)["rows"]


def test_models_are_loaded_only_where_that_is_allowed_and_failures_are_told(studio, turn):
    other = {**OFF, "load": {"model": "nowhere"}}
    assert "whoever started this page" in both(studio, turn, other, ON)[-1][0].line

    def load(**chosen):
        raise OSError("No such folder: nowhere.\nmore")

    refused, done = both(studio, turn, other, ON, models=alone(load))[-1]
    assert (refused.line, done.line) == ("No such folder: nowhere.", "Done")
    assert not studio.engine.is_busy


def test_closing_the_runs_lets_go_of_the_model(studio, turn, tiny_folder):
    other = {**OFF, "load": {"model": "x"}}
    stream = run_both(
        studio, turn, other, ON, threading.Event(), models=alone(lambda **_: vl3.load(tiny_folder))
    )
    while next(stream)[0].line != "Answering":
        pass
    stream.close()
    assert not studio.engine.is_busy


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (OFF, ON, ("Pruning off", "Pruning at 20")),
        (
            {"prune": "model"},
            {"prune": {"threshold": 0.5, "mode": "last_kept", "keep": "later"}},
            ("Pruning as the model does", "Pruning at 0.5, last kept, keep the later"),
        ),
        (
            {"prune": None, "temperature": 0.0},
            {"prune": None, "temperature": 0.7},
            ("Temperature 0", "Temperature 0.7"),
        ),
        (
            {},
            {"load": {"model": "a/b-2B", "adapter": "runs/dogs", "quantize": None}},
            ("The model of this page", "Model b-2B · adapter dogs"),
        ),
        (OFF, OFF, ("First run", "Second run")),
    ],
)
def test_runs_are_named_by_what_sets_them_apart(first, second, expected):
    assert names(first, second) == expected
