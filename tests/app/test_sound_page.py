"""The page on a model with an ear: sounds by themselves, tracks of videos, none and broken ones."""

import base64
import json
import re
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from serving import serving
from sounds import tone, write_film, write_sound
from steps import ask, expect, open_tab, serious, toast, upload

import vl3
import vl3.audio
import vl3.video
from vl3.sound import RATE_HZ
from vl3.viz import attention
from vl3.webapp import chat_rows, form, launch, run_details, strips, tabs, transcript, without
from vl3.webapp.compare import run_both, view
from vl3.webapp.controller import Controller
from vl3.webapp.errors import UserError
from vl3.webapp.uploads import Uploads
from vl3.webapp.widget_values import player

pytest_plugins = ["page_fixtures"]

READING = {"start": "", "end": "", "fps": 1.0, "max_frames": None, "budget_tokens": None}
SETTINGS = {"max_new_tokens": 4, "prune": "model", "sound": True}
LOW = tone(3, RATE_HZ, 300)


@pytest.fixture(scope="module")
def studio(hearing_folder):
    return vl3.load(hearing_folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    write_sound(folder / "low.wav", LOW, RATE_HZ)
    write_film(folder / "low.mp4", [(0.0, LOW)], RATE_HZ, seconds=3)
    write_film(folder / "silent.mp4", [], seconds=3)
    torn = (folder / "low.wav").read_bytes()[:40]
    (folder / "torn.wav").write_bytes(torn)
    return folder


def on(studio, folder) -> Controller:
    media = Uploads(folder, vl3.video, 10**9, vl3.audio)
    return Controller(lambda **chosen: studio, media, launch.refusals())


@pytest.fixture
def controller(studio, tmp_path):
    studio.release()
    return on(studio, tmp_path)


def put(controller, file: Path) -> str:
    """The file as an upload."""
    path = controller.uploads.folder / file.stem / file.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(file.read_bytes())
    return str(path)


def chosen(controller, file: Path, **settings):
    """Somebody who chose the file, and its budget line."""
    one = controller.visitors.get("one")
    controller.choose_upload(one, put(controller, file))
    return one, controller.budget(one, READING, {**SETTINGS, **settings})


def asked(controller, file: Path, **settings):
    one, _ = chosen(controller, file, **settings)
    controller.ask(one, "What is it?", [], READING, {**SETTINGS, **settings})
    list(controller.answer(one, {**SETTINGS, **settings}))
    return one


def drawn(controller, visitor, tab) -> dict:
    tabs.opened(visitor, tab)
    value = list(tabs.draw_tab(controller, visitor, None))[-1]
    if "url" not in value:
        return value
    return json.loads(Path(value["url"].removeprefix("gradio_api/file=")).read_text())


def test_a_sound_is_measured_before_the_run_and_asked_about(controller, files):
    one, line = chosen(controller, files / "low.wav")
    assert one.current.kind == "audio"
    assert one.current.facts == ("low.wav", "3.0 s", "pcm_s16le", "16 kHz", "mono")
    assert re.match(r"Sound of 3.0 s · 38 tokens of sound, of [\d\xa0]+ that fit", line.text)
    controller.ask(one, "What is it?", [], READING, SETTINGS)
    list(controller.answer(one, SETTINGS))
    (turn,) = one.turns
    assert (turn.status, turn.reply.ledger.sound_tokens) == ("done", 38)
    assert chat_rows.captions(turn) == ["low.wav · 0:00–0:03 · 38 tokens of sound"]
    rows = dict(run_details.rows(turn))
    assert rows["Sound"] == "pcm_s16le, 16 kHz, 16 bits, mono"
    assert rows["Tokens of sound"] == "38"
    python, shell = [block["text"] for block in _blocks(controller, one)[1:]]
    assert "{'type': 'audio', 'audio': 'low.wav'}" in python
    assert "--audio low.wav" in shell
    (item,) = json.loads(transcript.as_json(one.turns, controller.card))["turns"][0]["attachments"]
    assert (item["kind"], item["sound_tokens"]) == ("audio", 38)


def _blocks(controller, visitor) -> list[dict]:
    return run_details.blocks([], visitor.turns[-1], controller.card, controller.prune)


def test_a_range_of_a_sound_costs_its_part(controller, files):
    one, _ = chosen(controller, files / "low.wav")
    line = controller.budget(one, {**READING, "start": "0:01", "end": "0:02"}, SETTINGS)
    assert re.match(r"Sound of 1.0 s · 1[23] tokens of sound", line.text)
    assert one.current.part()["start"] == 1.0
    assert one.current.caption.startswith("0:01–0:02")


def test_a_video_names_its_tokens_of_sound_and_a_switch_takes_them_away(controller, files):
    one, line = chosen(controller, files / "low.mp4")
    assert line.text.endswith("· 38 tokens of sound")
    line = controller.budget(one, READING, {**SETTINGS, "sound": False})
    assert "of sound" not in line.text
    one = asked(controller, files / "low.mp4", sound=False)
    (turn,) = one.turns
    assert turn.reply.ledger.sound_tokens == 0
    assert turn.reply.settings["sound"] is False
    python, shell = [block["text"] for block in _blocks(controller, one)[1:]]
    assert "sound=False" in python
    assert "--no-sound" in shell


def test_a_video_without_sound_says_so(controller, files):
    one, line = chosen(controller, files / "silent.mp4")
    assert "of sound" not in line.text
    assert "The video has no sound." in line.notes
    strips.make(one, controller.uploads, True)
    assert one.current.sound is None


def test_more_sound_than_fits_is_refused_by_arithmetic(controller, files):
    _, line = chosen(controller, files / "low.wav", max_new_tokens=controller.context_tokens - 20)
    assert (line.state, line.text) == (
        "over",
        "38 tokens of sound exceed the limit 20. Shorten the sound.",
    )


def test_the_strip_is_made_once_and_is_the_visitors_own(controller, files):
    one, _ = chosen(controller, files / "low.mp4")
    assert player(one)["sound"] == ""
    strips.make(one, controller.uploads, True)
    path = Path(one.current.sound)
    made = path.stat().st_mtime_ns
    assert str(path) in one.paths()
    assert player(one)["sound"].endswith(path.name)
    assert json.loads(path.read_text())["axis_s"][1] == pytest.approx(3.0, abs=0.05)
    one.current = None
    controller.choose_upload(one, put(controller, files / "low.mp4"))
    controller.budget(one, READING, SETTINGS)
    strips.make(one, controller.uploads, True)
    assert Path(one.current.sound).stat().st_mtime_ns == made


def test_tabs_of_a_sound(controller, files):
    one = asked(controller, files / "low.wav")
    for tab in ("pruning", "positions"):
        assert drawn(controller, one, tab)["note"].startswith("This file is sound alone.")
    run = drawn(controller, one, "run")
    assert [piece["tokens"] for piece in run["pieces"] if piece["kind"] == "sound"] == [38]
    assert {"name": "Hearing sound", "time_s": run["stages"][2]["time_s"]} == run["stages"][2]


def test_attention_of_an_answer_says_where_it_listened(controller, files):
    one = asked(controller, files / "low.mp4")
    data = drawn(controller, one, "attention")
    reply = one.turns[-1].reply
    words = len(reply.token_ids)
    split = _unpacked(data["split"], np.float32).reshape(words, 3)
    np.testing.assert_allclose(split.sum(axis=1), 1, atol=1e-6)
    (sound,) = data["sounds"]
    spans = _unpacked(sound["spans"], np.float32).reshape(-1, 2)
    assert len(spans) == 38
    tops, levels = _unpacked(sound["tops"], np.float32), _unpacked(sound["levels"], np.uint8)
    given = attention.restored(tops, levels.reshape(words, -1)).sum(axis=1)
    np.testing.assert_allclose(given, split[:, 0], rtol=0.03)
    assert sound["strip"]["source"] == "low.mp4"
    alone = drawn(controller, asked(controller, files / "low.wav"), "attention")
    assert (alone["media"], len(alone["sounds"])) == ([], 1)
    muted = drawn(controller, asked(controller, files / "low.mp4", sound=False), "attention")
    assert (muted["split"], muted["sounds"]) == (None, [])


def test_an_answer_without_sound_and_without_picture(controller, files):
    one = asked(controller, files / "low.mp4", max_new_tokens=12)
    (turn,) = one.turns
    text = chat_rows.rows(one.turns)[1]["content"]
    assert "[Without sound](#without=sound&turn=0)" in text
    for what in ("sound", "picture"):
        *_, last = without.ask(controller, one, {"turn": 0, "what": what})
        assert last == one.turns
    told = dict(one.turns[0].without)
    messages = [{"role": "user", "content": [turn.attachments[0].part()]}]
    messages[0]["content"].append({"type": "text", "text": "What is it?"})
    for what, said in told.items():
        expected = controller.visitors.studio.without(what, messages, max_new_tokens=12)
        assert said == expected.text != turn.answer
    text = chat_rows.rows(one.turns)[1]["content"]
    assert "#without" not in text
    assert text.count('<span class="changed">') >= 2
    assert "*Without picture: " in transcript.markdown(one.turns, controller.card)
    assert json.loads(transcript.as_json(one.turns, controller.card))["turns"][0]["without"] == told
    controller.ask(one, "And then?", [], READING, SETTINGS)  # it is no part of the conversation
    assert told["sound"] not in str([one.turns[-1]])


@pytest.mark.parametrize("name", ["low.wav", "silent.mp4"])
def test_nothing_is_left_out_of_what_has_one_of_them(controller, files, name):
    one = asked(controller, files / name)
    assert "#without" not in chat_rows.rows(one.turns)[1]["content"]
    for detail in ({"turn": 0, "what": "sound"}, {"turn": 7, "what": "sound"}, {"turn": True}, {}):
        with pytest.raises(UserError, match="Ask about a video with sound first"):
            next(without.ask(controller, one, detail))


def test_an_answer_that_fails_leaves_nothing_behind(controller, files, monkeypatch):
    one = asked(controller, files / "low.mp4")

    def failing(*args, **options):
        raise ValueError("Not today.")
        yield

    monkeypatch.setattr(type(one.studio), "stream", failing)
    with pytest.raises(UserError, match="Not today"):
        list(without.ask(controller, one, {"turn": 0, "what": "picture"}))
    assert one.turns[0].without == ()


def test_two_runs_are_compared_where_one_of_them_is_muted(controller, files):
    one = asked(controller, files / "low.mp4")
    (turn,) = one.turns
    *_, pair = run_both(one.studio, turn, {"sound": False}, {"max_new_tokens": 4}, Event())
    rows = {row["name"]: row["values"] for row in view(pair)["rows"]}
    assert rows["Tokens of sound"] == [0, 38]
    assert rows["Hearing sound"][0] == 0


def test_sounds_that_were_not_heard_are_no_part_of_a_look(studio, files):
    studio.release()
    part = {"type": "audio", "audio": str(files / "low.wav")}
    reply = studio.reply([{"role": "user", "content": [part]}], max_new_tokens=2)
    look = studio.attention(reply)
    assert attention.data(look, [])["sounds"] == []  # how much, and not where
    with pytest.raises(ValueError, match="sounds of 0 tokens for an answer that heard 38"):
        attention.data(look, [], sounds=[])


def _unpacked(text: str, kind) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind)


def test_a_model_without_an_ear_refuses_a_sound_at_upload(tiny_folder, tmp_path, files):
    deaf = on(vl3.load(tiny_folder), tmp_path)
    with pytest.raises(UserError) as refused:
        chosen(deaf, files / "low.wav")
    assert re.fullmatch(
        r"low.wav is sound alone, and \S+ hears nothing; load a model with an ear.",
        str(refused.value),
    )
    one = asked(deaf, files / "low.mp4")  # a video is seen, whatever the switch says
    assert one.turns[0].status == "done"
    strips.make(one, deaf.uploads, deaf.card["hears"])
    assert one.current.sound is None
    assert deaf.heard({"sound": False}) == {}


def test_a_torn_sound_is_refused_in_one_sentence(controller, files):
    with pytest.raises(vl3.video.VideoError) as refused:
        chosen(controller, files / "torn.wav")
    assert str(refused.value).startswith("torn.wav ")


def test_an_endpoint_answers_about_a_sound(controller, files):
    path = put(controller, files / "low.wav")
    options = {"max_new_tokens": 4}
    nothing = {"fps": None, "max_frames": None, "start": None, "end": None}
    assert controller.ask_once(path, "What?", nothing, options, _Never())


class _Never:
    def is_set(self) -> bool:
        return False


def test_the_switch_is_a_field_that_a_browser_keeps(controller):
    defaults = form.defaults(controller.card, controller.prune)
    restored = dict(zip(defaults, form.restored({"sound": False}, defaults), strict=True))
    assert (defaults["sound"], restored["sound"]) == (True, False)
    assert controller.heard({"sound": False}) == {"sound": False}
    assert controller.heard({"sound": True}) == {}


@pytest.fixture(scope="module")
def hearing(studio, upload_folder):
    with serving(on(studio, upload_folder)) as running:
        yield running


def test_a_sound_and_a_video_with_sound_in_a_browser(new_page, hearing, files):
    page = new_page(hearing)
    expect(page.locator("#sound")).to_have_css("display", "block")
    upload(page, files / "low.wav")
    strip = page.locator("#player .sound-strip canvas")
    expect(strip).to_be_visible()
    expect(page.locator("#player audio")).to_be_visible()
    ask(page, "What is it?")
    expect(page.locator("#chat .caption")).to_have_text("low.wav · 0:00–0:03 · 38 tokens of sound")
    box = strip.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    expect(strip).to_have_attribute("aria-valuetext", re.compile("0:01.5"))
    strip.press("ArrowRight")
    expect(strip).to_have_attribute("aria-valuetext", re.compile("0:02.5"))
    assert page.locator("#player audio").evaluate("one => one.currentTime") == pytest.approx(
        2.5, abs=0.02
    )
    upload(page, files / "low.mp4")
    expect(page.locator("#budget")).to_contain_text("38 tokens of sound")
    expect(strip).to_be_visible()
    ask(page, "And now?", number=2)
    row = page.locator("#chat .bot-row").last
    row.get_by_role("link", name="Without picture").click()
    expect(row.locator(".without")).to_contain_text("Without picture")
    expect(row.get_by_role("link", name="Without sound")).to_be_visible()
    open_tab(page, "Attention")
    heard = page.get_by_role("tabpanel", name="Attention").locator(".heard")
    expect(heard.get_by_role("img", name=re.compile("^sound .* picture .* words"))).to_be_visible()
    expect(heard.locator(".listened canvas")).to_be_visible()
    assert serious(page) == []


def test_a_page_of_a_model_without_an_ear_shows_nothing_of_sound(page, files):
    expect(page.locator("#sound")).to_have_css("display", "none")
    page.locator("#drop input[type=file]").set_input_files(str(files / "torn.wav"))
    assert "torn.wav" in toast(page)
    upload(page, files / "low.mp4")
    expect(page.locator("#player .sound-strip")).to_be_empty()
