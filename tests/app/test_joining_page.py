"""The page on a model whose connector joins frames: it answers, shows, and prunes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clips import write_clip

import vl3
import vl3.video
from vl3.webapp import budget, launch, tabs
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError
from vl3.webapp.text_format import over_limit
from vl3.webapp.uploads import Uploads
from vl3.webapp.widget_values import film_strip_value

READING = {"start": "", "end": "", "fps": None, "max_frames": None, "budget_tokens": None}
PRUNE = {"mode": "official", "threshold": 3.0, "keep": "earlier"}
SETTINGS = {"max_new_tokens": 4, "prune": PRUNE}


@pytest.fixture
def controller(joining_folder, tmp_path):
    studio = vl3.load(joining_folder)
    return Controller(
        lambda **chosen: studio, Uploads(tmp_path, vl3.video, 10**9), launch.refusals()
    )


@pytest.fixture
def visitor(controller):
    """Somebody who asked about a clip of five frames."""
    path = controller.uploads.folder / "hash" / "film.mp4"
    path.parent.mkdir()
    write_clip(path, 5, fps=1)
    one = controller.visitors.get("one")
    controller.choose_upload(one, str(path))
    controller.budget(one, READING, SETTINGS)
    controller.ask(one, "What happens?", [], READING, SETTINGS)
    list(controller.answer(one, SETTINGS))
    return one


def shown(controller, visitor, tab, rule=None) -> dict:
    tabs.opened(visitor, tab)
    return list(tabs.draw_tab(controller, visitor, rule))[-1]


def drawn(controller, visitor, tab) -> dict:
    value = shown(controller, visitor, tab)
    return json.loads(Path(value["url"].removeprefix("gradio_api/file=")).read_text())


def test_whoever_asks_for_pruning_is_answered_and_told_in_the_same_words(controller, visitor):
    why = visitor.studio.card["unpruned"]
    (turn,) = visitor.turns
    assert (turn.status, turn.reply.settings["prune"]) == ("done", None)
    assert why.startswith("Nothing is pruned with this model")
    assert shown(controller, visitor, "pruning", PRUNE) == {"note": why}
    assert controller.rule(PRUNE) is controller.rule("model") is None
    budget = controller.budget(visitor, READING, SETTINGS)
    assert budget.notes[-1] == why
    assert budget.pruned == ""
    assert f"{turn.reply.ledger.visual_tokens} tokens" in budget.text
    assert why not in controller.budget(visitor, READING, {**SETTINGS, "prune": None}).notes


def test_the_tabs_show_tokens_of_two_frames(controller, visitor):
    reply = visitor.turns[-1].reply
    steps = reply.seen[0].kept_per_step
    assert len(steps) == 3
    language = drawn(controller, visitor, "positions")["language"]
    assert (language["tokens"], language["steps"]) == (steps[0], [0, 0, 1, 1, 2])
    attention = drawn(controller, visitor, "attention")
    assert attention["sizes"]["slots"] == sum(steps)
    assert attention["media"][0]["frames"] == 5
    pieces = [
        each for each in drawn(controller, visitor, "run")["pieces"] if each["kind"] == "slots"
    ]
    assert [(each["frame"], each["frames"]) for each in pieces] == [(0, 2), (2, 2), (4, 1)]
    saved = tabs.page(controller, visitor, None)
    assert "film" in saved["name"]


def test_the_film_strip_says_that_every_frame_is_there(controller, visitor):
    strip = film_strip_value(visitor, visitor.current)
    assert strip["kept"] == (strip["tokens"],) * 5
    assert {cell["share"] for cell in strip["cells"]} == {1.0}


def test_two_runs_are_compared(controller, visitor):
    answers = [{"max_new_tokens": 3, "prune": prune} for prune in ("model", PRUNE)]
    values = list(tabs.compare(controller, visitor, "", READING, answers, (None, None), ""))
    assert "url" in values[-1]


def test_a_link_shows_the_answer_again(controller, visitor):
    other = controller.visitors.get("two")
    controller.open(other, controller.share(visitor), None)
    assert other.turns[-1].reply == visitor.turns[-1].reply
    assert attention_of(controller, other) == attention_of(controller, visitor)


def attention_of(controller, visitor):
    return drawn(controller, visitor, "attention")["mean"]


def test_what_is_too_long_is_not_blamed_on_the_threshold(controller, visitor, monkeypatch):
    plan = visitor.current.plan
    grid = replace(plan.grid, frames=10_000)
    long = replace(plan, grid=grid, tokens=visitor.studio.settings.tokens_of(grid))
    visitor.turns = []
    item = replace(visitor.current, plan=long)
    monkeypatch.setattr(budget, "planned", lambda *_: item)
    with pytest.raises(UserError, match="or shorten the clip"):
        controller.ask(visitor, "What?", [], READING, SETTINGS)
    assert controller.budget(visitor, READING, SETTINGS).text == over_limit(
        long.num_tokens, controller.room(4), prunes=False
    )
