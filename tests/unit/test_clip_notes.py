"""What could not be read of a clip is said with every answer about it, wherever that is shown."""

import json
from dataclasses import replace

import numpy as np
import pytest

import vl3
from vl3.values import Clip, Ledger, Reply
from vl3.webapp import chat_rows, transcript
from vl3.webapp.conversation import Turn

LOST = "32 of 200 frames could not be read."
ESTIMATED = "Times are estimated at 25 fps."


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


def clip(seed=0, source="/films/film.mp4", **changes) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (3, 56, 56, 3), dtype=np.uint8)
    made = Clip(frames_TYX3=frames, times_s=(0.0, 1.0, 2.0), source=source)
    return replace(made, **changes)


def notes(studio, *media):
    parts = [{"type": "video", "video": medium} for medium in media]
    message = {"role": "user", "content": [*parts, {"type": "text", "text": "What?"}]}
    return studio.reply([message], max_new_tokens=1).notes


def test_notes_of_a_clip_are_those_of_every_answer(studio):
    damaged = clip(notes=(LOST, ESTIMATED), lost_frames=32)
    video = studio.open(damaged)
    assert video.notes == (LOST, ESTIMATED)
    for medium in (damaged, damaged, video):  # decoded, found again, handed over
        assert notes(studio, medium) == (LOST, ESTIMATED)
    assert notes(studio, clip()) == ()


def test_lost_frames_without_a_word_get_one(studio):
    assert notes(studio, clip(lost_frames=1)) == ("1 frame could not be read.",)
    assert notes(studio, clip(lost_frames=7)) == ("7 frames could not be read.",)


def test_several_clips_are_named_and_each_says_it_once(studio):
    damaged = clip(notes=(LOST,))
    other = clip(1, "other.mp4", notes=(ESTIMATED,))
    assert notes(studio, damaged, clip(2, "whole.mp4"), other, damaged) == (
        f"film.mp4: {LOST}",
        f"other.mp4: {ESTIMATED}",
    )
    assert notes(studio, damaged, damaged) == (LOST,)
    renamed = replace(other, source="copy.mp4")
    assert notes(studio, damaged, renamed)[1] == f"copy.mp4: {ESTIMATED}"
    assert studio.open(renamed).clip.source == "copy.mp4"


def test_two_clips_of_one_name_are_told_apart(studio):
    assert notes(studio, clip(notes=(LOST,)), clip(1, "b/film.mp4", notes=(ESTIMATED,))) == (
        f"film.mp4 (1): {LOST}",
        f"film.mp4 (2): {ESTIMATED}",
    )


def test_notes_come_with_features_from_disk(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    damaged = clip(notes=(LOST,))
    assert notes(vl3.load(tiny_folder, features_gb=1), damaged) == (LOST,)
    studio = vl3.load(tiny_folder, features_gb=1)
    assert notes(studio, damaged) == (LOST,)
    assert studio.open(damaged).ledger.encoded_clips == 0


def turn():
    reply = Reply(
        text="Blue.",
        token_ids=(1,),
        prompt="",
        settings={},
        ledger=Ledger(),
        notes=(LOST, ESTIMATED),
    )
    return Turn(question="What?", answer="Blue.", status="done", reply=reply)


def test_the_page_says_them_under_the_answer():
    _, answer = chat_rows.rows([turn()])
    assert LOST in answer["content"]
    assert ESTIMATED in answer["content"]


def test_exports_say_them():
    card = {
        "name": "nano",
        "parameters": 1,
        "dtype": "float32",
        "quantize": None,
        "adapter": None,
        "device": "cpu",
        "is_nano": True,
        "unpruned": "",
        "unrotated": "",
        "context_tokens": 1,
        "weights_bytes": 4,
    }
    text = transcript.markdown([turn()], card)
    assert f"*{LOST}*" in text
    assert f"*{ESTIMATED}*" in text
    record = json.loads(transcript.as_json([turn()], card))
    assert record["turns"][0]["notes"] == [LOST, ESTIMATED]


def test_the_terminal_says_them(monkeypatch, capsys, tiny_folder):
    from train_cli import __main__ as cli
    from vl3 import video

    read = video.read
    monkeypatch.setattr(
        video, "read", lambda *args, **options: replace(read(*args, **options), notes=(LOST,))
    )
    asked = ["chat", "--model", str(tiny_folder), "--video", "assets/clips/circle_then_star.mp4"]
    assert cli.main([*asked, "--max-new-tokens", "1", "--max-frames", "2", "What?"]) in (None, 0)
    assert LOST in capsys.readouterr().err
