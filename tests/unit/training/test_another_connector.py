"""A model that gets a fresh connector in place of its own, before it is trained."""

from dataclasses import asdict, replace

import pytest
import torch
from unit.training.test_trainer import WORLDS, recipe

import vl3
from train_cli.model_sizes import sizes
from train_cli.plan import make
from vl3.bundled import NANO
from vl3.training import run as runs
from vl3.training.recipe import Adapter, Media, Rates, Recipe, Source, Start
from vl3.training.recorded import read
from vl3.training.setup import prepare
from vl3.weights.load import load

CLIPS = Source(name="clips", world=WORLDS["clips"], samples=40)
NAMES = ("linear", "mlp2x_gelu", "mean_linear", "stp_connector", "stc_connector_v35")


def with_connector(tmp_path, name, **changes) -> Recipe:
    settings = {
        "start": Start(model=str(NANO), connector=name),
        "rates": Rates(connector=1e-3),
        "data": [CLIPS],
        "steps": 1,
        "dtype": "float32",
    }
    return recipe(tmp_path, **settings | changes)


@pytest.mark.parametrize("name", NAMES)
def test_the_connector_is_new_and_all_else_the_models(name, tmp_path):
    own = load(NANO).model.state_dict()
    model, processor = prepare(with_connector(tmp_path, name), torch.device("cpu"))
    for key, tensor in model.state_dict().items():
        if not key.startswith("connector."):
            assert torch.equal(tensor, own[key]), key
    fresh = {k: v for k, v in model.state_dict().items() if k.startswith("connector.")}
    assert any(k not in own or not torch.equal(v, own[k]) for k, v in fresh.items())
    mixes = name not in ("linear", "mlp2x_gelu")
    assert processor.settings.connector == model.config.connector == name
    assert (processor.settings.prune is None) == mixes
    other = prepare(with_connector(tmp_path, name, seed=1), torch.device("cpu"))[0].state_dict()
    assert any(not torch.equal(value, other[key]) for key, value in fresh.items())


@pytest.mark.parametrize("name", ["linear", "stc_connector"])
def test_a_run_with_it_is_a_model_and_goes_on(name, tmp_path):
    asked = with_connector(tmp_path, name, steps=2, save_every=1)
    runs.run(asked, until=1)
    last = runs.resume(tmp_path / "run")
    studio = vl3.load(last)
    assert studio.model.config.connector == name
    picture = vl3.video.read_image(torch.full((112, 112, 3), 90, dtype=torch.uint8).numpy())
    shown = [{"type": "image", "image": picture}, {"type": "text", "text": "How many shapes?"}]
    assert studio.reply([{"role": "user", "content": shown}], max_new_tokens=2).token_ids


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_counts_it(name, tmp_path):
    """On an encoder of any size, where a connector may join rows, columns and frames."""
    asked = with_connector(tmp_path, name)
    model, _ = prepare(asked, torch.device("cpu"))
    plan = make(asked)
    (row,) = [row for row in plan.modules if row.name == "connector"]
    assert row.parameters == sum(p.numel() for p in model.connector.parameters())
    assert sizes(asked).connector == name
    assert plan.memory


def test_without_a_name_it_stays_the_models_own(tmp_path):
    asked = with_connector(tmp_path, None)
    own = load(NANO).model.connector.state_dict()
    made = prepare(asked, torch.device("cpu"))[0].connector.state_dict()
    assert all(torch.equal(made[key], value) for key, value in own.items())


def test_runs_of_before_keep_the_connector_of_their_model(tmp_path):
    values = asdict(with_connector(tmp_path, "mlp2x_gelu"))
    assert read(values).start.connector == "mlp2x_gelu"
    del values["nano"]["ear_steps"]
    assert read(values).start.connector is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"start": Start(nano=True, connector="linear")}, "start.connector goes with start.model"),
        ({"start": Start(nano=True, tower=True)}, "start.tower goes with"),
        (
            {"rates": Rates(adapter=1e-3), "adapter": Adapter()},
            "what start.connector makes is in this run only",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        with_connector(tmp_path, "linear", **changes)


def test_an_unknown_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="connector is linear or mlpNx_gelu"):
        prepare(with_connector(tmp_path, "mlp"), torch.device("cpu"))


def test_frames_of_more_or_fewer_tokens(tmp_path):
    def settings(**media):
        asked = with_connector(tmp_path, "linear", media=Media(**media))
        return prepare(asked, torch.device("cpu"))[1].settings

    own = settings()
    assert settings(frame_tokens=64) == replace(own, frame_tokens=64)
    assert own.frame_tokens == 16
