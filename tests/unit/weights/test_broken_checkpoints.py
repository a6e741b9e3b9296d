"""A checkpoint that is damaged, half there or none at all is one sentence that names the file."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vl3
from vl3.families.layouts import LayoutError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


def holds(name: str, content: bytes | str | list | dict) -> Callable[[Path], None]:
    """Makes the file hold this instead: bytes, text, or a value as JSON."""

    def change(folder: Path) -> None:
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)

    return change


def says(name: str, **entries) -> Callable[[Path], None]:
    """Changes entries of a JSON file; ... takes one out."""

    def change(folder: Path) -> None:
        raw = json.loads((folder / name).read_text()) | entries
        kept = {key: value for key, value in raw.items() if value is not ...}
        (folder / name).write_text(json.dumps(kept))

    return change


def half(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def code(folder: Path) -> None:
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {folder / 'was_run'}",)

    (folder / WEIGHTS).unlink()
    torch.save({"a": Runs()}, folder / "pytorch_model.bin")


def garbage(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x" * 100)


def adapter(config: dict | str | list, weights: bytes | None = None) -> Callable[[Path], None]:
    """Makes the folder that of an adapter on the model in ../tiny."""

    def change(folder: Path) -> None:
        for file in folder.iterdir():
            file.unlink()
        named = config
        if isinstance(config, dict):
            named = {"base_model_name_or_path": str(folder.parent / "tiny")} | config
        holds("adapter_config.json", named)(folder)
        if weights is not None:
            (folder / "adapter_model.safetensors").write_bytes(weights)

    return change


LORA = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
BROKEN = {
    "pointer of git-lfs": (holds(WEIGHTS, POINTER), "model.safetensors .* git lfs pull"),
    "half a download": (half, "model.safetensors .* damaged or was not downloaded to its end"),
    "empty weights": (holds(WEIGHTS, b""), r"damaged .* \(0 MB\)"),
    "a page of a proxy": (holds(WEIGHTS, b"<!doctype html>" * 9), "damaged"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "has no weights"),
    "code in a pickle": (code, "could run code"),
    "no pickle": (garbage, "pytorch_model.bin .* damaged"),
    "a shard outside": (holds(INDEX, {"weight_map": {"a": "../x.safetensors"}}), "outside"),
    "a shard that is missing": (holds(INDEX, {"weight_map": {"a": "x.safetensors"}}), "lacks x"),
    "an index of nothing": (holds(INDEX, {}), "lists no shards"),
    "an index that is a list": (holds(INDEX, [1]), "holds a list, not a JSON object"),
    "config that is a list": (holds("config.json", [1]), "config.json .* holds a list"),
    "config that is text": (holds("config.json", '"x"'), "config.json .* holds 'x'"),
    "config in UTF-16": (holds("config.json", "{}".encode("utf-16")), "not valid JSON"),
    "config as a pointer": (holds("config.json", POINTER), "config.json .* git lfs pull"),
    "no model_type": (says("config.json", model_type=None), "names no model_type"),
    "a list as model_type": (says("config.json", model_type=["vl3"]), "names no model_type"),
    "another family": (says("config.json", model_type="llama"), "is a 'llama' checkpoint"),
    "no language model": (says("config.json", text_config=...), "has no text_config"),
    "no encoder": (says("config.json", vision_config=...), "has no vision_config"),
    "an encoder by name": (says("config.json", vision_config="siglip"), "an object of sizes"),
    "an unknown language": (says("config.json", text_config={"model_type": "x"}), "cannot be used"),
    "no causal language": (says("config.json", text_config={"model_type": "t5"}), "no causal"),
    "a size in letters": (says("config.json", vision_config={"hidden_size": "x"}), "hidden_size"),
    "no heads": (
        says("config.json", vision_config={"num_attention_heads": 0}),
        "heads is a whole number, 1 or",
    ),
    "a width below zero": (
        says("config.json", vision_config={"hidden_size": -4, "num_attention_heads": 1}),
        "hidden_size is a whole number, 1 or more - got -4",
    ),
    "an unknown connector": (says("config.json", connector="stc"), "linear or mlpNx_gelu"),
    "a connector by number": (says("config.json", connector=9), "config.json .* connector"),
    "a slot beyond": (says("config.json", image_token_id=10**9), "image_token_id is a whole"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "half a tokenizer": (holds("tokenizer.json", "{"), "tokenizer.json .* not valid JSON"),
    "an empty tokenizer": (holds("tokenizer.json", {}), "tokenizer of .* cannot be read"),
    "a tokenizer's list": (holds("tokenizer_config.json", [1]), "tokenizer_config.json .* a list"),
    "half of settings": (holds("processor_config.json", "{"), "processor_config.json .* not valid"),
    "a setting misspelt": (
        says("processor_config.json", budget_token=1),
        "no setting budget_token; did you mean budget_tokens",
    ),
    "a rate in letters": (says("processor_config.json", fps="x"), "fps is a number above 0"),
    "no budget": (says("processor_config.json", budget_tokens=0), "budget_tokens is a whole"),
    "a pruner by name": (says("processor_config.json", prune="off"), "prune is settings"),
    "generation in a list": (
        holds("generation_config.json", [1]),
        "generation_config.json .* list",
    ),
    "an adapter without weights": (adapter(LORA), "has no adapter_model.safetensors"),
    "an adapter as a pointer": (adapter(LORA, POINTER), "adapter_model.safetensors .* git lfs"),
    "an adapter in a list": (adapter([1]), "adapter_config.json .* holds a list"),
    "an adapter of no kind": (adapter({"peft_type": "X"}, b"\2\0\0\0\0\0\0\0{}"), "cannot be used"),
    "an adapter's base by number": (
        adapter({"base_model_name_or_path": 3}),
        "a checkpoint folder or a hub id",
    ),
}


@pytest.fixture(scope="module")
def copies(tiny_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(tiny_folder, folder / "tiny")
    return folder


@pytest.mark.parametrize(("change", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_one_sentence(change, told, copies, request):
    folder = copies / request.node.callspec.id.replace(" ", "_").replace("'", "")
    shutil.copytree(copies / "tiny", folder)
    change(folder)
    with pytest.raises(LayoutError, match=told) as refused:
        vl3.load(folder)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
    assert not (folder / "was_run").exists()


def test_the_folder_that_was_broken_is_whole_otherwise(copies):
    assert vl3.load(copies / "tiny").card["name"] == "tiny"


WRONG = {
    "device": ("cuda:99", "tpu", 3, None, "meta", "cuda:x"),
    "dtype": ("int8", 5, None, [], "bf16"),
    "quantize": ("nf3", 4, True, ["nf4"]),
    "memory": ("x", 8, "-3GB", "", "1kb", []),
    "features_gb": (-1, "x", float("nan"), None),
    "adapter": ("no/such/folder", 3, "", " "),
    "model": (
        "",
        " ",
        3,
        b"x",
        [],
        True,
        "a/b/c",
        "https://x/y",
        "x" * 5000,
        "a\0b",
        "~nobody/x",
        __file__,
        Path("/"),
    ),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_an_argument_that_means_nothing_is_one_sentence(name, value, tiny_folder):
    with pytest.raises(ValueError, match=r"\w") as refused:
        vl3.load(**{"model": tiny_folder, "offline": True} | {name: value})
    said = str(refused.value)
    assert "\n" not in said
    assert 20 < len(said) < 300


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_cuda_that_is_not_there_names_the_way_out():
    with pytest.raises(ValueError, match=r"cuda is not to be had: .*; choose cpu or auto"):
        vl3.load(device="cuda")
