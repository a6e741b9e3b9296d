"""Training VideoLLaMA 2: towers, connectors that join frames, Llama 2's words."""

from dataclasses import replace

import pytest
import torch
from clips import noise_clip
from PIL import Image
from unit.training.test_joining_runs import CLIPS
from unit.training.test_trainer import recipe
from videollama2_folders import write_release

from vl3.data.records import BadSample, Record
from vl3.training import run as runs
from vl3.training.activations import kept_of_pass
from vl3.training.collate import StepCollator, collate
from vl3.training.memory import Machine, largest_pass, memory
from vl3.training.recipe import Adapter, Rates, Start, check
from vl3.training.samples import build, measure
from vl3.training.setup import adapter_targets, prepare
from vl3.weights.load import load
from vl3.weights.runs import checkpoints


@pytest.fixture(scope="module", params=["7B", "2.1-7B-16F"])
def folder(request, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("release")
    return write_release(tmp / "checkpoint", request.param, tmp).folder


@pytest.fixture(scope="module")
def loaded(folder):
    return load(folder, device="cpu")


def talk(*parts):
    asked = [*parts, {"type": "text", "text": "What is it?"}]
    return ([{"role": "user", "content": asked}, {"role": "assistant", "content": "Red."}],)


def records():
    film = {"type": "video", "video": noise_clip(frames=20, still=False)}
    picture = {"type": "image", "image": Image.fromarray(noise_clip(1, frames=1).frames_TYX3[0])}
    return [
        Record(id=str(number), dataset="d", conversations=talk(*parts))
        for number, parts in enumerate([[film], [picture], [film, picture], []])
    ]


def inputs_of(batch) -> dict:
    return {k: v for k, v in batch.inputs.items() if k not in ("sample_BL", "branch_BL")}


def test_samples_are_what_the_processor_makes_and_learn_the_same(loaded):
    model, processor = loaded.model, loaded.processor
    for record in records():
        sample = build(record, processor, 10)
        called = processor(record.conversations[0], return_labels=True)
        assert called["input_ids"][0].tolist() == sample.ids_L.tolist()
        assert called["labels"][0].tolist() == sample.labels_L.tolist()
        size = measure(record, processor, 10)
        assert size.tokens == len(sample.ids_L)
        assert size.patches == sum(grid.num_patches for grid in sample.grids)
        batch = collate([sample], 0, 588, processor.settings.blank)
        with torch.no_grad():
            one = model(**inputs_of(batch)).loss
            other = model(**called).loss
        assert float(one) == pytest.approx(float(other), rel=1e-4)


def test_a_step_without_pictures_reaches_tower_and_connector_with_nothing(loaded):
    settings = loaded.processor.settings
    step = StepCollator(0, 588, settings.blank)([(0, build(records()[3], loaded.processor, 10))])
    (batch,) = step.passes
    assert batch.inputs["grid_thw"].tolist() == [[2, 4, 4]]
    model = loaded.model.train()
    model.zero_grad()
    model(**inputs_of(batch)).loss.backward()
    weight = next(model.connector.parameters())
    assert (weight.grad == 0).all()
    model.zero_grad()
    model.eval()


def test_what_is_too_long_is_told_its_knob(loaded):
    with pytest.raises(BadSample, match=r"lower media\.max_frames, raise batch\.max_tokens"):
        build(records()[0], loaded.processor, 10, max_tokens=40)


def test_a_run_teaches_every_module_and_its_checkpoint_is_a_model(folder, tmp_path):
    learning = recipe(
        tmp_path, start=Start(model=str(folder)), data=CLIPS, steps=1, dtype="float32"
    )
    runs.run(learning)
    before, after = (
        load(place, device="cpu") for place in (folder, checkpoints(tmp_path / "run")[-1])
    )
    for name in (
        "vision.tower.encoder.layers.1.mlp.fc1.weight",
        "connector.readout.0.weight",
        "language.model.layers.0.mlp.up_proj.weight",
    ):
        weights = [one.model.state_dict()[name] for one in (before, after)]
        assert not torch.equal(*weights), name
    unread = "vision.tower.encoder.layers.2.mlp.fc1.weight"  # behind the layer that is read
    assert torch.equal(*(one.model.state_dict()[unread] for one in (before, after)))
    assert after.processor.settings == before.processor.settings
    assert after.processor.template == before.processor.template


def test_pictures_are_padded_where_the_recipe_says_so(folder, tiny_folder, tmp_path):
    start = Start(model=str(folder))
    learning = recipe(tmp_path, start=start, data=CLIPS, steps=1, dtype="float32")
    padded = replace(learning, media=replace(learning.media, fit="pad"))
    _, processor = prepare(padded, torch.device("cpu"))
    assert processor.settings.square.fit == "pad"
    assert prepare(learning, torch.device("cpu"))[1].settings.square.fit != "pad"
    anywhere = replace(padded, start=Start(model=str(tiny_folder)))
    with pytest.raises(ValueError, match="sees squares of one size, and this one takes pictures"):
        prepare(anywhere, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"media\.fit"):
        check(replace(padded, media=replace(padded.media, fit="cover")))


def test_adapters_go_into_every_module(folder, tmp_path):
    rates = Rates(adapter=1e-3, vision=None, connector=None, language=None)
    learning = recipe(
        tmp_path,
        start=Start(model=str(folder)),
        data=CLIPS,
        steps=1,
        dtype="float32",
        rates=rates,
        adapter=Adapter(rank=2, on=["vision", "connector", "language"]),
    )
    runs.run(learning)
    adapted = load(checkpoints(tmp_path / "run")[-1], device="cpu").model
    names = {name.split(".")[0] for name, _ in adapted.named_parameters() if "lora_" in name}
    assert names == {"vision", "connector", "language"}
    assert adapter_targets(load(folder, device="cpu").model)["vision"].startswith(r"vision\.tower")


def test_a_step_is_estimated(folder, loaded, tmp_path):
    config = loaded.model.config
    machine = Machine(device="cpu", compute_bytes=4, eager=True)
    learning = recipe(tmp_path)
    shape = replace(largest_pass(learning), tokens=200, row=200, patches=160, learned=200)
    kept = kept_of_pass(learning, config, shape, machine)
    assert min(kept["vision"].layer, kept["connector"].around, kept["language"].layer) > 0
    more = kept_of_pass(learning, config, replace(shape, patches=320), machine)
    assert more["vision"].layer == pytest.approx(2 * kept["vision"].layer, rel=0.1)
    assert sum(memory(learning, config, shape, machine).values()) > 0
