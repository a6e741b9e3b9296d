"""A studio: what it hands to whom, who waits for whom, and which of its settings are used."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from clips import noise_clip

import vl3
from vl3.inference.disk_cache import FeatureCache
from vl3.inference.engine import Engine
from vl3.inference.memory import MemoryPlan
from vl3.settings import PruneSettings
from vl3.studio import CACHE_BYTES, Studio
from vl3.values import Clip
from vl3.weights.quantize.bnb import Quantized

SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


clip = partial(noise_clip, size=(112, 112))


def ask(*media, question="What happens?", system=None, history=()):
    parts = [{"type": "video", "video": medium} for medium in media]
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
    first = [{"role": "system", "content": system}] if system else []
    return [*first, *history, asked]


# set aside


class Device:
    """A GPU for a machine that has none: the model says that it is there, and notes its moves."""

    def __init__(self, model, monkeypatch):
        self.now, self.moves = "cuda", []
        kind = type(model)
        monkeypatch.setattr(kind, "device", property(lambda _: torch.device(self.now)))
        monkeypatch.setattr(kind, "to", lambda _, device: self.moved(str(device)))

    def moved(self, device):
        self.now = device
        self.moves.append(device)


@pytest.fixture
def gpu(studio, monkeypatch):
    return Device(studio.model, monkeypatch)


def test_weights_on_a_gpu_wait_in_the_computer_and_go_back(studio, gpu):
    with studio.engine.offloaded():
        assert (gpu.now, gpu.moves) == ("cpu", ["cpu"])
    assert gpu.moves == ["cpu", "cuda"]
    with pytest.raises(KeyError), studio.engine.offloaded():
        raise KeyError
    assert gpu.moves == ["cpu", "cuda"] * 2, "whatever happened to the other model"


def test_weights_that_stay_where_they_are(studio, gpu):
    kind = Quantized(kind="nf4", modules=(), rounded=(), bytes_now=1, bytes_16bit=2)
    with Engine(replace(studio.engine.loaded, quantized=kind)).offloaded():
        pass
    gpu.now = "cpu"
    with studio.engine.offloaded():
        pass
    assert gpu.moves == []


def test_nobody_computes_with_weights_that_wait_elsewhere(studio, gpu):
    stop = threading.Event()
    with studio.engine.offloaded(), ThreadPoolExecutor(3) as pool:
        sessions = (studio, studio.new_session(), studio.new_session(share_encoded=True))
        waiting = [pool.submit(other.reply, ask(clip()), stop=stop) for other in sessions]
        assert not any(wait(waiting, timeout=0.3).done)
        stop.set()
        assert all(one.result(timeout=10).stopped for one in waiting)
    gpu.now = "cpu"
    assert studio.reply(ask(clip()), **SHORT).token_ids


# what another session has


def test_another_session_has_the_bounds_and_the_files_of_its_studio(studio, tmp_path):
    fitted = MemoryPlan(quantize=None, budget_tokens=64, need=None, spare_bytes=10**9)
    files = FeatureCache(tmp_path, 10**6)
    first = Studio(studio.engine, cache_bytes=12345, features=files, fitted=fitted)
    second = first.new_session()
    shared = first.new_session(share_encoded=True)
    for other in (first, second, shared, second.new_session()):
        assert other._encoded.cache_bytes == 12345
        assert other._encoded.files is files
        assert other.settings.budget_tokens == 64
        assert other.engine is first.engine


def test_what_is_held_is_counted_part_by_part_and_released(studio):
    video = studio.open(clip())
    assert studio.cached_bytes == video.nbytes
    reply = studio.reply(ask(clip()), **SHORT)
    prompt = studio.cached_bytes - video.nbytes
    assert prompt == studio._prefix.nbytes > 0
    studio.attention(reply)
    assert studio.cached_bytes == video.nbytes + prompt + studio._tracer.nbytes
    assert studio._tracer.nbytes > 0
    studio.release()
    assert studio.cached_bytes == 0


# settings


def test_the_smaller_of_two_budgets_counts(studio):
    own = studio.processor.settings.budget_tokens
    for given, used in ((own // 2, own // 2), (own * 2, own)):
        fitted = MemoryPlan(quantize=None, budget_tokens=given, need=None, spare_bytes=0)
        assert Studio(studio.engine, fitted=fitted).settings.budget_tokens == used


def test_a_budget_is_that_of_plan_open_and_answer(studio):
    large = replace(clip(), frames_TYX3=clip().frames_TYX3.repeat(2, 1).repeat(2, 2))
    for budget in (50, 100, 400):
        tokens = studio.plan(large, budget_tokens=budget).num_tokens
        assert studio.open(large, budget_tokens=budget).grid.num_tokens == tokens <= budget
        reply = studio.reply(ask(large), budget_tokens=budget, **SHORT)
        assert reply.ledger.visual_tokens == tokens
        assert reply.ledger.reused_clips == 1
    assert len(studio._encoded) == 3


def test_a_part_of_the_pruner_settings_leaves_the_others(studio, monkeypatch):
    own = replace(studio.processor.settings.prune, mode="rlt", threshold=3.0, min_tokens=2)
    settings = replace(studio.processor.settings, prune=own)
    monkeypatch.setattr(studio.processor, "settings", settings)
    reply = studio.reply(ask(clip()), prune={"keep": "later"}, **SHORT)
    assert reply.settings["prune"] == {
        "mode": "rlt",
        "threshold": 3.0,
        "min_tokens": 2,
        "keep": "later",
    }
    monkeypatch.setattr(studio.processor, "settings", replace(settings, prune=None))
    reply = studio.reply(ask(clip()), prune={"threshold": 7.0}, **SHORT)
    assert reply.settings["prune"]["threshold"] == 7.0
    assert studio.reply(ask(clip()), **SHORT).settings["prune"] is None


def test_each_setting_of_the_pruner_is_used(studio):
    """Cells that stand still, drift slowly, turn bluer and jump."""
    pixels = np.full((6, 112, 112, 3), 90, np.uint8)
    for index in range(6):
        pixels[index, :56, 56:] += np.uint8(index)
        pixels[index, 56:, :56, 2] += np.uint8(9 * index)
        pixels[index, 56:, 56:] += np.uint8(40 * (index // 3))
    moving = Clip(frames_TYX3=pixels, times_s=tuple(map(float, range(6))), source="moving")
    base = {"threshold": 4.0, "mode": "official", "min_tokens": 1, "keep": "earlier"}
    changes = {"threshold": 9.0, "mode": "last_kept", "min_tokens": 5, "keep": "later"}
    assert base.keys() == changes.keys() == {each.name for each in fields(PruneSettings)}
    asked = [base, *(base | {name: value} for name, value in changes.items())]
    asked.append({"mode": "rlt", "threshold": 1.0})
    masks = [studio.reply(ask(moving), prune=each, **SHORT).seen[0].keep_bits for each in asked]
    assert len({*masks}) == len(masks)


def test_all_that_is_given_with_a_question_reaches_the_model(studio):
    """System prompt, earlier turns, settings: each changes what is said, as in a conversation."""
    history = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]
    options = {"system": "Be brief.", "history": history}
    said = set()
    for given in ({}, {"system": "Be brief."}, {"history": history}, options):
        text = "".join(studio.ask(clip(), "What?", **given, **SHORT))
        asked = ask(clip(), question="What?", **given)
        reply = studio.new_session().reply(asked, **SHORT)
        assert text == reply.text
        said.add(reply.prompt_ids)
    assert len(said) == 4
    one = "".join(studio.ask(clip(), "What?", max_new_tokens=1))
    assert one == studio.reply(ask(clip(), question="What?"), max_new_tokens=1).text


def test_each_choice_of_a_look_is_used(studio):
    reply = studio.reply(ask(clip()), **SHORT)
    plain = studio.attention(reply)
    choices = ({"layers": [0]}, {"heads": [1]}, {"tokens": [1]}, {"source": "rollout"})
    for chosen in choices:
        look = studio.attention(reply, **chosen)
        assert (
            look.weight_IHQL.shape != plain.weight_IHQL.shape
            or np.abs(look.weight_IHQL - plain.weight_IHQL).max() > 1e-6
        ), chosen
        assert look.source == chosen.get("source", "language")
    assert studio.attention(reply, layers=[0]).layers == (0,)
    assert studio.attention(reply, heads=[1]).heads == (1,)
    assert studio.attention(reply, tokens=[1]).tokens == (1,)


def test_space_on_disk_and_in_memory_is_what_was_asked_for(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    studio = vl3.load(tiny_folder, features_gb=0.25)
    assert studio._encoded.files.max_bytes == 250_000_000
    assert studio._encoded.files.folder == tmp_path / "vl3" / "features"
    assert studio._encoded.cache_bytes == CACHE_BYTES
