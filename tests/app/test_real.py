"""The page on a real model: the bundled nano, or a tiny random one of the same classes."""

from __future__ import annotations

import gc
import re
import shutil
import time
import weakref
from functools import partial
from pathlib import Path

import pytest
from serving import REPO, serving
from steps import answer, ask, expect, open_tab, toast, type_and_send, upload

import vl3
import vl3.video
from vl3.webapp import sessions
from vl3.webapp.controller import Controller
from vl3.webapp.uploads import Uploads

pytest_plugins = ["page_fixtures"]

NANO = REPO / "assets" / "nano"


@pytest.fixture(scope="module")
def studio(request):
    if (NANO / "config.json").is_file():
        return vl3.load(NANO, device="cpu", offline=True)
    return vl3.load(request.getfixturevalue("tiny_folder"), device="cpu", offline=True)


@pytest.fixture(scope="module")
def real(studio, upload_folder):
    from vl3.webapp import launch

    media = Uploads(upload_folder, vl3.video, 10**9)
    controller = Controller(lambda **chosen: studio, media, launch.refusals())
    with serving(controller) as running:
        yield running


@pytest.fixture(scope="module")
def talkative(tiny_folder, upload_folder):
    """The page on a random model, whose answers are long."""
    from vl3.webapp import launch

    media = Uploads(upload_folder, vl3.video, 10**9)
    random = vl3.load(tiny_folder, device="cpu", offline=True)
    with serving(Controller(lambda **chosen: random, media, launch.refusals())) as running:
        yield running


@pytest.fixture
def page(new_page, real):
    return new_page(real)


def settle(page, tokens: int) -> None:
    """Answers of at most that many tokens, so that a random model comes to an end."""
    page.locator(".sidebar .toggle-button").click()
    field = page.get_by_label("Max new tokens", exact=True)
    field.fill(str(tokens))
    field.press("Tab")
    page.locator(".sidebar .toggle-button").click()
    expect(field).not_to_be_in_viewport()


def test_the_answer_is_the_studios_and_the_second_reuses_the_video(page, clip, studio):
    settle(page, 12)
    upload(page, clip)
    planned = studio.plan(clip)
    expect(page.locator("#budget p")).to_contain_text(f"{planned.num_frames} frames of")
    shown = ask(page, "What happens in the video?")
    video = {"type": "video", "video": str(clip)}
    question = {"type": "text", "text": "What happens in the video?"}
    asked = [{"role": "user", "content": [video, question]}]
    expected = studio.new_session().reply(asked, max_new_tokens=12)
    assert re.sub(r"\s", "", expected.text) in re.sub(r"\s", "", shown.replace("\u200b", ""))
    open_tab(page, "Run details")
    details = page.locator("#panel-run")
    details.get_by_text("Show as table").click()
    row = details.get_by_role("row", name="Visual tokens before pruning")
    expect(row).to_contain_text(str(planned.num_tokens))
    ask(page, "What colour is it?", 2)
    expect(page.locator("#player .badge")).to_have_text("Video already encoded, reused")
    expect(details).to_contain_text("The video was in memory already")
    details.get_by_text("Show as table").click()
    expect(details.get_by_role("row", name="Clips encoded")).to_contain_text("0")
    expect(details.get_by_role("row", name="Clips reused")).to_contain_text("1")


def test_stop_is_quick_and_the_next_question_works(new_page, talkative, clip):
    page = new_page(talkative)
    settle(page, 3000)
    upload(page, clip)
    type_and_send(page, "Tell me everything you see")
    expect(page.locator("#chat .bot-row .stage")).to_have_count(0)
    begin_s = time.monotonic()
    page.locator("#ask .stop-button").click()
    text = answer(page)
    assert time.monotonic() - begin_s < 3
    assert re.search(r"\(stopped after \d+ tokens?\)", text)
    settle(page, 3)
    ask(page, "And now?", 2)


def test_closing_a_page_frees_its_clips_without_a_collection(studio, clip):
    fork = studio.new_session()
    video = fork.open(clip)
    held = weakref.ref(video.clip.frames_TYX3)
    question = [
        {
            "role": "user",
            "content": [
                {"type": "video", "video": str(clip)},
                {"type": "text", "text": "What happens?"},
            ],
        }
    ]
    fork.reply(question, max_new_tokens=2)
    del video
    collections = []
    gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
    try:
        assert held() is not None
        fork.release()
        assert held() is None, "a cycle keeps it"
        assert fork.cached_bytes == 0
    finally:
        gc.callbacks.pop()
    assert 2 not in collections


def test_a_model_is_taken_out_of_collections_and_gone_when_replaced(tiny_folder):
    people = sessions.SessionStore(lambda: vl3.load(tiny_folder, device="cpu", offline=True))
    sessions.settle()
    begun_s = time.process_time()
    gc.collect()
    assert time.process_time() - begun_s < 0.2
    old = weakref.ref(people.studio.model)
    people.replace_studio(lambda: vl3.load(tiny_folder, device="cpu", offline=True))
    assert old() is None
    assert gc.get_freeze_count() > 10_000
    gc.unfreeze()


@pytest.mark.slow
def test_real_media(new_page, real, request):
    media = request.getfixturevalue("shared") / "media"
    page = new_page(real)
    settle(page, 6)
    for number, name in enumerate(("sample_demo_9.mp4", "output_v_3V9tzjyr51I.mp4"), 1):
        upload(page, media / name)
        ask(page, "What happens in the video?", number)
    upload(page, media / "waterview.jpg")
    expect(page.locator("#budget p")).to_contain_text("Image of")
    ask(page, "What is this?", 3)
    page.locator("#drop input[type=file]").set_input_files(
        str(media / "door_of_bar_raining2_8s.wav")
    )
    assert toast(page)


def test_a_prompt_beyond_the_context_is_refused_in_words(page, clip):
    settle(page, 12)
    upload(page, clip)
    type_and_send(page, "word " * 3900)
    text = toast(page)
    assert "Video too long for this setting" in text
    page.get_by_role("button", name="Clear conversation", exact=True).click()
    ask(page, "Short?")


def test_every_door_gives_the_same_text(real, clip, studio):
    client_module = pytest.importorskip("gradio_client")
    client = client_module.Client(real.url, verbose=False)
    text = client.predict(
        client_module.handle_file(str(clip)),
        "What happens in the video?",
        2.0,
        6,
        max_new_tokens=9,
        api_name="/ask",
    )
    video = {"type": "video", "video": {"path": str(clip), "fps": 2.0, "max_frames": 6}}
    question = {"type": "text", "text": "What happens in the video?"}
    asked = [{"role": "user", "content": [video, question]}]
    assert text == studio.new_session().reply(asked, max_new_tokens=9).text
    assert Path(clip).is_file()


@pytest.mark.slow
def test_another_model_is_loaded_and_a_wrong_one_is_refused(new_page, tiny_folder, upload_folder):
    from vl3.webapp import launch

    media = Uploads(upload_folder, vl3.video, 10**9)
    load = partial(vl3.load, device="cpu", offline=True)
    controller = Controller(load, media, launch.refusals(), model=str(tiny_folder))
    with serving(controller) as running:
        page = new_page(running)
        page.locator(".sidebar .toggle-button").click()
        name = page.locator("#settings").get_by_label("Model", exact=True)
        name.fill("DAMO-NLP-SG/VideoLLaMA3-7B")
        expect(page.locator("#estimate")).to_contain_text("About 16.1 GB for the weights")
        name.fill("/nowhere/at/all")
        expect(page.locator("#estimate")).to_contain_text("Memory unknown")
        page.get_by_role("button", name="Load", exact=True).click()
        assert "Cannot load this model" in toast(page)
        facts = page.locator("#header .facts")
        expect(facts).to_contain_text(tiny_folder.name)
        copy = tiny_folder.with_name("another")
        shutil.copytree(tiny_folder, copy, dirs_exist_ok=True)
        name.fill(str(copy))
        page.get_by_role("button", name="Load", exact=True).click()
        expect(facts).to_contain_text("another")
        page.close()  # what follows the loading would find no server
