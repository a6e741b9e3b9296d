"""Parameter groups, optimizers and rates."""

import pytest
import torch

from vl3.training import optim
from vl3.training.nano import init
from vl3.training.recipe import Optim, Rates


@pytest.fixture(scope="module")
def model():
    return init.untrained(seed=0)[0]


def test_every_parameter_is_in_one_group_with_the_rate_of_its_module(model):
    rates = Rates(vision=1e-5, connector=1e-3, language=2e-5)
    groups = optim.groups(model, rates, weight_decay=0.1)
    params = [param for group in groups for param in group["params"]]
    assert len(params) == len(set(params)) == len(list(model.parameters()))
    assert {(g["module"], g["lr"]) for g in groups} == {
        ("vision", 1e-5),
        ("connector", 1e-3),
        ("language", 2e-5),
    }
    assert {g["kind"]: g["weight_decay"] for g in groups} == {
        "matrices": 0.1,
        "table": 0.1,
        "rest": 0.0,
    }


def test_matrices_are_those_of_the_blocks_and_the_patch_embedding(model):
    groups = optim.groups(model, Rates(vision=1.0, connector=1.0, language=1.0), 0.0)
    kinds = {id(param): group["kind"] for group in groups for param in group["params"]}
    assert kinds[id(model.vision.patch_embedding.weight)] == "matrices"
    assert kinds[id(model.get_input_embeddings().weight)] == "table"
    assert kinds[id(model.vision.blocks[0].norm1.weight)] == "rest"


def test_muon_takes_the_matrices_and_adamw_the_rest(model):
    rates = Rates(vision=1e-3, connector=1e-3, language=1e-3)
    both = optim.optimizer(model, rates, Optim(kind="muon", muon_factor=5.0))
    assert {(g["kind"], g["lr"]) for g in both.param_groups} == {
        ("matrices", 5e-3),
        ("table", 1e-3),
        ("rest", 1e-3),
    }
    assert [type(member).__name__ for member in both.members] == ["Muon", "AdamW"]


def test_the_state_of_both_comes_back(model):
    def stepped(count, state=None):
        torch.manual_seed(0)
        layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        made = optim.Together(
            [
                optim.Muon([layer[0].weight], lr=0.1),
                torch.optim.AdamW([layer[0].bias, layer[1].weight], lr=0.1),
            ]
        )
        if state:
            layer.load_state_dict(state[0])
            made.load_state_dict(state[1])
        for _ in range(count):
            layer(torch.ones(2, 4)).square().sum().backward()
            made.step()
            made.zero_grad()
        return layer.state_dict(), made.state_dict()

    weights, state = stepped(2)
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    resumed, straight = stepped(2, (weights, state))[0], stepped(4)[0]
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_the_rate_warms_up_and_follows_its_schedule():
    cosine = Optim(warmup=0.1, schedule="cosine")
    assert optim.factor(cosine, 0, 100) == pytest.approx(0.1)
    assert optim.factor(cosine, 10, 100) == 1.0
    assert optim.factor(cosine, 55, 100) == pytest.approx(0.5)
    assert optim.factor(cosine, 100, 100) == pytest.approx(0.0)
    linear = Optim(warmup=0.0, schedule="linear", floor=0.1)
    assert optim.factor(linear, 100, 100) == pytest.approx(0.1)
    assert optim.factor(Optim(warmup=0.0, schedule="constant"), 99, 100) == 1.0
