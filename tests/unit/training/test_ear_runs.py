"""Runs of models that hear: exact, on several processes, with passes in which nothing is heard."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sounds import write_sound
from unit.training.test_processes import on_two_processes
from unit.training.test_runs import metrics, weights
from unit.training.test_trainer import recipe

import vl3
from vl3.data.readers import open_records
from vl3.sound import RATE_HZ
from vl3.training import run as runs
from vl3.training import setup
from vl3.training.collate import collate, silence_of
from vl3.training.memory import Machine, module_rows
from vl3.training.order import order_of
from vl3.training.recipe import (
    Adapter,
    Batch,
    Media,
    Optim,
    Rates,
    Source,
    Start,
    learns_to_hear,
)
from vl3.training.samples import build, measure
from vl3.training.sources import Samples, Steps, open_source, parts
from vl3.weights.ears import NANO, add_ear, load_ear
from vl3.weights.load import load
from vl3.weights.runs import checkpoints

CPU = Machine(device="cpu", compute_bytes=4, eager=True)
LEARNS = Rates(ear=1e-3, audio_connector=1e-3, language=1e-3)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Three sounds, one of them of two pieces of a nano's ear, and nine rows of words."""
    folder = tmp_path_factory.mktemp("rows")
    noise, lines = np.random.default_rng(0), {"sounds": [], "words": []}
    for number, seconds in enumerate((1, 2, 12)):
        samples = noise.normal(0, 0.1, seconds * RATE_HZ).astype(np.float32)
        write_sound(folder / f"{number}.wav", samples[None], RATE_HZ)
        user = {"from": "human", "value": "<audio>What is heard?"}
        turns = [user, {"from": "gpt", "value": f"A noise of {seconds} s."}]
        lines["sounds"].append({"audio": f"{number}.wav", "conversations": turns})
    for number in range(9):
        user = {"from": "human", "value": f"What is {number}?"}
        turns = [user, {"from": "gpt", "value": "A number."}]
        lines["words"].append({"conversations": turns})
    for name, found in lines.items():
        text = "".join(json.dumps(line) + "\n" for line in found)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module", params=NANO)
def hearing(request, tiny_folder, tmp_path_factory):
    """The tiny model with an untrained small ear."""
    studio = vl3.load(tiny_folder)
    processor = add_ear(studio.model, studio.processor, load_ear(request.param))
    folder = tmp_path_factory.mktemp("start")
    studio.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def chosen(folder, rows, tmp_path, **changes):
    """Steps of a sound and three rows of words, in passes of few tokens."""
    data = [Source(name=name, path=str(rows / f"{name}.jsonl")) for name in ("sounds", "words")]
    settings = {
        "start": Start(model=str(folder)),
        "rates": LEARNS,
        "data": data,
        "batch": Batch(samples=4, tokens=90, max_tokens=400),
        "steps": 4,
        "save_every": 2,
        "dtype": "float32",
        "optim": Optim(eps=1e-2),
    }
    return recipe(tmp_path, **settings | changes)


@pytest.mark.slow
def test_a_run_that_goes_on_is_bit_for_bit_the_same(hearing, rows, tmp_path):
    """BEATs leaves layers out at random, so the states of the generators count."""
    straight = chosen(hearing, rows, tmp_path / "straight")
    last = runs.run(straight)
    stopped = chosen(hearing, rows, tmp_path / "stopped")
    runs.run(stopped, until=2)
    again = runs.resume(runs.folder(stopped))
    one, other = weights(last), weights(again)
    assert {name for name in one if not torch.equal(one[name], other[name])} == set()
    start = weights(checkpoints(tmp_path / "stopped" / "run")[0])
    assert any("ear." in name and not torch.equal(start[name], one[name]) for name in one)
    lines = (metrics(tmp_path / way / "run") for way in ("straight", "stopped"))
    assert len({json.dumps(line) for line in lines}) == 1


def test_blocks_of_an_ear_that_are_computed_again_learn_the_same(hearing, rows, tmp_path):
    found = []
    for way in ([], ["ear"]):
        again = chosen(hearing, rows, tmp_path / "".join(way or ["no"]), checkpointing=way, steps=1)
        found.append(weights(runs.run(again)))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=1e-6, msg=name)


def test_a_model_without_an_ear_has_no_blocks_of_it(tiny_folder, rows, tmp_path):
    again = chosen(tiny_folder, rows, tmp_path, checkpointing=["ear"], rates=Rates(language=1e-3))
    with pytest.raises(ValueError, match="checkpointing: this model has no ear; leave it out"):
        setup.prepare(again, torch.device("cpu"))


def test_a_pass_without_sound_runs_the_ear_and_takes_no_slot(hearing, rows, tmp_path):
    model, processor = setup.prepare(chosen(hearing, rows, tmp_path), torch.device("cpu"))
    record = open_records(str(rows / "words.jsonl"), name="words")[0]
    sample = build(record, processor, 400)
    losses = []
    for silence in (None, silence_of(processor.settings)):
        model.zero_grad()
        packed = collate([sample], 0, 588, silence=silence).inputs
        assert int((packed["input_ids"] == model.config.audio_token_id).sum()) == 0
        inputs = {name: tensor for name, tensor in packed.items() if "_BL" not in name}
        output = model(**inputs, skip_logits=True)
        output.loss.backward()
        losses.append(output.loss.item())
        learning = [
            weight.grad
            for name in ("ear", "audio_connector")
            for weight in getattr(model, name).parameters()
            if weight.requires_grad
        ]
        assert all((gradient is None) == (silence is None) for gradient in learning)
        assert all(gradient is None or not gradient.any() for gradient in learning)
    assert losses[0] == losses[1]


def test_silence_is_heard_only_where_an_ear_learns(hearing, rows, tmp_path):
    from vl3.training.trainer import VL3Trainer

    for rates, is_there in ((LEARNS, True), (Rates(language=1e-3), False)):
        asked = chosen(hearing, rows, tmp_path, rates=rates)
        model, processor = setup.prepare(asked, torch.device("cpu"))
        trainer = VL3Trainer(model, processor, asked, tmp_path / "run")
        assert (trainer.data_collator.silence is not None) == is_there


def test_an_ear_that_leaves_a_layer_out_gives_each_weight_a_gradient(tiny_folder):
    ear = load_ear("nano-beats")
    ear.config.encoder_layerdrop = 1.0  # all of them
    ear.train().requires_grad_(True)
    bank_AZ = ear.bank(ear.config, np.random.default_rng(0).normal(0, 0.1, 16000).astype("f4"))
    ear(bank_AZ[None], torch.tensor([16000])).sum().backward()
    assert [name for name, weight in ear.named_parameters() if weight.grad is None] == []
    layer = ear.encoder.layers[1].fc1.weight
    assert not layer.grad.any()


def test_passes_keep_within_the_pieces_of_sound(hearing, rows, tmp_path):
    batch = Batch(samples=6, tokens=5000, max_tokens=400, pieces=2)
    data = [Source(name="sounds", path=str(rows / "sounds.jsonl"), samples=6)]
    asked = chosen(hearing, rows, tmp_path, batch=batch, data=data)
    _, processor = setup.prepare(asked, torch.device("cpu"))
    opened = [open_source(source, 0) for source in asked.data]
    samples = Samples(opened, processor, asked)
    sizes = [measure(opened[0][index], processor, 400) for index in range(3)]
    assert [size.pieces for size in sizes] == [1, 1, 2]
    built = [build(opened[0][index], processor, 400) for index in range(3)]
    assert [sample.size.pieces for sample in built] == [1, 1, 2]
    for step in Steps(order_of(asked, parts(asked.data, opened)), samples, asked, steps=2):
        held = {}
        for _, index, number in step:
            held[number] = held.get(number, 0) + sizes[index].pieces
        assert len(held) >= 4  # eight pieces, two a pass
        assert max(held.values()) <= 2


def test_an_adapter_remembers_how_its_model_hears(hearing, rows, tmp_path):
    media = Media(sound_tokens=60, sound_order="append")
    asked = chosen(
        hearing,
        rows,
        tmp_path,
        rates=Rates(adapter=1e-2, audio_connector=1e-3),
        adapter=Adapter(rank=4, alpha=8, dropout=0.0),
        media=media,
        steps=2,
    )
    folder = runs.run(asked)
    studio = vl3.load(folder)
    heard = studio.processor.settings.sound
    assert (heard.tokens, heard.order) == (60, "append")
    assert vl3.load(hearing).processor.settings.sound.tokens == 4096
    trained = weights(folder)
    name = "trained.safetensors audio_connector.readout.0.weight"
    assert torch.equal(studio.model.audio_connector.readout[0].weight, trained[name])
    sound = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    part = {"type": "audio", "audio": (sound, RATE_HZ)}
    asks = [{"role": "user", "content": [part, {"type": "text", "text": "What is heard?"}]}]
    assert studio.reply(asks, max_new_tokens=3).ledger.sound_tokens in range(20, 61)


@pytest.mark.parametrize("on", [["ear"], ["ear", "audio_connector", "language"]])
def test_an_adapter_in_the_ear_is_learned_and_comes_back(on, hearing, rows, tmp_path):
    adapter = Adapter(rank=4, alpha=8, dropout=0.0, on=on)
    asked = chosen(
        hearing, rows, tmp_path, rates=Rates(adapter=1e-2), adapter=adapter, steps=2, save_every=2
    )
    assert learns_to_hear(asked)
    folder = runs.run(asked)
    trained = weights(folder)
    assert {name.split()[1].split(".")[2] for name in trained if "lora_B" in name} == set(on)
    assert all(trained[name].abs().sum() > 0 for name in trained if "lora_B" in name)
    (row,) = [row for row in module_rows(asked, load(hearing).model.config, CPU) if row.rate]
    assert row.parameters == sum(tensor.numel() for tensor in trained.values())
    banks = np.random.default_rng(0).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    part = {"type": "audio", "audio": (banks, RATE_HZ)}
    asks = [{"role": "user", "content": [part, {"type": "text", "text": "What is heard?"}]}]
    own, adapted = (vl3.load(name).processor(asks) for name in (hearing, folder))
    with torch.no_grad():
        features = [
            load(name).model.embed_sound(own["input_features"], own["feature_lengths"])
            for name in (hearing, folder)
        ]
    assert own.keys() == adapted.keys()
    assert not torch.allclose(*features)


def test_without_an_ear_it_gets_no_adapter(tiny_folder, rows, tmp_path):
    asked = chosen(
        tiny_folder, rows, tmp_path, rates=Rates(adapter=1e-2), adapter=Adapter(on=["ear"])
    )
    with pytest.raises(ValueError, match=r"adapter\.on: this model has no ear"):
        setup.prepare(asked, torch.device("cpu"))


@pytest.mark.slow
def test_two_processes_that_hear_learn_what_one_learns(hearing, rows, tmp_path):
    """One of them often has words alone."""
    asked = chosen(hearing, rows, tmp_path)
    ear = vl3.load(hearing).model.config.audio_config
    if ear.model_type == "vl3_beats":  # what is left out at random is another in each process
        still = tmp_path / "still"
        model = vl3.load(hearing)
        model.model.config.audio_config.encoder_layerdrop = 0.0
        model.model.save_pretrained(still)
        model.processor.save_pretrained(still)
        asked = replace(asked, start=Start(model=str(still)))
    one = runs.run(replace(asked, out=str(tmp_path / "one")))
    done = on_two_processes(tmp_path, replace(asked, out=str(tmp_path / "two")), "run")
    assert done.returncode == 0, done.stdout[-3000:]
    assert metrics(tmp_path / "two") == pytest.approx(metrics(tmp_path / "one"), abs=1e-5)
    other = weights(checkpoints(tmp_path / "two")[-1])
    for name, weight in weights(one).items():
        torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_layers_that_one_process_leaves_out_hold_up_nobody(rows, tiny_folder, tmp_path):
    studio = vl3.load(tiny_folder)
    ear = load_ear("nano-beats")
    ear.config.encoder_layerdrop = 0.5
    processor = add_ear(studio.model, studio.processor, ear)
    studio.model.save_pretrained(tmp_path / "start")
    processor.save_pretrained(tmp_path / "start")
    done = on_two_processes(tmp_path, chosen(tmp_path / "start", rows, tmp_path), "run")
    assert done.returncode == 0, done.stdout[-3000:]
