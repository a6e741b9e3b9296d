"""Linear layers and tables in 8 bits: what they round, what they compute, which layers stay."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import vl3
from vl3 import audio
from vl3.families.layouts import LayoutError
from vl3.model import VL3ForConditionalGeneration
from vl3.weights.export import export
from vl3.weights.load import load
from vl3.weights.quantize import int8_rows
from vl3.weights.quantize.int8_rows import (
    STEPS,
    Int8Embedding,
    Int8Linear,
    quantize_remaining,
    rounded,
)

CLIPS = Path(__file__).parents[3] / "assets" / "clips"
INPUTS, OUTPUTS = 48, 70
FORMATS = {torch.float32: 1e-6, torch.bfloat16: 0.01}  # bfloat16 rounds sums and their scaling


def linear(dtype, bias=True) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(INPUTS, OUTPUTS, bias=bias, dtype=dtype)
    layer.weight.data[3] *= 100  # a row of its own size
    return layer


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_weight_is_off_by_half_a_step_of_its_row_at_most(dtype):
    weight = linear(dtype).weight.data
    weight[5] = 0
    steps, scale = rounded(weight)
    assert (steps.dtype, scale.dtype, scale.shape) == (torch.int8, dtype, (OUTPUTS,))
    assert steps.abs().amax() <= STEPS
    off = (steps.float() * scale.float()[:, None] - weight.float()).abs()
    # A largest value may lie beyond the last step, by what the scale was rounded.
    beyond = STEPS * scale.float() * torch.finfo(dtype).eps
    assert (off <= scale.float()[:, None] / 2 + beyond[:, None]).all()
    assert not steps[5].any()


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", [(1,), (1, 1), (4,), (5,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_rounded_weight(dtype, shape, bias):
    old = linear(dtype, bias)
    new = Int8Linear(*rounded(old.weight.data), old.bias)
    x = torch.randn(*shape, INPUTS, dtype=dtype)
    acts = new.weight.float() * new.scale.float()[:, None]
    right = x.float() @ acts.T + (old.bias.float() if bias else 0)
    with torch.no_grad():
        y = new(x)
    assert y.shape == right.shape
    assert y.dtype == dtype
    assert (y.float() - right).norm() / right.norm() < FORMATS[dtype]
    assert (y.float() - right.roll(1, -1)).norm() / right.norm() > 10 * FORMATS[dtype]


def test_a_large_weight_is_unpacked_in_slices(monkeypatch):
    old = linear(torch.float32)
    new = Int8Linear(*rounded(old.weight.data), old.bias)
    x = torch.randn(9, INPUTS)
    whole = new(x)
    sizes = []
    monkeypatch.setattr(int8_rows, "SLICE_WEIGHTS", 32 * INPUTS)
    product = torch.nn.functional.linear
    monkeypatch.setattr(int8_rows.F, "linear", lambda x, w: sizes.append(len(w)) or product(x, w))
    assert torch.allclose(new(x), whole, atol=1e-5)
    assert sizes == [32, 32, 6]
    steps, scale = rounded(old.weight.data)
    assert torch.equal(steps, new.weight)
    assert torch.equal(scale, new.scale)


def test_gradients_pass_through_one_row():
    new = Int8Linear(*rounded(linear(torch.float32).weight.data))
    x = torch.randn(1, INPUTS, requires_grad=True)
    new(x).sum().backward()
    assert torch.allclose(x.grad, (new.weight.float() * new.scale[:, None]).sum(0)[None], atol=1e-4)


def test_a_table_gives_its_rounded_rows():
    table = nn.Embedding(30, 8)
    small = Int8Embedding(*rounded(table.weight.data))
    ids = torch.tensor([[3, 0], [29, 3]])
    assert small(ids).shape == (2, 2, 8)
    assert torch.equal(small(ids), (small.weight.float() * small.scale[:, None])[ids])
    assert torch.allclose(small(ids), table(ids), atol=float(small.scale.max()))


def test_all_but_the_layers_of_bitsandbytes_are_rounded_and_tied_ones_stay_one(tiny_folder):
    pytest.importorskip("bitsandbytes")
    nf4 = load(tiny_folder, quantize="nf4", dtype="bfloat16").model
    loaded = load(tiny_folder, quantize="nf4+int8", dtype="bfloat16")
    model = loaded.model
    assert not [n for n, m in model.named_modules() if type(m) in (nn.Linear, nn.Embedding)]
    assert {name.split(".")[0] for name in loaded.quantized.rounded} == {
        "vision",
        "connector",
        "language",
    }
    assert f"and {len(loaded.quantized.rounded)} other layers" in str(loaded.quantized)
    assert model.dtype == torch.bfloat16
    held = {kind: sum(p.nbytes for p in m.parameters()) for kind, m in (("nf4", nf4), ("", model))}
    assert held[""] < 0.75 * held["nf4"]
    with pytest.raises(LayoutError, match="quantized model cannot be exported"):
        export(model, loaded.processor, tiny_folder / "never")
    tied = VL3ForConditionalGeneration(model.config)
    tied.language.lm_head.weight = tied.language.model.embed_tokens.weight
    quantize_remaining(tied)
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert tied.get_output_embeddings().scale is tied.get_input_embeddings().scale


@pytest.mark.parametrize("dora", [False, True])
def test_layers_under_an_adapter_are_left_as_they_are(tiny_folder, tmp_path, dora):
    peft = pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    base = VL3ForConditionalGeneration.from_pretrained(tiny_folder)
    targets = r"vision\.blocks\.0\.mlp\.fc1|language\.model\.layers\.0\.self_attn\.q_proj"
    config = peft.LoraConfig(r=2, target_modules=targets, use_dora=dora, init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(tmp_path)
    loaded = load(tiny_folder, quantize="nf4+int8", adapter=tmp_path, dtype="bfloat16")
    adapted = loaded.model.vision.blocks[0].mlp.fc1
    assert type(adapted.base_layer) is nn.Linear
    assert not [name for name in loaded.quantized.rounded if "lora_" in name]
    assert isinstance(loaded.model.vision.blocks[0].mlp.fc2, Int8Linear)
    pixels = torch.zeros(16, 588, dtype=torch.uint8)
    whole = load(tiny_folder, adapter=tmp_path, dtype="bfloat16").model
    with torch.no_grad():
        near, right = (m.encode_vision(pixels, [[1, 4, 4]], [1]) for m in (loaded.model, whole))
    assert torch.nn.functional.cosine_similarity(near, right, dim=-1).min() > 0.99


def test_nano_answers_as_before():
    pytest.importorskip("bitsandbytes")
    examples = json.loads((CLIPS / "examples.json").read_text("utf-8"))
    silent = [one for one in examples if not audio.probe(CLIPS / one["file"]).has_sound]
    asked = [(CLIPS / one["file"], question) for one in silent for question in one["questions"]]
    whole, small = vl3.load(), vl3.load(quantize="nf4+int8")
    answers = [["".join(studio.ask(*one)) for one in asked] for studio in (whole, small)]
    assert len(asked) >= 10
    assert answers[0] == answers[1]
