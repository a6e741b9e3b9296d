"""What the page does, without the page: sessions, stopping, memory, other models."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time

import pytest
from fake import FakeStudio

from vl3.webapp import chat_rows, widget_values
from vl3.webapp.errors import UserError

pytest_plugins = ["page_fixtures"]

READING = {"start": "", "end": "", "fps": 1.0, "max_frames": 64, "budget_tokens": 8192}
SETTINGS = {"max_new_tokens": 128, "temperature": 0.0, "prune": "model"}


def uploaded(controller, visitor, clip):
    path = controller.uploads.folder / "hash" / clip.name
    path.parent.mkdir(exist_ok=True)
    shutil.copyfile(clip, path)
    controller.choose_upload(visitor, str(path))
    for file in path.parent.iterdir():
        os.utime(file, (1e9, 1e9))
    return path


def test_closing_the_stream_midway_stops_the_studio(controller, clip):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    stream = controller.answer(visitor, SETTINGS)
    while "word" not in next(stream)[-1].answer:
        pass
    assert visitor.studio.running.is_set()
    stream.close()
    assert not visitor.studio.running.is_set()
    assert visitor.stop.is_set()
    assert visitor.working.acquire(blocking=False)


def test_a_second_run_ends_the_first(controller, clip):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    first = controller.answer(visitor, SETTINGS)
    next(first)
    controller.ask_again(visitor)
    assert list(first) == []
    assert visitor.waiting
    assert len(visitor.turns) == 1


def test_an_answer_that_another_question_ends_is_stopped_where_it_is(controller, clip):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    first = controller.answer(visitor, SETTINGS)
    while "word" not in next(first)[-1].answer:
        pass
    controller.ask(visitor, "And now?", [], READING, SETTINGS)
    assert list(first) == []
    assert [turn.status for turn in visitor.turns] == ["stopped", "working"]
    assert "(stopped)" in chat_rows.rows(visitor.turns)[1]["content"], (
        "how long it was is not known"
    )


def test_only_an_abandoned_turn_is_given_up(controller, clip):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    controller.mark_failed(visitor)
    assert visitor.is_busy, "it waits"
    stream = controller.answer(visitor, SETTINGS)
    next(stream)
    controller.mark_failed(visitor)
    assert visitor.is_busy, "it runs"
    stream.close()
    controller.mark_failed(visitor)
    assert visitor.turns[-1].status == "failed"


def test_leaving_waits_for_the_work_and_frees(controller, clip):
    controller.script.answer, controller.script.word_s = "word " * 500, 0.01
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    reader = threading.Thread(target=lambda: list(controller.answer(visitor, SETTINGS)))
    reader.start()
    while not visitor.studio.running.is_set():
        time.sleep(0.005)
    begin_s = time.monotonic()
    controller.visitors.leave("one")
    assert time.monotonic() - begin_s < 1
    assert not visitor.studio.running.is_set()
    assert visitor.studio.caches == set()
    reader.join(timeout=2)
    assert len(controller.visitors) == 0
    assert controller.visitors.get("one") is visitor, "who comes back soon finds the conversation"
    controller.visitors.leave("one")
    assert controller.visitors.sweep(left_s=0) == 1
    assert controller.visitors.get("one") is not visitor


def test_twenty_visitors_leave_nothing(controller, clip):
    for number in range(20):
        visitor = controller.visitors.get(f"key{number}")
        uploaded(controller, visitor, clip)
        controller.ask(visitor, "What?", [], READING, SETTINGS)
        list(controller.answer(visitor, SETTINGS))
        controller.visitors.leave(f"key{number}")
    assert len(controller.visitors) == 0
    assert controller.visitors.sweep(left_s=0) == 20
    assert controller.visitors.paths() == set()
    controller.uploads.trim(())
    forks = [entry[1] for entry in controller.script.log if entry[0] == "fork"]
    (_, *forks) = forks  # the first is the page's own, of which theirs are made
    assert len(forks) == 20
    assert all(fork.released and not fork.caches for fork in forks)


def test_the_idle_lose_their_caches_but_not_their_conversation(controller, clip):
    visitor = controller.visitors.get("one")
    uploaded(controller, visitor, clip)
    controller.ask(visitor, "What?", [], READING, SETTINGS)
    list(controller.answer(visitor, SETTINGS))
    assert visitor.studio.caches
    for _ in range(2):
        assert controller.visitors.sweep(idle_s=0) == 0
    assert visitor.studio.released == 1
    assert not visitor.studio.caches
    assert controller.visitors.get("one").turns[-1].status == "done"
    assert controller.visitors.sweep(forget_s=0) == 1


def test_a_file_in_use_outlives_the_limit(controller, clip, other_clip, tmp_path):
    controller.uploads._limit_bytes = 1
    one, two = controller.visitors.get("one"), controller.visitors.get("two")
    first = uploaded(controller, one, clip)
    second = uploaded(controller, two, other_clip)
    controller.clean_up()
    assert first.exists()
    assert second.exists()
    controller.visitors.leave("one")
    controller.visitors.sweep(left_s=0)
    controller.clean_up()
    assert not first.exists()
    assert second.exists()


def test_files_outside_the_folder_are_refused(controller, clip):
    visitor = controller.visitors.get("one")
    for path in ("/etc/passwd", str(clip), str(controller.uploads.folder / ".." / "x.mp4")):
        with pytest.raises(UserError, match="gone"):
            controller.choose_upload(visitor, path)
        with pytest.raises(UserError, match="gone"):
            controller.ask(visitor, "What?", [path], READING, SETTINGS)


def test_nobody_without_a_session():
    from vl3.webapp.sessions import SessionStore

    with pytest.raises(ValueError, match="no browser session"):
        SessionStore(lambda: FakeStudio()).get("")


def test_another_model_reaches_everybody_and_a_failure_keeps_the_old(controller, clip):
    visitor = controller.visitors.get("one")
    old = visitor.studio
    chosen = []

    def load(**options):
        chosen.append(options)
        if options["model"] == "broken":
            raise OSError("no such folder\nand much more")
        return FakeStudio(controller.script)

    controller.models.load = load
    controller.load("other", "nf4", "")
    assert chosen == [{"model": "other", "quantize": "nf4", "adapter": None}]
    new = controller.visitors.get("one").studio
    assert new is not old
    with pytest.raises(UserError, match="no such folder") as refused:
        controller.load("broken", "none", "")
    assert "much more" not in str(refused.value)
    assert controller.card["name"] == "fake"
    assert controller.visitors.get("one").studio is not None


def test_the_threshold_of_the_model_is_left_to_the_model(controller):
    own = controller.prune["threshold"]
    for prune, expected in (
        ({"threshold": own}, "model"),
        ({"threshold": own, "mode": "official", "keep": "earlier"}, "model"),
        ({"mode": "rlt", "keep": "later"}, controller.prune | {"mode": "rlt", "keep": "later"}),
        (None, None),
        ({"threshold": 5.0}, controller.prune | {"threshold": 5.0}),
    ):
        assert controller._as_model({**SETTINGS, "prune": prune})["prune"] == expected


def test_a_file_attached_twice_is_sent_once(controller, clip, other_clip):
    visitor = controller.visitors.get("one")
    path, other = (str(uploaded(controller, visitor, each)) for each in (clip, other_clip))
    controller.ask(visitor, "What?", [path, other, path], READING, SETTINGS)
    names = [item.name for item in visitor.turns[-1].attachments]
    assert names == [other_clip.name, clip.name]


def test_the_bundled_clips_become_examples(controller, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    shutil.copyfile(clip, folder / "a.mp4")
    entries = [{"file": "a.mp4", "title": "A", "questions": ["What?", "When?"]}]
    (folder / "examples.json").write_text(json.dumps(entries))
    controller.add_examples(folder)
    visitor = controller.visitors.get("one")
    controller.choose_example(visitor, 0)
    assert visitor.current.name == "a.mp4"
    assert controller.example_question(0, 1) == "When?"
    drawn = widget_values.gallery(controller.examples, 0)
    assert drawn["clips"][0]["questions"] == ["What?", "When?"]
    for index in (-1, 1, None, "0", 0.0):
        with pytest.raises(UserError):
            controller.choose_example(visitor, index)
    with pytest.raises(UserError):
        controller.example_question(0, 2)
    controller.uploads._limit_bytes = 0
    for file in controller.uploads.folder.rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    controller.visitors.leave("one")
    controller.visitors.sweep(left_s=0)
    controller.clean_up()
    assert len(list(controller.uploads.folder.rglob("a.mp4"))) == 1
