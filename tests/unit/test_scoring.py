"""How likely given answers are: against the model's own logits, and never from another's cache."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import vl3
from vl3.bundled import CLIPS
from vl3.inference import generation
from vl3.inference.asking import TooLong
from vl3.inference.engine import Stopped
from vl3.prompt import IGNORE

CLIP, OTHER = CLIPS / "circle_then_star.mp4", CLIPS / "three_shapes.mp4"
ASKED = "What colour is the star?"
ANSWERS = ("Blue.", "A red star, and it came at 4 seconds.", "")


@pytest.fixture(scope="module")
def studio():
    return vl3.load(dtype="float32")


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


def values(score) -> list[float]:
    return [*score.logprobs, score.end_logprob]


def reference(studio, answer, history=()) -> list[float]:
    """One pass of the model over processor inputs, read off where training has its labels."""
    part = [{"type": "video", "video": str(CLIP)}, {"type": "text", "text": ASKED}]
    asked, said = {"role": "user", "content": part}, {"role": "assistant", "content": answer}
    inputs = studio.processor([[*history, asked, said]], return_labels=True)
    labels_L = inputs.pop("labels")[0]
    with torch.no_grad():
        logits_LV = studio.model(**inputs).logits[0].log_softmax(-1)
    places = [i for i, label in enumerate(labels_L.tolist()) if label != IGNORE]
    last = places[-len(studio.processor.tokenizer(answer + "<|im_end|>").input_ids) :]
    return [logits_LV[i - 1, labels_L[i]].item() for i in last]


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_score_is_what_the_models_logits_say(studio, answer):
    score = studio.score(CLIP, ASKED, answer)
    wanted = reference(studio, answer)
    assert values(score) == pytest.approx(wanted, abs=2e-4)
    assert score.total == pytest.approx(sum(wanted), abs=1e-3)
    assert score.mean == pytest.approx(np.mean(wanted), abs=1e-3)
    assert "".join(score.pieces) == score.answer == answer
    assert len(score.pieces) == len(score.token_ids) == len(score.logprobs)
    if len(wanted) > 3:  # the canary: a token further on
        assert values(score)[1:] != pytest.approx(wanted[:-1], abs=2e-4)


def test_of_earlier_answers_nothing_is_counted(studio):
    history = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! Ask me about the shapes."},
    ]
    score = studio.score(CLIP, ASKED, "Blue.", history=history)
    assert values(score) == pytest.approx(reference(studio, "Blue.", history), abs=2e-4)
    assert score.prompt_tokens > studio.score(CLIP, ASKED, "Blue.").prompt_tokens


def test_choices_are_scored_as_each_alone_and_read_the_question_once(studio, monkeypatch):
    alone = [studio.new_session().score(CLIP, ASKED, answer) for answer in ANSWERS]
    read = []
    prefill = generation._prefill
    monkeypatch.setattr(
        generation, "_prefill", lambda *given: read.append(len(given[1].ids)) or prefill(*given)
    )
    together = studio.score_choices(CLIP, ASKED, ANSWERS)
    assert read == [together[0].prompt_tokens]
    assert [score.answer for score in together] == list(ANSWERS)
    for one, other in zip(alone, together, strict=True):
        assert values(one) == pytest.approx(values(other), abs=1e-5)
    assert max(together, key=lambda score: score.mean).answer == "Blue."
    assert studio.score_choices(CLIP, ASKED, []) == ()


def test_the_likeliest_answer_is_the_greedy_one(studio):
    reply = studio.reply(
        [{"role": "user", "content": [{"type": "video", "video": str(CLIP)}, text(ASKED)]}]
    )
    score = studio.score(CLIP, ASKED, reply.text)
    assert score.token_ids == reply.token_ids
    assert min(values(score)) > np.log(0.5)
    assert score.reused_tokens > 100, "what the answer left was read by it"
    kept = studio.score(CLIP, ASKED, reply.text, reuse=False)
    assert kept.reused_tokens == 0
    assert values(kept) == pytest.approx(values(score), abs=1e-5)


def text(words) -> dict:
    return {"type": "text", "text": words}


def test_a_long_answer_is_read_in_parts(studio, monkeypatch):
    whole = studio.score(CLIP, ASKED, ANSWERS[1])
    monkeypatch.setattr(generation, "LOGITS", 3)
    assert len(whole.token_ids) > 7
    parts = studio.score(CLIP, ASKED, ANSWERS[1])
    assert values(parts) == pytest.approx(values(whole), abs=1e-4)


def changed_features(studio, video):
    return replace(video, features_MD=video.features_MD.flip(0)), {}


def changed_mask(studio, video):
    mask_M = video.keep.keep_M.clone()
    mask_M[len(mask_M) // 2 :] = False
    return replace(video, keep=replace(video.keep, keep_M=mask_M)), {}


def without_picture(studio, video):
    return video, {"picture": False}


def without_pruning(studio, video):
    return video, {"prune": None}


@pytest.mark.parametrize(
    "change", [changed_features, changed_mask, without_picture, without_pruning]
)
def test_another_look_has_another_score_and_is_not_taken_from_the_cache(studio, change):
    video = studio.open(CLIP)
    before = studio.score(video, ASKED, ANSWERS[1])
    other, settings = change(studio, video)
    after = studio.score(other, ASKED, ANSWERS[1], **settings)
    anew = studio.new_session().score(other, ASKED, ANSWERS[1], reuse=False, **settings)
    assert values(after) != pytest.approx(values(before), abs=1e-4)
    assert values(after) == pytest.approx(values(anew), abs=1e-5)
    again = studio.score(video, ASKED, ANSWERS[1])
    assert values(again) == pytest.approx(values(before), abs=1e-5)


def test_edited_weights_and_hooks_are_scored_as_they_are(studio):
    before = values(studio.score(CLIP, ASKED, "Blue."))
    layer = studio.model.language.model.layers[2].mlp.down_proj
    with torch.no_grad():
        layer.weight *= 0.2
    try:
        edited = values(studio.score(CLIP, ASKED, "Blue."))
    finally:
        with torch.no_grad():
            layer.weight /= 0.2
    hook = layer.register_forward_hook(lambda module, given, out: out * 0.2)
    try:
        hooked = values(studio.score(CLIP, ASKED, "Blue."))
    finally:
        hook.remove()
    assert edited != pytest.approx(before, abs=1e-4)
    assert hooked == pytest.approx(edited, abs=1e-4)
    assert values(studio.score(CLIP, ASKED, "Blue.")) == pytest.approx(before, abs=1e-3)


def test_another_clip_and_no_clip_have_scores_of_their_own(studio):
    first, second, none = (studio.score(shown, ASKED, "Blue.").total for shown in (CLIP, OTHER, []))
    assert first > second
    assert first > none


def test_a_suspended_answer_and_a_score_do_not_disturb_each_other(studio):
    asked = studio.ask(CLIP, "What happens in the video?")
    begun = next(asked)
    score = studio.score(OTHER, ASKED, "Blue.")
    alone = vl3.load(dtype="float32")
    assert begun + "".join(asked) == "".join(alone.ask(CLIP, "What happens in the video?"))
    assert values(score) == pytest.approx(values(alone.score(OTHER, ASKED, "Blue.")), abs=1e-5)


def test_a_stop_ends_it_and_the_session_goes_on(studio):
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        studio.score(CLIP, ASKED, "Blue.", stop=stop)
    assert not studio.engine.is_busy
    assert studio.score(CLIP, ASKED, "Blue.").total > -1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"choices": "Blue."}, "choices is a list of answers"),
        ({"choices": ["Blue.", 3]}, "an answer is a text"),
        ({"max_new_tokens": 3}, "a score has no setting 'max_new_tokens'"),
        ({"question": 5}, "the question is a text"),
        ({"prune": "off"}, "prune is 'model'"),
        ({"sound": True}, "this model has no ear"),
        ({"reuse": "no"}, "reuse"),
    ],
)
def test_mistakes_are_a_sentence(studio, given, sentence):
    asked = {"video": CLIP, "question": ASKED, "choices": ["Blue."]} | given
    with pytest.raises(ValueError, match=sentence) as told:
        studio.score_choices(**asked)
    assert "\n" not in str(told.value)


def test_an_answer_that_does_not_fit_is_refused(studio):
    with pytest.raises(TooLong, match=r"tokens with the answer exceed the limit"):
        studio.score(CLIP, ASKED, "blue " * 9000)


def test_what_is_heard_counts():
    heard = vl3.load("assets/nano-av", dtype="float32")
    clip, asked = CLIPS / "bell_and_beep.mp4", "What do you hear?"
    answer = "A low bell at 3 seconds. A high beep at 6 seconds."
    assert (
        heard.score(clip, asked, answer).total > heard.score(clip, asked, answer, sound=False).total
    )
