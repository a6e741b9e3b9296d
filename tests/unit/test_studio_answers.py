"""Answers: streaming, stopping, reuse, memory, and the same text through every door."""

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from clips import write_clip

import vl3
from vl3 import visual_inputs
from vl3.inference import generation
from vl3.inference.asking import TooLong
from vl3.inference.encoded import EncodedCache
from vl3.inference.reply import OutOfMemory
from vl3.settings import Decoding
from vl3.values import Clip, Progress, Reply


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """32 seconds of frames that differ, at 4 frames per second."""
    path = tmp_path_factory.mktemp("film") / "a film.mp4"
    write_clip(path, 128, 4, size=(96, 144))
    return path


def ask(video, question="What happens in the video?", **options):
    source = {"path": video, **options} if options else video
    parts = [{"type": "video", "video": source}, {"type": "text", "text": question}]
    return [{"role": "user", "content": parts}]


def encoded_patches(monkeypatch) -> list[int]:
    """Patches of each of the vision encoder's runs from now on; a hook would switch re-use off."""
    patches, downsample = [], visual_inputs.downsample

    def counting(x_ND, *others):
        patches.append(x_ND.shape[0])
        return downsample(x_ND, *others)

    monkeypatch.setattr(visual_inputs, "downsample", counting)
    return patches


def test_stages_come_first_then_text_then_the_reply(studio, film):
    events = list(studio.stream(ask(film, max_frames=8), max_new_tokens=5))
    *before, reply = events
    names = list(dict.fromkeys(e.name for e in before if isinstance(e, Progress)))
    assert names == [
        "Reading frames",
        "Encoding video",
        "Removing repeated patches",
        "Answering",
    ]
    assert isinstance(reply, Reply)
    assert "".join(e for e in before if isinstance(e, str)) == reply.text
    assert len(reply.token_ids) == reply.ledger.new_tokens == 5
    assert reply.truncated
    assert not reply.stopped
    counts = [(e.done, e.total) for e in before if isinstance(e, Progress) and "Read" in e.name]
    assert counts[0] == (0, 8)
    assert counts[-1] == (8, 8)


def test_the_plan_before_the_run_is_what_the_model_uses(studio, film):
    for options in ({}, {"fps": 2, "max_frames": 9}, {"start": 3.0, "end": 7.5}):
        plan = studio.plan(film, **options)
        video = studio.open(film, **options)
        assert video.grid == plan.grid
        assert video.clip.times_s == plan.times_s
        reply = studio.reply(ask(film, **options), max_new_tokens=1, prune=None)
        slots = reply.ledger.visual_tokens
        assert slots == plan.num_tokens == reply.ledger.kept_tokens


def test_the_second_question_encodes_nothing_and_says_what_a_cold_run_says(
    studio, film, monkeypatch
):
    first = studio.reply(ask(film), max_new_tokens=8)
    again = [
        *ask(film),
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "And what colour is it?"},
    ]
    patches = encoded_patches(monkeypatch)
    warm = studio.reply(again, max_new_tokens=12)
    assert patches == []
    assert warm.ledger.reused_clips == 1
    assert warm.ledger.reused_tokens > warm.ledger.kept_tokens
    cold = studio.new_session().reply(again, max_new_tokens=12)
    assert cold.ledger.reused_tokens == 0
    assert warm.token_ids == cold.token_ids


def test_a_second_video_keeps_the_first_ones_work(studio, film, tmp_path):
    other = write_clip(tmp_path / "other.mp4", 20, 4, size=(64, 64))
    first = studio.reply(ask(film, max_frames=6), max_new_tokens=4)
    more = [
        *ask(film, max_frames=6),
        {"role": "assistant", "content": first.text},
        *ask(other, "Compare.", max_frames=3),
    ]
    warm = studio.reply(more, max_new_tokens=6)
    assert warm.ledger.reused_clips == 1
    assert warm.ledger.encoded_clips == 1
    assert warm.ledger.reused_tokens > 0
    assert warm.token_ids == studio.new_session().reply(more, max_new_tokens=6).token_ids


def test_work_before_the_first_token_of_a_second_question(studio, film, monkeypatch):
    """32 frames: less than a fifth of the first question's positions, and no patch."""
    positions, patches, step = [], encoded_patches(monkeypatch), generation._step

    def counting(model, cache, embeds_BLE):
        positions.append(embeds_BLE.shape[1])
        return step(model, cache, embeds_BLE)

    monkeypatch.setattr(generation, "_step", counting)
    first = studio.reply(ask(film, "Say it."), max_new_tokens=1)
    work = sum(positions), sum(patches)
    positions.clear(), patches.clear()
    studio.reply(ask(film, "And then?"), max_new_tokens=1)
    assert first.ledger.frames == 32
    assert work == (first.ledger.prompt_tokens, 4 * first.ledger.visual_tokens)
    assert sum(positions) * 5 < work[0]
    assert not patches


def test_greedy_equals_transformers_generate(studio, film):
    reply = studio.reply(ask(film, max_frames=5), max_new_tokens=10)
    inputs = studio.processor(
        ask({"path": film, "max_frames": 5}), add_generation_prompt=True, add_system_prompt=True
    )
    new = studio.model.generate(**inputs, max_new_tokens=10, do_sample=False)
    assert new[0, inputs["input_ids"].shape[1] :].tolist()[: len(reply.token_ids)] == list(
        reply.token_ids
    )


def test_a_seed_decides_a_sampled_answer(studio, film):
    def sampled(seed):
        return studio.reply(
            ask(film, max_frames=2), max_new_tokens=12, temperature=1.5, top_p=0.95, seed=seed
        ).token_ids

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_repetition_penalty_counts_new_tokens_only(studio, film):
    messages = ask(film, max_frames=2)
    plain = studio.reply(messages, max_new_tokens=12).token_ids
    harsh = studio.reply(messages, max_new_tokens=12, repetition_penalty=50.0).token_ids
    assert harsh[0] == plain[0], "nothing of the prompt is penalised"
    assert len(set(harsh)) == len(harsh)


@pytest.mark.parametrize("when", ["Reading frames", "Encoding video", "text"])
def test_stop_ends_the_work_and_the_next_question_works(studio, film, when):
    stop = threading.Event()
    stream = studio.stream(ask(film, fps=4), max_new_tokens=500, stop=stop)
    for event in stream:
        if isinstance(event, str) if when == "text" else getattr(event, "name", "") == when:
            break
    stop.set()
    pressed = time.perf_counter()
    *_, reply = stream
    assert time.perf_counter() - pressed < 3, "a stalled machine apart, this takes milliseconds"
    assert reply.stopped
    assert reply.ledger.new_tokens < 500
    assert studio.reply(ask(film, max_frames=2), max_new_tokens=2).ledger.new_tokens == 2


class Stops:
    """An event that is set once it was asked for so many times: at any layer of any pass."""

    def __init__(self, after):
        self.left = after

    def is_set(self):
        self.left -= 1
        return self.left < 0


def test_wherever_an_answer_is_stopped_the_next_one_is_that_of_a_fresh_studio(studio, film):
    question = ask(film, "And what colour is it?", max_frames=4)
    cold = studio.new_session().reply(question, max_new_tokens=6).token_ids
    checks = Stops(10**6)
    list(studio.new_session().stream(question, max_new_tokens=6, stop=checks))
    asked = 10**6 - checks.left
    stopped = 0
    for after in range(0, asked, max(1, asked // 40)):
        alike = studio.new_session()
        assert alike.reply(question, max_new_tokens=6).token_ids == cold
        *_, reply = alike.stream(
            [
                *question,
                {"role": "assistant", "content": "Red."},
                *ask(film, "Sure?", max_frames=3),
            ],
            max_new_tokens=6,
            stop=Stops(after),
        )
        stopped += reply.stopped
        assert alike.reply(question, max_new_tokens=6).token_ids == cold, after
    assert stopped > 20


def test_closing_the_stream_frees_the_model(studio, film):
    stream = studio.stream(ask(film, max_frames=4), max_new_tokens=500)
    next(piece for piece in stream if isinstance(piece, str))
    stream.close()
    cold = studio.new_session().reply(ask(film, max_frames=4), max_new_tokens=6).token_ids
    assert studio.reply(ask(film, max_frames=4), max_new_tokens=6).token_ids == cold


def test_a_waiting_question_can_be_stopped(studio, film):
    running = studio.stream(ask(film, max_frames=2), max_new_tokens=50)
    next(running)
    stop = threading.Event()
    stop.set()
    (reply,) = studio.new_session().stream(ask(film), stop=stop)
    assert reply.stopped
    assert reply.text == ""
    running.close()


def test_forks_share_weights_and_nothing_else(studio, film):
    studio.reply(ask(film, max_frames=3), max_new_tokens=2)
    other = studio.new_session()
    assert studio.cached_bytes > 0
    assert other.cached_bytes == 0
    assert other.model is studio.model
    studio.release()
    assert studio.cached_bytes == 0


def test_the_cache_of_clips_is_bounded(studio, film):
    small = studio.new_session()
    video = small.open(film, max_frames=4)
    small._encoded.cache_bytes = int(2.5 * video.nbytes)
    for start in range(6):
        small.open(film, start=start, max_frames=4)
    assert len(small._encoded) == 2


def test_a_visitor_who_leaves_while_a_clip_is_opened_disturbs_nobody(studio, film, monkeypatch):
    opened = studio.open(film, max_frames=2)
    with monkeypatch.context() as context:
        checked = EncodedCache._is_as_made

        def leaving(library, known, encoder):
            studio.release()
            return checked(library, known, encoder)

        context.setattr(EncodedCache, "_is_as_made", leaving)
        assert studio.open(film, max_frames=2).key == opened.key
    assert studio.cached_bytes == 0


def test_other_pruner_settings_need_no_encoder(studio, film, monkeypatch):
    studio.reply(ask(film, max_frames=5), max_new_tokens=1)
    patches = encoded_patches(monkeypatch)
    pruned = studio.reply(
        ask(film, max_frames=5), max_new_tokens=1, prune={"mode": "rlt", "threshold": 9.0}
    )
    assert patches == []
    (seen,) = pruned.seen
    assert seen.kept_tokens == pruned.ledger.kept_tokens
    assert seen.num_tokens == pruned.ledger.visual_tokens
    assert pruned.ledger.kept_tokens < pruned.ledger.visual_tokens
    assert pruned.settings["prune"]["mode"] == "rlt"


def fail_once(part, how_often, error):
    """Makes the next runs of a part of the model end in an error."""
    left = itertools.count(how_often, -1)

    def fail(*_):
        if next(left) > 0:
            raise error

    return part.register_forward_pre_hook(fail)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_retried_with_a_smaller_plan(studio, film, error):
    hook = fail_once(studio.model.vision, 1, error)
    reply = studio.reply(ask(film), max_new_tokens=2)
    hook.remove()
    assert reply.settings["max_frames"] == 90
    assert "Memory was short" in reply.notes[0]


def test_what_earlier_questions_left_is_given_up_before_the_plan(studio, film):
    first = studio.reply(ask(film), max_new_tokens=2)
    hook = fail_once(studio.model.language.model, 1, torch.OutOfMemoryError("no"))
    again = studio.reply(ask(film, "And now?"), max_new_tokens=2)
    hook.remove()
    assert again.settings["max_frames"] == first.settings["max_frames"]
    assert not again.notes
    hook = fail_once(studio.model.language.model, 2, torch.OutOfMemoryError("no"))
    assert "Memory was short" in studio.reply(ask(film, "And then?"), max_new_tokens=2).notes[0]
    hook.remove()


def test_out_of_memory_twice_is_refused_in_words_and_the_next_question_works(studio, film):
    hook = fail_once(studio.model.vision, 2, torch.OutOfMemoryError("no"))
    with pytest.raises(OutOfMemory, match=r"ran out of memory.*Try max frames 45 or 4-bit"):
        studio.reply(ask(film), max_new_tokens=2)
    hook.remove()
    assert studio.cached_bytes == 0
    assert studio.reply(ask(film), max_new_tokens=2).ledger.new_tokens == 2


def test_other_errors_are_not_taken_for_a_lack_of_memory(studio, film):
    hook = fail_once(studio.model.vision, 1, RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        studio.reply(ask(film), max_new_tokens=2)
    hook.remove()


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(studio, film):
    with pytest.raises(TooLong, match=r"\d+ tokens exceed the limit 4096\. Lower frames"):
        studio.reply(ask(film, "why " * 5000), max_new_tokens=2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"repetition_penalty": 0}, "repetition"),
    ],
)
def test_wrong_decoding_settings_are_refused(studio, film, wrong, words):
    with pytest.raises(ValueError, match=words):
        studio.reply(ask(film), **wrong)
    with pytest.raises(ValueError, match=words):
        Decoding(**wrong)


def test_no_message_is_refused(studio):
    with pytest.raises(ValueError, match="no message"):
        studio.reply([])


def test_ask_takes_opened_videos_files_and_clips_alike(studio, film):
    opened = studio.open(film, max_frames=4)
    by_handle = "".join(studio.ask(opened, "What?", max_new_tokens=6))
    options = {"path": film, "max_frames": 4}
    by_path = studio.reply(ask(options, "What?"), max_new_tokens=6).text
    by_clip = "".join(studio.ask(opened.clip, "What?", max_new_tokens=6))
    assert by_handle == by_path == by_clip


def test_several_media_and_a_still_picture_given_as_a_video(studio, film, tmp_path):
    from PIL import Image

    Image.fromarray(np.full((50, 70, 3), 90, np.uint8)).save(tmp_path / "p.png")
    picture = studio.open(tmp_path / "p.png")
    assert picture.grid.frames == 1
    assert picture.clip.kind == "image"
    media = [studio.open(film, max_frames=2), picture]
    text = "".join(studio.ask(media, "?", max_new_tokens=3))
    parts = [{"type": "video", "video": medium} for medium in media]
    asked = [{"role": "user", "content": [*parts, {"type": "text", "text": "?"}]}]
    reply = studio.new_session().reply(asked, max_new_tokens=3)
    assert text == reply.text
    assert [seen.times_s for seen in reply.seen] == [media[0].clip.times_s, None]
    clip = Clip(frames_TYX3=picture.clip.frames_TYX3, times_s=(2.0,), source="one frame")
    assert studio.open(clip).grid.merge == 2


def test_byte_characters_are_written_whole(studio):
    from vl3.inference.generation import stream_text

    tokenizer = studio.processor.tokenizer
    ids = tokenizer("Ünïcödé 🍌 ok", add_special_tokens=False)["input_ids"]
    written = [text for _, text in stream_text(iter(ids), studio.processor.decode)]
    assert "".join(written) == "Ünïcödé 🍌 ok"
    assert not any("\ufffd" in text for text in written)
