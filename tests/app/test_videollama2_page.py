"""The page on VideoLLaMA 2: it answers, shows and says what this model does not have."""

import json
from pathlib import Path

import pytest
from clips import noise_clip, write_clip
from PIL import Image
from videollama2_folders import write_release

import vl3
import vl3.video
from vl3.settings import PruneSettings
from vl3.webapp import launch, tabs
from vl3.webapp.controller import Controller
from vl3.webapp.uploads import Uploads
from vl3.webapp.widget_values import film_strip_value

READING = {"start": "", "end": "", "fps": 1.0, "max_frames": None, "budget_tokens": None}
SETTINGS = {"max_new_tokens": 4, "prune": "model"}


@pytest.fixture(scope="module", params=["7B", "2.1-7B-16F"])
def studio(request, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("release")
    return vl3.load(write_release(tmp / "checkpoint", request.param, tmp).folder)


@pytest.fixture
def controller(studio, tmp_path):
    return Controller(
        lambda **chosen: studio, Uploads(tmp_path, vl3.video, 10**9), launch.refusals()
    )


def test_the_page_is_built_for_a_model_that_prunes_nothing(controller):
    demo = launch.build(controller)
    fields = {block.label: block for block in demo.blocks.values() if hasattr(block, "label")}
    assert fields["Max frames"].value == controller.card["defaults"]["max_frames"]
    assert fields["Threshold"].value == PruneSettings().threshold


def visitor_of(controller, name: str, make) -> object:
    """Somebody who asked about a file."""
    path = controller.uploads.folder / "hash" / name
    path.parent.mkdir()
    make(path)
    one = controller.visitors.get("one")
    controller.choose_upload(one, str(path))
    controller.budget(one, READING, SETTINGS)
    controller.ask(one, "What happens?", [], READING, SETTINGS)
    list(controller.answer(one, SETTINGS))
    return one


@pytest.fixture
def about_a_film(controller):
    return visitor_of(controller, "film.mp4", lambda path: write_clip(path, 40, fps=10))


@pytest.fixture
def about_a_picture(controller):
    pixels = noise_clip(1, frames=1).frames_TYX3[0]
    return visitor_of(controller, "photo.png", lambda path: Image.fromarray(pixels).save(path))


def shown(controller, visitor, tab) -> dict:
    tabs.opened(visitor, tab)
    return list(tabs.draw_tab(controller, visitor, None))[-1]


def drawn(controller, visitor, tab) -> dict:
    value = shown(controller, visitor, tab)
    return json.loads(Path(value["url"].removeprefix("gradio_api/file=")).read_text())


def test_a_film_is_answered_and_the_budget_counts_its_tokens(controller, about_a_film, studio):
    (turn,) = about_a_film.turns
    frames = studio.settings.max_frames
    tokens = 45 if frames == 8 else 32
    assert (turn.status, turn.reply.ledger.frames) == ("done", frames)
    assert turn.reply.ledger.visual_tokens == tokens
    told = controller.budget(about_a_film, READING, SETTINGS)
    assert told.text.startswith(f"{frames} frames of 4 × 4 patches · {tokens} tokens")
    assert told.state == "fits"


def test_the_tabs_say_what_there_is_not(controller, about_a_film):
    assert shown(controller, about_a_film, "pruning")["note"].startswith("Nothing is pruned with")
    assert shown(controller, about_a_film, "positions")["note"] == (
        "This model has no 2D-RoPE: its vision tower adds a learned vector to each of its 4 x 4 "
        "places, so that there are no angles to draw."
    )


def test_the_tabs_show_attention_and_the_run(controller, about_a_film, studio):
    frames, tokens = studio.settings.max_frames, about_a_film.turns[0].reply.seen[0].num_tokens
    attention = drawn(controller, about_a_film, "attention")
    assert attention["media"][0]["frames"] == frames
    assert attention["sizes"]["slots"] == tokens
    assert (attention["sizes"]["vision_layers"], attention["sizes"]["vision_heads"]) == (2, 4)
    pieces = drawn(controller, about_a_film, "run")["pieces"]
    slots = [each for each in pieces if each["kind"] == "slots"]
    assert sum(each["tokens"] for each in slots) == tokens
    assert sum(each["frames"] for each in slots) == frames
    saved = tabs.page(controller, about_a_film, None)
    assert "film" in saved["name"]


def test_the_browser_gets_the_maps_that_it_asks_for(controller, about_a_film):
    value = shown(controller, about_a_film, "attention")
    for need in (
        {"source": "language", "token": 1, "layer": 0},
        {"source": "vision", "token": 5, "layer": 1},
        {"source": "rollout", "token": 0},
        {"source": "relevancy", "token": 0},
    ):
        found = tabs.maps(controller, need | {"of": value["url"]})
        assert "problem" not in found, found
        assert found["source"] == need["source"]


def test_the_film_strip_says_that_every_frame_is_there(about_a_film):
    strip = film_strip_value(about_a_film, about_a_film.current)
    assert {cell["share"] for cell in strip["cells"]} == {1.0}
    assert len(strip["times_s"]) == about_a_film.current.plan.num_frames


def test_a_picture_is_one_picture_in_every_view(controller, about_a_picture, studio):
    (turn,) = about_a_picture.turns
    tokens = 45 if studio.settings.max_frames == 8 else 32
    assert (turn.status, turn.reply.ledger.visual_tokens) == ("done", tokens)
    told = controller.budget(about_a_picture, READING, SETTINGS)
    assert told.text.startswith(f"Image of 4 × 4 patches · {tokens} tokens")
    attention = drawn(controller, about_a_picture, "attention")
    assert [medium["frames"] for medium in attention["media"]] == [1]
    pieces = drawn(controller, about_a_picture, "run")["pieces"]
    assert [each["tokens"] for each in pieces if each["kind"] == "slots"] == [tokens]
    assert "photo" in tabs.page(controller, about_a_picture, None)["name"]


def test_two_runs_are_compared(controller, about_a_film):
    answers = [{"max_new_tokens": 3, "prune": "model"}, {"max_new_tokens": 2, "prune": "model"}]
    values = list(tabs.compare(controller, about_a_film, "", READING, answers, (None, None), ""))
    assert "url" in values[-1]


def test_a_link_shows_the_answer_again(controller, about_a_film):
    other = controller.visitors.get("two")
    controller.open(other, controller.share(about_a_film), None)
    assert other.turns[-1].reply == about_a_film.turns[-1].reply
