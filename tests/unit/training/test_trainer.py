"""The training engine: packing and shared prefixes change nothing, runs are exact."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vl3.data.records import Record
from vl3.ops import CHUNK_TOKENS
from vl3.training import setup
from vl3.training.collate import attention_mask, collate
from vl3.training.order import DataOrder, Part, split
from vl3.training.plan import step_flops
from vl3.training.recipe import Batch, Optim, Rates, Recipe, Source, Start, World
from vl3.training.samples import Size, build, measure
from vl3.training.sources import Scenes

FAMILIES = {"colour": 1.0, "shape": 1.0, "count": 1.0, "exist": 1.0, "direction": 1.0}
WORLDS = {
    "images": World(families={k: v for k, v in FAMILIES.items() if k != "direction"}, questions=1),
    "clips": World(seconds=[2, 5], families=FAMILIES, questions=3),
}


def recipe(tmp_path, **changes) -> Recipe:
    settings = {
        "name": "test",
        "out": str(tmp_path / "run"),
        "start": Start(nano=True),
        "rates": Rates(vision=1e-3, connector=1e-3, language=1e-3),
        "data": [Source(name=n, world=w, samples=40) for n, w in WORLDS.items()],
        "batch": Batch(samples=4, tokens=700, patches=2000),
        "optim": Optim(kind="muon"),
        "checkpointing": [],
        "workers": 0,
        "log_every": 1,
    }
    return Recipe(**{**settings, **changes})


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    torch.manual_seed(0)
    model, processor = setup.prepare(recipe(tmp_path_factory.mktemp("run")), torch.device("cpu"))
    return model.eval(), processor


def samples(processor, count=5, name="clips"):
    scenes = Scenes(name, WORLDS[name], seed=3)
    return [build(scenes[index], processor, 10240) for index in range(count)]


def loss_and_gradients(model, passes):
    """Mean loss over all learned tokens, and every gradient, of several passes."""
    model.zero_grad()
    learned = sum(part.learned for part in passes)
    total = 0.0
    for part in passes:
        inputs = dict(part.inputs)
        own, branch = inputs.pop("sample_BL"), inputs.pop("branch_BL")
        mask = attention_mask(own, branch, torch.float32)
        output = model(
            **inputs,
            attention_mask=mask,
            use_cache=False,
            skip_logits=True,
            num_items_in_batch=learned,
        )
        output.loss.backward()
        total += output.loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(one, other, atol=1e-5):
    assert one[0] == pytest.approx(other[0], abs=atol)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=atol, rtol=1e-4, msg=name)


def joined(processor, chosen):
    return collate(chosen, processor.tokenizer.pad_token_id, 588)


def test_packed_samples_learn_as_they_do_alone(start):
    model, processor = start
    chosen = samples(processor) + samples(processor, 4, "images")
    packed = joined(processor, chosen)
    assert packed.inputs["input_ids"].shape[0] < len(chosen)  # some do share a row
    alone = [joined(processor, [sample]) for sample in chosen]
    assert sum(part.learned for part in alone) == packed.learned
    assert_same(loss_and_gradients(model, [packed]), loss_and_gradients(model, alone))


def test_a_leak_between_packed_samples_is_seen(start):
    model, processor = start
    chosen = samples(processor, 3) + samples(processor, 4, "images")
    packed = joined(processor, chosen)
    packed.inputs["sample_BL"].clamp_(max=0)  # the canary: all belong together now
    packed.inputs["branch_BL"].fill_(1)
    alone = [joined(processor, [sample]) for sample in chosen]
    with pytest.raises(AssertionError):
        assert_same(loss_and_gradients(model, [packed]), loss_and_gradients(model, alone))


def test_questions_that_share_a_clip_learn_as_separate_samples(start):
    model, processor = start
    scenes = Scenes("clips", WORLDS["clips"], seed=5)
    records = [scenes[index] for index in range(3)]
    shared = [build(record, processor, 10240) for record in records]
    separate = [
        build(replace(record, conversations=(conversation,), families=()), processor, 10240)
        for record in records
        for conversation in record.conversations
    ]
    assert sum(len(record.conversations) for record in records) == len(separate) > len(shared)
    one = joined(processor, shared)
    assert one.tokens < sum(len(sample.ids_L) for sample in separate)
    others = [joined(processor, [sample]) for sample in separate]
    assert_same(loss_and_gradients(model, [one]), loss_and_gradients(model, others))


def test_the_chunked_loss_is_the_plain_loss(start, monkeypatch):
    model, processor = start
    part = joined(processor, samples(processor, 2))
    whole = loss_and_gradients(model, [part])
    monkeypatch.setattr("vl3.kernels.linear_cross_entropy.reference.CHUNK_TOKENS", 7)
    assert part.learned > 7 < CHUNK_TOKENS
    assert_same(whole, loss_and_gradients(model, [part]))

    inputs = dict(part.inputs)
    mask = attention_mask(inputs.pop("sample_BL"), inputs.pop("branch_BL"), torch.float32)
    labels = inputs.pop("labels")
    logits = model(**inputs, attention_mask=mask).logits[:, :-1].flatten(0, 1)
    plain = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    assert whole[0] == pytest.approx(plain.item(), abs=1e-5)


def test_the_arithmetic_of_a_plan_is_that_of_a_step(start):
    """Counted by torch, attention and all; the plan leaves out norms, tables and the output."""
    model, processor = start
    scenes = Scenes("clips", WORLDS["clips"], seed=3)
    shapes = []
    for index in range(2):
        size = measure(scenes[index], processor, 10240)
        (sample,) = [build(scenes[index], processor, 10240)]
        part = joined(processor, [sample])
        with FlopCounterMode(display=False) as counter:
            loss_and_gradients(model, [part])
        tokens, patches = len(sample.ids_L), sample.size.patches
        chosen = replace(recipe(Path("unused")), checkpointing=[])
        pairs = (tokens**2, patches * size.picture)
        planned = step_flops(chosen, model.config, tokens, patches, pairs)
        without = step_flops(chosen, model.config, tokens, patches)
        shapes.append((planned / counter.get_total_flops(), planned / without))
    for share, attention in shapes:
        assert 0.85 < share < 1.02
        assert attention > 1.1  # it does count


def test_measured_sizes_are_never_below_the_real_ones(start):
    _, processor = start
    for name, world in WORLDS.items():
        scenes = Scenes(name, world, seed=1)
        for index in range(10):
            size = measure(scenes[index], processor, 10240)
            real = build(scenes[index], processor, 10240).size
            assert size.tokens >= real.tokens
            assert size.patches >= real.patches


def test_every_sample_of_a_step_has_one_pass_within_the_budgets():
    rng = random.Random(0)
    for processes in (1, 2, 3):
        sizes = [Size(rng.randint(10, 400), rng.randint(0, 3000)) for _ in range(40)]
        passes = split(sizes, 1000, 6000, processes)
        assert len(passes) == len(sizes)
        for number in set(passes):
            members = [size for size, chosen in zip(sizes, passes) if chosen == number]
            assert sum(size.tokens for size in members) <= 1000
            assert sum(size.patches for size in members) <= 6000
    assert split([Size(5000, 1)], 1000, 6000, 1) == [0]  # too long for any budget: alone


def test_an_epoch_takes_every_sample_once_and_steps_do_not_depend_on_history():
    order = DataOrder([Part(10, 10), Part(7, 7), Part(None, 3)], 5, seed=1)
    assert order.steps(1.0) == 4
    seen = [place for step in range(4) for place in order.step(step)]
    assert sorted(seen) == sorted(
        [(0, i) for i in range(10)] + [(1, i) for i in range(7)] + [(2, i) for i in range(3)]
    )
    later = DataOrder([Part(10, 10), Part(7, 7), Part(None, 3)], 5, seed=1)
    assert later.step(7) == order.step(7) != order.step(3)
    assert {i for n in range(4, 8) for d, i in later.step(n) if d == 2} == {3, 4, 5}


def test_fewer_samples_than_there_are_give_others_in_the_next_epoch():
    order = DataOrder([Part(10, 4)], 4, seed=0)
    taken = [index for step in range(5) for _, index in order.step(step)]
    assert sorted(taken) == sorted([*range(10), *range(10)])


def test_silent_decisions_of_a_stream_are_thinned_to_those_that_speak(start):
    _, processor = start
    second = {"role": "stream", "content": "Time 1.0s"}
    conversation = [*[second] * 6, {"role": "assistant", "content": "Now."}, *[second] * 3]
    sample = build(Record(id="a", dataset="d", conversations=(conversation,)), processor, 10240)
    silent, speak = processor.tokenizer.convert_tokens_to_ids(["<|stream_start|>", "<|im_start|>"])
    labels = sample.labels_L.tolist()
    assert labels.count(silent) == labels.count(speak) == 1
    again = build(Record(id="a", dataset="d", conversations=(conversation,)), processor, 10240)
    assert torch.equal(sample.labels_L, again.labels_L)
