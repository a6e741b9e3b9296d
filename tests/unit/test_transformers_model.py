"""The model as one of transformers': outputs, losses, attention, loading, offloading, PEFT, TRL."""

import copy
import importlib.util
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

from vl3.bundled import NANO
from vl3.families.layouts import LayoutError
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.visual_inputs import working_device

TALK = [
    {
        "role": "user",
        "content": [
            {
                "type": "image",
                "image": Image.fromarray(
                    np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
                ),
            },
            {"type": "text", "text": "What happens in the video?"},
        ],
    },
    {"role": "assistant", "content": "A red circle moves right."},
]


@pytest.fixture(scope="module")
def inputs(tiny_processor):
    return tiny_processor(TALK, return_labels=True)


@pytest.fixture
def model(tiny_model):
    return copy.deepcopy(tiny_model)


def test_fields_come_in_their_order_and_as_a_tuple(tiny_model, inputs):
    with torch.no_grad():
        output = tiny_model(**inputs)
        plain = tiny_model(**inputs, return_dict=False)
    assert list(output)[:3] == ["loss", "logits", "past_key_values"]
    assert output[0] is output.loss
    assert torch.equal(plain[0], output.loss)
    assert torch.equal(plain[1], output.logits)


def test_training_mode_gives_logits_unless_asked_not_to(model, inputs):
    assert model.train()(**inputs).logits is not None
    output = model(**inputs, skip_logits=True)
    assert output.logits is None
    assert output.losses_K.shape == output.right_K.shape


def test_evaluation_of_a_plain_trainer_leaves_our_figures_out(model, inputs, tmp_path):
    arguments = TrainingArguments(tmp_path, use_cpu=True, report_to=[])
    trainer = Trainer(model=model, args=arguments)
    _, logits, labels = trainer.prediction_step(model, dict(inputs), prediction_loss_only=False)
    assert torch.is_tensor(logits), "nothing but the logits"
    assert logits.shape[:2] == labels.shape


def test_labels_that_are_shifted_already(tiny_model, inputs):
    shifted = torch.nn.functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:]
    rest = {name: tensor for name, tensor in inputs.items() if name != "labels"}
    with torch.no_grad():
        expected = tiny_model(**inputs).loss
        assert torch.equal(tiny_model(**rest, shift_labels=shifted).loss, expected)
        assert torch.equal(tiny_model(**inputs, shift_labels=shifted).loss, expected)
        wrong = tiny_model(**rest, shift_labels=inputs["labels"]).loss
    assert not torch.isclose(wrong, expected)


def test_pixels_are_seen_beside_embeddings(tiny_model, inputs):
    rest = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    embeds = tiny_model.get_input_embeddings()(inputs["input_ids"])
    with torch.no_grad():
        expected = tiny_model(**inputs).logits
        found = tiny_model(inputs_embeds=embeds, **rest).logits
        dark = rest | {"pixel_values": torch.zeros_like(rest["pixel_values"])}
        blind = tiny_model(inputs_embeds=embeds, **dark).logits
    assert torch.equal(found, expected)
    assert not torch.allclose(blind, expected, atol=1e-2)
    with pytest.raises(ValueError, match="0 visual slots"):
        tiny_model(inputs_embeds=torch.zeros_like(embeds), **rest)


def test_base_model_decoder_and_encoder(model, inputs):
    rest = {name: tensor for name, tensor in inputs.items() if name != "labels"}
    seen = []
    hook = model.base_model.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        output = model(**rest, output_hidden_states=True)
        states = model.base_model(**rest).last_hidden_state
    hook.remove()
    assert len(seen) == 2, "hooks on it run, and with the whole model"
    assert torch.equal(model.get_output_embeddings()(states), output.logits)
    assert model.get_decoder() is model.language.model
    assert model.get_encoder(modality="video") is model.vision
    of_base = {id(p) for p in model.base_model.parameters()}
    assert of_base == {id(p) for p in model.parameters()}
    assert not any(name.startswith("_base") for name in model.state_dict())
    other = copy.deepcopy(model)
    assert {id(p) for p in other.base_model.parameters()} == {id(p) for p in other.parameters()}
    model.connector = torch.nn.Identity()
    assert isinstance(model.base_model.connector, torch.nn.Identity), "the modules it has now"


def test_attention_of_each_part_can_be_set(model):
    model.set_attn_implementation({"vision_config": "eager"})
    assert model.vision.blocks[0].attention.attend.eager
    assert model.language.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert model.language.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    assert not model.vision.blocks[0].attention.attend.eager


@pytest.mark.parametrize("reentrant", [True, False])
def test_adapters_in_the_encoder_learn_behind_checkpoints(model, inputs, reentrant):
    from peft import LoraConfig, get_peft_model

    model.requires_grad_(False)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    targets = r"vision\.blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.fc[12])"
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    )
    adapted.train()(**inputs).loss.backward()
    grads = [p.grad for name, p in adapted.named_parameters() if "lora_" in name]
    assert len(grads) == 24
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_prompt_tuning_sees_the_picture(model, inputs):
    from peft import PromptTuningConfig, get_peft_model

    tuned = get_peft_model(
        model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    ).eval()
    dark = inputs | {"pixel_values": torch.zeros_like(inputs["pixel_values"])}
    with torch.no_grad():
        light, night = (tuned(**given).logits for given in (inputs, dark))
    assert (light - night).abs().max() > 0.1


# Loading


def test_loading_takes_what_transformers_takes(tiny_folder, tiny_model, tmp_path):
    load = VL3ForConditionalGeneration.from_pretrained
    model, info = load(tiny_folder, output_loading_info=True)
    assert info["missing_keys"] == set()
    for options in (
        {"trust_remote_code": True},
        {"ignore_mismatched_sizes": True},
        {"key_mapping": {"^x": "y"}},
    ):
        assert weights_equal(load(tiny_folder, **options), tiny_model)
    assert load(tiny_folder, output_hidden_states=True).config.output_hidden_states
    shutil.copytree(tiny_folder, tmp_path / "deep" / "below")
    assert weights_equal(load(tmp_path / "deep", subfolder="below"), tiny_model)
    (tmp_path / "deep/below/model.safetensors").rename(
        tmp_path / "deep/below/model.fp16.safetensors"
    )
    assert weights_equal(load(tmp_path / "deep/below", variant="fp16"), tiny_model)
    by_state = load(None, config=tiny_model.config, state_dict=tiny_model.state_dict())
    assert weights_equal(by_state, tiny_model)
    assert weights_equal(AutoModelForImageTextToText.from_pretrained(tiny_folder), tiny_model)
    assert type(model) is VL3ForConditionalGeneration


def weights_equal(model, expected) -> bool:
    there = expected.state_dict()
    return all(torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items())


def test_loading_stays_strict_unless_asked_for_the_report(tiny_folder, tmp_path, tiny_model):
    config = copy.deepcopy(tiny_model.config)
    config.vision_config.intermediate_size = 48
    load = VL3ForConditionalGeneration.from_pretrained
    with pytest.raises(LayoutError, match="mismatched keys"):
        load(tiny_folder, config=config)
    other = load(tiny_folder, config=config, ignore_mismatched_sizes=True)
    assert other.vision.blocks[0].mlp.fc1.out_features == 48
    config = copy.deepcopy(tiny_model.config)
    config.vision_config.num_hidden_layers = 3
    with pytest.raises(LayoutError, match="missing keys"):
        load(tiny_folder, config=config, ignore_mismatched_sizes=True)
    _, info = load(tiny_folder, config=config, output_loading_info=True)
    assert all(name.startswith("vision.blocks.2.") for name in info["missing_keys"])


def test_a_callers_names_come_before_the_layouts(tiny_folder, tmp_path, tiny_model):
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_folder, tmp_path / "renamed")
    file = tmp_path / "renamed/model.safetensors"
    saved = {f"module.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(saved, file, metadata={"format": "pt"})
    load = VL3ForConditionalGeneration.from_pretrained
    with pytest.raises(LayoutError):
        load(tmp_path / "renamed")
    assert weights_equal(load(tmp_path / "renamed", key_mapping={r"^module\.": ""}), tiny_model)


def test_the_folder_of_an_adapter(tiny_folder, tmp_path, inputs):
    from peft import LoraConfig, get_peft_model

    base = VL3ForConditionalGeneration.from_pretrained(tiny_folder)
    base.name_or_path = str(tiny_folder)
    adapted = get_peft_model(
        base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path)
    VL3Processor.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits
        for load in (VL3ForConditionalGeneration, AutoModelForImageTextToText):
            found = load.from_pretrained(tmp_path).eval()(**inputs).logits
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert VL3Processor.from_pretrained(tmp_path).settings.budget_tokens == 400


def test_nano_is_float32_on_a_cpu_and_as_asked_elsewhere():
    load = VL3ForConditionalGeneration.from_pretrained
    assert load(NANO).dtype == torch.float32
    assert load(NANO, dtype="auto").dtype == torch.float16
    assert load(NANO, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_weights_that_are_elsewhere(model, inputs, tmp_path):
    from accelerate import cpu_offload, disk_offload

    with torch.no_grad():
        expected = model(**inputs).logits
    elsewhere = (
        lambda: cpu_offload(copy.deepcopy(model), execution_device="cpu"),
        lambda: disk_offload(copy.deepcopy(model), str(tmp_path), execution_device="cpu"),
    )
    for move in elsewhere:
        moved = move()
        assert next(moved.vision.parameters()).device.type == "meta"
        assert working_device(moved.vision).type == "cpu"
        with torch.no_grad():
            torch.testing.assert_close(moved(**inputs).logits, expected, rtol=0, atol=1e-5)


# TRL

needs_trl = pytest.mark.skipif(
    not (importlib.util.find_spec("trl") and importlib.util.find_spec("datasets")),
    reason="needs trl and datasets",
)
ROWS = [
    {
        "images": [Image.new("RGB", (56, 56), (250, 20 * number, 0))],
        "messages": [
            {"role": "user", "content": "What colour?"},
            {"role": "assistant", "content": "Red."},
        ],
    }
    for number in range(4)
]
WAYS = {
    "messages": {},
    "answers alone": {"assistant_only_loss": True},
    "all logits": {"loss_type": "nll"},
    "lora": {},
    "prompt and completion": {},
    "own collator": {
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    },
}


@needs_trl
@pytest.mark.parametrize("way", WAYS)
def test_trl_trains_it(tiny_folder, tmp_path, way):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    processor = VL3Processor.from_pretrained(tiny_folder)
    rows, more = ROWS, {}
    if way == "lora":
        more["peft_config"] = LoraConfig(r=2, target_modules="all-linear")
    if way == "prompt and completion":
        rows = [
            {
                "images": row["images"],
                "prompt": row["messages"][:1],
                "completion": row["messages"][1:],
            }
            for row in ROWS
        ]
    if way == "own collator":
        more["data_collator"] = lambda rows: processor(
            [
                [
                    {
                        "role": "user",
                        "content": [{"type": "image", "image": row["images"][0]}, "What?"],
                    },
                    row["messages"][1],
                ]
                for row in rows
            ],
            return_labels=True,
        )
    trainer = SFTTrainer(
        model=VL3ForConditionalGeneration.from_pretrained(tiny_folder),
        args=SFTConfig(
            str(tmp_path),
            max_steps=3,
            per_device_train_batch_size=4,
            use_cpu=True,
            report_to=[],
            logging_steps=1,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            **WAYS[way],
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        **more,
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
