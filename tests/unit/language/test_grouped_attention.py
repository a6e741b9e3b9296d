"""Attention by groups of heads: the same numbers as transformers' own, and where it is taken."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from vl3.inference import generation
from vl3.inference.engine import Engine
from vl3.language import attention
from vl3.language.attention import MOST_TOKENS, NAME, attend, use_grouped_attention
from vl3.model import VL3ForConditionalGeneration
from vl3.weights.load import Loaded

HEADS, GROUPS, CHANNELS = 6, 2, 16
MODULE = SimpleNamespace(num_key_value_groups=HEADS // GROUPS, is_causal=True)


def inputs(batch: int, length: int, past: int, dtype=torch.float32):
    """Query, key, value and the mask of a piece that follows `past` tokens; the last batch entry
    has its first tokens hidden, as padding is."""
    noise = torch.Generator().manual_seed(length)
    query, key, value = (
        torch.randn(batch, heads, tokens, CHANNELS, generator=noise).to(dtype)
        for heads, tokens in ((HEADS, length), (GROUPS, past + length), (GROUPS, past + length))
    )
    mask = torch.ones(batch, 1, length, past + length, dtype=torch.bool).tril(past)
    mask[-1, :, :, : past // 2] = False
    return query, key, value, mask


@pytest.fixture
def products(monkeypatch) -> list[tuple]:
    """The shapes of queries that reach torch's attention."""
    seen, product = [], torch.nn.functional.scaled_dot_product_attention

    def noting(query, *args, **options):
        seen.append(tuple(query.shape[1:3]))
        return product(query, *args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noting)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "length", "past"), [(1, 1, 40), (2, 1, 40), (1, 7, 40), (2, 7, 9)]
)
def test_it_is_transformers_attention(batch, length, past, dtype, products):
    query, key, value, mask = inputs(batch, length, past, dtype)
    close = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 0.02}
    for masked in (mask, None)[: 2 if length == 1 else 1]:
        right, _ = sdpa_attention_forward(MODULE, query, key, value, masked, scaling=0.3)
        products.clear()
        found, _ = attend(MODULE, query, key, value, masked, scaling=0.3)
        assert products == [(GROUPS, HEADS // GROUPS * length)]
        torch.testing.assert_close(found, right, **close)
        assert not torch.allclose(found, right.roll(1, 2), **close), "heads of a group differ"
        if length > 1:
            other = mask.flip(2).logical_or(torch.eye(length, past + length, dtype=torch.bool))
            found, _ = attend(MODULE, query, key, value, other, scaling=0.3)
            assert not torch.allclose(found, right, **close), "every row has its own mask"


def test_long_prompts_gradients_and_implied_masks_are_transformers_own(products):
    query, key, value, mask = inputs(1, MOST_TOKENS + 1, 4)
    attend(MODULE, query, key, value, mask)
    query, key, value, mask = inputs(1, 5, 4)
    attend(MODULE, query, key, value, None)
    attend(MODULE, query.requires_grad_(), key, value, mask)
    assert products == [(HEADS, MOST_TOKENS + 1), (HEADS, 5), (HEADS, 5)]
    with torch.no_grad():
        attend(MODULE, query, key, value, mask)
    assert products[-1] == (GROUPS, 15)


def test_answers_take_it_and_are_the_same_without(tiny_model, products, monkeypatch):
    text = tiny_model.config.text_config
    groups, heads = text.num_key_value_heads, text.num_attention_heads
    assert heads > groups > 1, "or there is nothing to group"
    asked = generation.PreparedPrompt(
        ids=[5, 6, 7, 8], ends=(), media_keys=(), embeds=lambda _: None
    )

    engine = Engine(
        Loaded(tiny_model, None, name="tiny", folder=Path(), adapter=None, quantized=None)
    )

    def said() -> list[int]:
        products.clear()
        chosen = generation.Decoding(max_new_tokens=6)
        return list(generation.tokens(engine, asked, chosen, generation.PrefixCache(), ()))

    grouped = said()
    after_the_prompt = products[text.num_hidden_layers :]
    assert after_the_prompt == [(groups, heads // groups)] * 5 * text.num_hidden_layers
    monkeypatch.setattr(attention, "MOST_TOKENS", 0)
    assert said() == grouped
    assert tiny_model.language.config._attn_implementation == "sdpa"
    assert set(products[text.num_hidden_layers :]) == {(heads, 1)}


def test_another_attention_that_was_asked_for_stays(tiny_folder, tiny_model, products):
    ids = torch.tensor([[5, 6, 7]])
    model = VL3ForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="eager")
    with torch.no_grad():
        eager = model(ids).logits
    assert not products, "nothing goes to the fused attention"
    torch.testing.assert_close(eager, tiny_model(ids).logits, rtol=0, atol=1e-4)


def test_the_configuration_names_it_for_the_time_of_a_pass_only():
    config = PreTrainedConfig(attn_implementation="sdpa")
    cpu, seen = torch.device("cpu"), []
    with use_grouped_attention(config, cpu):
        with use_grouped_attention(config, cpu):
            seen.append(config._attn_implementation)
        seen.append(config._attn_implementation)
        config._attn_implementation = "eager"  # by somebody else, who is right
    assert (seen, config._attn_implementation) == ([NAME, NAME], "eager")
    with use_grouped_attention(config, cpu), use_grouped_attention(config, torch.device("cuda")):
        assert config._attn_implementation == "eager"


def test_continuous_batching_says_what_generate_says(tiny_model):
    prompts = [[5, 6, 7, 8], [9, 10, 11, 12, 13]]
    options = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=383, pad_token_id=0)
    batched = tiny_model.generate_batch(
        prompts,
        generation_config=options,
        progress_bar=False,
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=8, max_batch_tokens=64),
    )
    got = [answer.generated_tokens for _, answer in sorted(batched.items())]
    alone = [
        tiny_model.generate(torch.tensor([ids]), generation_config=options)[0, len(ids) :].tolist()
        for ids in prompts
    ]
    assert sorted(got) == sorted(alone)
    assert alone[0] != alone[1]
