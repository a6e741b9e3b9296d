"""What autograd keeps of the ear, counted where nothing has memory, against a real pass."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from unit.training.test_activations import SHAPE, saved_in_a_real_pass
from unit.training.test_trainer import recipe

from vl3.audio.ear import ear_class
from vl3.config import nano
from vl3.model import VL3ForConditionalGeneration
from vl3.training.activations import kept_of_pass
from vl3.training.memory import Machine, heard_pieces, memory
from vl3.training.recipe import Rates
from vl3.weights.ears import NANO

WAYS = {
    "ear": Rates(ear=1e-4, audio_connector=1e-4),
    "connector": Rates(audio_connector=1e-4),
}
PIECES = 3


def config_of(kind):
    config = nano(vocab_size=256, image_token_id=1)
    config.audio_config, config.audio_token_id = deepcopy(NANO[kind]), 2
    config.audio_config.encoder_layers = 3  # of which two are built to be counted
    config.audio_config.encoder_layerdrop = 0.0
    return config


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", NANO)
def test_a_count_of_an_ear_is_that_of_a_real_pass(kind, way, eager, tmp_path):
    config = config_of(kind)
    asked = recipe(tmp_path, rates=WAYS[way])
    shape = replace(SHAPE, **heard_pieces(config, PIECES))
    machine = Machine(device="cpu", compute_bytes=4, eager=eager)
    counted = kept_of_pass(asked, config, shape, machine)
    attention = "eager" if eager else "sdpa"
    model = VL3ForConditionalGeneration._from_config(config, attn_implementation=attention)
    model.set_attn_implementation(attention)
    model.requires_grad_(False)
    for name in ("ear", "audio_connector"):
        if getattr(asked.rates, name):
            getattr(model, name).requires_grad_(True)
    model.train()
    ear = ear_class(config.audio_config)
    form = ear.form(config.audio_config)
    samples = form.piece_samples + form.overhang
    bank_AZ = ear.bank(config.audio_config, torch.randn(samples).numpy())
    bank_PAZ, lengths_P = bank_AZ.expand(PIECES, -1, -1).clone(), torch.full((PIECES,), samples)
    features = []

    def hear():
        features.append(model.ear(bank_PAZ, lengths_P))
        return features[0]

    real = saved_in_a_real_pass(model, hear)
    kept = counted["ear"]
    in_all = kept.around + kept.first + 2 * kept.layer
    # The table of buckets of a position bias and other small tensors are made in another order.
    assert in_all == pytest.approx(real, rel=0.03, abs=0 if real else 1)
    assert len(features[0]) == shape.sound
    x = features[0].detach().requires_grad_(way == "ear")
    real = saved_in_a_real_pass(model, lambda: model.project_sound(x))
    assert counted["audio_connector"].around == pytest.approx(real, rel=0.03)


def test_without_an_ear_and_without_sound_the_table_is_the_same(tmp_path):
    """Rows, order and figures: an ear that hears nothing adds its weights alone."""
    deaf, hearing = nano(vocab_size=256, image_token_id=1), config_of("nano-whisper")
    asked = recipe(tmp_path, rates=Rates(connector=1e-3, language=1e-3))
    machine = Machine(device="cpu", compute_bytes=4, eager=True)
    table, silent = (memory(asked, config, SHAPE, machine) for config in (deaf, hearing))
    assert list(table) == list(silent)
    assert {name: size for name, size in table.items() if name != "weights"} == {
        name: size for name, size in silent.items() if name != "weights"
    }
    assert silent["weights"] > table["weights"]
    shape = replace(SHAPE, **heard_pieces(hearing, PIECES))
    loud = memory(asked, hearing, shape, machine)
    assert set(loud) - set(table) >= {"filter banks", "ear activations"}
    learning = replace(asked, rates=replace(asked.rates, ear=1e-4))
    assert memory(learning, hearing, shape, machine)["ear activations"] > loud["ear activations"]
    again = replace(learning, checkpointing=["ear"])
    kept = [memory(each, hearing, shape, machine)["ear activations"] for each in (learning, again)]
    assert kept[1] < 0.6 * kept[0]
