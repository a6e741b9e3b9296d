"""What a plan counts on fake tensors against what autograd saves in a real pass."""

import pytest
import torch
from transformers import GPT2Config
from unit.training.test_trainer import recipe

from vl3.config import nano
from vl3.language.layers import decoder_layers
from vl3.model import VL3ForConditionalGeneration
from vl3.training.activations import kept_of_pass
from vl3.training.memory import Machine, Shape
from vl3.training.ranges import SEEING
from vl3.training.recipe import Adapter, Rates, Start
from vl3.training.setup import add_adapter
from vl3.values import Grid

FULL = {"rates": Rates(vision=1e-3, connector=1e-3, language=1e-3)}
WAYS = {
    "full": FULL,
    "frozen language": {"rates": Rates(vision=1e-3, connector=1e-3)},
    "lora": {"adapter": Adapter(rank=4, on=["vision", "connector", "language"])},
    "dora": {"adapter": Adapter(kind="dora", rank=4, dropout=0.0)},
}
SHAPE = Shape(tokens=160, row=80, visual=64, patches=256, frame=64, learned=20)


def config_of(kind):
    config = nano(vocab_size=256, image_token_id=1)
    if kind == "gpt2":
        config.text_config = GPT2Config(vocab_size=256, n_embd=96, n_layer=3, n_head=4)
    return config


def chosen(tmp_path, way):
    start = {"start": Start(model="assets/nano"), "rates": Rates(adapter=1e-3)}
    return recipe(tmp_path, **{**(start if "adapter" in WAYS[way] else {}), **WAYS[way]})


def saved_in_a_real_pass(model, run) -> int:
    """Bytes of the storages that autograd saves while it runs, without those of weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.state_dict().values()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out is not None
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["nano", "gpt2"])
def test_a_count_without_memory_is_that_of_a_real_pass(kind, way, eager, tmp_path):
    asked, config = chosen(tmp_path, way), config_of(kind)
    machine = Machine(device="cpu", compute_bytes=4, eager=eager)
    counted = kept_of_pass(asked, config, SHAPE, machine)
    attention = "eager" if eager else "sdpa"
    model = VL3ForConditionalGeneration._from_config(config, attn_implementation=attention)
    model.set_attn_implementation(attention)
    model.requires_grad_(False)
    if asked.adapter:
        add_adapter(model, asked.adapter)
    for name in SEEING:
        if getattr(asked.rates, name):
            getattr(model, name).requires_grad_(True)
    model.train()
    x = torch.randn(2, 80, config.text_config.hidden_size, requires_grad=True)
    mask = torch.zeros(2, 1, 80, 80)
    kept, layers = counted["language"], len(decoder_layers(model.language))
    in_all = kept.around + kept.first + (layers - 1) * kept.layer
    real = saved_in_a_real_pass(
        model,
        lambda: model.language.base_model(inputs_embeds=x, attention_mask=mask, use_cache=False),
    )
    assert in_all == pytest.approx(real, rel=0.03)
    assert kept.behind < kept.layer
    grids = (Grid(frames=4, rows=8, cols=8, merge=2),)
    real = saved_in_a_real_pass(model, lambda: model.vision(torch.rand(256, 588), grids))
    kept = counted["vision"]
    layers = config.vision_config.num_hidden_layers
    in_all = kept.around + kept.first + (layers - 1) * kept.layer
    assert in_all == pytest.approx(real, rel=0.03, abs=0 if real else 1)


def test_in_bfloat16_weights_in_another_format_are_not_counted(tmp_path):
    shapes = {}
    for compute_bytes in (4, 2):
        machine = Machine(device="cuda", compute_bytes=compute_bytes, eager=False)
        kept = kept_of_pass(chosen(tmp_path, "full"), config_of("nano"), SHAPE, machine)["language"]
        shapes[compute_bytes] = kept
    assert 0.5 < shapes[2].layer / shapes[4].layer < 0.9
    assert shapes[2].around < 1.1 * shapes[4].around  # no weight in bfloat16 among them
