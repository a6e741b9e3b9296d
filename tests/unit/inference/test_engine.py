"""One model, several answers at once: turns in order, nobody held up, nobody's answer changed."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from clips import write_clip

import vl3
from vl3.inference import generation, reply
from vl3.inference.engine import Stopped
from vl3.values import Progress, Reply


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("engine") / "film.mp4", 32, 4, size=(64, 64))


@pytest.fixture
def sessions(studio):
    return [studio.new_session() for _ in range(3)]


def ask(film, text="What is this?", **options):
    shown = {"type": "video", "video": {"path": str(film), "max_frames": 6, **options}}
    return [{"role": "user", "content": [shown, {"type": "text", "text": text}]}]


def test_a_reader_that_does_not_read_on_holds_up_nobody(studio, film, tmp_path):
    other = write_clip(tmp_path / "other.mp4", 8, 4, size=(64, 64))
    alone = studio.new_session().reply(ask(film), max_new_tokens=20)
    stream = studio.stream(ask(film), max_new_tokens=20)
    for kind in ("reading", "encoding", "answering"):
        next(e for e in stream if isinstance(e, Progress) and e.kind == kind)
        with ThreadPoolExecutor(1) as pool:  # from another thread and session, and from this one
            beside = pool.submit(studio.new_session().reply, ask(other), max_new_tokens=3)
            assert beside.result(timeout=20).ledger.new_tokens == 3
    next(e for e in stream if isinstance(e, str))
    assert len(studio.open(other, max_frames=2).clip) == 2
    assert studio.reply(ask(film, "And now?"), max_new_tokens=3).ledger.new_tokens == 3
    assert not studio.engine.is_busy
    *_, last = stream
    assert last.token_ids == alone.token_ids


def test_answers_are_the_same_whatever_is_answered_beside_them(sessions, film):
    settings = [
        {"max_new_tokens": 12, "temperature": 1.0, "seed": 3},
        {"max_new_tokens": 12},
        {"max_new_tokens": 5, "prune": None},
    ]
    asked = [ask(film, text) for text in ("What?", "Who is it?", "When does it begin?")]

    def said(number):
        return sessions[number].reply(asked[number], **settings[number]).token_ids

    alone = [said(number) for number in range(3)]
    for session in sessions:
        session.release()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(said, range(3))) == alone
    for session in sessions:
        session.release()
    # Token by token, read by turns in one thread.
    streams = [
        session.stream(messages, **chosen)
        for session, messages, chosen in zip(sessions, asked, settings)
    ]
    replies = {}
    while len(replies) < 3:
        for number, stream in enumerate(streams):
            event = next(stream, None)
            if isinstance(event, Reply):
                replies[number] = event.token_ids
    assert [replies[number] for number in range(3)] == alone


def test_one_session_answers_two_questions_at_once(studio, film):
    asked = [ask(film, text) for text in ("What?", "And who is it?")]
    alone = [studio.new_session().reply(each, max_new_tokens=8).token_ids for each in asked]
    with closing(studio.stream(asked[0], max_new_tokens=8)) as first:
        next(piece for piece in first if isinstance(piece, str))
        assert studio.reply(asked[1], max_new_tokens=8).token_ids == alone[1]
        *_, last = first
    assert last.token_ids == alone[0]
    assert studio.reply(asked[1], max_new_tokens=8).ledger.reused_tokens > 0


def test_a_long_answer_lets_a_short_one_through(sessions, film, monkeypatch):
    long, short = sessions[:2]
    for session in (long, short):
        session.open(film, max_frames=6)
    monkeypatch.setattr(reply, "end_tokens", lambda model, processor: frozenset())
    at_work, step = [], generation._step

    def noting(*inputs):
        at_work.append(threading.current_thread().name)
        return step(*inputs)

    monkeypatch.setattr(generation, "_step", noting)
    ended = threading.Event()
    settings = {"max_new_tokens": 4000, "stop": ended}
    writer = threading.Thread(target=lambda: list(long.stream(ask(film), **settings)), name="long")
    writer.start()
    while len(at_work) < 10:
        time.sleep(0.005)
    short.reply(ask(film), max_new_tokens=20)
    ended.set()
    writer.join()
    me = threading.current_thread().name
    first, last = at_work.index(me), len(at_work) - at_work[::-1].index(me)
    assert 10 < at_work[first:last].count("long") < 40, "by turns: about one of each"


def test_turns_come_in_the_order_in_which_they_are_asked_for(studio):
    engine, came = studio.engine, []
    begun = [threading.Event() for _ in range(4)]

    def work(number):
        begun[number].set()
        with engine.turn():
            came.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with engine.turn():
        for thread, event in zip(threads, begun):
            thread.start()
            event.wait()
            time.sleep(0.02)
        assert came == []
    for thread in threads:
        thread.join()
    assert came == [0, 1, 2, 3]
    assert not engine.is_busy


def test_whoever_waits_can_stop_and_leaves_the_line(studio, film):
    stop = threading.Event()
    with studio.engine.turn():
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(studio.new_session().reply, ask(film), stop=stop)
            time.sleep(0.1)
            assert not waiting.done()
            pressed_s = time.monotonic()
            stop.set()
            last = waiting.result(timeout=10)
        assert time.monotonic() - pressed_s < 0.3
        assert last.stopped
        assert last.text == ""
    assert not studio.engine.is_busy


def test_an_answer_that_is_forgotten_gives_everything_back(studio, film):
    session = studio.new_session()
    stream = session.stream(ask(film), max_new_tokens=400)
    next(piece for piece in stream if isinstance(piece, str))
    del stream
    gc.collect()
    assert not studio.engine.is_busy
    again = session.reply(ask(film), max_new_tokens=2).ledger
    assert again.reused_tokens > 0, "and what it had read is there for the next question"


def test_a_stop_ends_its_own_answer_and_no_other(sessions, film):
    """Passes of others run while one waits in the middle of a clip; its stop is not theirs."""
    stop, first = (
        threading.Event(),
        sessions[0].stream(ask(film), stop=(ended := threading.Event())),
    )
    next(e for e in first if isinstance(e, Progress) and e.kind == "encoding")
    ended.set()
    other = sessions[1].reply(ask(film), max_new_tokens=4, stop=stop)
    assert not other.stopped
    assert other.ledger.new_tokens == 4
    *_, last = first
    assert last.stopped


def test_a_callback_may_ask_questions_of_its_own(studio, film):
    session, told = studio.new_session(), []

    def on_stage(stage):
        if stage.kind == "encoding" and not told:
            told.append(studio.new_session().reply(ask(film), max_new_tokens=2).token_ids)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(session.open, film, max_frames=6, on_stage=on_stage).result(timeout=30)
    assert told == [studio.new_session().reply(ask(film), max_new_tokens=2).token_ids]


def test_what_is_answered_while_all_is_released_leaves_nothing_behind(studio, film):
    session = studio.new_session()
    stream = session.stream(ask(film), max_new_tokens=6)
    next(piece for piece in stream if isinstance(piece, str))
    session.release()
    *_, last = stream
    assert last.token_ids == studio.new_session().reply(ask(film), max_new_tokens=6).token_ids
    assert session.cached_bytes == 0


def test_a_turn_that_is_paused_goes_to_the_end_of_the_line(studio):
    engine, came = studio.engine, []

    def other():
        with engine.turn():
            came.append("other")

    with engine.turn() as turn:
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.05)
        with turn.paused():
            came.append("paused")
            thread.join(timeout=5)
        came.append("on")
    assert came == ["paused", "other", "on"]
    stop = threading.Event()
    with pytest.raises(Stopped), engine.turn(stop.is_set) as turn, turn.paused():
        stop.set()
    assert not engine.is_busy
    hooked = [*studio.model.vision.blocks, *studio.model.language.model.layers]
    assert not any(layer._forward_pre_hooks for layer in hooked)


@pytest.mark.parametrize("looks", [1, 2])
def test_whoever_is_interrupted_while_waiting_leaves_the_line(studio, looks):
    """As Ctrl-C in a notebook does, or a stop of a caller's that raises."""
    engine, left = studio.engine, [looks]

    def interrupted():
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return False

    with engine.turn(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: engine.turn(interrupted).__enter__())
        with pytest.raises(KeyboardInterrupt):
            waiting.result(timeout=10)
    assert not engine.is_busy


def test_whoever_is_interrupted_as_the_turn_begins_gives_it_back(studio, monkeypatch):
    def interrupted(language):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr("vl3.inference.engine.decoder_layers", interrupted)
        with pytest.raises(KeyboardInterrupt), studio.engine.turn():
            pass
    assert not studio.engine.is_busy
