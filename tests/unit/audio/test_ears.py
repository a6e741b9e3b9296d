"""Ears: how they cut a sound, which tokens they make of it and when, and that memory stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import tone, write_sound

from vl3 import audio
from vl3.audio.beats import BEATs
from vl3.audio.ear import Ear, banks, ear_class, register
from vl3.audio.pieces import EarForm
from vl3.audio.whisper import WhisperEar
from vl3.config import BEATsConfig, WhisperEarConfig

FORMS = {
    "whisper": EarForm(step_samples=1280, steps=375),
    "beats": EarForm(step_samples=2560, steps=187, bands=8, overhang=240, takes_rest=False),
    "small": EarForm(step_samples=7, steps=3, overhang=2, takes_rest=False),
    "small with rest": EarForm(step_samples=7, steps=3),
}


def tiny_beats(**changes) -> BEATs:
    sizes = {
        "embed_dim": 16,
        "encoder_layers": 2,
        "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 48,
        "encoder_attention_heads": 4,
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    return BEATs(BEATsConfig(**sizes | changes)).eval()


def tiny_whisper(**changes) -> WhisperEar:
    sizes = {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "max_source_positions": 100,
        "init_std": 0.2,
    }
    torch.manual_seed(0)
    return WhisperEar(WhisperEarConfig(**sizes | changes)).eval()


EARS = [tiny_whisper, tiny_beats]


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32) / 8


def in_blocks(samples: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    found, place = [], 0
    while place < len(samples):
        size = sizes[len(found) % len(sizes)]
        found.append(samples[place : place + size])
        place += size
    return found


@given(
    name=st.sampled_from(["small", "small with rest"]),
    count=st.integers(0, 100),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=200)
def test_pieces_do_not_depend_on_blocks_and_their_steps_add_up(name, count, sizes):
    form, samples = FORMS[name], np.arange(count, dtype=np.float32)
    found = [*form.pieces(in_blocks(samples, sizes))]
    whole = [*form.pieces([samples])]
    assert len(found) == len(whole)
    assert all(np.array_equal(a, b) for a, b in zip(found, whole))
    assert sum(form.steps_of(len(piece)) for piece in found) == form.steps_of(count)
    for index, piece in enumerate(found):
        assert piece[0] == index * form.piece_samples
        assert len(piece) <= form.piece_samples + form.overhang


@pytest.mark.parametrize("name", list(FORMS))
def test_steps_follow_one_another_and_end_with_the_sound(name):
    form = FORMS[name]
    for count in (1, form.step_samples, 5 * form.step_samples + 3, 40 * form.step_samples):
        tokens = form.tokens(count, start_s=-1.5)
        starts, ends = zip(*tokens.spans_s)
        assert starts[0] == -1.5
        assert starts[1:] == ends[:-1]
        assert ends[-1] <= -1.5 + count / 16_000 + 1e-9
        assert tokens.num_tokens == form.steps_of(count) * form.bands


def test_30_s_are_187_steps_of_8_bands_of_beats_and_375_tokens_of_whisper():
    assert BEATs.form(BEATsConfig()) == FORMS["beats"]
    assert BEATs.form(BEATsConfig()).tokens(480_000).num_tokens == 187 * 8
    form = WhisperEar.form(WhisperEarConfig())
    assert form == FORMS["whisper"]
    assert form.tokens(480_000).num_tokens == 375
    assert form.tokens_per_s == 12.5
    assert BEATs.form(BEATsConfig(pool_bands=4)).tokens_per_s == 12.5


@pytest.mark.parametrize("make", EARS)
@pytest.mark.parametrize("count", [1, 500, 3_000, 30_000, 75_000])
def test_features_are_as_many_as_tokens(make, count):
    ear = make()
    features = ear.hear([noise(count)])
    assert features.shape == (ear.form(ear.config).tokens(count).num_tokens, ear.config.width)
    assert torch.isfinite(features).all()


@pytest.mark.parametrize("make", EARS)
def test_pieces_as_a_batch_and_one_by_one_agree(make):
    """Padding behind a shorter piece changes nothing: it is hidden, or Whisper's own."""
    ear = make(**({"piece_steps": 10} if make is tiny_beats else {}))
    samples = noise(70_000)
    one_by_one = ear.hear(in_blocks(samples, [999, 5_000]))
    bank_BAZ, lengths_B = banks(ear.config, [samples])
    assert len(bank_BAZ) == len(lengths_B) == 3
    with torch.no_grad():
        batch = ear(bank_BAZ, lengths_B)
    assert (batch - one_by_one).abs().max() < 1e-5
    # a canary: what is padding must not be sound
    with torch.no_grad():
        whole = ear(bank_BAZ, torch.full_like(lengths_B, int(lengths_B.max())))
    assert len(whole) > len(batch)


@pytest.mark.parametrize("make", EARS)
def test_no_sound_is_no_features(make):
    ear = make()
    assert ear.hear([]).shape == (0, 32)
    assert ear(*banks(ear.config, [])).shape == (0, 32)


def test_beats_hears_the_bands_of_a_step_from_low_to_high():
    ear = tiny_beats()
    low, high = tone(1.0, 16_000, 200)[0], tone(1.0, 16_000, 6_000)[0]
    for samples, band in ((low, 0), (high, 7)):
        bank = ear.bank(ear.config, samples)
        assert int(bank.mean(0).argmax()) // 16 == band


def test_pooled_bands_are_the_mean_of_neighbours():
    plain, pooled = tiny_beats(), tiny_beats(pool_bands=4)
    samples = noise(16_000)
    every = plain.hear([samples]).unflatten(0, (-1, 2, 4)).mean(2).flatten(0, 1)
    assert torch.allclose(pooled.hear([samples]), every)


def test_ears_save_and_load(tmp_path):
    for make in EARS:
        ear = make()
        ear.save_pretrained(tmp_path / make.__name__)
        again = type(ear).from_pretrained(tmp_path / make.__name__)
        assert torch.equal(ear.hear([noise(9_000)]), again.hear([noise(9_000)]))


def test_an_ear_of_ones_own():
    config = BEATsConfig()
    assert ear_class(config) is BEATs
    assert ear_class(WhisperEarConfig()) is WhisperEar

    @register("a_test")
    class Own(Ear):
        config_class = BEATsConfig

    config.model_type = "a_test"
    assert ear_class(config) is Own
    config.model_type = "qwen2"
    with pytest.raises(ValueError, match=r"vl3_beats, vl3_whisper, or one that .* - got 'qwen2'"):
        ear_class(config)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BEATsConfig(encoder_attention_heads=7), "cannot be shared by 7 heads"),
        (lambda: BEATsConfig(pool_bands=3), "pool_bands=3 leave a rest"),
        (lambda: WhisperEarConfig(pool=7), "cannot be pooled by 7"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


class TestTrainingOfBEATs:
    def test_gradients_shrink_at_every_layer(self):
        norms = {}
        for ratio in (1.0, 0.5):
            ear = tiny_beats(layer_wise_gradient_decay_ratio=ratio, encoder_layerdrop=0.0).train()
            ear(*banks(ear.config, [noise(9_000)])).square().sum().backward()
            norms[ratio] = [
                float(part.grad.norm())
                for part in (
                    ear.encoder.layers[1].fc1.weight,
                    ear.encoder.layers[0].fc1.weight,
                    ear.patch_embedding.weight,
                )
            ]
        shares = [half / full for half, full in zip(norms[0.5], norms[1.0])]
        assert shares == pytest.approx([1.0, 0.5, 0.25], rel=1e-4)

    def test_layers_are_left_out_in_training_alone(self):
        ear, samples = tiny_beats(encoder_layerdrop=0.5), noise(9_000)
        assert torch.equal(ear.hear([samples]), ear.hear([samples]))
        ear.train()
        torch.manual_seed(0)
        found = {float(ear.hear([samples])[0, 0]) for _ in range(40)}
        assert len(found) == 4  # each of two layers is there or not

    def test_with_checkpointed_gradients_they_are_the_same(self):
        grads = []
        for kept in (False, True):
            ear = tiny_beats(encoder_layerdrop=0.0).train()
            if kept:
                ear.gradient_checkpointing_enable()
            ear(*banks(ear.config, [noise(9_000)])).square().sum().backward()
            grads.append(ear.patch_embedding.weight.grad)
        assert torch.allclose(*grads, rtol=1e-5)


@pytest.mark.parametrize("make", EARS)
def test_a_file_is_heard_in_blocks_as_a_whole(make, tmp_path):
    path = write_sound(tmp_path / "a.flac", noise(160_000)[None], 16_000, "flac")
    ear = make()
    assert torch.equal(ear.hear(audio.blocks(path)), ear.hear([audio.read(path).samples_S]))
