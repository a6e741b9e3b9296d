"""Keys and values that grow in place: the same as transformers' own, without its copies."""

import pytest
import torch
from transformers import AutoModelForCausalLM, DynamicCache, GPT2Config, LlamaConfig

from vl3.config import nano
from vl3.language.kv_cache import LEAST_ROOM, GrowingCache, Rotary, capacity_for

HEADS, CHANNELS = 2, 8


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, tokens, CHANNELS, generator=noise) for _ in range(2))


def test_it_holds_what_transformers_own_holds():
    ours, theirs = GrowingCache(), DynamicCache()
    for seed, tokens in enumerate((5, 1, 1, 300, 1, 40, 1)):
        for layer in range(2):
            fresh = states(tokens, 10 * seed + layer)
            found, right = (cache.update(*fresh, layer) for cache in (ours, theirs))
            assert all(torch.equal(a, b) for a, b in zip(found, right))
        if seed in (3, 5):
            ours.crop(-20)
            theirs.crop(-20)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(3, 0) == theirs.get_mask_sizes(3, 0)
    assert not torch.equal(found[0], right[0].roll(1, -2))
    ours.reset()
    assert ours.get_seq_length() == 0
    again = states(4, 99)
    assert torch.equal(ours.update(*again, 0)[0], again[0])


def test_a_token_is_written_and_nothing_is_copied_until_the_room_is_full():
    cache = GrowingCache()
    cache.update(*states(100, 0), 0)
    places = set()
    for seed in range(LEAST_ROOM):
        keys, _ = cache.update(*states(1, seed), 0)
        places.add(keys.data_ptr())
    assert len(places) == 1
    assert cache.layers[0].nbytes == 2 * 4 * HEADS * CHANNELS * capacity_for(100)
    cache.crop(-30)
    assert cache.update(*states(30, 1), 0)[0].data_ptr() in places
    assert cache.update(*states(1, 1), 0)[0].data_ptr() not in places
    assert capacity_for(16_000) == 18_000


def decoder_of(family: str, layers: int):
    """A language model with random weights: nano's Qwen2, or a Llama whose angles are stretched."""
    torch.manual_seed(layers)
    qwen2 = nano(vocab_size=64, image_token_id=1).text_config
    if family == "qwen2":
        qwen2.num_hidden_layers = layers
        qwen2.layer_types = ["full_attention"] * layers
        return AutoModelForCausalLM.from_config(qwen2, attn_implementation="eager").eval()
    llama = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    )
    return AutoModelForCausalLM.from_config(llama, attn_implementation="eager").eval()


IDS = torch.arange(40)[None] * 7 % 64
SPANS = [(5, 9), (20, 33)]
STAYS = [*range(5), *range(9, 20), *range(33, 40)]
NEW = torch.tensor([[3, 1, 4, 1, 5]])


@torch.no_grad()
def filled(model, ids, cache):
    for part in ids.split(13, dim=1):
        model(input_ids=part, past_key_values=cache, use_cache=True)
    return cache


@torch.no_grad()
def go_on(model, cache):
    """Logits of new tokens, the last ones one at a time."""
    parts = [NEW[:, :3], NEW[:, 3:4], NEW[:, 4:]]
    passes = [model(input_ids=ids, past_key_values=cache, use_cache=True) for ids in parts]
    return torch.cat([each.logits for each in passes], dim=1)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("unrotated", [False, True])
def test_a_cropped_cache_is_one_that_was_filled_with_fewer_tokens(family, unrotated):
    model = decoder_of(family, 2)
    own = model.base_model if unrotated else None
    cropped, fewer = filled(model, IDS, GrowingCache(own)), GrowingCache(own)
    cropped.crop_to(26)
    filled(model, IDS[:, :26], fewer)
    for ours, theirs in zip(cropped.layers, fewer.layers, strict=True):
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
    assert torch.equal(go_on(model, cropped), go_on(model, fewer))


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_until_something_goes_unrotated_keys_change_no_bit(family):
    model = decoder_of(family, 2)
    found = [
        go_on(model, filled(model, IDS, cache))
        for cache in (GrowingCache(model.base_model), GrowingCache(), DynamicCache())
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_with_one_layer_the_rest_is_as_if_the_evicted_had_never_been(family):
    model = decoder_of(family, 1)
    cache = filled(model, IDS, GrowingCache(model.base_model))
    cache.evict(SPANS)
    fresh = filled(model, IDS[:, STAYS], GrowingCache())
    assert cache.get_seq_length() == len(STAYS)
    assert torch.allclose(cache.layers[0].values, fresh.layers[0].values, atol=1e-6)
    right = go_on(model, fresh)
    assert torch.allclose(go_on(model, cache), right, atol=1e-5)
    # the canary: keys that stay rotated for where they were
    stale = filled(model, IDS, GrowingCache())
    stale.evict(SPANS)
    assert not torch.allclose(go_on(model, stale), right, atol=1e-3)


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_with_more_layers_each_keeps_what_it_had_made_of_the_tokens_that_stay(family):
    """Values bit by bit, keys turned from where they were to where they are; layers above the
    first one have seen what went."""
    model = decoder_of(family, 3)
    cache = filled(model, IDS, GrowingCache(model.base_model))
    cache.evict(SPANS[:1])
    cache.evict([(16, 29)])  # the other one, where it is now
    before = filled(model, IDS, DynamicCache())
    rotary, expected = Rotary(model.base_model), DynamicCache()
    for number, layer in enumerate(before.layers):
        keys = rotary.done(rotary.undone(layer.keys, 0)[..., STAYS, :], 0)
        expected.update(keys, layer.values[..., STAYS, :], number)
        found = cache.layers[number]
        assert torch.equal(found.values, expected.layers[number].values)
        assert torch.allclose(found.keys, keys, atol=1e-5)
    assert torch.allclose(go_on(model, cache), go_on(model, expected), atol=1e-5)


def test_in_bfloat16_a_key_is_as_exact_after_many_evictions_as_after_one():
    rotary = Rotary(decoder_of("qwen2", 1).base_model)
    channels = 2 * rotary.angles.inv_freq.numel()
    noise = torch.Generator().manual_seed(0)
    plain = torch.randn(1, 2, 400, channels, generator=noise)
    turned = rotary.done(plain, 0).bfloat16()
    cache = GrowingCache(decoder_of("qwen2", 1).base_model)
    again = turned  # the trap: what is rotated already is turned by one more position each time
    errors, of_again = [], []
    cache.update(turned, turned, 0)
    for count in range(1, 301):
        cache.evict([(0, 1)])
        cos, sin = rotary.angles(again, torch.tensor([[1]]))
        again = rotary.apply(again, again, cos, -sin)[1]
        right = rotary.done(plain[..., count:, :], 0)
        errors.append(float((cache.layers[0].keys.float() - right).abs().max()))
        of_again.append(float((again[..., count:, :].float() - right).abs().max()))
    assert max(errors) < 0.06  # three roundings of numbers up to four
    assert of_again[-1] > 5 * max(errors)


def test_spans_and_decoders_that_cannot_be_are_refused():
    model = decoder_of("qwen2", 1)
    cache = filled(model, IDS, GrowingCache(model.base_model))
    cache.evict([])
    cache.evict([(7, 7)])
    assert cache.get_seq_length() == 40
    with pytest.raises(ValueError, match="within the 40 tokens of the cache - got 30 to 41"):
        cache.evict([(30, 41)])
    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=32, n_head=2))
    with pytest.raises(ValueError, match=r"keys of a gpt2 .* cannot be kept unrotated"):
        GrowingCache(gpt2.base_model)
