"""Checkpoints in and out: every layout, strictly, and what a wrong folder is told."""

import gc
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_config, wide_awake
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

import vl3
from vl3 import bundled
from vl3.config import nano, videollama3_2b, videollama3_7b
from vl3.families import layouts
from vl3.families.layouts import LayoutError
from vl3.model import VL3ForConditionalGeneration
from vl3.processor import VL3Processor
from vl3.weights import hub
from vl3.weights.assemble import assemble
from vl3.weights.digest import weights_digest
from vl3.weights.export import export
from vl3.weights.load import count_parameters, load
from vl3.weights.quantize.bnb import dequantized


def logits(model):
    """What the model says to a fixed prompt with a fixed picture."""
    slot = model.config.image_token_id
    ids = torch.tensor([[5, *[slot] * 4, 6, 7]])
    pixels = torch.arange(16 * 588).remainder(256).to(torch.uint8).view(16, 588)
    with torch.no_grad():
        return model(
            input_ids=ids, pixel_values=pixels, grid_thw=[[1, 4, 4]], merge_sizes=[2]
        ).logits.float()


@pytest.mark.parametrize("kind", ["own", "official", "native"])
def test_export_and_load_give_the_same_model(kind, tiny_model, tiny_processor, tmp_path):
    export(tiny_model, tiny_processor, tmp_path, kind)
    loaded = load(tmp_path)
    assert torch.equal(logits(loaded.model), logits(tiny_model))
    assert loaded.processor.settings == tiny_processor.settings
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".py", ".bin")]


def test_every_tensor_is_renamed_there_and_back(tiny_model):
    names = list(tiny_model.state_dict())
    assert len(names) > 50
    for layout in (layouts.OFFICIAL, layouts.NATIVE):
        there = [layout.there(name) for name in names]
        assert len(set(there)) == len(names)
        assert [layout.here(name) for name in there] == names
        assert not set(there) & set(names)


@pytest.mark.parametrize("tied", [True, False])
def test_shards_and_untied_heads(tied, tokenizer, tiny_processor, tmp_path):
    config = tiny_config(tokenizer, tie_word_embeddings=tied)
    model = wide_awake(VL3ForConditionalGeneration(config))
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    tiny_processor.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(load(tmp_path).model), logits(model))
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(LayoutError, match="lacks model-"):
        load(tmp_path)


def test_the_training_side_of_the_official_layout(tiny_model, tiny_processor, tmp_path):
    """One level deeper, a second copy of the tied head, and a .bin file."""
    export(tiny_model, tiny_processor, tmp_path, "official")
    tensors = load_file(tmp_path / "model.safetensors")
    deep = "model.vision_encoder."
    renamed = {name.replace(deep, deep + "vision_encoder."): t for name, t in tensors.items()}
    renamed["lm_head.weight"] = renamed["model.embed_tokens.weight"].clone()
    (tmp_path / "model.safetensors").unlink()
    torch.save(renamed, tmp_path / "pytorch_model.bin")
    assert torch.equal(logits(load(tmp_path).model), logits(tiny_model))


@pytest.mark.parametrize("change", ["missing", "unexpected", "misfit"])
def test_loading_is_strict(change, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "broken")
    tensors = load_file(folder / "model.safetensors")
    if change == "missing":
        del tensors["connector.readout.0.bias"]
    elif change == "unexpected":
        tensors["vision.extra"] = torch.zeros(1)
    else:
        tensors["connector.readout.0.bias"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises((LayoutError, RuntimeError), match=r"readout\.0\.bias|vision\.extra"):
        load(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "no config.json"),
        ("{", "not valid JSON"),
        ('{"model_type": "bert"}', "'bert'"),
        ('{"model_type": "qwen2"}', "part of a model"),
        ('{"model_type": "videollama3_qwen2"}', "vision_encoder_config"),
    ],
)
def test_a_folder_that_is_no_checkpoint(config, words, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(LayoutError, match=words):
        load(tmp_path)


def test_pixels_normalised_otherwise_are_refused(tiny_model, tiny_processor, tmp_path):
    export(tiny_model, tiny_processor, tmp_path, "official")
    file = tmp_path / "preprocessor_config.json"
    raw = json.loads(file.read_text()) | {"image_mean": [0.48, 0.46, 0.41]}
    file.write_text(json.dumps(raw))
    with pytest.raises(LayoutError, match="image_mean"):
        load(tmp_path)


def test_remote_code_beside_a_checkpoint_is_never_run(tiny_model, tiny_processor, tmp_path):
    export(tiny_model, tiny_processor, tmp_path, "official")
    for name in ("configuration", "modeling", "processing", "image_processing"):
        code = "raise SystemExit('remote code ran')"
        (tmp_path / f"{name}_videollama3.py").write_text(code)
    assert torch.equal(logits(load(tmp_path).model), logits(tiny_model))


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tokenizer):
    """A tiny plain SigLIP and a tiny plain Qwen2 as their own checkpoints."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(3)
    siglip = SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=56,
        patch_size=14,
    )
    SiglipVisionModel(siglip).save_pretrained(folder / "siglip")
    qwen = Qwen2Config(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=384,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(qwen).save_pretrained(folder / "qwen")
    tokenizer.save_pretrained(folder / "qwen")
    return folder


def test_training_starts_from_plain_siglip_and_qwen(parts):
    model, processor = assemble(parts / "siglip", parts / "qwen")
    theirs = load_file(parts / "siglip/model.safetensors")
    query = next(n for n in theirs if n.endswith("encoder.layers.1.self_attn.q_proj.weight"))
    assert torch.equal(model.vision.blocks[1].attention.q.weight, theirs[query])
    text = load_file(parts / "qwen/model.safetensors")
    assert torch.equal(
        model.language.model.layers[0].mlp.up_proj.weight, text["model.layers.0.mlp.up_proj.weight"]
    )
    assert processor.slot_ids.image == processor.tokenizer.convert_tokens_to_ids("<image>")
    assert torch.isfinite(logits(model)).all()


def test_the_stand_alone_encoder_and_that_of_a_whole_model(
    parts, tiny_model, tiny_processor, tmp_path
):
    """What official's SigLIP-NaViT holds; and a 7B takes the encoder of the trained 2B."""
    export(tiny_model, tiny_processor, tmp_path / "whole", "official")
    tensors = load_file(tmp_path / "whole/model.safetensors")
    prefix = "model.vision_encoder."
    encoder = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    (tmp_path / "navit").mkdir()
    save_file(encoder, tmp_path / "navit/model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "whole/config.json").read_text())["vision_encoder_config"]
    (tmp_path / "navit/config.json").write_text(json.dumps(config))
    expected = tiny_model.vision.state_dict()
    for source in ("navit", "whole"):
        model, _ = assemble(tmp_path / source, parts / "qwen")
        got = model.vision.state_dict()
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_assembling_is_strict(parts, tmp_path):
    folder = shutil.copytree(parts / "siglip", tmp_path / "siglip")
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "layers.1.mlp.fc1.weight" in name)
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayoutError, match=r"blocks\.1\.mlp\.fc1\.weight"):
        assemble(folder, parts / "qwen")
    with pytest.raises(LayoutError, match="no Qwen2"):
        assemble(parts / "siglip", parts / "siglip")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_only_linears_of_the_language_model_are_quantized(kind, tiny_folder, tiny_model):
    pytest.importorskip("bitsandbytes")
    loaded = load(tiny_folder, quantize=kind, dtype="bfloat16")
    blocks = len(tiny_model.language.model.layers)
    assert len(loaded.quantized.modules) == 7 * blocks
    assert all(name.startswith("language.model.layers.") for name in loaded.quantized.modules)
    assert loaded.quantized.bytes_now < loaded.quantized.bytes_16bit
    whole = [
        *loaded.model.vision.parameters(),
        *loaded.model.connector.parameters(),
        loaded.model.get_output_embeddings().weight,
    ]
    assert {parameter.dtype for parameter in whole} == {torch.bfloat16}
    right, whole = logits(loaded.model), load(tiny_folder, dtype="bfloat16").model
    assert torch.isfinite(right).all()
    assert torch.nn.functional.cosine_similarity(logits(whole)[0, -1], right[0, -1], dim=0) > 0.8
    acting = {f"{name}.weight": weight for name, weight in dequantized(loaded.model).items()}
    assert not whole.load_state_dict(acting, strict=False).unexpected_keys
    acts = torch.nn.functional.cosine_similarity(logits(whole)[0, -1], right[0, -1], dim=0)
    assert acts > 0.99, "what the layers do is not what their weights say"
    with pytest.raises(LayoutError, match="quantized model cannot be exported"):
        export(loaded.model, loaded.processor, tiny_folder / "never")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["nf4", "nf4+int8"])
def test_the_files_of_a_quantized_model_are_not_kept_in_memory(kind, tiny_folder, tmp_path):
    pytest.importorskip("bitsandbytes")
    stored = load(tiny_folder, dtype="bfloat16")  # in the format it is loaded in, or it is copied
    export(stored.model, stored.processor, tmp_path / "half")

    def mapped() -> bool:
        return f"{tmp_path}/" in Path("/proc/self/maps").read_text("utf-8")

    whole = load(tmp_path / "half", dtype="bfloat16")
    was_mapped = mapped()
    del whole
    gc.collect()
    loaded = load(tmp_path / "half", quantize=kind, dtype="bfloat16")
    assert was_mapped, "or this test sees nothing"
    assert not mapped()
    assert loaded.quantized.kind == kind


def test_unknown_choices_are_refused_in_words(tiny_folder, tiny_model, tiny_processor, tmp_path):
    with pytest.raises(ValueError, match=r"nf4, int8, nf4\+int8, or none"):
        load(tiny_folder, quantize="int3")
    with pytest.raises(ValueError, match="float32"):
        load(tiny_folder, dtype="float8")
    with pytest.raises(LayoutError, match="adapter_config"):
        load(tiny_folder, adapter=tmp_path)
    with pytest.raises(LayoutError, match="own, official, native"):
        export(tiny_model, tiny_processor, tmp_path, "gguf")


def test_an_adapter_changes_the_answer_and_its_studio_says_so(tiny_folder, tmp_path):
    peft = pytest.importorskip("peft")
    base = VL3ForConditionalGeneration.from_pretrained(tiny_folder)
    adapted = peft.get_peft_model(
        base, peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path)
    studio = vl3.load(tiny_folder, adapter=tmp_path)
    assert studio.card["adapter"] == str(tmp_path)
    plain = logits(load(tiny_folder).model)
    assert not torch.allclose(logits(studio.model), plain, atol=1e-3)
    with pytest.raises(LayoutError, match="merge the adapter"):
        export(studio.model, studio.processor, tmp_path / "never")


def test_names_become_folders(tiny_folder, monkeypatch):
    assert hub.resolve(tiny_folder) == tiny_folder
    assert hub.resolve(None) == bundled.NANO
    with pytest.raises(LayoutError, match="no folder"):
        hub.resolve("not a hub id")
    with pytest.raises(LayoutError, match="not in the local cache"):
        hub.resolve("nobody/nothing", offline=True)


def test_offline_never_opens_a_socket(tiny_folder, monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load(tiny_folder, offline=True)
    with pytest.raises(LayoutError):
        hub.resolve("nobody/nothing", offline=True)


def test_presets_have_the_sizes_of_the_released_models(tokenizer):
    assert count_parameters(videollama3_2b()) == pytest.approx(1.96e9, rel=0.01)
    assert count_parameters(videollama3_7b()) == pytest.approx(8.04e9, rel=0.01)
    vision = videollama3_2b().vision_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.head_channels) == (1152, 27, 72)
    assert count_parameters(nano(vocab_size=1088, image_token_id=1060)) < 5e6


def test_processor_of_every_recorded_checkpoint(shared):
    for name in ("vl3_official_tiny/ckpt_a", "vl3_hf_tiny/ckpt"):
        settings = VL3Processor.from_pretrained(shared / "fixtures" / name).settings
        assert settings.budget_tokens == 900
        assert (settings.image_merge, settings.video_merge) == (1, 2)
        assert settings.prune is not None


def test_recorded_names_of_the_released_checkpoints(shared):
    """Every tensor name that was recorded has a place here, and only ours come out."""
    keys = json.loads((shared / "fixtures/vl3_official_tiny/keys.json").read_text())
    table = [
        (layouts.OFFICIAL, keys["ckpt_a"]),
        (layouts.OFFICIAL, keys["ckpt_b"]),
        (layouts.SIGLIP_NAVIT, keys["navit_a"]),
        (layouts.OFFICIAL_TRAINING, keys["training_layout_keys_a"]),
    ]
    for layout, names in table:
        assert len(names) > 50
        ours = [layout.here(name) for name in names]
        assert {name.split(".")[0] for name in ours} <= {"vision", "connector", "language"}
        assert len(set(ours)) == len(ours)


@pytest.mark.parametrize("kind", ["own", "official", "native"])
def test_the_digest_of_weights_is_that_of_any_layout_and_any_shards(
    kind, tiny_model, tiny_processor, tiny_folder, tmp_path
):
    export(tiny_model, tiny_processor, tmp_path / "one", kind)
    assert weights_digest(tmp_path / "one") == weights_digest(tiny_folder)
    tiny_model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert weights_digest(tmp_path / "shards") == weights_digest(tiny_folder)
    tensors = load_file(tmp_path / "one/model.safetensors")
    bias = tensors[layouts.detect(tmp_path / "one").there("connector.readout.2.bias")]
    bias[len(bias) // 2] += 1e-6
    save_file(tensors, tmp_path / "one/model.safetensors", metadata={"format": "pt"})
    assert weights_digest(tmp_path / "one") != weights_digest(tiny_folder)


def test_every_tensor_of_an_adapter_arrives(tiny_folder, tmp_path):
    """The magnitudes of DoRA too."""
    peft = pytest.importorskip("peft")
    base = VL3ForConditionalGeneration.from_pretrained(tiny_folder)
    adapted = peft.get_peft_model(
        base,
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, use_dora=True),
    )
    for name, tensor in adapted.named_parameters():
        if "magnitude" in name:
            tensor.data *= 1.5
    adapted.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load(tiny_folder, adapter=tmp_path).model), logits(base))
