"""Keys and values that grow in place: the same as transformers' own, without its copies."""

import torch
from transformers import DynamicCache

from vl3.language.kv_cache import LEAST_ROOM, capacity_for, growing_cache

HEADS, CHANNELS = 2, 8


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, tokens, CHANNELS, generator=noise) for _ in range(2))


def test_it_holds_what_transformers_own_holds():
    ours, theirs = growing_cache(), DynamicCache()
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
    cache = growing_cache()
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
