"""Every public call of a studio with odd values: it works, or one sentence says what is wanted."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import vl3
from vl3 import widgets
from vl3.settings import PruneSettings
from vl3.values import Clip
from vl3.video import VideoError

SHORT = {"max_new_tokens": 2}
NOT_NUMBERS = (True, "x", None, [], {}, object(), b"x", 1 + 2j, math.nan, math.inf)


@pytest.fixture(scope="module")
def studio():
    return vl3.load("assets/nano")


@pytest.fixture(scope="module")
def film() -> Clip:
    frames = np.full((2, 56, 56, 3), 40, np.uint8)
    frames[:, 20:40, 20:40] = (200, 30, 30)
    return Clip(frames_TYX3=frames, times_s=(0.0, 1.0), source="film")


@pytest.fixture(scope="module")
def asked(film):
    content = [{"type": "video", "video": film}, "What colour is the square?"]
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="module")
def reply(studio, asked):
    found = studio.reply(asked, **SHORT)
    assert found.token_ids
    return found


def sentence(call) -> str:
    """What a refused call says."""
    with pytest.raises((ValueError, VideoError)) as refused:
        call()
    said = str(refused.value)
    assert type(refused.value) in (ValueError, VideoError)
    assert "\n" not in said
    assert 15 < len(said) < 320, said
    return said


NUMBERS = {
    "max_new_tokens": (0, -1, 1.5),
    "temperature": (-1,),
    "top_p": (0, -0.1, 1.5),
    "repetition_penalty": (0, -2),
    "seed": (2**70, 1.5, -(2**64)),
    "budget_tokens": (0, -5, 2.5),
}


@pytest.mark.parametrize(("name", "wrong"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_of_an_answer(studio, asked, name, wrong):
    for value in (*NOT_NUMBERS, *wrong):
        if name == "budget_tokens" and value is None:
            continue  # means the checkpoint's
        call = SHORT | {"temperature": 0.5} | {name: value}
        assert name in sentence(lambda call=call: studio.reply(asked, **call))


def test_numbers_of_any_kind_are_numbers(studio, asked):
    expected = studio.reply(asked, temperature=1.0, seed=3, **SHORT)
    for one in (1, np.int64(1), np.float32(1), torch.tensor(1), Fraction(1)):
        options = {"temperature": one, "top_p": one, "repetition_penalty": one}
        found = studio.reply(asked, max_new_tokens=np.int64(2), seed=np.uint8(3), **options)
        assert found.token_ids == expected.token_ids
        assert found.settings == expected.settings
    assert studio.reply(asked, budget_tokens=np.float64(100), **SHORT).ledger.visual_tokens <= 100
    below = [studio.reply(asked, seed=-1, temperature=3.0, **SHORT) for _ in range(2)]
    assert below[0].token_ids == below[1].token_ids
    assert below[0].settings["seed"] == -1


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e-9, 1e-5, 1e-3])
def test_a_temperature_near_nothing_is_greedy(studio, asked, temperature):
    greedy = studio.reply(asked, **SHORT)
    assert studio.reply(asked, temperature=temperature, **SHORT).token_ids == greedy.token_ids


@pytest.mark.parametrize(
    ("prune", "words"),
    [
        (False, "prune is 'model'"),
        (True, "prune is 'model'"),
        ("off", "prune is 'model'"),
        (0.1, "prune is 'model'"),
        ([], "prune is 'model'"),
        ({"mode": "oficial"}, "did you mean official"),
        ({"mode": None}, "mode is one of"),
        ({"threshold": "x"}, "threshold is a number"),
        ({"threshold": -1}, "threshold is"),
        ({"threshold": math.inf}, "threshold is"),
        ({"treshold": 1}, "did you mean threshold"),
        ({"min_tokens": 0.5}, "min_tokens is a whole"),
        ({"keep": "latest"}, "did you mean later"),
        ({1: 2}, "no setting 1"),
    ],
)
def test_pruning(studio, asked, prune, words):
    assert words in sentence(lambda: studio.reply(asked, prune=prune, **SHORT))


def test_pruning_in_every_form(studio, asked):
    settings = PruneSettings(mode="rlt", threshold=1)
    named = {"mode": "rlt", "threshold": np.float64(1)}
    replies = [studio.reply(asked, prune=prune, **SHORT) for prune in (settings, named)]
    assert replies[0].seen == replies[1].seen
    assert replies[0].settings == replies[1].settings


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_tokens", "did you mean max_new_tokens"),
        ("temprature", "did you mean temperature"),
        ("top_k", "did you mean top_p"),
        ("do_sample", "has no setting"),
        ("num_beams", "has no setting"),
        ("fps", "studio.open's"),
        ("max_frames", "studio.open's"),
    ],
)
def test_settings_that_an_answer_does_not_have(studio, asked, name, words):
    assert words in sentence(lambda: studio.reply(asked, **{name: 1}))
    assert words in sentence(lambda: list(studio.ask(asked, "?", **{name: 1})))


def test_what_is_asked(studio, film, asked):
    for wrong in (None, 5, [], {"type": "text"}, b"What?"):
        assert "question" in sentence(lambda wrong=wrong: list(studio.ask(film, wrong)))
    for wrong in (5, [], True):
        assert "system" in sentence(lambda w=wrong: list(studio.ask(film, "?", system=w)))
    for wrong in ("hello", 5, {"role": "user"}, torch.tensor(1)):
        assert "history" in sentence(lambda w=wrong: list(studio.ask(film, "?", history=w)))
        assert "messages" in sentence(lambda w=wrong: studio.reply(w))
    for wrong in (True, 1, "x", []):
        assert "stop" in sentence(lambda w=wrong: studio.reply(asked, stop=w))
    for wrong in (1, "x", []):
        assert "on_stage" in sentence(lambda w=wrong: studio.open(film, on_stage=w))
    alone = [{"role": "user", "content": "What colour?"}]
    text = "".join(studio.ask([], "What colour?", history=None, **SHORT))
    assert text == studio.reply(alone, **SHORT).text
    assert studio.reply((message for message in asked), **SHORT).ledger.frames == 2


def test_an_opened_video_is_a_part_of_its_own(studio, film):
    video = studio.open(film)
    for part in (
        {"type": "video", "video": video, "fps": 2},
        {"type": "video", "path": video},
        {"type": "video", "video": {"path": video, "max_frames": 1}},
        {"type": "image", "video": video},
        {"type": "text", "text": video},
    ):
        messages = [{"role": "user", "content": [part]}]
        assert "a part of its own" in sentence(lambda m=messages: studio.reply(m))
    whole = {"type": "video", "video": video, "text": None, "fps": None}
    assert studio.reply([{"role": "user", "content": [whole, "?"]}], **SHORT).ledger.frames == 2


@pytest.mark.parametrize("name", ["layers", "heads", "tokens"])
def test_numbers_of_a_look(studio, reply, name):
    for wrong in (3, "ab", b"x", True, 1.5, torch.tensor(1), object()):
        said = sentence(lambda w=wrong: studio.attention(reply, **{name: w}))
        assert f"{name} is a list of numbers" in said
    for wrong in ([99], [-1], [], ["a"], [1.5], [True], [None], [math.nan], [[0]]):
        assert name in sentence(lambda w=wrong: studio.attention(reply, **{name: w}))
    for right in ([0], (0,), range(1), np.array([0]), torch.tensor([0]), [np.int64(0)], [0.0]):
        assert getattr(studio.attention(reply, **{name: right}), name) == (0,)


def test_sources_of_a_look(studio, reply):
    assert "did you mean vision" in sentence(lambda: studio.attention(reply, source="vison"))
    for wrong in (None, 5, [], "heat"):
        assert "source is one of" in sentence(lambda w=wrong: studio.attention(reply, source=w))


@pytest.mark.parametrize("method", ["attention", "videos", "pieces"])
def test_what_is_no_reply_of_this_studio(studio, reply, method):
    call = getattr(studio, method)
    for wrong in (None, "text", 5, [], {}, reply.seen[0], object()):
        assert "a reply is what" in sentence(lambda w=wrong: call(w))
    forgotten = studio.new_session()
    if method != "pieces":
        assert "no longer in memory" in sentence(lambda: getattr(forgotten, method)(reply))
    if method != "videos":
        assert "other tokens" in sentence(lambda: call(replace(reply, seen=())))
    if method == "attention":
        for ids in ((10**9,), (-1,)):
            assert "other tokens" in sentence(lambda i=ids: call(replace(reply, token_ids=i)))
        for empty in ({"prompt_ids": ()}, {"token_ids": ()}):
            assert "stopped" in sentence(lambda e=empty: call(replace(reply, **e)))
    if method == "videos":
        assert len(call(replace(reply, settings={}))) == 1


def test_a_released_studio_answers_and_says_what_it_forgot(studio, asked):
    other = studio.new_session()
    reply = other.reply(asked, **SHORT)
    other.release()
    assert "no longer in memory" in sentence(lambda: other.attention(reply))
    assert other.reply(asked, **SHORT).token_ids == reply.token_ids
    assert other.attention(reply).tokens


def test_replies_without_pictures(studio):
    reply = studio.reply([{"role": "user", "content": "What colour?"}], **SHORT)
    assert "needs a picture" in sentence(
        lambda: studio.attention(reply, source="vision", tokens=[0])
    )
    assert studio.videos(reply) == ()
    words = replace(reply, token_ids=reply.prompt_ids[-2:])  # nano may say nothing at all
    assert "saw no picture" in sentence(lambda: widgets.attention(studio, words))


def test_what_is_too_long_says_what_of(studio, film):
    said = {}
    for name, parts in (
        ("text", []),
        ("picture", [{"type": "image", "image": film.frames_TYX3[0]}]),
        ("video", [{"type": "video", "video": film}]),
    ):
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": "a " * 9000}]}]
        with pytest.raises(vl3.studio.TooLong) as refused:
            studio.reply(messages)
        said[name] = str(refused.value)
    assert "frames" not in said["text"] + said["picture"]
    assert "text" in said["text"]
    assert "pictures" in said["picture"]
    assert "frames" in said["video"]


def test_disk_space_for_features(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for wrong in (*NOT_NUMBERS, -1):
        assert "features_gb" in sentence(lambda w=wrong: vl3.load("assets/nano", features_gb=w))
