"""Who waits for the model, and what a crowd gets."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import load
import pytest

from vl3.webapp import text_format
from vl3.webapp.errors import UserError
from vl3.webapp.line import Line

pytest_plugins = ["page_fixtures"]


def run(coroutine):
    """Its result, from a thread of its own: where a browser runs, this one has a loop already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


class Waiter(threading.Thread):
    """Somebody in a line, who keeps the turn until told to go."""

    def __init__(self, line: Line, alone: bool = False) -> None:
        super().__init__(daemon=True)
        self.line, self.alone, self.told = line, alone, []
        self.has_turn, self.go, self.gave_up = threading.Event(), threading.Event(), False
        self.start()

    def run(self) -> None:
        with self.line.place(self.alone) as place:
            for before in place.wait(lambda: self.gave_up):
                self.told.append(before)
            if not self.gave_up:
                self.has_turn.set()
                self.go.wait(10)


def eventually(what) -> None:
    deadline_s = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def crowd(line: Line, count: int) -> list[Waiter]:
    people = []
    for number in range(count):
        people.append(Waiter(line))
        eventually(lambda number=number: len(line) == number + 1)
    return people


def test_each_is_told_how_many_are_before_and_comes_in_order():
    line = Line()
    first, second, third, fourth = people = crowd(line, 4)
    eventually(lambda: [each.told for each in people] == [[], [1], [2], [3]])
    third.gave_up = True
    line.nudge()
    eventually(lambda: fourth.told == [3, 2])
    assert first.has_turn.wait(10)
    assert not second.has_turn.is_set()
    first.go.set()
    assert second.has_turn.wait(10)
    eventually(lambda: fourth.told == [3, 2, 1])
    second.go.set()
    assert fourth.has_turn.wait(10)
    fourth.go.set()
    eventually(lambda: len(line) == 0)


def test_some_have_their_turn_together_and_one_who_wants_it_alone_has_it_alone():
    line = Line(lambda: 2)
    first, second, third = crowd(line, 3)
    assert first.has_turn.wait(10)
    assert second.has_turn.wait(10)
    loading = Waiter(line, alone=True)
    eventually(lambda: len(line) == 4)
    later = Waiter(line)
    eventually(lambda: [third.told, loading.told, later.told] == [[2], [3], [4]])
    second.go.set()
    assert third.has_turn.wait(10)
    eventually(lambda: loading.told == [3, 2] and later.told == [4, 3])
    third.go.set()
    eventually(lambda: loading.told == [3, 2, 1] and later.told == [4, 3, 2])
    assert not (loading.has_turn.is_set())
    assert not (later.has_turn.is_set())
    first.go.set()
    assert loading.has_turn.wait(10)
    eventually(lambda: later.told == [4, 3, 2, 1])
    assert not later.has_turn.is_set()
    loading.go.set()
    assert later.has_turn.wait(10)
    later.go.set()
    eventually(lambda: len(line) == 0)


def test_a_line_that_is_too_long_is_said_and_takes_people_again():
    line = Line(most=2)
    people = crowd(line, 3)
    for refused in (line.check, line.place().__enter__):
        with pytest.raises(UserError, match=r"^2 people are waiting for an answer already\."):
            refused()
    people[0].go.set()
    eventually(lambda: len(line) == 2)
    line.check()
    for each in people:
        each.go.set()


def test_a_line_that_is_closed_holds_nobody():
    line = Line()
    people = crowd(line, 3)
    people[0].go.set()
    line.close()
    for each in people:
        each.go.set()
        each.join(10)
    assert len(line) == 0


def test_places_are_told_in_words():
    assert text_format.before(1) == "1 person is before you."
    assert text_format.before(3) == "3 people are before you."


def test_a_crowd_loses_no_event_and_is_answered_or_told_its_place(server, script):
    script.answer, script.word_s = "It is a red circle that moves.", 0.02
    seen = run(load.people(server.url, count=8, seconds=8))
    assert seen.problems == {}
    assert seen.counts["light events"] > 50
    assert 0 < seen.counts["answered"] == seen.counts["questions"]
    eventually(lambda: len(server.controller.line) == 0)


@pytest.mark.slow
def test_as_many_as_have_room_are_answered_together(server, script):
    async def asked(count: int) -> load.Seen:
        seen, clip = load.Seen(), load.CLIP.read_bytes()
        people = [load.Person(server.url, seen, clip) for _ in range(count)]
        for each in people:
            await each.open()
            await each.upload()
        await asyncio.gather(*(each.ask() for each in people))
        await asyncio.gather(*(each.leave() for each in people))
        return seen

    script.answer, script.word_s, script.at_once = "It is a red circle that moves.", 0.2, 2
    assert run(asked(2)).counts["told their place"] == 0
    assert run(asked(3)).counts["told their place"] == 1
    script.at_once = 1
    assert run(asked(2)).counts["told their place"] == 1


def test_a_hundred_events_at_once_are_all_answered(server, script):
    async def hurry() -> int:
        person = load.Person(server.url, load.Seen(), load.CLIP.read_bytes())
        await person.open()
        event = person.page.event("saver", "copied")
        body = {"data": [], "fn_index": event["id"], "session_hash": person.session}
        join = [person.client.post("/gradio_api/queue/join", json=body) for _ in range(100)]
        assert {answer.status_code for answer in await asyncio.gather(*join)} == {200}
        address, done = f"/gradio_api/queue/data?session_hash={person.session}", 0
        async with person.client.stream("GET", address) as messages:
            async for line in messages.aiter_lines():
                done += '"process_completed"' in line and '"success":true' in line
        await person.leave()
        return done

    assert run(hurry()) == 100
