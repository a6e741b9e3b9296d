"""Scores on fresh scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vl3.bundled import NANO
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.sound import Sound
from vl3.toyworld import chance
from vl3.toyworld import score as scoring
from vl3.toyworld.draw import Film
from vl3.toyworld.hearing import HEARD_FAMILIES
from vl3.toyworld.score import (
    BESIDE,
    CLIPS,
    SOUNDING,
    blinded,
    draw,
    draw_all,
    muted,
    overlap,
    replies,
    same_events,
    same_sounds,
    score,
    score_beside,
    score_sound,
    table,
    within_a_second,
    word_errors,
)


@pytest.fixture(scope="module")
def nano():
    model = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()
    return model, VL3Processor.from_pretrained(NANO)


def test_score_asks_each_family_that_often_and_blind_clips_are_black(nano):
    drawn = draw(CLIPS, ("colour", "order", "box"), 5, seed=0)
    families = [qa.family for _, qas in drawn for qa in qas]
    assert {name: families.count(name) for name in families} == {"colour": 5, "order": 5, "box": 5}
    assert set(score(*nano, drawn)) == {"colour", "order", "box", "box, mean IoU"}
    assert blinded(drawn[0][0]).frames_TYX3.max() == 0
    assert drawn[0][0].frames_TYX3.max() > 0


def test_decoded_replies_agree_with_the_exact_score(nano):
    """Two paths to one number: forced answers behind a shared prefix, free decoding of a prompt."""
    drawn = draw(CLIPS, ("exist", "relation"), 16, seed=3)
    asked = [(clip, qa) for clip, qas in drawn for qa in qas]
    exact = score(*nano, drawn)
    said = list(zip(replies(*nano, asked), asked, strict=True))
    for family in ("exist", "relation"):
        right = [reply == qa.answer for reply, (_, qa) in said if qa.family == family]
        assert sum(right) / len(right) == exact[family]
    assert 0 < exact["relation"] < 1


@pytest.mark.parametrize(
    ("measure", "reply", "truth", "value"),
    [
        (overlap, "[[0,0,100,100]]", "[[0,0,100,100]]", 1.0),
        (overlap, "[[0,0,100,100]]", "[[50,0,150,100]]", 1 / 3),
        (overlap, "[[0,0,100,100]]", "[[100,0,200,100]]", 0.0),
        (overlap, "Red.", "[[100,0,200,100]]", 0.0),
        (within_a_second, "From 1 to 5 seconds.", "From 0 to 6 seconds.", 1.0),
        (within_a_second, "From 1 to 5 seconds.", "From 1 to 7 seconds.", 0.0),
        (within_a_second, "At 1 second.", "At 2 seconds.", 1.0),
        (within_a_second, "It stays until the end.", "At 2 seconds.", 0.0),
        (within_a_second, "At 2 seconds.", "From 2 to 3 seconds.", 0.0),
        (same_events, "A red star moves up.", "At 2 seconds a red star appears and moves up.", 1.0),
        (same_events, "A red star moves up.", "A red star stays still.", 0.0),
        (same_events, "A red star and a blue cross.", "A blue cross and a red star.", 1.0),
        (same_events, "A red star and a blue cross.", "A red cross and a blue star.", 0.0),
        (within_a_second, "At 4 seconds.", "At 3 seconds.", 1.0),
        (same_sounds, "A hiss at 1 second.", "A hiss at 3 seconds.", 1.0),
        (same_sounds, "A low beep at 1 second.", "A high beep at 1 second.", 0.0),
        (same_sounds, "A hiss at 1 second.", "A hiss at 1 second. A click at 2 seconds.", 0.0),
        (same_sounds, "Nothing.", "Only a hum.", 0.0),
        (word_errors, "3, 7.", "3, 7.", 0.0),
        (word_errors, "3.", "3, 7.", 0.5),
        (word_errors, "7, 3.", "3, 7.", 1.0),
        (word_errors, "3, 1, 7.", "3, 7.", 0.5),
        (word_errors, "", "5.", 1.0),
        (word_errors, "1, 2, 3.", "4.", 3.0),
    ],
)
def test_measures_of_nearly_right_answers(measure, reply, truth, value):
    assert measure(reply, truth) == pytest.approx(value)


def test_the_table_has_a_row_a_family_and_blanks_where_nothing_was_asked():
    results = {"clips": {"when": 0.5, "colour": 1.0, "when, within 1 s": 0.75}, "images": {}}
    assert table(results).splitlines()[2:] == [
        "| colour | 100.0 |  |",
        "| when | 50.0 |  |",
        "| when, within 1 s | 75.0 |  |",
    ]


def test_muting_leaves_the_picture_and_blinding_the_sound():
    (film, _), *_ = draw(replace(SOUNDING, sounds=(2, 2)), ("sound",), 1, seed=0)
    assert isinstance(film, Film)
    silent, black = muted(film), blinded(film)
    assert film.sound.samples_S.any()
    assert not silent.sound.samples_S.any()
    assert len(silent.sound) == len(film.sound)
    assert silent.clip is film.clip
    assert black.sound is film.sound
    assert film.clip.frames_TYX3.any()
    assert not black.clip.frames_TYX3.any()
    assert black.clip.times_s == film.clip.times_s
    (sound, _), *_ = draw(replace(SOUNDING, alone=1.0, sounds=(1, 1)), ("sound",), 1, seed=0)
    assert isinstance(sound, Sound)
    assert blinded(sound) is sound
    assert not muted(sound).samples_S.any()
    (clip, _), *_ = draw(CLIPS, ("colour",), 1, seed=0)
    assert muted(clip) is clip


def test_a_model_that_hears_nothing_scores_the_same_when_muted(nano):
    drawn = draw(SOUNDING, ("heard_when", "match", "colour", "hearing"), 3, seed=1)
    as_it_is = score(*nano, drawn)
    assert as_it_is == score(*nano, [(muted(medium), qas) for medium, qas in drawn])
    assert as_it_is["colour"] > as_it_is["hearing"] == 0
    assert {"heard_when, within 1 s", "hearing, sounds"} <= set(as_it_is)


def test_sound_is_scored_as_it_is_muted_blind_and_alone(nano, monkeypatch):
    """What is asked of which media; the model's part is in the tests above."""
    seen = []

    def scored(model, processor, drawn):
        families = {qa.family for _, qas in drawn for qa in qas}
        loudest = max(
            np.abs(medium.samples_S if isinstance(medium, Sound) else medium.sound.samples_S).max()
            for medium, _ in drawn
        )
        seen.append((len(drawn), families, loudest > 0))
        return dict.fromkeys(families, 1.0)

    monkeypatch.setattr(scoring, "score", scored)
    monkeypatch.setattr(chance, "deaf", lambda level, family, count, seed: 0.5)
    monkeypatch.setattr(chance, "blind", lambda level, family, count, seed: 0.25)
    asked = score_sound(*nano, 2, 0)
    every = {*HEARD_FAMILIES, "source", "match", "flash", *scoring.CLIP_FAMILIES}
    families = [families for _, families, _ in seen]
    assert families == [every, every, every, {*HEARD_FAMILIES}, {"spoken"}]
    assert [is_heard for _, _, is_heard in seen] == [True, False, True, True, True]
    first, _, *lines = table(asked).splitlines()
    heads = "clips with sound | muted | guessed | blind | guessed | sound alone | new voice"
    assert first == f"| family | {heads} |"
    assert "| match | 100.0 | 100.0 | 50.0 | 100.0 | 25.0 |  |  |" in lines
    assert "| spoken | 100.0 | 100.0 | 50.0 | 100.0 |  | 100.0 | 100.0 |" in lines


def test_two_models_are_compared_about_the_same_clips(nano):
    worse = VL3ForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32).eval()
    with torch.no_grad():
        noise = torch.Generator().manual_seed(0)
        weight = worse.connector.readout[0].weight
        weight += 1.5 * weight.std() * torch.randn(weight.shape, generator=noise)
    found = score_beside(nano, (worse, nano[1]), count=6, seed=0)
    drawn = draw_all(6, 0)["clips"]
    rows = {}
    for side, model in (("one", nano[0]), ("other", worse)):
        for family, right in scoring.exact(model, nano[1], drawn):
            rows.setdefault(family, {}).setdefault(side, []).append(right)
    for family, sides in rows.items():
        more = np.array(sides["one"]) - np.array(sides["other"])
        error = 1.96 * more.std(ddof=1) / len(more) ** 0.5
        wanted = (np.mean(sides["one"]), np.mean(sides["other"]), more.mean())
        values = [found[column][f"{family}, clips"] for column in BESIDE]
        assert values == pytest.approx([*wanted, more.mean() - error, more.mean() + error])
    assert found["more"]["all, clips"] > 0.1
    assert {"all, images", "order, held-out pairs"} <= found["more"].keys()
    same = score_beside(nano, nano, count=2, seed=0)
    assert set(same["more"].values()) == {0.0}


def test_a_comparison_is_without_sound(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["score", "--beside", "assets/nano", "--sound"])
    with pytest.raises(SystemExit):
        scoring.main()
    assert "--beside compares clips without sound" in capsys.readouterr().err
